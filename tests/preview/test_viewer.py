"""The tools of the viewer in a real browser: zoom, window, ruler, values, slabs, two scans, links to a place."""

from __future__ import annotations

import math
import re
import shutil
from pathlib import Path

import chromium
import numpy as np
import pytest
from altered import alter
from preview_page import build_into, open_scan, rows_of, shown_pixels, shown_slice, until_ready

from lung_nodule_ct.geometry.display import Window
from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.preview import write_preview
from lung_nodule_ct.read.build_folder import open_build

DUMMY = Path(__file__).parents[2] / "dummy_data"


def _undrawn(tab) -> None:
    tab.wait_for_function("() => !shown.view.frame")


def _canvas(tab, plane: str = "axial") -> dict[str, float]:
    return tab.locator(f".pane.{plane} canvas").bounding_box()


def _drag(tab, start, end, button: str = "left") -> None:
    tab.mouse.move(*start)
    tab.mouse.down(button=button)
    tab.mouse.move((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
    tab.mouse.move(*end)
    tab.mouse.up(button=button)
    _undrawn(tab)


def _at(box, across: float, down: float) -> tuple[float, float]:
    """Return the position of a share of a bounding box."""
    return box["x"] + across * box["width"], box["y"] + down * box["height"]


def _plain_row(build) -> tuple[int, dict]:
    """Return the number of a scan that is stored along the patient's axes, and its row."""
    identity = [1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0]
    return next((n, row) for n, row in enumerate(rows_of(build, "det3d_1.25mm")) if row["direction"] == identity)


def test_the_window_is_set_by_dragging_by_numbers_and_by_presets(browser, build, page):
    number, row = _plain_row(build)
    with chromium.opened(browser, page) as tab:
        open_scan(tab, "det3d_1.25mm", number)
        until_ready(tab)
        centre, width = tab.get_by_label("centre of the window"), tab.get_by_label("width of the window")
        assert (centre.input_value(), width.input_value()) == ("-600", "1500")
        box, index = _canvas(tab), shown_slice(tab)
        x, y = _at(box, 0.5, 0.5)
        _drag(tab, (x, y), (x - 100, y + 60), button="right")  # with any tool
        assert int(width.input_value()) < 1500
        assert int(centre.input_value()) > -600
        assert shown_slice(tab) == index
        shown = Window("own", int(centre.input_value()), int(width.input_value()))
        assert np.abs(shown_pixels(tab, "axial") - shown.to_grey(row["volume"][index])).mean() < 8
        assert not tab.get_by_role("radio", name="lung").is_checked()
        before = int(centre.input_value()), int(width.input_value())
        tab.get_by_role("radio", name="window", exact=True).check()
        _drag(tab, (x, y), (x + 40, y), button="left")
        assert (int(centre.input_value()), int(width.input_value()) > before[1]) == (before[0], True)
        centre.fill("-400")
        centre.press("Enter")
        width.fill("1200")  # its digits are not shortcuts
        width.press("Tab")
        _undrawn(tab)
        expected = Window("own", -400, 1200).to_grey(row["volume"][index])
        assert np.abs(shown_pixels(tab, "axial") - expected).mean() < 7
        tab.keyboard.press("Escape")
        open_scan(tab, "det3d_5mm", 0)  # the window is kept from scan to scan
        assert (centre.input_value(), width.input_value()) == ("-400", "1200")
        tab.get_by_role("radio", name="mediastinal").check()
        assert (centre.input_value(), width.input_value()) == ("40", "400")
        width.fill("0")
        width.press("Enter")
        assert width.input_value() == "1"


def test_a_scan_without_hounsfield_units_has_a_window_of_greys(browser, build, page):
    grey = rows_of(build, "det3d_bmp_1.25mm")[0]["volume"]
    with chromium.opened(browser, page) as tab:
        open_scan(tab, "det3d_bmp_1.25mm", 0)
        until_ready(tab)
        assert "not in Hounsfield units" in tab.get_by_role("toolbar").inner_text()
        tab.get_by_label("width of the window").fill("100")
        tab.get_by_label("width of the window").press("Enter")
        _undrawn(tab)
        expected = np.clip((grey[shown_slice(tab)].astype(float) - 127.5 + 50) * 255 / 100, 0, 255)
        assert np.abs(shown_pixels(tab, "axial") - expected).mean() < 12
        assert re.search(r": grey \d+$", tab.locator(".pane.axial .under").inner_text())


def test_the_planes_are_enlarged_around_the_pointer_and_moved(browser, build, page):
    with chromium.opened(browser, page) as tab:
        open_scan(tab, "det3d_1.25mm", 0)
        until_ready(tab)
        start, index = _canvas(tab), shown_slice(tab)
        x, y = _at(start, 0.3, 0.4)
        tab.mouse.move(x, y)
        tab.keyboard.down("Control")
        tab.mouse.wheel(0, -200)
        tab.keyboard.up("Control")
        tab.wait_for_function(
            "width => document.querySelector('.pane.axial canvas').clientWidth > 2 * width", arg=start["width"]
        )
        zoomed = _canvas(tab)
        assert ((x - zoomed["x"]) / zoomed["width"], (y - zoomed["y"]) / zoomed["height"]) == pytest.approx(
            (0.3, 0.4), abs=0.01
        )
        assert shown_slice(tab) == index, "the wheel with Ctrl also scrolled"
        tab.get_by_role("radio", name="move").check()
        _drag(tab, (x, y), (x + 50, y - 30))
        moved = _canvas(tab)
        assert (moved["x"] - zoomed["x"], moved["y"] - zoomed["y"]) == pytest.approx((50, -30), abs=1)
        tab.get_by_role("radio", name="crosshair").check()
        tab.mouse.click(x, y)  # the voxel under the pointer, although the picture is enlarged and moved
        _undrawn(tab)
        nx = tab.evaluate("shown.view.scan.shape[0]")
        expected = math.floor((x - moved["x"]) / moved["width"] * nx)
        assert tab.evaluate("shown.view.position[0]") == expected
        tab.get_by_role("button", name="fit the planes").click()
        assert _canvas(tab) == pytest.approx(start, abs=0.5)
        coronal = _canvas(tab, "coronal")
        tab.get_by_role("button", name="zoom in").click()
        assert _canvas(tab, "coronal")["width"] == pytest.approx(1.5 * coronal["width"], rel=0.01)
        tab.keyboard.press("0")
        assert _canvas(tab, "coronal") == pytest.approx(coronal, abs=0.5)
        tab.keyboard.press("Escape")
        tab.get_by_role("tab", name="det2d_1.25mm").click()
        tab.locator("[role=tabpanel]:not([hidden]) .card").first.click()
        picture = tab.locator("dialog .picture")
        width = picture.bounding_box()["width"]
        tab.keyboard.press("+")
        assert picture.bounding_box()["width"] == pytest.approx(1.5 * width, rel=0.01)


def test_two_fingers_enlarge(browser, page):
    with chromium.opened(browser, page, has_touch=True, viewport={"width": 390, "height": 840}) as tab:
        open_scan(tab, "det3d_1.25mm", 0)
        start, index = _canvas(tab), shown_slice(tab)
        x, y = _at(start, 0.5, 0.5)
        session = tab.context.new_cdp_session(tab)
        for kind, apart in (("touchStart", 40), ("touchMove", 60), ("touchMove", 80), ("touchEnd", None)):
            touches = (
                [] if apart is None else [{"x": x + side * apart, "y": y, "id": n} for n, side in enumerate((-1, 1))]
            )
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})
        tab.wait_for_function(
            "width => document.querySelector('.pane.axial canvas').clientWidth > 1.9 * width", arg=start["width"]
        )
        assert shown_slice(tab) == index


