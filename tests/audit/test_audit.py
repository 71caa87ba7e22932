"""The audit of a build: every check detects a fault in changed data, and numbers equal those of independent counts."""

from __future__ import annotations

import datetime
import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from altered import alter
from chest_archives import ChestArchives
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scan_rows import itk_image

from lung_nodule_ct.audit import audit_build
from lung_nodule_ct.declaration.dates import count_dates, mask_dates
from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.read.audit_report import Verdict
from lung_nodule_ct.read.build_folder import open_build
from lung_nodule_ct.testing.archives import (
    BMP0,
    CLS,
    CT0,
    CT1,
    DET2D,
    FRAME,
    MASKS,
    NODULE_COLUMNS,
    NODULES,
    SHAPE,
    metaimage,
    noise_picture,
    noise_volume,
    table,
    workbook,
)
from lung_nodule_ct.testing.synthetic_archives import TinyArchives

ALL = ("cls_1.25mm", "det2d_1.25mm", "det3d_1.25mm", "det3d_5mm", "longitudinal", "det3d_bmp_1.25mm")
DET3D = "det3d_1.25mm"


@pytest.fixture
def tiny() -> TinyArchives:
    return TinyArchives()


@pytest.fixture
def build_tiny(tiny, tmp_path, build):
    """Build some configs of the tiny archives, after the changes of the test."""

    def run(*configs: str, **options: Any) -> Path:
        options.setdefault("keep_source_names", False)
        return build(tiny.write(tmp_path / "in"), *(configs or ALL), **options).folder

    return run


def audited(folder: Path) -> dict[str, Any]:
    """Return the content of ``audit.json``, with its checks by name."""
    document = json.loads(json.dumps(audit_build(open_build(folder)).document()))
    return {**document, "checks": {check["name"]: check for check in document["checks"]}}


