"""Findings about names and rows that need no voxel: each fault names its member or row, and repeats no date."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from lung_nodule_ct.declaration.configs import CONFIGS
from lung_nodule_ct.testing.archives import (
    BMP_TABLES,
    CLS,
    CT0,
    DET2D,
    NODULE_COLUMNS,
    NODULES,
    THICK0,
    THICK_FRAME,
    THICK_NODULES,
    THICK_SHAPE,
    metaimage,
    noise_volume,
    stack_tables,
    table,
    voc_annotation,
)
from lung_nodule_ct.testing.synthetic_archives import TinyArchives

FIRST, SECOND = "7_20180102", "7_20190304"
CENTER = "-6.0,-17.0,33.0"


def rename(archives: TinyArchives, old: str, new: str, *names: str) -> None:
    """Rename the members of a scan in some archives, and its rows."""
    for name in names:
        members = archives[name]
        for member in [member for member in members if member.split("/")[-1].startswith(f"{old}.")]:
            data = members.pop(member)
            text = data.replace(f"{old}.raw".encode(), f"{new}.raw".encode()) if member.endswith(".mhd") else data
            members[member.replace(old, new)] = text
        if "annotations.csv" in members:
            members["annotations.csv"] = members["annotations.csv"].replace(old.encode(), new.encode())


@pytest.fixture
def findings(tmp_path, build) -> Callable[..., dict[str, list[dict[str, object]]]]:
    def run(archives: TinyArchives, *configs: str) -> dict[str, list[dict[str, object]]]:
        built = build(archives.write(tmp_path / "in"), *(configs or ("det3d_1.25mm",)), keep_source_names=False)
        by_code: dict[str, list[dict[str, object]]] = {}
        for entry in built.report["findings"]:
            by_code.setdefault(entry["code"], []).append(entry)
        return by_code

    return run


CODES = (
    "centres-rounded",
    "date-outside-study",
    "diameter-implausible",
    "patient-spelled-twice",
    "scans-on-one-date",
    "table-column-converted",
    "thicknesses-disagree",
)


def test_sound_archives_have_none_of_these_findings(findings) -> None:
    assert not set(findings(TinyArchives())) & {*CODES, "duplicate-annotation"}


@pytest.mark.parametrize("day", ["20991231", "19150905", "20151231", "20230201"])
def test_a_date_outside_the_study_is_reported_without_the_date(findings, day) -> None:
    archives = TinyArchives()
    rename(archives, SECOND, f"7_{day}", *archives)
    found = findings(archives)["date-outside-study"]
    assert len(found) == 1
    assert day not in str(found)
    assert day[:4] not in str(found).replace("2016-01 to 2023-01", "")


def test_the_first_and_the_last_month_of_the_study_are_inside(findings) -> None:
    archives = TinyArchives()
    rename(archives, FIRST, "7_20160101", *archives)
    rename(archives, SECOND, "7_20230131", *archives)
    assert "date-outside-study" not in findings(archives)


def test_two_scans_on_one_date_are_reported(findings) -> None:
    archives = TinyArchives()
    archives[CT0] |= metaimage(f"{FIRST}_b", noise_volume(8))
    found = findings(archives)["scans-on-one-date"]
    assert len(found) == 1
    assert str(found[0]["member"]).startswith("7_<date>")


def test_a_patient_with_and_without_zeros_is_reported(findings) -> None:
    archives = TinyArchives()
    rename(archives, SECOND, "007_20190304", *(name for name in archives if "5mm" not in name or "1.25" in name))
    found = findings(archives)["patient-spelled-twice"]
    assert [entry["member"] for entry in found] == ["007_<date>.mhd"]
    assert "elsewhere 7" in str(found[0]["detail"])


def test_a_copy_some_days_apart_is_reported_with_the_days(findings) -> None:
    archives = TinyArchives()
    rename(archives, FIRST, "7_20180104", THICK0, THICK_NODULES)
    found = findings(archives, "det3d_1.25mm", "det3d_5mm")["thicknesses-disagree"]
    assert {entry["config"] for entry in found} == {"det3d_1.25mm", "det3d_5mm"}
    assert all("2 days apart" in str(entry["detail"]) for entry in found)


@pytest.mark.parametrize(
    ("day", "is_reported"),
    [
        ("20190102", True),  # another year
        ("20180202", True),  # another month
        ("20180201", True),  # month and day exchanged
        ("20170928", False),
    ],
)
def test_a_date_that_may_be_mistyped_is_reported(findings, day, is_reported) -> None:
    archives = TinyArchives()
    rename(archives, FIRST, f"7_{day}", THICK0, THICK_NODULES)
    found = findings(archives).get("thicknesses-disagree", [])
    assert len(found) == is_reported
    assert all("days apart" in str(entry["detail"]) and day not in str(entry) for entry in found)


def test_a_patient_with_another_number_at_one_thickness_is_reported(findings) -> None:
    archives = TinyArchives()
    archives[CT0] |= metaimage("31_20210705", noise_volume(5))
    archives[THICK0] |= metaimage("32_20210705", noise_volume(6, THICK_SHAPE), THICK_FRAME)
    found = findings(archives)["thicknesses-disagree"]
    assert [entry["member"] for entry in found] == ["31_<date>.mhd"]
    assert "32_<date>.mhd" in str(found[0]["detail"])
    archives[CT0] |= metaimage("32_20210705", noise_volume(5))  # now 32 has both, and 31 is a patient of one thickness
    assert "thicknesses-disagree" not in findings(archives)


@pytest.mark.parametrize(
    ("rows", "code", "count"),
    [
        ([f"{FIRST},{CENTER},3", f"{FIRST},-6.2,-17.1,33.1,3"], "duplicate-annotation", 1),
        ([f"{FIRST},{CENTER},3", f"{FIRST},{CENTER},4"], "duplicate-annotation", 1),
        ([f"{FIRST},{CENTER},3", f"{FIRST},{CENTER},3"], "duplicate-annotation", 1),
        ([f"{FIRST},{CENTER},3", f"{FIRST},-4.5,-17.0,33.0,3"], "duplicate-annotation", 0),
        ([f"{FIRST},{CENTER},20", f"{FIRST},-3.0,-14.0,33.0,20.5"], "duplicate-annotation", 1),
        ([f"{FIRST},{CENTER},20", f"{FIRST},-3.0,-14.0,33.0,24"], "duplicate-annotation", 0),
        ([f"{FIRST},{CENTER},20", f"{FIRST},-3.0,-12.5,33.0,20.5"], "duplicate-annotation", 0),
        ([f"{FIRST},{CENTER},15.9", f"{FIRST},-3.0,-15.0,33.0,16.1"], "duplicate-annotation", 1),
        ([f"{FIRST},{CENTER},150"], "diameter-implausible", 1),
        (
            [f"{FIRST},{x},-15.2,35.1,{d}" for x, d in enumerate((0.7, 1.2, 1.9, 2.3, 0.5), -5)],
            "diameter-implausible",
            5,
        ),
        (
            [f"{FIRST},{x},-15.2,35.1,{d}" for x, d in enumerate((0.7, 3.2, 2.1, 2.3, 0.5), -5)],
            "diameter-implausible",
            0,
        ),
        ([f"{FIRST},{x},-15.2,35.1,{d}" for x, d in enumerate((0.7, 1.2, 1.9, 0.5), -5)], "diameter-implausible", 0),
        ([f"{FIRST},{CENTER},99"], "diameter-implausible", 0),
        ([f"{FIRST},{x},-15,35,3" for x in (-5, -10, 0, 5, 10)], "centres-rounded", 5),
        ([f"{FIRST},{x},-15,35,3" for x in (-5, -10, 0, 5, 10.5)], "centres-rounded", 0),
        ([f"{FIRST};-6,0;-17,5;33,0;3,5"], "table-column-converted", 1),
    ],
)
def test_rows_that_cannot_be_right_are_reported_by_row(findings, rows, code, count) -> None:
    archives = TinyArchives()
    header = NODULE_COLUMNS.replace(",", ";") if ";" in rows[0] else NODULE_COLUMNS
    archives[NODULES]["annotations.csv"] = table(header, *rows)
    found = findings(archives).get(code, [])
    assert len(found) == count
    assert all(str(entry["row"]).startswith("line ") for entry in found)


@pytest.mark.parametrize("diameter", ["1e6", "5e-324", "0", "-1"])
def test_absurd_diameters_do_not_stop_the_comparison_of_rows(findings, diameter) -> None:
    archives = TinyArchives()
    rows = [f"{FIRST},{CENTER},{diameter}", f"{FIRST},-6.2,-17.1,33.1,{diameter}"]
    archives[NODULES]["annotations.csv"] = table(NODULE_COLUMNS, *rows)
    assert len(findings(archives)["duplicate-annotation"]) == 1


def test_near_rows_are_found_in_linear_time(findings) -> None:
    archives = TinyArchives()
    rows = [f"{FIRST},{-6 + index * 1e-4:.4f},-17.0,33.0,3" for index in range(400)]
    archives[NODULES]["annotations.csv"] = table(NODULE_COLUMNS, *rows)
    found = findings(archives)["duplicate-annotation"]
    assert sum(int(str(entry["count"])) for entry in found) == 399


@pytest.mark.parametrize(
    ("center", "hint"),
    [
        ("-17.0,-6.0,33.0", "with x and y exchanged"),
        ("-0.6,-1.7,3.3", "in centimetres"),
        ("5.0,4.0,2.0", "as voxels"),
        ("6.0,17.0,33.0", "with the signs of x and y reversed"),
        ("900,900,900", None),
        ("1e6,1e6,1e6", None),
    ],
)
def test_a_centre_outside_its_volume_says_what_would_explain_it(findings, center, hint) -> None:
    archives = TinyArchives()
    archives[NODULES]["annotations.csv"] = table(NODULE_COLUMNS, f"{FIRST},{center},3")
    (found,) = findings(archives)["nodule-outside-volume"]
    assert (f"inside if it were read {hint}" if hint else "of 12 x 10 x 6") in str(found["detail"])
    assert hint or "if it were read" not in str(found["detail"])


@pytest.mark.parametrize(("box", "count"), [((2, 3, 4, 5), 0), ((0, 0, 17, 11), 1), ((0, 0, 16, 10), 0)])
def test_a_box_of_more_than_half_a_picture_is_reported(findings, box, count) -> None:
    archives = TinyArchives()
    name = f"Annotations/{FIRST}_002.xml"
    archives[DET2D][name] = voc_annotation(box, filename=f"{FIRST}_002.jpg")
    found = findings(archives, "det2d_1.25mm").get("box-implausible", [])
    assert [str(entry["row"])[:8] for entry in found] == ["object 1"] * count


def test_a_diameter_of_a_stack_that_is_not_positive_is_reported(findings) -> None:
    archives = TinyArchives()
    boxes = {"00001": (2, 4, 3, 8, 5, 9), "00002": (1, 3, 2, 6, 4, 4), "09001": (0, 10, 0, 15, 0, 19)}
    archives[BMP_TABLES] |= stack_tables(boxes, {"00001": 0.0, "00002": 7.5, "09001": -2.0}, val=["00002"])
    found = findings(archives, "det3d_bmp_1.25mm")["diameter-not-positive"]
    assert [str(entry["row"])[:12] for entry in found] == ["line 2: 0000", "line 4: 0900"]


@pytest.mark.parametrize(
    ("readme", "count"),
    [
        ("1 invasive adenocarcinoma; 2 minimally invasive adenocarcinoma; 4 malignant, other", 0),
        ("1 minimally invasive adenocarcinoma; 2 invasive adenocarcinoma; 3 adenocarcinoma in situ", 2),
        ("class 5: Benign other\nclass 6: Inflammation", 2),
        ("1: adenocarcinoma\n5 pneumonia\n6: 5 benign other", 0),
    ],
)
def test_class_names_that_are_those_of_other_folders_are_reported(findings, readme, count) -> None:
    archives = TinyArchives()
    archives[CLS]["class_dataset/READ_ME.txt"] = table(readme, "train:", "1: 1")
    found = findings(archives, "cls_1.25mm").get("class-name-mismatch", [])
    assert len(found) == count
    assert all(str(entry["row"]).startswith("line ") for entry in found)


NAME_AND_ROW_CODES = {*CODES, "box-implausible", "class-name-mismatch", "diameter-not-positive", "duplicate-annotation"}


def test_the_dummy_data_have_none_of_these_findings(dummy_build) -> None:
    report = json.loads((dummy_build() / "findings.json").read_text("utf-8"))
    assert not {entry["code"] for entry in report["findings"]} & NAME_AND_ROW_CODES


def test_real_ct_has_none_of_these_findings_and_no_error(mirror, build) -> None:
    report = build(mirror, *CONFIGS, keep_source_names=False).report
    assert not {entry["code"] for entry in report["findings"]} & NAME_AND_ROW_CODES
    assert [entry for entry in report["findings"] if entry["grade"] == "error"] == []