@pytest.mark.parametrize("plane", ["axial", "coronal"])
def test_a_ruler_measures_millimetres_in_its_slice(browser, build, page, plane):
    """Also where the voxels of a plane are not square, and when the picture is enlarged."""
    number, row = _plain_row(build)
    depth, height, width = row["volume"].shape
    across, down = (width, height) if plane == "axial" else (width, depth)
    spacing = row["spacing"][0], row["spacing"][1 if plane == "axial" else 2]
    with chromium.opened(browser, page) as tab:
        open_scan(tab, "det3d_1.25mm", number)
        until_ready(tab)
        index = shown_slice(tab, plane)
        for zoomed in (False, True):
            tab.keyboard.press("r")
            box = _canvas(tab, plane)
            _drag(tab, _at(box, 0.45, 0.4), _at(box, 0.6, 0.65))
            expected = math.hypot(0.15 * across * spacing[0], 0.25 * down * spacing[1])
            label = tab.locator(f".pane.{plane} .length")
            label.wait_for()
            measured = float(label.inner_text().removesuffix(" mm"))
            assert measured == pytest.approx(expected, rel=0.03)
            assert f"ruler: {label.inner_text()}" in tab.get_by_role("toolbar").inner_text()
            tab.locator(f".pane.{plane} .slider input").fill("1")
            label.wait_for(state="detached")  # the ruler belongs to its slice
            tab.locator(f".pane.{plane} .slider input").fill(str(index))
            label.wait_for()
            if zoomed:
                tab.locator(f".pane.{plane} .slider input").press("Delete")
            else:
                tab.get_by_role("button", name="Remove 1 ruler").click()
                tab.keyboard.press("+")
            label.wait_for(state="detached")