def verdict(folder: Path, name: str) -> str:
    return audited(folder)["checks"][name]["verdict"]


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_writes_what_it_prints(cli, build, dummy) -> None:
    out = build(dummy, *ALL, keep_source_names=False).folder
    done = cli("audit", out, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads((out / "audit.json").read_text("utf-8"))
    assert json.loads(done.stdout) == document
    assert document["format_version"] == 1
    assert document["generator"].startswith("lung_nodule_ct ")
    for check in document["checks"]:
        assert set(check) == {"name", "title", "verdict", "measured", "expected", "detail"}
        assert check["verdict"] in ("pass", "warn", "fail", "unknown")
        assert all(isinstance(check[key], str) for key in ("name", "title", "measured", "detail"))
        assert check["expected"] is None or isinstance(check["expected"], str)
    names = [check["name"] for check in document["checks"]]
    assert len(set(names)) == len(names)
    pictures = sorted((out / "pictures").iterdir())
    assert pictures
    for path in pictures:
        assert re.fullmatch(r"audit-[a-z-]+\.png", path.name)
        with Image.open(path) as image:
            assert np.asarray(image.convert("L")).std() > 5
    table = cli("audit", out, COLUMNS="80")
    assert table.returncode == 0
    assert max(map(len, table.stdout.split("written to")[0].splitlines())) <= 80
    assert all(check["title"].split()[0] in table.stdout for check in document["checks"])
    # the files of the first audit do not change the second audit, and do not prevent a new build
    assert json.loads((out / "audit.json").read_text("utf-8")) == document
    build(dummy, "cls_1.25mm")
    assert not (out / "audit.json").exists()
    assert not (out / "pictures").exists()


def test_parquet_and_arrow_give_the_same_result(dummy_build) -> None:
    documents = [audited(dummy_build(format_)) for format_ in ("arrow", "parquet")]
    for document in documents:  # an Arrow build has other files next to its shards
        del document["checks"]["dates"], document["numbers"]["dates"]
    assert documents[0] == documents[1]


@pytest.mark.parametrize("config", ALL)
def test_a_build_of_one_config_has_unknown_checks(build_tiny, config) -> None:
    document = audited(build_tiny(config))
    unknown = {name for name, check in document["checks"].items() if check["verdict"] == "unknown"}
    assert "figure-patients" in unknown  # needs both thicknesses
    assert ("world-voxel" in unknown) == (config in ("cls_1.25mm", "det2d_1.25mm", "det3d_bmp_1.25mm"))
    assert ("class-balance" in unknown) == (config != "cls_1.25mm")
    assert ("voc-workbook" in unknown) == (config != "det2d_1.25mm")
    assert all(document["checks"][name]["detail"] for name in unknown)


@pytest.mark.parametrize("config", ALL)
def test_a_config_of_an_unknown_kind_has_the_checks_that_do_not_depend_on_the_kind(build_tiny, config) -> None:
    folder = build_tiny(config)
    known = audited(folder)
    manifest = json.loads((folder / "build.json").read_text())
    manifest["configs"][config]["kind"] = "other"
    (folder / "build.json").write_text(json.dumps(manifest))
    document = audited(folder)
    always = [
        name for name in known["checks"] if name.startswith(("dates", "patient-leakage/", "leak-free", "duplicates"))
    ]
    assert len(always) >= 3
    assert {name: document["checks"][name] for name in always} == {name: known["checks"][name] for name in always}
    by_kind = (
        "world-voxel",
        "boxes",
        "in-volume",
        "in-lung",
        "box-in-lung",
        "lung-hu",
        "hu-range",
        "spacing",
        "copies",
    )
    by_kind += ("missing-slices", "voc-workbook", "stack-tables", "timepoints", "sizes")
    assert {document["checks"][name]["verdict"] for name in by_kind} == {"unknown"}


def test_the_page_lists_every_check(build_tiny, tmp_path, build, dummy) -> None:
    page = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()
    listed = {
        name
        for row in re.findall(r"^\| (`[^|]+`) \|", page, re.MULTILINE)
        for name in re.findall(r"`([^`]+)`", row)
        if name != "check"
    }
    names = set(audited(build_tiny())["checks"])  # then scans with lungs, for the checks of lungs and of slices
    names |= set(audited(build(ChestArchives().write(tmp_path / "chests"), DET3D).folder)["checks"])
    names |= set(audited(build(dummy, "cls_1.25mm", limit=1).folder)["checks"])  # that is not complete
    folder = build_tiny("longitudinal")  # then what a build computes

    def made(rows: list[dict[str, Any]]) -> None:
        rows[0]["lung_mask_origin"] = "made"

    _follow(folder, *[{"track_id": "7-t1", "track_pathology": 2, "key_slice_basis": "evidence"}] * 2)
    names |= set(audited(alter(folder, "longitudinal", made))["checks"])
    assert listed == {re.sub("^figure-.*", "figure-…", re.sub("/.*", "/<config>", name)) for name in names}


@pytest.mark.parametrize(
    ("state", "remedy"),
    [("absent", "Build one: "), ("empty", "Build one: "), ("incomplete", "Build it again into another folder: ")],
)
def test_a_folder_that_is_not_a_build_is_refused(cli, build_tiny, tmp_path, state, remedy) -> None:
    folder = tmp_path / "empty"
    if state == "empty":
        folder.mkdir()
    if state == "incomplete":
        folder = build_tiny("cls_1.25mm")
        (folder / "build.json").unlink()
    before = sorted(folder.rglob("*"))
    done = cli("audit", folder)
    assert done.returncode == 1
    assert remedy in done.stderr
    assert sorted(folder.rglob("*")) == before


@pytest.mark.slow
def test_without_matplotlib_there_are_no_plots_and_the_message_names_the_extra(build_tiny, python) -> None:
    folder = build_tiny("cls_1.25mm")
    code = "import sys; sys.modules['matplotlib'] = None; from lung_nodule_ct.cli import main; sys.argv[1:] = ['audit', {!r}]; main()"
    first = python(code.replace("sys.modules['matplotlib'] = None; ", "").format(str(folder)), cwd=folder)
    assert (folder / "pictures" / "audit-classes.png").is_file(), first.stderr
    done = python(code.format(str(folder)), cwd=folder)
    assert done.returncode == 0, done.stderr
    assert 'pip install "lung_nodule_ct[show]"' in done.stdout
    assert json.loads((folder / "audit.json").read_text())["checks"]
    assert not list(folder.rglob("*.png"))  # the plots of the first audit are removed


def test_each_shard_is_read_once(tiny, build_tiny) -> None:
    counters = Path("/proc/self/io")
    if not counters.is_file():
        pytest.skip("only Linux counts the bytes that a process reads")
    tiny[CT0] |= metaimage("7_20180102", noise_volume(1, (60, 200, 200)))
    folder = build_tiny()
    build = open_build(folder)
    audit_build(build)  # the first audit also reads modules that are imported on first use

    def read() -> int:
        return int(re.search(r"rchar: (\d+)", counters.read_text())[1])  # type: ignore[index]

    before = read()
    audit_build(build)
    shards = sum(entry["bytes"] for config in build.manifest["configs"].values() for entry in config["files"])
    other = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) - shards
    assert shards <= read() - before <= shards * 1.1 + 3 * other + 100_000
    assert shards > 10 * other


