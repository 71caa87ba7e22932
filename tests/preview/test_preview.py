"""The preview page in a real browser: it shows the content of the build."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import chromium
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import SimpleITK as sitk
from altered import alter
from preview_page import (
    build_into,
    document_of,
    open_scan,
    open_tab,
    rows_of,
    shown_pixels,
    shown_slice,
    until_ready,
    until_slice,
)
from scan_rows import itk_image_in_lps
from unknown_config import as_unknown_config

from lung_nodule_ct.declaration.labels import PATHOLOGY_NAMES
from lung_nodule_ct.errors import BuildFolderError, OutputError
from lung_nodule_ct.geometry.display import LUNG, MEDIASTINAL
from lung_nodule_ct.preview import PreviewOptions, write_preview
from lung_nodule_ct.preview.samples import largest, largest_nodule
from lung_nodule_ct.preview.selection import Choice
from lung_nodule_ct.read.build_folder import open_build
from lung_nodule_ct.read.sidecars import SIDECARS
from lung_nodule_ct.testing.archives import CT0, CT1, NODULES
from lung_nodule_ct.testing.synthetic_archives import TinyArchives

MARKUP = '</script><img src=x onerror="alert(1)"><!--'
ROOT = Path(__file__).parents[2]


def test_every_config_has_a_tab_with_the_number_of_examples(browser, build, page):
    with chromium.opened(browser, page) as tab:
        assert tab.get_by_role("tab").count() == len(build.configs)
        for config, splits in build.configs.items():
            panel = open_tab(tab, config)
            # there are few rows, so the page shows all of them
            assert panel.locator(".card").count() == sum(splits.values())
            for split, count in splits.items():
                assert f"{split} {count} of {count}" in panel.locator(".intro").inner_text()


def test_filters_show_the_matching_rows(browser, build, page):
    with chromium.opened(browser, page) as tab:
        panel = open_tab(tab, "cls_1.25mm")
        counts = Counter((row["split"], row["label"]) for row in rows_of(build, "cls_1.25mm"))
        for (split, label), count in counts.items():
            panel.get_by_label("Split").select_option(split)
            panel.get_by_label("Pathology class").select_option(PATHOLOGY_NAMES[label])
            assert panel.locator(".card").count() == count
            assert panel.get_by_role("status").inner_text().startswith(f"{count} of ")
        panel.get_by_role("button", name="Reset").click()
        assert panel.locator(".card").count() == sum(counts.values())
        panel = open_tab(tab, "det3d_1.25mm")
        rows = rows_of(build, "det3d_1.25mm")
        panel.get_by_label("Nodule size").select_option("20 to 30 mm")
        large = [row for row in rows if any(20 < nodule["diameter_mm"] <= 30 for nodule in row["nodules"])]
        assert panel.locator(".card").count() == len(large) > 0
        panel.get_by_role("button", name="Reset").click()
        for patient, count in Counter(row["patient_id"] for row in rows).items():
            panel.get_by_label("Patient").select_option(patient)
            assert panel.locator(".card").count() == count


def test_boxes_have_the_numbers_of_the_build_and_are_drawn_on_their_pixels(browser, build, page):
    rows = rows_of(build, "det2d_1.25mm")
    with chromium.opened(browser, page) as tab:
        panel = open_tab(tab, "det2d_1.25mm")
        for number, row in enumerate(rows):
            drawn = panel.locator(".card").nth(number).locator("rect")
            numbers = [[float(box.get_attribute(n)) for n in ("x", "y", "width", "height")] for box in drawn.all()]
            boxes = [entry["bbox"] for entry in row["objects"]]
            assert numbers == [[x0, y0, x1 - x0 + 1, y1 - y0 + 1] for x0, y0, x1, y1 in boxes]
        number = next(n for n, row in enumerate(rows) if row["objects"])
        panel.locator(".card").nth(number).click()
        picture, box = tab.locator("dialog img").bounding_box(), tab.locator("dialog rect").first.bounding_box()
        x0, y0, x1, _ = rows[number]["objects"][0]["bbox"]
        scale = picture["width"] / rows[number]["width"]
        assert box["x"] == pytest.approx(picture["x"] + scale * x0, abs=2)
        assert box["y"] == pytest.approx(picture["y"] + scale * y0, abs=2)
        assert box["width"] == pytest.approx(scale * (x1 - x0 + 1), abs=3)


def test_wheel_keys_and_slider_change_the_slice(browser, build, page):
    with chromium.opened(browser, page) as tab:
        open_scan(tab, "det3d_1.25mm", 0)
        start, last = shown_slice(tab), rows_of(build, "det3d_1.25mm")[0]["volume"].shape[0] - 1
        tab.locator(".pane.axial .stage").hover()
        tab.mouse.wheel(0, -100)
        until_slice(tab, start + 1)
        tab.mouse.wheel(0, 100)
        until_slice(tab, start)
        for key, expected in (("ArrowDown", start - 1), ("Home", 0), ("PageUp", 10), ("End", last), ("ArrowUp", last)):
            tab.keyboard.press(key)
            until_slice(tab, expected)
        tab.locator(".pane.axial input").fill("3")
        until_slice(tab, 3)
        assert (
            tab.locator(".pane.axial input").get_attribute("aria-valuetext") == f"4 of {last + 1} from the foot, z = 3"
        )
        before = shown_slice(tab, "coronal")
        tab.locator(".pane.coronal .stage").hover()
        tab.mouse.wheel(0, -100)
        until_slice(tab, before + 1, "coronal")
        assert shown_slice(tab) == 3


def test_a_swipe_changes_the_slice(browser, page):
    with chromium.opened(browser, page, has_touch=True, viewport={"width": 390, "height": 840}) as tab:
        open_scan(tab, "det3d_1.25mm", 0)
        start = shown_slice(tab)
        bounds = tab.locator(".pane.axial .stage").bounding_box()
        x, y = bounds["x"] + bounds["width"] / 2, bounds["y"] + bounds["height"] / 2
        session = tab.context.new_cdp_session(tab)
        for kind, points in (("touchStart", [0]), ("touchMove", [-8]), ("touchMove", [-16]), ("touchEnd", [])):
            touches = [{"x": x, "y": y + down} for down in points]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})
        until_slice(tab, start + 2)
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("config", ["det3d_1.25mm", "det3d_5mm"])
@pytest.mark.slow
def test_a_nodule_is_shown_where_itk_locates_it(browser, build, page, config):
    """Includes scans that are stored rotated or mirrored. The grey values are compared with the voxels, too."""
    rows = rows_of(build, config)
    assert config == "det3d_5mm" or any(row["direction"][0] != 1 for row in rows)
    with chromium.opened(browser, page) as tab:
        open_scan(tab, config, 0)
        for position, row in enumerate(rows):
            if position:
                tab.keyboard.press("ArrowRight")
            until_ready(tab)
            image = itk_image_in_lps(row)
            hu = sitk.GetArrayFromImage(image)
            for number, nodule in enumerate(row["nodules"]):
                center = image.TransformPhysicalPointToContinuousIndex(nodule["center_world"])
                x, y, z = (int(np.floor(value + 0.5)) for value in center)
                if not all(0 <= i < n for i, n in zip((x, y, z), image.GetSize(), strict=True)):
                    continue
                tab.get_by_role("button", name=f"Nodule {number + 1}:").click()
                tab.wait_for_function(
                    "([x, y, z]) => String(shown.view.position) == [x, y, z] && !shown.view.frame", arg=[x, y, z]
                )
                shown = {
                    plane: tab.locator(f".pane.{plane} ellipse[data-nodule='{number}']")
                    for plane in ("axial", "coronal")
                }
                drawn = [float(shown["axial"].get_attribute(name)) for name in ("cx", "cy")]
                assert drawn == pytest.approx([center[0] + 0.5, center[1] + 0.5], abs=1e-4)
                drawn = [float(shown["coronal"].get_attribute(name)) for name in ("cx", "cy")]
                assert drawn == pytest.approx([center[0] + 0.5, hu.shape[0] - center[2] - 0.5], abs=1e-4)
            x, y, z = tab.evaluate("shown.view.position")
            for plane, cut in (("axial", hu[z]), ("coronal", hu[::-1, y]), ("sagittal", hu[::-1, :, x])):
                error = np.abs(shown_pixels(tab, plane) - LUNG.to_grey(cut))
                assert error.mean() < 6, plane


def test_slider_markers_jump_to_nodules_and_boxes_match_the_build(browser, build, page):
    rows = rows_of(build, "det3d_1.25mm")
    number = next(
        n for n, row in enumerate(rows) if row["direction"] == [1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0] and row["nodules"]
    )
    x0, y0, z0, x1, y1, z1 = rows[number]["nodules"][0]["box_voxel"]
    with chromium.opened(browser, page) as tab:
        open_scan(tab, "det3d_1.25mm", number)
        tab.keyboard.press("Home")
        until_slice(tab, 0)
        tab.locator(".marker").first.click()
        until_slice(tab, int(np.floor(rows[number]["nodules"][0]["center_voxel"][2] + 0.5)))
        box = tab.locator(".pane.axial rect[data-nodule='0']")
        assert [float(box.get_attribute(n)) for n in ("x", "y", "width", "height")] == [x0, y0, x1 - x0, y1 - y0]
        box = tab.locator(".pane.sagittal rect[data-nodule='0']")
        depth = rows[number]["volume"].shape[0]
        assert [float(box.get_attribute(n)) for n in ("x", "y", "width", "height")] == [
            y0,
            depth - z1,
            y1 - y0,
            z1 - z0,
        ]
        tab.get_by_label("voxel box").uncheck()
        assert not box.is_visible()


def test_a_scan_opens_at_the_key_slice_of_its_largest_nodule(browser, tmp_path):
    """Also if the scan is stored rotated or mirrored."""
    chosen = {}

    def choose(rows):
        for number, row in enumerate(rows):
            for nodule in row["nodules"]:
                if nodule["box_voxel"] is not None:
                    nodule["key_slice"] = chosen[nodule["nodule_id"]] = nodule["box_voxel"][2]
                    nodule["key_slice_basis"] = "evidence" if number % 2 else "centre"

    build_into(ROOT / "dummy_data", tmp_path / "build", "det3d_1.25mm")
    altered = open_build(alter(tmp_path / "build", "det3d_1.25mm", choose))
    rows = rows_of(altered, "det3d_1.25mm")
    opened = set()
    with chromium.opened(browser, write_preview(altered, tmp_path / "page.html").path) as tab:
        for number, row in enumerate(rows):
            index = largest_nodule(row["nodules"])
            if index is None or row["nodules"][index]["nodule_id"] not in chosen:
                continue
            nodule = row["nodules"][index]
            open_scan(tab, "det3d_1.25mm", number)
            until_ready(tab)
            shown = tab.locator(".pane output").all_inner_texts()
            assert any(text.endswith(f", z = {nodule['key_slice']}") for text in shown), shown
            pane = tab.locator(".pane").nth(next(n for n, text in enumerate(shown) if ", z =" in text))
            basis = "by evidence in the voxels" if number % 2 else "by the annotated centre"
            assert f"key slice of nodule {index + 1}, {basis}" in pane.locator(".keys").inner_text()
            mark = pane.locator(f"path.key[data-nodule='{index}']")
            assert mark.count() == 1
            assert ("by-centre" in mark.get_attribute("class")) == (nodule["key_slice_basis"] == "centre")
            assert (
                f"key slice z = {nodule['key_slice']}, {basis}"
                in tab.locator(".nodules button").nth(index).inner_text()
            )
            tab.keyboard.press("m")
            assert not mark.is_visible()
            tab.keyboard.press("m")
            opened.add((row["direction"][0] == 1, nodule["key_slice_basis"]))
            tab.keyboard.press("Escape")
    assert {basis for _, basis in opened} == {"evidence", "centre"}
    assert {is_identity for is_identity, _ in opened} == {True, False}


def test_window_presets_change_the_grey_values(browser, build, page):
    row = rows_of(build, "det3d_1.25mm")[0]
    with chromium.opened(browser, page) as tab:
        open_scan(tab, "det3d_1.25mm", 0)
        until_ready(tab)
        axial = row["volume"][shown_slice(tab)]
        assert np.abs(shown_pixels(tab, "axial") - LUNG.to_grey(axial)).mean() < 6
        tab.get_by_role("radio", name="mediastinal").check()
        tab.wait_for_function("() => !shown.view.frame")
        assert np.abs(shown_pixels(tab, "axial") - MEDIASTINAL.to_grey(axial)).mean() < 8
        tab.keyboard.press("Escape")
        open_scan(tab, "det3d_bmp_1.25mm", 0)  # has no Hounsfield units
        until_ready(tab)
        assert tab.get_by_role("radio", name="mediastinal").count() == 0
        assert "patient" not in tab.locator(".about").inner_text()  # the config has no such column
        grey = rows_of(build, "det3d_bmp_1.25mm")[0]["volume"][shown_slice(tab)]
        assert np.abs(shown_pixels(tab, "axial") - grey.astype(int)).mean() < 6


def test_the_lung_mask_tints_the_lungs_only(browser, build, page):
    number, row = next((n, row) for n, row in enumerate(rows_of(build, "det3d_1.25mm")) if row["lung_mask"] is not None)
    assert row["direction"][0] == 1
    with chromium.opened(browser, page) as tab:
        open_scan(tab, "det3d_1.25mm", number)
        until_ready(tab)
        before, inside = shown_pixels(tab, "axial"), row["lung_mask"][shown_slice(tab)] > 0
        tab.get_by_label("lung mask").check()
        tab.wait_for_function("() => shown.view.volume.labels && !shown.view.frame")
        changed = shown_pixels(tab, "axial") != before
        assert changed[inside].mean() > 0.9
        assert not changed[~inside].any()


def test_scans_of_a_patient_are_in_chronological_order_without_dates(browser, build, page):
    rows = rows_of(build, "longitudinal")
    with chromium.opened(browser, page) as tab:
        panel = open_tab(tab, "longitudinal")
        for patient in {row["patient_id"] for row in rows}:
            section = panel.locator(".patient").filter(
                has=tab.get_by_role("heading", name=f"Patient {patient}", exact=True)
            )
            for thickness in {row["slice_thickness_mm"] for row in rows if row["patient_id"] == patient}:
                heads = (
                    section.get_by_role("region", name=f"Patient {patient}, {thickness:g} mm slices", exact=True)
                    .locator(".card strong")
                    .all_inner_texts()
                )
                days = [int(re.match(r"day ([\d,]+)", head)[1].replace(",", "")) for head in heads]
                expected = [
                    row["days_since_first"]
                    for row in rows
                    if (row["patient_id"], row["slice_thickness_mm"]) == (patient, thickness)
                ]
                assert days == sorted(expected)
                for head, day in zip(heads, days, strict=True):
                    row = next(
                        r
                        for r in rows
                        if (r["patient_id"], r["slice_thickness_mm"], r["days_since_first"])
                        == (patient, thickness, day)
                    )
                    if row["nodules"]:
                        assert f"{max(n['diameter_mm'] for n in row['nodules']):g} mm" in head
    text = re.sub(r"[A-Za-z0-9+/]{200,}", "", page.read_text())
    names = [row["source_name"] for config in build.configs for row in rows_of(build, config)]
    dates = {match[1] for name in names if (match := re.search(r"_(\d{8})", name))}
    assert dates
    assert not [date for date in dates if date in text]
    assert not [name for name in names if len(name) > 5 and name in text]


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """A build with tracks: that of patient 27 is the smaller of two nodules, and the larger one has none."""

    def follow(rows):
        for row in rows:
            *_, followed = row["nodules"]
            for nodule in row["nodules"]:
                nodule["track_reason"] = "no scan of another date has an annotation at its place"
            followed |= {"track_id": f"{row['patient_id']}-t1", "track_reason": None, "track_pathology": 4}
            followed |= (
                {"track_event": "continued", "track_confidence": 0.97} if row["timepoint"] else {"track_event": "first"}
            )

    folder = tmp_path_factory.mktemp("tracked") / "build"
    build_into(ROOT / "dummy_data", folder, "longitudinal")
    return open_build(alter(folder, "longitudinal", follow))


def _patient(tab, number: str):
    panel = open_tab(tab, "longitudinal")
    return panel.locator(".patient").filter(has=tab.get_by_role("heading", name=f"Patient {number}", exact=True))


def test_the_curve_has_a_point_per_diameter_and_joins_the_scans_of_a_track(browser, tracked, tmp_path):
    page = write_preview(tracked, tmp_path / "page.html").path
    rows = [row for row in rows_of(tracked, "longitudinal") if row["patient_id"] == "27"]
    span, strokes = max(row["days_since_first"] for row in rows), set()
    for scheme in ("light", "dark"):
        with chromium.opened(browser, page, color_scheme=scheme) as tab:
            section = _patient(tab, "27").locator(".tracks")
            labels = [point.get_attribute("aria-label") for point in section.locator(".point").all()]
            expected = [
                f"Open {'track ' + nodule['track_id'] if nodule['track_id'] else 'no track'}, day {row['days_since_first']}, "
                f"{row['slice_thickness_mm']:g} mm slices, {nodule['diameter_mm']:g} mm"
                for row in rows
                for nodule in row["nodules"]
            ]
            assert sorted(labels) == sorted(expected)
            assert section.locator(".link").count() == 2  # one at each thickness; the larger nodule has no track
            box = section.locator(".curve").bounding_box()
            heights = {}
            for day, size in {(row["days_since_first"], row["nodules"][1]["diameter_mm"]) for row in rows}:
                point = (
                    section.get_by_label(f"Open track 27-t1, day {day}, 1.25 mm slices")
                    .locator("circle")
                    .bounding_box()
                )
                assert point["x"] + point["width"] / 2 - box["x"] == pytest.approx(
                    box["width"] * (0.02 + 0.96 * day / span), abs=2
                )
                heights[size] = point["y"]
            assert heights[14.0] < heights[12.0]  # larger is higher
            text = section.inner_text()
            assert "12 mm → 14 mm, +17 %, 2 dates, confidence of the links at least 0.97" in text
            assert "4: no scan of another date has an annotation at its place" in text
            assert PATHOLOGY_NAMES[4] in text
            strokes.add(section.locator(".link").first.evaluate("line => getComputedStyle(line).stroke"))
    assert len(strokes) == 2, "the colours do not follow the theme"


def test_scans_are_linked_at_the_nodule_of_a_track(browser, tracked, tmp_path):
    rows = [
        row
        for row in rows_of(tracked, "longitudinal")
        if (row["patient_id"], row["slice_thickness_mm"]) == ("27", 1.25)
    ]
    page = write_preview(tracked, tmp_path / "page.html").path
    scans = document_of(page)["scans"]
    items = [item for item in document_of(page)["configs"][0]["items"] if item["patient"] == "27"]
    assert {scans[item["scan"]]["followed"] for item in items} == {1}
    for item in items:  # the close-up is around the followed nodule
        scan = scans[item["scan"]]
        x0, y0, width, height = scan["closeUp"]["view"]
        x, y, _ = scan["nodules"][1]["center"]
        assert (x0 + width / 2, y0 + height / 2) == pytest.approx((x + 0.5, y + 0.5), abs=1)
    with chromium.opened(browser, page) as tab:
        patient = _patient(tab, "27")
        assert "each at the nodule of track 27-t1" in patient.inner_text()
        patient.get_by_label("Open track 27-t1, day 0, 1.25 mm slices").press("Enter")
        for day in (0, 318):
            tab.locator("#viewer-title", has_text=f"day {day}").wait_for()
            current = tab.locator(".nodules button[aria-current='true']")
            current.wait_for()
            assert "track 27-t1" in current.inner_text()
            row = next(row for row in rows if row["days_since_first"] == day)
            shown = tab.evaluate("shown.view.stored(2, shown.view.position[2])")
            assert shown == row["nodules"][1]["key_slice"] != row["nodules"][0]["key_slice"]
            tab.keyboard.press("ArrowRight")
        tab.keyboard.press("Escape")
        patient.locator(".card").nth(1).click()  # a card opens what it shows
        tab.locator(".nodules button[aria-current='true']", has_text="track 27-t1").wait_for()
        tab.get_by_role("button", name="Nodule 1:").click()
        button = tab.locator(".nodules button[aria-current='true']", has_text="no track: no scan of another date")
        button.wait_for()
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_build_without_tracks_has_no_curve(browser, page):
    with chromium.opened(browser, page) as tab:
        panel = open_tab(tab, "longitudinal")
        assert panel.locator(".timeline").count() > 0
        assert panel.locator(".tracks").count() == 0
        assert "each at its largest nodule" in panel.inner_text()


def test_the_theme_follows_the_system_and_the_button(browser, page):
    luminance = "() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number).reduce((a, b) => a + b)"
    for scheme, dark in (("light", False), ("dark", True)):
        with chromium.opened(browser, page, color_scheme=scheme) as tab:
            assert (tab.evaluate(luminance) < 380) is dark
            tab.get_by_role("button", name="theme").click()
            assert (tab.evaluate(luminance) < 380) is not dark
            tab.reload()
            assert (tab.evaluate(luminance) < 380) is not dark  # the choice is stored


def test_the_page_can_be_used_with_the_keyboard(browser, build, page):
    with chromium.opened(browser, page) as tab:
        tab.keyboard.press("Tab")
        assert tab.evaluate("document.activeElement.textContent") == "Skip to the examples"
        while tab.evaluate("document.activeElement.getAttribute('role')") != "tab":
            tab.keyboard.press("Tab")
        tab.keyboard.press("ArrowRight")
        tab.keyboard.press("ArrowRight")
        assert tab.get_by_role("tab", selected=True).inner_text().startswith("det3d_1.25mm")
        while "card" not in tab.evaluate("document.activeElement.className"):
            tab.keyboard.press("Tab")
            outline = tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", "the focus is not visible"
        tab.keyboard.press("Enter")
        tab.locator(".pane.axial output", has_text="of").wait_for()
        tab.keyboard.press("End")
        until_slice(tab, rows_of(build, "det3d_1.25mm")[0]["volume"].shape[0] - 1)
        tab.keyboard.press("n")
        until_slice(tab, int(np.floor(rows_of(build, "det3d_1.25mm")[0]["nodules"][0]["center_voxel"][2] + 0.5)))
        tab.keyboard.press("2")
        assert tab.get_by_role("radio", name="mediastinal").is_checked()
        tab.keyboard.press("Escape")
        assert tab.locator("dialog").is_hidden()
        assert "card" in tab.evaluate("document.activeElement.className"), "the focus did not return to the card"


def test_controls_have_accessible_names(browser, page):
    with chromium.opened(browser, page) as tab:
        open_scan(tab, "det3d_1.25mm", 0)
        nameless = tab.evaluate(
            "() => [...document.querySelectorAll('button, input, select, canvas')].filter(e => e.checkVisibility() && "
            "!(e.textContent.trim() || e.ariaLabel || e.labels?.length)).map(e => e.outerHTML)"
        )
        assert nameless == []


def _with_markup(build, out: Path) -> Path:
    """Write a copy of the build of crops, with markup as patient ids."""
    shutil.copytree(build.folder, out)
    manifest = json.loads((out / "build.json").read_text())
    for name in [name for name in manifest["configs"] if name != "cls_1.25mm"]:
        del manifest["configs"][name]
    for file in manifest["configs"]["cls_1.25mm"]["files"]:
        table = pq.read_table(out / file["path"])
        column = table.column_names.index("patient_id")
        markup = pa.array([MARKUP] * table.num_rows, table.schema.field(column).type)
        pq.write_table(table.set_column(column, table.schema.field(column), markup), out / file["path"])
        file["bytes"] = (out / file["path"]).stat().st_size
    (out / "build.json").write_text(json.dumps(manifest))
    return out


AUDIT = {
    "format_version": 1,
    "generator": "lung_nodule_ct 0.1.0",
    "checks": [
        {"name": "a", "title": "Nothing is wrong", "verdict": "pass", "measured": "0", "expected": None, "detail": ""},
        {"name": "b", "title": MARKUP, "verdict": "fail", "measured": MARKUP, "expected": "1", "detail": MARKUP},
        {
            "name": "c",
            "title": "Not known",
            "verdict": "unknown",
            "measured": "not measured",
            "expected": None,
            "detail": "",
        },
    ],
    "numbers": {},
}


def test_texts_of_the_data_do_not_become_markup(browser, build, tmp_path):
    folder = _with_markup(build, tmp_path / "a <b> & 'c'")
    (folder / "preview.html").unlink(missing_ok=True)
    (folder / SIDECARS).unlink(missing_ok=True)
    (folder / "audit.json").write_text(json.dumps(AUDIT))
    written = write_preview(open_build(folder)).path
    with chromium.opened(browser, written) as tab:
        assert (
            tab.locator("h1").inner_text() == "lung_nodule_ct"
        )  # and not the name of the folder, which can contain anything
        panel = open_tab(tab, "cls_1.25mm")
        assert panel.locator(".card strong").first.inner_text() == f"patient {MARKUP}"
        panel.get_by_label("Patient").select_option(MARKUP)
        panel.locator(".card").first.click()
        assert MARKUP in tab.locator("#viewer-title").inner_text()
        tab.keyboard.press("Escape")
        rows = open_tab(tab, "audit").locator("tbody tr")
        assert rows.count() == 3
        assert rows.nth(0).locator("td").first.inner_text() == "✓ pass"
        assert rows.nth(1).locator("td").first.inner_text() == "✕ fail"
        assert MARKUP in rows.nth(1).inner_text()
        assert tab.locator("img[src=x]").count() == 0


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"format_version": 2, "checks": []}', json.dumps(AUDIT).replace('"fail"', '"bad"')]
)
def test_a_damaged_audit_is_reported(build, tmp_path, content):
    folder = tmp_path / "build"
    shutil.copytree(build.folder, folder)
    (folder / "audit.json").write_text(content)
    with pytest.raises(BuildFolderError, match=r"audit\.json is not an audit"):
        write_preview(open_build(folder), tmp_path / "page.html")


def test_the_page_depends_on_the_seed_and_not_on_the_format(build, page, tmp_path):
    arrow = build_into(ROOT / "dummy_data", tmp_path / "build", layout="arrow")
    assert write_preview(arrow, tmp_path / "arrow.html").path.read_bytes() == page.read_bytes()
    small = [
        write_preview(build, tmp_path / f"{n}.html", PreviewOptions(1, seed)).path for n, seed in enumerate((0, 0, 1))
    ]
    assert small[0].read_bytes() == small[1].read_bytes()
    assert small[0].read_bytes() != small[2].read_bytes()


@pytest.mark.slow
def test_the_page_fits_its_maximum_size(tmp_path, mirror):
    built = build_into(mirror, tmp_path / "build", "det3d_1.25mm")
    for limit in (1, 6):
        written = write_preview(built, tmp_path / "page.html", PreviewOptions(limit))
        assert written.path.stat().st_size == written.num_bytes <= limit * 1e6
        assert all(written.shown.values())
    scans = document_of(written.path)["scans"].values()
    assert any(max(scan["size"]) > 256 for scan in scans)
    for scan in scans:
        through = {z for nodule in scan["nodules"] if nodule["box"] for z in range(nodule["box"][2], nodule["box"][5])}
        assert through <= set(scan["slices"])


def test_a_sample_contains_every_class(build, tmp_path):
    written = write_preview(build, tmp_path / "page.html", PreviewOptions(2.5))
    config = document_of(written.path)["configs"][0]
    rows = rows_of(build, "cls_1.25mm")
    assert len(config["items"]) == written.shown["cls_1.25mm"] < len(rows)
    assert {name for item in config["items"] for name in item["classes"]} == {PATHOLOGY_NAMES[r["label"]] for r in rows}


def test_volumes_that_are_not_shown_are_not_read(build, tmp_path):
    """The page is the same if all other volumes are damaged."""
    damaged = build_into(ROOT / "dummy_data", tmp_path / "build", "det3d_1.25mm")
    chosen = rows_of(damaged, "det3d_1.25mm")[1]["scan_id"]
    options = PreviewOptions(1, choice=Choice(scans=(chosen,)))
    (item,) = document_of(write_preview(damaged, tmp_path / "before.html", options).path)["configs"][0]["items"]
    first = 0
    for file in damaged.manifest["configs"]["det3d_1.25mm"]["files"]:
        path = damaged.folder / file["path"]
        content, metadata = bytearray(path.read_bytes()), pq.ParquetFile(path).metadata
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            if not first <= item["row"] < first + group.num_rows:
                column = next(
                    c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == "volume.bytes"
                )
                content[column.data_page_offset + column.total_compressed_size // 2] ^= 255
            first += group.num_rows
        path.write_bytes(content)
    assert (
        write_preview(damaged, tmp_path / "after.html", options).path.read_bytes()
        == (tmp_path / "before.html").read_bytes()
    )


@pytest.mark.parametrize("ids", [{"patients": ("27",)}, {"scans": ("27-1", "12-3")}])
def test_the_page_shows_the_chosen_patients_or_scans(browser, build, tmp_path, ids):
    written = write_preview(build, tmp_path / "page.html", PreviewOptions(choice=Choice(**ids)))
    wanted = set(ids.get("patients", ids.get("scans")))
    column = "patient_id" if "patients" in ids else "scan_id"
    for config in document_of(written.path)["configs"]:
        rows = [row for row in rows_of(build, config["name"]) if row.get(column) in wanted]
        assert len(config["items"]) == len(rows) == written.shown[config["name"]] > 0
    assert {"det3d_1.25mm", "longitudinal"} <= set(written.shown)
    assert written.shown.keys() == {
        name for name in build.configs if any(row.get(column) in wanted for row in rows_of(build, name))
    }
    with chromium.opened(browser, written.path) as tab:
        text = open_tab(tab, "longitudinal").locator(".intro").inner_text()
        assert f"of {next(iter(ids))} {', '.join(next(iter(ids.values())))}" in text


def test_an_unknown_patient_or_scan_is_refused_with_what_there_is(build, tmp_path, cli):
    for option, value, hint in (
        ("--patient", "270", "one of 3, 12, 27, 41. Did you mean 27?"),
        ("--scan", "27-9", "Did you mean 27-"),
    ):
        done = cli("preview", build.folder, option, value, "--out", tmp_path / "page.html")
        assert done.returncode == 1
        assert f"no {option[2:]} '{value}'" in done.stderr
        assert hint in done.stderr
    done = cli("preview", build.folder, "--all", "--patient", "27", "--out", tmp_path / "page.html")
    assert (done.returncode, "or use --all" in done.stderr) == (2, True)
    assert not (tmp_path / "page.html").exists()


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A build of 60 scans, with the noise of a CT."""
    source, random = TinyArchives(), np.random.default_rng(0)
    source[CT0], source[CT1] = {}, {}
    for number in range(60):
        voxels = random.normal(-600, 300, (30, 128, 128)).astype("<i2")
        header = "NDims = 3\nDimSize = 128 128 30\nElementType = MET_SHORT\nElementSpacing = 0.7 0.7 1.25\n"
        source[CT0][f"{number}_20200101.mhd"] = f"{header}ElementDataFile = {number}_20200101.raw\n".encode()
        source[CT0][f"{number}_20200101.raw"] = voxels.tobytes()
    folder = tmp_path_factory.mktemp("many")
    source.write(folder / "source")
    return build_into(folder / "source", folder / "build", "det3d_1.25mm")