def test_the_value_under_the_pointer_is_that_of_the_voxel_within_the_steps_of_the_page(browser, build, page):
    number, row = _plain_row(build)
    _, height, width = row["volume"].shape
    with chromium.opened(browser, page) as tab:
        open_scan(tab, "det3d_1.25mm", number)
        until_ready(tab)
        errors = []
        box, z = _canvas(tab), shown_slice(tab)
        for across, down in ((0.2, 0.5), (0.5, 0.5), (0.35, 0.45), (0.7, 0.6)):
            tab.mouse.move(*_at(box, across, down))
            match = re.match(
                r"x (\d+)  y (\d+)  z (\d+): about (\N{MINUS SIGN}?\d+) HU.*, in steps of (\d+)$",
                tab.locator(".pane.axial .under").text_content(),
            )
            x, y = int(across * width), int(down * height)
            assert (abs(int(match[1]) - x) <= 1, abs(int(match[2]) - y) <= 1, int(match[3])) == (True, True, z)
            value = int(match[4].replace("\N{MINUS SIGN}", "-"))
            errors.append(
                abs(value - np.clip(row["volume"][z, int(match[2]), int(match[1])], -1350, 1300)) / int(match[5])
            )
        assert np.median(errors) < 4
        assert "quantised to 8 bits, compressed with loss; steps of" in tab.locator(".about").inner_text()
        tab.mouse.move(5, 5)  # without a pointer, the value at the crosshair
        x, y, z = tab.evaluate("shown.view.position")
        assert tab.locator(".pane.axial .under").text_content().startswith(f"x {x}  y {y}  z {z}: ")


def test_a_slab_shows_the_maximum_through_its_thickness(browser, build, page):
    number, row = _plain_row(build)
    hu, spacing = row["volume"], row["spacing"]
    window = Window("lung", -600, 1500)
    with chromium.opened(browser, page) as tab:
        open_scan(tab, "det3d_1.25mm", number)
        until_ready(tab)
        thin = shown_pixels(tab, "axial")
        tab.get_by_label("Slab").select_option("MIP 10 mm")
        _undrawn(tab)
        x, y, z = tab.evaluate("shown.view.position")

        def around(index: int, axis: int) -> slice:
            half = 5 / spacing[axis]
            return slice(max(0, math.ceil(index - half)), math.floor(index + half) + 1)

        for plane, cut in (
            ("axial", hu[around(z, 2)].max(axis=0)),
            ("coronal", hu[::-1, around(y, 1)].max(axis=1)),
            ("sagittal", hu[::-1, :, around(x, 0)].max(axis=2)),
        ):
            assert np.abs(shown_pixels(tab, plane) - window.to_grey(cut)).mean() < 8, plane
        assert (shown_pixels(tab, "axial") >= thin).all()
        assert (shown_pixels(tab, "axial") > thin).any()
        assert "MIP 10 mm" in tab.locator(".pane.axial .keys").inner_text()
        tab.locator(".pane.axial .stage").hover()
        for _ in range(3):
            tab.keyboard.press("s")  # 20 mm, 40 mm, one slice
        _undrawn(tab)
        assert (shown_pixels(tab, "axial") == thin).all()