# --- geometry ---------------------------------------------------------------------------------------------------------


def test_residuals_of_centres_equal_those_of_itk(tiny, build_tiny, dummy) -> None:
    tiny[CT0] |= metaimage(
        "7_20180102", noise_volume(1), Frame((5, -8, 30), FRAME.spacing, (0, -1, 0, 1, 0, 0, 0, 0, 1))
    )
    tiny[NODULES]["annotations.csv"] = table(NODULE_COLUMNS, "7_20180102,2.5,-5.25,33.1,4.2", "9,-6,-17,33,3.5")
    folder = build_tiny(DET3D)
    assert verdict(folder, "world-voxel") == "pass"
    shifts = iter([(0.25, -0.5, 0.75), (0.0, 0.0, 1e-9)])
    residuals = []

    def shift(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            for nodule in row["nodules"]:
                nodule["center_voxel"] = (np.array(nodule["center_voxel"]) + next(shifts)).tolist()
                image = itk_image(row)
                world = image.TransformContinuousIndexToPhysicalPoint(nodule["center_voxel"])
                residuals.append(np.linalg.norm(np.subtract(world, nodule["center_world"])))

    document = audited(alter(folder, DET3D, shift))
    assert document["checks"]["world-voxel"]["verdict"] == "fail"
    assert document["numbers"]["geometry"]["residual_mm"]["max"] == pytest.approx(max(residuals))
    assert document["numbers"]["geometry"]["residual_voxels"]["max"] == pytest.approx(0.75)
    assert document["numbers"]["geometry"]["scans_not_axis_aligned"] == 1


def test_a_box_that_does_not_match_its_sphere_is_detected(build_tiny) -> None:
    folder = build_tiny(DET3D)
    assert verdict(folder, "boxes") == "pass"

    def widen(rows: list[dict[str, Any]]) -> None:
        rows[0]["nodules"][0]["box_voxel"][3] += 1

    document = audited(alter(folder, DET3D, widen))
    assert document["checks"]["boxes"]["verdict"] == "fail"
    assert document["numbers"]["geometry"]["boxes_that_disagree"] == 1


def test_nodules_outside_their_volume_are_counted(tiny, build_tiny) -> None:
    tiny[NODULES]["annotations.csv"] = table(
        NODULE_COLUMNS, "7_20180102,-6,-17,33,3", "9,-6,-17,330,3", "9,-600,-17,33,3"
    )
    document = audited(build_tiny(DET3D))
    assert document["checks"]["in-volume"]["verdict"] == "fail"
    assert document["numbers"]["geometry"]["centres_outside_volume"] == 2
    assert document["checks"]["boxes"]["verdict"] == "warn"


def test_nodules_and_boxes_are_compared_with_masks(tiny, build_tiny) -> None:
    mask = np.zeros(SHAPE, np.int16)
    mask[2:4, 4:6, 4:6] = 4
    tiny[MASKS] = metaimage("7_20180102", mask)
    origin = np.array((-10.0, -20.0, 30.0))

    def world(voxel: tuple[float, float, float]) -> str:
        return ",".join(f"{value:.6f}" for value in origin + np.array(voxel) * FRAME.spacing)

    rows = [f"7_20180102,{world(voxel)},2" for voxel in ((4.4, 5.4, 3.4), (5.6, 5, 3), (10, 8, 1))]
    tiny[NODULES]["annotations.csv"] = table(NODULE_COLUMNS, *rows)
    folder = build_tiny(DET3D)
    document = audited(folder)
    assert (document["numbers"]["lungs"]["centres"], document["numbers"]["lungs"]["centres_in_lung"]) == (3, 1)
    assert document["checks"]["in-lung"]["verdict"] == "warn"
    assert document["checks"]["box-in-lung"]["verdict"] == "fail"
    (row,) = (row for row in open_build(folder).rows(DET3D, "train") if row["nodules"])
    boxes = [nodule["box_voxel"] for nodule in row["nodules"]]
    shares = [np.mean(mask[z0:z1, y0:y1, x0:x1] == 4) for x0, y0, z0, x1, y1, z1 in boxes]
    assert document["numbers"]["lungs"]["box_lung_shares"] == pytest.approx(shares)
    inside = noise_volume(1)[mask > 0]
    assert document["numbers"]["lungs"]["lung_median_hu"] == [np.median(inside)] or len(inside) % 2 == 0


def test_spacing_is_compared_with_the_nominal_thickness(tiny, build_tiny) -> None:
    before = audited(build_tiny())["checks"]["spacing"]
    assert before["measured"].startswith("0 of 6 ")
    assert "not square" in before["detail"]  # 0.8 x 0.7 mm
    tiny[CT1] |= metaimage("7_20190304", noise_volume(3), Frame(FRAME.origin, (0.8, 0.7, 2.5)))
    tiny[CT0] |= metaimage("9", noise_volume(2), Frame(FRAME.origin, (0.8, 0.8, 1.26)))
    document = audited(build_tiny())
    assert document["checks"]["spacing"]["verdict"] == "warn"
    assert document["checks"]["spacing"]["measured"].startswith("1 of 6 ")
    assert sorted(document["numbers"]["spacing"]["by_nominal_mm"]["1.25"]["slice_mm"]) == [1.25, 1.26, 2.5]
    deviating = [flag for flag in document["flags"] if "mm between slices" in flag["bound"]]
    assert [(flag["check"], flag["key"]["scan_id"], flag["hint"]) for flag in deviating] == [("spacing", "7-2", None)]


def test_a_permuted_spacing_is_flagged_with_its_explanation(tiny, build_tiny) -> None:
    tiny[CT1] |= metaimage("7_20190304", noise_volume(3), Frame(FRAME.origin, (1.25, 0.8, 0.8)))
    found = [flag for flag in audited(build_tiny())["flags"] if flag["check"] == "spacing" and flag["hint"]]
    assert [flag["key"]["scan_id"] for flag in found] == ["7-2"]
    assert found[0]["hint"] == "the axes of ElementSpacing are in another order"
    assert found[0]["measured"] == "spacing 1.25 x 0.8 x 0.8 mm"


# --- voxels -----------------------------------------------------------------------------------------------------------


def test_the_range_of_values_and_padding_are_measured(tiny, build_tiny) -> None:
    values = {name: noise_volume(seed) for seed, name in enumerate(("7_20180102", "9", "7_20190304"))}
    values["7_20180102"][:, :2] = -2000
    values["9"][0, 0, 0] = 3500
    tiny[CT0] |= {**metaimage("7_20180102", values["7_20180102"]), **metaimage("9", values["9"])}
    tiny[CT1] |= metaimage("7_20190304", values["7_20190304"])
    document = audited(build_tiny(DET3D))
    numbers = document["numbers"]["intensities"]
    assert document["checks"]["hu-range"]["verdict"] == "warn"
    assert (numbers["low"], numbers["high"], numbers["padding_values"]) == (-2000, 3500, {"-2000": 1})
    everything = np.concatenate([array.ravel() for array in values.values()])
    histogram = numbers["histogram"]
    counts, _ = np.histogram(everything[everything < histogram["edges"][-1]], histogram["edges"])
    assert histogram["counts"] == counts.tolist()
    assert histogram["under"] == (everything < histogram["edges"][0]).sum()
    assert histogram["over"] == 1


def test_volumes_without_air_are_not_in_hu(tiny, build_tiny) -> None:
    tiny[CT0] |= metaimage("9", np.abs(noise_volume(2)))
    assert verdict(build_tiny(DET3D), "hu-range") == "fail"


@pytest.mark.parametrize(("fault", "count"), [("constant", 1), ("repeated", 2), ("volumes_with_jump", 1)])
def test_constant_repeated_and_missing_slices_are_detected(tiny, build_tiny, fault, count) -> None:
    smooth = np.linspace(0, 990, 12).astype(np.int16)[:, None, None] + noise_volume(1, (12, 10, 12)) // 100
    tiny[CT0] |= metaimage("9", smooth)
    assert verdict(build_tiny(DET3D), "missing-slices") == "pass"
    if fault == "constant":
        smooth[4] = -1000
    elif fault == "repeated":
        smooth[4] = smooth[5] = smooth[3]
    else:
        smooth = np.delete(smooth, [5, 6, 7], axis=0)
    tiny[CT0] |= metaimage("9", smooth)
    document = audited(build_tiny(DET3D))
    assert document["checks"]["missing-slices"]["verdict"] == "warn"
    assert document["numbers"]["slices"][fault] == count


def test_gaps_in_stacks_are_counted(tiny, build_tiny) -> None:
    assert verdict(build_tiny("det3d_bmp_1.25mm"), "missing-slices") == "pass"
    del tiny[BMP0]["imgs/00001/4.bmp"], tiny[BMP0]["imgs/00001/5.bmp"]
    document = audited(build_tiny("det3d_bmp_1.25mm"))
    assert document["numbers"]["slices"]["missing_in_stacks"] == 2
    assert document["checks"]["missing-slices"]["verdict"] == "warn"


# --- splits, classes, sizes, figures ----------------------------------------------------------------------------------


def test_leakage_is_counted_in_the_rows(build, dummy) -> None:
    for split_by in ("published", "patient"):
        out = build(dummy, *ALL[:-1], split_by=split_by).folder
        document = audited(out)
        for config in ("cls_1.25mm", "det2d_1.25mm"):
            rows = {
                split: [row["patient_id"] for row in open_build(out).rows(config, split, ["patient_id"])]
                for split in open_build(out).splits(config)
            }
            if len(rows) < 2:
                continue
            numbers = document["numbers"]["splits"]["leakage"][config]
            known = [set(patients) - {None} for patients in rows.values()]
            shared = {patient for split in known for patient in split if sum(patient in other for other in known) > 1}
            assert numbers["shared_patients"] == len(shared)
            train = set(rows["train"]) - {None}
            leaking = {
                split: sum(patient in train for patient in patients)
                for split, patients in rows.items()
                if split != "train"
            }
            assert numbers["leaking_rows"] == {split: count for split, count in leaking.items() if count}
            expected = "fail" if shared else "pass"
            assert document["checks"][f"patient-leakage/{config}"]["verdict"] == expected
            assert bool(shared) == (split_by == "published")
        assert document["checks"]["leak-free"]["verdict"] == "pass"


def test_a_patient_in_two_folds_is_detected(build_tiny) -> None:
    folder = build_tiny("det2d_1.25mm", DET3D)

    def move(rows: list[dict[str, Any]]) -> None:
        rows[0]["fold"] = (rows[0]["fold"] + 1) % 5

    assert verdict(alter(folder, DET3D, move), "leak-free") == "fail"


def test_equal_pixels_are_counted(tiny, build_tiny) -> None:
    assert verdict(build_tiny(), "duplicates") == "pass"
    tiny[CLS]["class_dataset/train/5/9_001_02.bmp"] = noise_picture(3)  # also occurs in validate
    tiny[DET2D]["JPEGImages/9_004.jpg"] = noise_picture(0, kind="JPEG")  # also occurs in train
    numbers = audited(build_tiny())["numbers"]["duplicates"]
    assert numbers["groups_across_splits"] == {"cls_1.25mm": 1}
    assert numbers["groups_within_a_split"] == {"det2d_1.25mm": 1}


def test_a_scan_that_differs_between_configs_is_detected(build_tiny) -> None:
    folder = build_tiny(DET3D, "longitudinal")
    assert verdict(folder, "copies") == "pass"

    def touch(rows: list[dict[str, Any]]) -> None:
        data = rows[0]["volume"]["bytes"]
        rows[0]["volume"]["bytes"] = data[:-1] + bytes([data[-1] ^ 1])

    assert verdict(alter(folder, "longitudinal", touch), "copies") == "fail"


def test_classes_sizes_and_figures_are_counted(dummy_build) -> None:
    out = dummy_build("parquet")
    build, numbers = open_build(out), audited(out)["numbers"]
    for split, counts in numbers["classes"]["by_split"].items():
        labels = Counter(row["label"] for row in build.rows("cls_1.25mm", split, ["label"]))
        assert counts == [labels[index] for index in range(6)]
    scans = list(build.rows(DET3D, "train", ["nodules", "patient_id", "scan_id"]))
    diameters = [nodule["diameter_mm"] for scan in scans for nodule in scan["nodules"]]
    # negative values, because the upper bound belongs to a group of sizes
    groups = np.histogram(-np.array(diameters), [-np.inf, -30, -20, -10, 0])[0][::-1]
    assert numbers["sizes"]["counts"] == groups.tolist()
    by_size = numbers["classes"]["by_size"]
    assert np.sum([*by_size["counts"].values(), by_size["class_unknown"]], axis=0).tolist() == groups.tolist()
    reported = {figure["figure"]: figure["here"] for figure in build.report["figures"]}
    for name in ("patients", "CT scans", "scans in the cross spatio-temporal part", "crops to validate on"):
        assert numbers["published_figures"][name]["here"] == reported[name]


def test_an_audit_of_a_limited_build_says_so_and_compares_no_counts(dummy, build) -> None:
    folder = build(dummy, "det3d_1.25mm", "cls_1.25mm", limit=1).folder
    checks = {
        check.name: check for check in audit_build(open_build(folder), only=["published_figures", "sizes"]).checks
    }
    assert checks["complete"].verdict is Verdict.WARN
    assert "--limit 1" in checks["complete"].detail
    others = [check for name, check in checks.items() if name != "complete"]
    assert {check.verdict for check in others} == {Verdict.UNKNOWN}
    assert all("--limit 1" in check.detail for check in others)


def test_a_count_that_equals_the_published_figure_passes(build_tiny) -> None:
    folder = build_tiny("det3d_1.25mm", "det3d_5mm")
    numbers = iter(range(109))

    def repeat(rows: list[dict[str, Any]]) -> None:
        rows[:] = [{**rows[0], "patient_id": str(number), "scan_id": f"s{number}", "nodules": []} for number in numbers]

    alter(folder, "det3d_1.25mm", repeat)
    alter(folder, "det3d_5mm", lambda rows: [row.update(patient_id="1", scan_id="s1") for row in rows])
    manifest = json.loads((folder / "build.json").read_text())
    manifest["configs"]["det3d_1.25mm"]["rows"] = {"train": 109}
    (folder / "build.json").write_text(json.dumps(manifest))
    checks = audited(folder)["checks"]
    assert (checks["figure-patients"]["verdict"], checks["figure-patients"]["measured"]) == ("pass", "109")
    assert (checks["figure-ct-scans"]["verdict"], checks["figure-ct-scans"]["measured"]) == ("warn", "109")


def test_a_class_without_examples_in_a_split_is_detected(tiny, build_tiny) -> None:
    assert verdict(build_tiny("cls_1.25mm"), "class-balance") == "warn"
    for number in range(1, 7):
        for split in ("train", "validate"):
            tiny[CLS][f"class_dataset/{split}/{number}/9_{number}{split}.bmp"] = noise_picture(number + 40)
    assert verdict(build_tiny("cls_1.25mm"), "class-balance") == "pass"


def test_the_workbook_is_compared_with_the_xml(tiny, build_tiny) -> None:
    assert verdict(build_tiny("det2d_1.25mm"), "voc-workbook") == "pass"
    stems = ("7_20180102_002", "7_20190304_003", "9_004")
    rows = [["image", "xmin", "ymin", "xmax", "ymax"], *([f"{stem}.jpg", 2, 3, 9, 12] for stem in stems)]
    tiny[DET2D]["VOC_CT.xlsx"] = workbook(rows)
    document = audited(build_tiny("det2d_1.25mm"))
    assert document["checks"]["voc-workbook"]["verdict"] == "fail"
    assert document["numbers"]["tables"]["det2d_1.25mm"]["tables-disagree"] == 3
    del tiny[DET2D]["VOC_CT.xlsx"]
    assert verdict(build_tiny("det2d_1.25mm"), "voc-workbook") == "unknown"


def test_timepoints_are_counted_and_a_reversed_order_is_detected(tiny, build_tiny) -> None:
    folder = build_tiny(DET3D, "det3d_5mm", "longitudinal")
    document = audited(folder)
    days = (datetime.date(2019, 3, 4) - datetime.date(2018, 1, 2)).days
    assert document["numbers"]["timepoints"]["intervals_days"] == [days]
    assert document["numbers"]["timepoints"]["patients_by_timepoints"] == {"1": 1, "2": 1}
    assert document["checks"]["timepoints"]["verdict"] == "pass"

    def reverse(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["days_since_first"] = None if row["days_since_first"] is None else days - row["days_since_first"]

    for config in (DET3D, "det3d_5mm"):
        alter(folder, config, reverse)
    assert verdict(folder, "timepoints") == "fail"


# --- columns that a build computes ------------------------------------------------------------------------------------

COMPUTED = ("tracks", "registration", "track-growth", "track-pathology", "key-slices", "lung-mask-origin")


def _follow(folder: Path, *nodules: dict[str, Any]) -> dict[str, Any]:
    """Give the rows of ``longitudinal`` one patient, with a nodule of this track in each scan, and audit the build."""

    def change(rows: list[dict[str, Any]]) -> None:
        assert len(rows) >= len(nodules)
        first = next(row["nodules"][0] for row in rows if row["nodules"])
        for number, row in enumerate(rows):
            row |= {"patient_id": "7", "scan_id": f"7-{number + 1}", "timepoint": number, "num_timepoints": len(rows)}
            row |= {"days_since_first": 100 * number, "slice_thickness_mm": 1.25, "nodules": []}
            if number < len(nodules):
                row["nodules"] = [first | nodules[number]]

    return audited(alter(folder, "longitudinal", change))


def test_a_build_without_computed_columns_has_no_check_of_them(build_tiny) -> None:
    assert not set(COMPUTED) & set(audited(build_tiny())["checks"])


def test_tracks_are_counted_and_those_without_one_by_reason(build_tiny) -> None:
    document = _follow(
        build_tiny("longitudinal"),
        {"track_id": "7-t1", "diameter_mm": 10.0, "pathology": 2, "track_pathology": 2},
        {"track_id": "7-t1", "diameter_mm": 9.0, "pathology": None, "track_pathology": 2},
        {"track_id": None, "track_reason": "the scans are unregistered: correlation 0.31", "pathology": None},
    )
    numbers = document["numbers"]["computed"]
    assert (numbers["tracks"], numbers["nodules"]) == (1, 3)
    assert numbers["nodules_without_track"] == {"the scans are unregistered": 1}
    assert (numbers["date_pairs"], numbers["unregistered_date_pairs"]) == (2, [["7", 1, 2]])
    assert (numbers["pathology_own"], numbers["pathology_by_track"]) == (1, 1)
    checks = document["checks"]
    assert checks["registration"]["verdict"] == "warn"
    assert (
        "patient 7, timepoints 1 and 2: the scans are unregistered: correlation 0.31"
        in checks["registration"]["detail"]
    )
    assert checks["track-growth"]["verdict"] == "pass"
    assert not {"key-slices", "lung-mask-origin"} & set(checks)


def test_a_track_that_becomes_much_smaller_is_flagged_with_both_rows(build_tiny) -> None:
    """The loss counts from the largest scan before, also if no step alone is large."""
    diameters = ((8.0, 12.0, 8.3), "7-2", "7-3"), ((20.0, 16.0, 13.0), "7-1", "7-3"), ((20.0, 15.0, 14.1), None, None)
    folder = build_tiny("longitudinal")
    for sizes, earlier, later in diameters:
        document = _follow(folder, *({"track_id": "7-t1", "diameter_mm": size} for size in sizes))
        flags = [flag for flag in document["flags"] if flag["check"] == "track-growth"]
        assert document["checks"]["track-growth"]["verdict"] == ("warn" if earlier else "pass")
        assert [(flag["grade"], flag["other"]["key"]["scan_id"], flag["key"]["scan_id"]) for flag in flags] == (
            [("warning", earlier, later)] if earlier else []
        )
    document = _follow(folder, *({"track_id": "7-t1", "diameter_mm": size} for size in (20.0, 13.0, 21.0)))
    (flag,) = (flag for flag in document["flags"] if flag["check"] == "track-growth")
    assert flag["annotation"] == 0
    assert "20.0 mm on day 0, then 13.0 mm on day 100: -35%" in flag["measured"]


def test_other_tracks_thicknesses_and_unknown_diameters_are_not_compared(build_tiny) -> None:
    folder = build_tiny("longitudinal")
    for second in ({"track_id": "7-t2", "diameter_mm": 5.0}, {"track_id": "7-t1", "diameter_mm": None}):
        document = _follow(folder, {"track_id": "7-t1", "diameter_mm": 20.0}, second)
        assert document["checks"]["track-growth"]["verdict"] == "pass"

    def thick(rows: list[dict[str, Any]]) -> None:
        rows[1]["slice_thickness_mm"] = 5.0
        rows[1]["nodules"] = [rows[1]["nodules"][0] | {"diameter_mm": 5.0}]

    assert audited(alter(folder, "longitudinal", thick))["checks"]["track-growth"]["verdict"] == "pass"


def test_made_masks_and_key_slices_by_evidence_are_counted(build_tiny) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[0]["lung_mask_origin"] = "made"
        rows[0]["nodules"] = [nodule | {"key_slice_basis": "evidence"} for nodule in rows[0]["nodules"]]

    folder = build_tiny(DET3D)
    before = open_build(folder)
    nodules = [nodule for row in before.rows(DET3D, "train", ["nodules"]) for nodule in row["nodules"]]
    document = audited(alter(folder, DET3D, change))
    numbers = document["numbers"]["computed"]
    assert numbers["lung_masks"]["made"] == 1
    assert sum(numbers["key_slices"].values()) == len([n for n in nodules if n["key_slice"] is not None])
    assert numbers["key_slices"]["evidence"] >= 1
    assert "tracks" not in document["checks"]


# --- dates ------------------------------------------------------------------------------------------------------------


@given(st.dates(datetime.date(1900, 1, 1), datetime.date(2099, 12, 31)), st.sampled_from(["", "-", "/", ".", "_", ":"]))
def test_dates_are_detected_in_every_notation(day, separator) -> None:
    for form in ("%Y{0}%m{0}%d", "%d{0}%m{0}%Y", "%m{0}%d{0}%Y") if separator else ("%Y%m%d",):
        assert count_dates(f"scan {day.strftime(form.format(separator))} of") >= 1


@pytest.mark.parametrize(
    "text",
    [
        "20191345",
        "12345678",
        "10.5281/zenodo.12582356",
        "version 2019.1",
        "a20190314b7c",
        "1,2019,03,14",
        "512 x 512 x 160",
    ],
)
def test_other_numbers_are_not_dates(text) -> None:
    assert count_dates(text) == 0


def test_a_clean_build_has_no_dates(build_tiny) -> None:
    document = audited(build_tiny())
    assert document["checks"]["dates"]["verdict"] == "pass"
    assert document["numbers"]["dates"]["texts"] > 0


def _photo() -> bytes:
    exif = Image.Exif()
    exif[306] = "2019:03:14 10:00:00"
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((16, 20), np.uint8)).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("location", ["column", "readme", "json", "name", "picture", "nodule"])
def test_dates_are_detected_everywhere_and_never_quoted(build_tiny, location) -> None:
    folder = build_tiny(keep_source_names=location == "column")
    if location == "picture":  # as in a build of an earlier version of the package
        alter(
            folder,
            "det2d_1.25mm",
            lambda rows: [row["image"].update(bytes=_photo()) for row in rows if row["patient_id"] == "9"],
        )
    elif location == "readme":
        with (folder / "README.md").open("a", encoding="utf-8") as file:
            file.write("\nOur first patient came on 14.03.2019.\n")
    elif location == "json":
        (folder / "notes.json").write_text(json.dumps({"bytes": 20190314, "scan": ["80_20190314"]}))
    elif location == "name":
        (folder / "80_20190314.png").write_bytes(b"")
    elif location == "nodule":
        alter(folder, DET3D, lambda rows: rows[0]["nodules"][0].update(nodule_id="80_20190314-0"))
    document = audited(folder)
    assert document["checks"]["dates"]["verdict"] == "fail"
    if location != "column":
        assert sum(document["numbers"]["dates"]["dates"].values()) == 1
    else:
        # the name of every volume, crop and slice of patient 7 contains a date
        names = [row["source_name"] for config in ALL for row in _names(folder, config)]
        assert sum(document["numbers"]["dates"]["dates"].values()) >= sum("_20" in name for name in names)
    text = json.dumps(document["checks"]["dates"]) + json.dumps(document["numbers"]["dates"])
    assert mask_dates(text) == text


def _names(folder: Path, config: str) -> list[dict[str, Any]]:
    build = open_build(folder)
    return [row for split in build.splits(config) for row in build.rows(config, split, ["source_name"])]


@pytest.mark.slow
def test_real_ct_passes_the_checks_and_its_padding_is_reported(mirror, build) -> None:
    folder = build(mirror, *ALL, keep_source_names=False).folder
    document = audited(folder)
    verdicts = {name: check["verdict"] for name, check in document["checks"].items()}
    for name in (
        "dates",
        "world-voxel",
        "in-volume",
        "box-in-lung",
        "spacing",
        "missing-slices",
        "copies",
        "timepoints",
    ):
        assert verdicts[name] == "pass", document["checks"][name]
    opened = open_build(folder)
    lows = [row["volume"].min() for name in (DET3D, "det3d_5mm") for row in opened.rows(name, "train", ["volume"])]
    numbers = document["numbers"]["intensities"]
    assert numbers["low"] == min(lows) < -1024  # padding outside the circle of the scanner
    assert document["checks"]["hu-range"]["verdict"] == "warn"