def test_the_budget_is_used_for_more_scans_and_for_finer_slices(many, tmp_path):
    """Of all 60 scans some slices are shown; of a few, all slices at the finest quality."""
    shown, sizes = {}, {}
    for name, options in {
        "sample": PreviewOptions(25),
        "small": PreviewOptions(8),
        "all": PreviewOptions(8, choice=Choice(all_scans=True)),
        "two": PreviewOptions(8, choice=Choice(patients=("3", "4"))),
        "two in 1 MB": PreviewOptions(1, choice=Choice(patients=("3", "4"))),
    }.items():
        written = write_preview(many, tmp_path / "page.html", options)
        assert written.num_bytes <= options.max_mb * 1e6
        document = document_of(written.path)
        assert all(scan["slices"] for scan in document["scans"].values())
        shown[name] = written.shown["det3d_1.25mm"]
        sizes[name] = written.num_bytes
    assert shown["all"] == 60
    assert shown["two"] == shown["two in 1 MB"] == 2
    assert sizes["two"] > 1.3 * sizes["two in 1 MB"], "the quality does not depend on the budget"
    assert shown["sample"] > 12, "only the default number of scans is shown, although more would fit"
    assert sizes["all"] > 0.5 * 8e6


def test_a_scan_without_annotations_is_shown(browser, tmp_path):
    source = TinyArchives()
    source[NODULES]["annotations.csv"] = b"seriesuid,coordX,coordY,coordZ,diameter_mm\n"
    source[CT0] = {name: data for name, data in source[CT0].items() if name.startswith("9")}
    source[CT1] = {}
    source.write(tmp_path / "source")
    built = build_into(tmp_path / "source", tmp_path / "build", "det3d_1.25mm")
    with chromium.opened(browser, write_preview(built).path) as tab:
        assert "no nodule annotated" in open_tab(tab, "det3d_1.25mm").locator(".card").inner_text()
        open_scan(tab, "det3d_1.25mm", 0)
        assert "0 annotated nodules" in tab.locator(".about").inner_text()
        tab.keyboard.press("n")
        tab.keyboard.press("Home")
        until_slice(tab, 0)