def test_the_keys_are_listed(browser, page):
    with chromium.opened(browser, page) as tab:
        open_scan(tab, "det3d_1.25mm", 0)
        details = tab.locator("details.help")
        assert details.get_attribute("open") is None
        tab.keyboard.press("?")
        assert details.get_attribute("open") is not None
        assert "zoom in, zoom out, fit" in details.inner_text()
        for key, tool in (("w", "window"), ("p", "move"), ("r", "ruler"), ("c", "crosshair")):
            tab.keyboard.press(key)
            assert tab.get_by_role("radio", name=tool, exact=True).is_checked()


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """Scans of a patient on two dates; the second is moved by 12 mm towards the head and by 5 mm to the left in the scanner."""

    def move(rows):
        for row in rows:
            if row["patient_id"] == "27" and row["timepoint"] == 1:
                row["origin"] = [row["origin"][0] + 5, row["origin"][1], row["origin"][2] + 12]
                for nodule in row["nodules"]:
                    x, y, z = nodule["center_world"]
                    nodule["center_world"] = [x + 5, y, z + 12]

    folder = tmp_path_factory.mktemp("followed") / "build"
    build_into(DUMMY, folder, "longitudinal")
    return open_build(alter(folder, "longitudinal", move))


def _compare(tab, build, number: int, other: int) -> tuple[dict, dict]:
    """Open two scans of patient 27 side by side, and return their rows."""
    rows = [row for row in rows_of(build, "longitudinal") if row["patient_id"] == "27"]
    rows.sort(key=lambda row: (row["slice_thickness_mm"], row["timepoint"]))
    tab.get_by_role("tab", name="longitudinal").click()
    patient = tab.locator(".patient").filter(has=tab.get_by_role("heading", name="Patient 27", exact=True))
    patient.locator(".card").nth(number).click()
    choice = tab.get_by_label("Compare with")
    row = rows[other]
    choice.select_option(f"day {row['days_since_first']} · {row['slice_thickness_mm']:g} mm slices")
    tab.wait_for_function("() => shown.view.sides?.every(({ volume }) => volume.ready === volume.pictures.length)")
    return rows[number], row


def _positions(tab) -> list[list[int]]:
    """Return the positions of both scans as in the build, x, y, z."""
    return tab.evaluate("shown.view.sides.map((side) => side.at)")


def _world(row: dict, voxel: list[int]) -> np.ndarray:
    return Frame.from_row(row).to_world(voxel)


@pytest.mark.parametrize("other", [1, 3], ids=["same thickness", "thicker slices"])
def test_two_dates_are_linked_by_a_track(browser, followed, tmp_path, other):
    def track(rows):
        for row in rows:
            if row["patient_id"] == "27":
                row["nodules"][-1] |= {"track_id": "27-t1", "track_reason": None}

    shutil.copytree(followed.folder, tmp_path / "build")
    tracked = open_build(alter(tmp_path / "build", "longitudinal", track))
    with chromium.opened(browser, write_preview(tracked, tmp_path / "page.html").path) as tab:
        first, second = _compare(tab, tracked, 0, other)
        assert "Linked at the nodule of track 27-t1" in tab.locator(".how").inner_text()
        shift = np.subtract(second["nodules"][-1]["center_world"], first["nodules"][-1]["center_world"])
        one = _positions(tab)[0]
        for key in ("ArrowUp", "ArrowUp", "ArrowDown", "PageDown"):
            tab.keyboard.press(key)
            _undrawn_pair(tab)
            one, two = _positions(tab)
            error = np.abs(_world(first, one) + shift - _world(second, two)) / second["spacing"]
            last = np.array(second["volume"].shape[::-1]) - 1
            inside = (np.array(two) > 0) & (np.array(two) < last)
            assert (error[inside] <= 0.51).all(), key
        canvases = tab.locator(".compared canvas")
        box = canvases.nth(1).bounding_box()
        tab.mouse.click(*_at(box, 0.4, 0.6))  # the crosshair of the second scan moves that of the first one
        _undrawn_pair(tab)
        one, two = _positions(tab)
        error = np.abs(_world(second, two) - shift - _world(first, one)) / first["spacing"]
        assert (error[:2] <= 0.51).all()
        tab.get_by_label("linked", exact=True).uncheck()
        tab.mouse.click(*_at(box, 0.6, 0.4))
        _undrawn_pair(tab)
        assert _positions(tab)[0] == one
        assert tab.locator(".how").inner_text() == "Not linked."