def test_a_config_of_an_unknown_kind_is_shown_by_the_types_of_its_columns(browser, build, tmp_path):
    columns = {
        "volume": "ct",
        "lung_mask": "lungs",
        "nodules": "lesions",
        "patient_id": None,
        "slice_thickness_mm": "z_mm",
    }
    volumes = as_unknown_config(
        build.folder, tmp_path / "volumes", "det3d_1.25mm", "lesions_3d", columns, kind="lesion_scan"
    )
    rows = list(volumes.rows("lesions_3d", "train", ["lesions", "z_mm"]))
    with chromium.opened(browser, write_preview(volumes, tmp_path / "volumes.html").path) as tab:
        assert open_tab(tab, "lesions_3d").locator(".card").count() == len(rows)
        open_scan(tab, "lesions_3d", 0)
        assert tab.locator(".nodules button").count() == len(rows[0]["lesions"])
        assert tab.get_by_label("lung mask").is_enabled()
        assert "z_mm\n1.25" in tab.locator(".about dl.facts").inner_text()
    pictures = as_unknown_config(
        build.folder,
        tmp_path / "pictures",
        "det2d_1.25mm",
        "boxes_2d",
        {"image": "ct", "objects": "boxes"},
        kind="boxed",
    )
    count = sum(pictures.configs["boxes_2d"].values())
    boxes = [
        row["boxes"] for split in pictures.splits("boxes_2d") for row in pictures.rows("boxes_2d", split, ["boxes"])
    ]
    with chromium.opened(browser, write_preview(pictures, tmp_path / "pictures.html").path) as tab:
        panel = open_tab(tab, "boxes_2d")
        assert panel.locator(".card img").count() == count
        assert panel.locator(".card rect").count() == sum(map(len, boxes))


def test_a_config_without_pictures_is_a_list_of_rows(browser, build, tmp_path):
    columns = {"image": None}
    table = as_unknown_config(build.folder, tmp_path / "table", "cls_1.25mm", "labels", columns, kind="label")
    page = write_preview(table, tmp_path / "page.html", PreviewOptions(50)).path
    with chromium.opened(browser, page) as tab:
        panel = open_tab(tab, "labels")
        assert panel.locator(".card").count() == sum(table.configs["labels"].values())
        panel.locator(".card").first.click()
        assert "no picture" in tab.locator("#viewer-body").inner_text()


def test_a_longitudinal_config_of_pictures_has_a_section_per_patient(browser, build, tmp_path):
    columns = {"image": "ct", "scan_id": None}
    pictures = as_unknown_config(
        build.folder, tmp_path / "pictures", "det2d_1.25mm", "follow_up", columns, kind="boxed", longitudinal=True
    )
    patients = {
        row["patient_id"] for split in pictures.splits("follow_up") for row in pictures.rows("follow_up", split)
    }
    with chromium.opened(browser, write_preview(pictures, tmp_path / "page.html").path) as tab:
        panel = open_tab(tab, "follow_up")
        assert panel.locator(".patient").count() == len(patients)
        panel.locator(".card").first.click()
        assert tab.locator("#viewer-body img").is_visible()