def _undrawn_pair(tab) -> None:
    tab.wait_for_timeout(50)
    tab.wait_for_function("() => shown.view.sides.every((side) => !side.frame)")


def test_without_tracks_two_dates_are_linked_by_their_lungs(browser, followed, tmp_path):
    with chromium.opened(browser, write_preview(followed, tmp_path / "page.html").path) as tab:
        first, second = _compare(tab, followed, 0, 1)
        assert "by the extent of the lungs from foot to head, not registered" in tab.locator(".how").inner_text()
        one, two = _positions(tab)
        moved = _world(second, two) - _world(first, one)
        # the second scan was moved by 5 mm to the left and by 12 mm towards the head, and so were its lungs
        assert moved[[0, 2]] == pytest.approx([5, 12], abs=max(second["spacing"]))


def test_without_lungs_two_dates_are_linked_by_the_scanner(browser, followed, tmp_path):
    with chromium.opened(browser, write_preview(followed, tmp_path / "page.html").path) as tab:
        first, second = _compare(tab, followed, 0, 3)
        assert second["lung_mask"] is None
        assert "by the position in the scanner, not registered" in tab.locator(".how").inner_text()
        tab.keyboard.press("Home")
        _undrawn_pair(tab)
        assert "outside the other scan" in tab.locator(".how").inner_text()  # which begins 12 mm higher
        tab.keyboard.press("End")
        _undrawn_pair(tab)
        assert "outside" not in tab.locator(".how").inner_text()
        one, two = _positions(tab)
        error = np.abs(_world(second, two) - _world(first, one)) / second["spacing"]
        assert (error <= 0.51).all()


def test_planes_tools_and_marks_act_on_both_scans(browser, followed, tmp_path):
    with chromium.opened(browser, write_preview(followed, tmp_path / "page.html").path) as tab:
        _compare(tab, followed, 0, 1)
        canvases = tab.locator(".compared canvas")
        widths = [canvases.nth(n).bounding_box()["width"] for n in range(2)]
        tab.get_by_role("button", name="zoom in").click()
        assert [canvases.nth(n).bounding_box()["width"] for n in range(2)] == pytest.approx(
            [1.5 * w for w in widths], rel=0.01
        )
        before = [
            tab.evaluate("n => document.querySelectorAll('.compared canvas')[n].toDataURL()", n) for n in range(2)
        ]
        tab.keyboard.press("2")
        _undrawn_pair(tab)
        after = [tab.evaluate("n => document.querySelectorAll('.compared canvas')[n].toDataURL()", n) for n in range(2)]
        assert before[0] != after[0]
        assert before[1] != after[1]
        position = _positions(tab)[0]
        tab.get_by_role("combobox", name="Plane").select_option("coronal")
        assert tab.locator(".compared .pane.coronal").count() == 2
        assert _positions(tab)[0] == position
        tab.get_by_label("Compare with").select_option("none")
        assert tab.locator(".compared").count() == 0
        assert tab.evaluate("shown.view.at") == position


def test_a_scan_without_another_one_of_its_patient_has_nothing_to_compare(browser, build, page):
    patients = [row["patient_id"] for row in rows_of(build, "det3d_1.25mm")]
    number = next(n for n, patient in enumerate(patients) if patients.count(patient) == 1)
    with chromium.opened(browser, page) as tab:
        open_scan(tab, "det3d_1.25mm", number)
        assert tab.get_by_label("Compare with").is_hidden()
        tab.keyboard.press("Escape")
        open_scan(tab, "det3d_bmp_1.25mm", 0)
        assert tab.get_by_label("Compare with").is_hidden()