def test_labels_of_a_mask_are_stretched_to_be_visible(browser, build, tmp_path):
    columns = {"volume": None, "lung_mask": "labels", "nodules": None}
    kept = as_unknown_config(build.folder, tmp_path / "all", "det3d_1.25mm", "lungs", columns, kind="mask")
    scans = document_of(write_preview(kept, tmp_path / "page.html").path)["scans"].values()
    masks = [row["labels"] for row in kept.rows("lungs", "train", ["labels"])]
    stretched = [int(mask.max()) for mask in masks if mask is not None]
    assert [scan["stretchedFrom"] for scan in scans] == stretched
    with chromium.opened(browser, tmp_path / "page.html") as tab:
        panel = open_tab(tab, "lungs")
        assert panel.locator(".card img").count() == len(stretched)
        panel.locator(".card").filter(has=tab.locator("img")).first.click()
        until_ready(tab)
        assert shown_pixels(tab, "axial").max() > 200


def test_the_largest_nodule_is_chosen_by_box_then_diameter_then_size_of_the_box():
    small, large = [0, 0, 0, 2, 2, 2], [0, 0, 0, 4, 4, 4]
    nodules = [
        {"center_voxel": [1, 1, 1], "box_voxel": None, "diameter_mm": 9.0},
        {"center_voxel": [1, 1, 1], "box_voxel": small, "diameter_mm": 5.0},
        {"center_voxel": [1, 1, 1], "box_voxel": large, "diameter_mm": 5.0},
        {"center_voxel": [1, 1, 1], "box_voxel": large, "diameter_mm": 4.0},
    ]
    assert largest_nodule(nodules) == 2
    assert largest({"nodules": nodules}) is nodules[2]
    assert largest_nodule(nodules[:1]) == 0
    assert largest({"nodules": nodules[:1]}) is None
    assert largest_nodule([]) is None