def test_a_link_leads_to_tab_scan_slice_and_nodule(browser, build, page):
    number, row = _plain_row(build)
    with chromium.opened(browser, page) as tab:
        open_scan(tab, "det3d_1.25mm", number)
        tab.keyboard.press("Home")
        tab.keyboard.press("ArrowUp")
        tab.wait_for_function("() => /at=\\d+,\\d+,1(&|$)/.test(location.hash)")
        assert re.match(rf"#det3d_1.25mm&example=train-{number}&at=", tab.evaluate("location.hash"))
        tab.reload()
        tab.locator(".pane.axial output", has_text=", z = 1").wait_for()
        tab.get_by_role("button", name="Nodule 1:").click()
        tab.wait_for_function("() => location.hash.endsWith('&nodule=1')")
        tab.keyboard.press("Escape")
        tab.wait_for_function("() => location.hash === '#det3d_1.25mm'")
        tab.evaluate(f"location.hash = '#det3d_1.25mm&example=train-{number}&nodule=1'")
        z = row["nodules"][0].get("key_slice")
        z = math.floor(row["nodules"][0]["center_voxel"][2] + 0.5) if z is None else z
        tab.locator(".pane.axial output", has_text=f", z = {z}").wait_for()
        for broken in (
            "#nothing&example=x-1",
            "#det3d_1.25mm&example=train-9999",
            "#%E0%A4%A&at=1",
            "#cls_1.25mm&example",
        ):
            tab.evaluate("hash => { location.hash = hash; }", broken)
            tab.locator("dialog").wait_for(state="hidden")
        assert tab.get_by_role("tab", selected=True).inner_text().startswith("cls_1.25mm")


def test_a_link_leads_to_two_scans(browser, followed, tmp_path):
    with chromium.opened(browser, write_preview(followed, tmp_path / "page.html").path) as tab:
        _compare(tab, followed, 0, 1)
        tab.keyboard.press("ArrowUp")
        _undrawn_pair(tab)
        tab.wait_for_function("() => location.hash.includes(`at=${shown.view.at.join(',')}`)")
        position, hash_ = _positions(tab), tab.evaluate("location.hash")
        assert "&with=train-" in hash_
        tab.reload()
        tab.locator(".compared canvas").nth(1).wait_for()
        assert _positions(tab) == position


def test_slices_are_counted_from_one_and_the_page_says_from_where(browser, build, page):
    """Also if the scan is stored with its last slice at the foot."""
    rows = rows_of(build, "det3d_1.25mm")
    with chromium.opened(browser, page) as tab:
        for number, row in enumerate(rows):
            open_scan(tab, "det3d_1.25mm", number)
            tab.keyboard.press("Home")
            depth = tab.evaluate("shown.view.scan.shape[2]")
            tab.locator(".pane.axial output", has_text=f"1 of {depth} from the foot, ").wait_for()
            stored = tab.evaluate("shown.view.at")
            tab.keyboard.press("End")
            tab.locator(".pane.axial output", has_text=f"{depth} of {depth} from the foot, ").wait_for()
            upper = tab.evaluate("shown.view.at")
            assert _world(row, upper)[2] > _world(row, stored)[2]
            tab.keyboard.press("Escape")


def test_the_arrow_keys_walk_the_grid(browser, page):
    with chromium.opened(browser, page) as tab:
        tab.get_by_role("tab", name="cls_1.25mm").click()
        cards = tab.locator("[role=tabpanel]:not([hidden]) .card")
        cards.first.focus()
        columns = tab.evaluate(
            "() => { const all = [...document.querySelectorAll('[role=tabpanel]:not([hidden]) .card')].map(c => c.offsetTop);"
            " return all.filter((top) => top === all[0]).length; }"
        )
        focused = "() => [...document.querySelectorAll('[role=tabpanel]:not([hidden]) .card')].indexOf(document.activeElement)"
        for key, expected in (
            ("ArrowRight", 1),
            ("ArrowDown", 1 + columns),
            ("ArrowLeft", columns),
            ("ArrowUp", 0),
            ("ArrowUp", 0),
            ("End", cards.count() - 1),
            ("Home", 0),
        ):
            tab.keyboard.press(key)
            assert tab.evaluate(focused) == expected, key