def test_the_command_adds_the_page_to_the_build_and_a_changed_build_removes_it(cli, dummy, tmp_path):
    out = tmp_path / "build"
    build_into(dummy, out, "det2d_1.25mm")
    done = cli("preview", out)
    assert done.returncode == 0, done.stderr
    assert "preview.html" in done.stdout
    write_preview(open_build(out))  # an earlier page is replaced
    build_into(dummy, out, "det2d_1.25mm")
    assert (out / "preview.html").exists()
    build_into(dummy, out, "cls_1.25mm")
    assert not (out / "preview.html").exists()


@pytest.mark.parametrize("kind", ["a file", "a folder"])
def test_other_files_are_not_overwritten(build, tmp_path, kind):
    existing = tmp_path / "page.html"
    if kind == "a folder":
        existing.mkdir()
    else:
        existing.write_text("<html>another page</html>")
    with pytest.raises(OutputError, match="is not a preview page"):
        write_preview(build, existing)
    assert kind == "a folder" or "another page" in existing.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_a_build_without_examples_is_refused(build, tmp_path):
    shutil.copytree(build.folder, tmp_path / "build")
    manifest = json.loads((tmp_path / "build" / "build.json").read_text())
    (tmp_path / "build" / "build.json").write_text(json.dumps(manifest | {"configs": {}}))
    with pytest.raises(BuildFolderError, match="no examples"):
        write_preview(open_build(tmp_path / "build"))


def test_a_folder_that_is_not_a_build_is_refused(cli, tmp_path):
    (tmp_path / "data").mkdir()
    done = cli("preview", tmp_path)
    assert (done.returncode, "it is not a build, or an incomplete one" in done.stderr) == (1, True)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("max_mb", [0.5, 501, float("nan")])
def test_a_size_out_of_range_is_refused(max_mb):
    with pytest.raises(ValueError, match="1 to 500"):
        PreviewOptions(max_mb)
