"""Plans: splits, limits, patients that splits share, and the findings of a plan as they are reported."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lung_nodule_ct.declaration.configs import get_config
from lung_nodule_ct.declaration.findings import Code, Finding
from lung_nodule_ct.declaration.identity import fold_of
from lung_nodule_ct.errors import Place, SourceError, UnknownConfigError
from lung_nodule_ct.examples.plan import Plan, add_family, family_of, make_plan
from lung_nodule_ct.examples.report import Pixels, inspect_source, same_pixels
from lung_nodule_ct.examples.scans.plan import ScanUnit
from lung_nodule_ct.examples.uses import PlanReport
from lung_nodule_ct.sources.resolve import open_folder
from lung_nodule_ct.testing.archives import (
    BMP0,
    BMP1,
    BMP2,
    BMP_TABLES,
    CLS,
    CT0,
    CT1,
    DET2D,
    MASKS,
    NODULE_COLUMNS,
    NODULES,
    SHAPE,
    metaimage,
    noise_picture,
    noise_volume,
    split_files,
    table,
    workbook,
    zip_archive,
)
from lung_nodule_ct.testing.synthetic_archives import TinyArchives

DET3D, THICK, STACKS, SLICES, CROPS = "det3d_1.25mm", "det3d_5mm", "det3d_bmp_1.25mm", "det2d_1.25mm", "cls_1.25mm"

Reported = list[tuple[str, str | None, str | None, str | None, int]]


@pytest.fixture
def tiny() -> TinyArchives:
    return TinyArchives()


@pytest.fixture
def planned(tmp_path):
    """Plan one config of some archives."""

    def plan(tiny: TinyArchives, config: str, split_by: str = "published") -> Plan:
        return make_plan(get_config(config), open_folder(tiny.write(tmp_path / "in")), split_by)

    return plan


_QUOTES = str.maketrans("", "", "“”")
"""Marks of what is quoted from the data."""


def reported(plan: Plan, *without: str) -> Reported:
    """Code, member, row, what was done, and count of all findings of a plan, but for some codes."""
    return [
        (
            str(each.code),
            each.place.member,
            each.place.row and each.place.row.translate(_QUOTES),
            each.resolution.translate(_QUOTES),
            each.count,
        )
        for each in plan.findings
        if each.code not in without
    ]


def test_a_plan_counts_the_examples_of_every_split(tiny, planned) -> None:
    plan = planned(tiny, CROPS)
    assert plan.num_examples == {"train": 2, "validation": 1}
    assert {split: [unit.source_name for unit in units] for split, units in plan.splits.items()} == {
        "train": ["train/1/7_20180102_003_01", "train/5/9_001_02"],
        "validation": ["validate/1/7_20190304_003_03"],
    }
    assert plan.shared_patients == {"train & validation": 1}
    assert [archive.name for archive in plan.archives] == [CLS]
    assert planned(tiny, THICK).shared_patients == {}


def test_splits_are_in_their_order_and_shared_patients_are_counted_by_pair(tiny, planned) -> None:
    tiny[CLS] |= {
        "class_dataset/test/2/9_005.bmp": noise_picture(11),
        "class_dataset/test/2/7_005.bmp": noise_picture(12),
        "class_dataset/test/2/17.bmp": noise_picture(13),
        "class_dataset/train/2/17.bmp": noise_picture(14),
    }
    plan = planned(tiny, CROPS)
    assert list(plan.splits) == ["train", "validation", "test"]
    assert plan.shared_patients == {"train & validation": 1, "train & test": 2, "validation & test": 1}


@pytest.mark.parametrize(("limit", "counts"), [(0, [0, 0]), (1, [1, 1]), (2, [2, 1]), (9, [2, 1])])
def test_a_plan_is_limited_in_every_split(tiny, planned, limit, counts) -> None:
    plan = planned(tiny, CROPS)
    limited = plan.limited_to(limit)
    assert [limited.num_examples.get(split, 0) for split in plan.splits] == counts
    assert all(unit in plan.units for unit in limited.units)
    assert (limited.config, limited.findings, limited.archives) == (plan.config, plan.findings, plan.archives)


def test_a_unit_of_several_or_an_unknown_number_of_examples(tiny, planned) -> None:
    class Several(ScanUnit):
        @property
        def num_examples(self) -> int | None:
            return {"9": None, "7_20180102": 3}.get(self.source_name, 1)

    plan = planned(tiny, DET3D)
    units = tuple(Several(**{name: getattr(unit, name) for name in unit.__dataclass_fields__}) for unit in plan.units)
    assert [unit.source_name for unit in units] == ["7_20180102", "9", "7_20190304"]
    several = replace(plan, units=units)
    assert several.num_examples == {"train": None}
    assert [len(several.limited_to(limit).units) for limit in (1, 3, 4, 5, 9)] == [1, 1, 2, 3, 3]
    assert replace(plan, units=units[::2]).num_examples == {"train": 4}


def test_a_kind_without_a_family_is_named(tiny, planned) -> None:
    config = replace(get_config(CROPS), name="mine", kind="graph")
    with pytest.raises(UnknownConfigError) as caught:
        family_of(config)
    message = str(caught.value)
    assert "mine is of the kind 'graph', which has no family; expected one of crop, slice, scan, stack" in message
    assert "add_family" in message
    with pytest.raises(ValueError, match="kind: 'crop' has a family already"):
        add_family("crop", family_of(get_config(SLICES)))
    add_family("crop", family_of(get_config(CROPS)))  # the same again


def test_a_split_by_patient_leaves_out_who_has_no_fold(tiny, planned) -> None:
    tiny[CLS] |= {f"class_dataset/train/2/{name}.bmp": noise_picture(int(name)) for name in ("17", "18")}
    plan = planned(tiny, CROPS, "patient")
    splits = {0: "train", 1: "train", 2: "train", 3: "validation", 4: "test"}
    assert {(unit.patient_id, unit.split) for unit in plan.units} == {(each, splits[fold_of(each)]) for each in "79"}
    left_out = [each for each in plan.findings if each.code is Code.NO_FOLD]
    assert left_out == [Finding(Code.NO_FOLD, "left out", Place(CLS), "split by patient", 2)]
    assert set(plan.shared_patients.values()) == {0}
    with pytest.raises(ValueError, match="weekday"):
        planned(tiny, CROPS, "weekday")


def test_a_config_without_examples_names_the_archives_that_are_to_blame(tiny, planned) -> None:
    tiny[CT0], tiny[CT1] = {"a.txt": b"1"}, {"b.txt": b"2", CT1: zip_archive({})}
    with pytest.raises(SourceError) as caught:
        planned(tiny, DET3D)
    error = caught.value
    assert str(error).startswith(f"{CT0}, {CT1}: {DET3D} has no example")
    assert error.got.startswith("no .mhd and no .mha; no .mhd and no .mha; it holds itself once more")
    assert "`lung-nodule-ct inspect` shows what the source contains" in str(error)


def test_one_empty_archive_of_several_does_not_stop_a_plan(tiny, planned) -> None:
    tiny[CT1] = {}
    plan = planned(tiny, DET3D)
    assert len(plan.units) == 2
    assert ("archive-empty", None, None, "nothing is taken from it", 1) in reported(plan)


def test_a_file_that_may_belong_to_a_config_is_a_finding_of_its_plan(tiny, tmp_path) -> None:
    source = tiny.write(tmp_path / "in")
    (source / "1.25mm_3D_detection_mhd_9.zip").write_bytes(zip_archive({"a.mhd": b""}))
    (source / "80_1.mhd").write_bytes(b"")
    (source / "80_2.mhd").write_bytes(b"")
    (source / "notes.txt").write_bytes(b"")
    found = {}
    for name in (DET3D, CROPS):
        plan = make_plan(get_config(name), open_folder(source))
        found[name] = [each for each in plan.findings if each.code is Code.FILE_UNRECOGNISED]
    assert {each.resolution for each in (*found[DET3D], *found[CROPS])} == {"nothing is read from it"}
    assert [(each.place.archive, each.count) for each in found[CROPS]] == [("*.mhd", 2)]
    assert found[CROPS][0].detail == "`lung-nodule-ct inspect` says what it may be"
    (near,) = [each for each in found[DET3D] if each.place.archive != "*.mhd"]
    assert near.count == 1
    assert "; " in near.detail


# --- findings of the kinds ---------------------------------------------------------------------------------------------


def test_the_findings_of_volumes(tiny, planned) -> None:
    tiny[CT1] |= metaimage("7_20180102", noise_volume(9)) | metaimage("7_99999999", noise_volume(10))
    tiny[CT1] |= metaimage("scan", noise_volume(11)) | {"notes.txt": b"1", "orphan.raw": b"2"}
    tiny[MASKS] |= metaimage("absent", np.zeros(SHAPE, np.int16)) | metaimage("SCAN", np.zeros(SHAPE, np.int16))
    tiny[MASKS] |= metaimage("Scan ", np.zeros(SHAPE, np.int16))
    tiny[NODULES] |= {"more.csv": b"1", "read.txt": b"2"}
    tiny[NODULES]["annotations.csv"] = table(
        NODULE_COLUMNS,
        "9,-6,-17,33,3",
        "9,-6,-17,33,3",
        "9.0,-6,-17,33,4",
        "absent,1,2,3,4",
        "9,a,b,c,d",
        "7_20190304,1,2,3,x",
    )
    plan = planned(tiny, DET3D)
    assert [unit.source_name for unit in plan.units] == ["7_20180102", "9", "7_20190304", "7_99999999", "scan"]
    found = reported(plan)
    expected = [
        ("duplicate-id", "7_20180102.mhd", None, "left out, the first is used", 1),
        ("member-unused", "notes.txt, orphan.raw", None, "left out", 2),
        ("mask-without-scan", "absent.mhd", None, "left out", 1),
        ("duplicate-id", "Scan .mhd", None, "left out", 1),
        ("bad-row", "annotations.csv", "line 6: 9,a,b,c,d", "left out", 1),
        ("bad-row", "annotations.csv", "line 7: 7_20190304,1,2,3,x", "left out", 1),
        ("duplicate-annotation", "annotations.csv", "line 3: 9,-6,-17,33,3", "kept", 1),
        ("zeros-lost", "annotations.csv", "line 4: 9.0,-6,-17,33,4", "taken as 9", 1),
        ("duplicate-annotation", "annotations.csv", "line 4: 9.0,-6,-17,33,4", "kept", 1),
        ("annotation-without-image", "annotations.csv", "line 5: absent,1,2,3,4", "left out", 1),
        ("member-unused", "more.csv, read.txt", None, "left out", 2),
        ("image-without-annotation", "7_20180102.mhd", None, "kept, with no nodules", 1),
        ("image-without-annotation", "7_20190304.mhd", None, "kept, with no nodules", 1),
        ("invalid-date", "7_99999999.mhd", None, "treated as undated", 1),
        ("undated-scan", "7_99999999.mhd", None, "timepoint and days_since_first are null", 1),
        ("image-without-annotation", "7_99999999.mhd", None, "kept, with no nodules", 1),
        ("mask-missing", "7_99999999.mhd", None, "lung_mask is null", 1),
        ("no-patient", "scan.mhd", None, "patient_id, scan_id and fold are null", 1),
        ("image-without-annotation", "scan.mhd", None, "kept, with no nodules", 1),
        ("pathology-not-joined", None, None, "their pathology is null", 3),
    ]
    assert sorted(map(repr, found)) == sorted(map(repr, expected))
    archives = {
        (each.place.member, each.place.archive) for each in plan.findings if each.code is not Code.MEMBER_UNUSED
    }
    assert {("7_99999999.mhd", CT1), ("scan.mhd", CT1), ("absent.mhd", MASKS), ("Scan .mhd", MASKS)} <= archives


def test_what_the_unit_of_a_scan_says(tiny, planned) -> None:
    plan = planned(tiny, DET3D)
    first, undated, second = plan.units
    assert (first.patient_id, first.scan_id, first.volume_id, first.fold) == ("7", "7-1", "7-1", fold_of("7"))
    assert (first.timepoint, first.num_timepoints, first.days_since_first) == (0, 2, 0)
    assert (second.timepoint, second.num_timepoints, second.days_since_first) == (1, 2, 426)
    assert (undated.timepoint, undated.num_timepoints, undated.days_since_first) == (0, 1, None)
    assert [member.name for member in first.members] == [
        "7_20180102.mhd",
        "7_20180102.mhd",
        "7_20180102.raw",
        "7_20180102.raw",
    ]
    assert [member.archive for member in first.members] == [CT0, MASKS, CT0, MASKS]
    assert first.packed_bytes == sum(member.packed for member in first.members)
    assert [place.row for place in first.rows] == ["line 2: 7_20180102,-6.0,-17.0,33.0,3"]
    assert (first.pathology, undated.pathology, first.slice_thickness_mm, first.split) == (0, 4, 1.25, "train")
    counted = undated.counted()
    assert (counted.split, counted.patient_id, counted.scan_id, counted.diameters_mm, counted.timepoint) == (
        "train",
        "9",
        "9-1",
        (3.5,),
        0,
    )
    thick = planned(tiny, THICK).units[0]
    assert (thick.mask, thick.mask_data, thick.slice_thickness_mm) == (None, (), 5.0)
    assert [member.name for member in thick.members] == ["7_20180102.mhd", "7_20180102.raw"]


def test_scans_that_are_not_longitudinal_are_one_finding(tiny, planned) -> None:
    tiny[CT1] |= metaimage("7_2018", noise_volume(9)) | metaimage("8_20200101", noise_volume(10))
    plan = planned(tiny, "longitudinal")
    (finding,) = [each for each in plan.findings if each.code is Code.SCAN_NOT_SELECTED]
    assert (finding.resolution, finding.detail) == ("left out", "expected two or more dates of a patient")
    assert finding.place.member == "9.mhd, 7_2018.mhd, 8_20200101.mhd, 9.mhd"
    assert finding.count == 4
    assert [(unit.patient_id, unit.timepoint, unit.slice_thickness_mm) for unit in plan.units] == [
        ("7", 0, 1.25),
        ("7", 0, 5.0),
        ("7", 1, 1.25),
        ("7", 1, 5.0),
    ]


def test_the_findings_of_slices(tiny, planned) -> None:
    for number in range(6):
        tiny[DET2D][f"JPEGImages/n{number}.jpg"] = noise_picture(20 + number, kind="JPEG")
    tiny[DET2D] |= {"JPEGImages/sub/9_004.jpg": noise_picture(30, kind="JPEG"), "other.bmp": noise_picture(31)}
    tiny[DET2D] |= {"Annotations/absent.xml": b"1", "Annotations/9_004 .xml": b"2", "notes.md": b"3", "more.xlsx": b"4"}
    names = ["7_20180102_002", "7_20180102_002", "absent", "7_20190304_003", "9_4"]
    tiny[DET2D] |= split_files(names, ["7_20190304_003"], "ImageSets/Main/")
    tiny[DET2D] |= split_files(["7_20180102_002"], ["9_004"], "images/")
    header = ["image", "left", "ymin", "xmax", "ymax"]
    sheets = {"notes": [["x"]]}
    rows = [header, ["9_004.jpg", 2, 3, 9, 11], ["absent", 1, 2, 3, 4], ["9_004", "x", 1, 2, 3]]
    tiny[DET2D]["VOC_CT.xlsx"] = workbook(rows, more=sheets)
    plan = planned(tiny, SLICES)
    found = reported(plan)
    nulls = "patient_id, scan_id and fold are null"
    xml = "the XML files are used"
    expected = [
        ("duplicate-id", "JPEGImages/sub/9_004.jpg", None, "left out, the first is used", 1),
        ("no-patient", ", ".join(f"JPEGImages/n{number}.jpg" for number in range(5)) + ", …", None, nulls, 6),
        ("annotation-without-image", "Annotations/absent.xml", None, "left out", 1),
        ("duplicate-id", "Annotations/9_004 .xml", None, "left out, Annotations/9_004.xml is used", 1),
        ("table-header-unknown", "VOC_CT.xlsx", "sheet Sheet", "taken by their position: xmin", 1),
        ("table-lines-skipped", "VOC_CT.xlsx", "sheet notes", "this sheet is not read", 1),
        ("listed-but-missing", "ImageSets/Main/train.txt", "line 3: absent", "left out", 1),
        ("listed-but-missing", "ImageSets/Main/train.txt", "line 5: 9_4", "left out", 1),
        ("listed-twice", "ImageSets/Main/val.txt", "line 1: 7_20190304_003", "it stays in train", 1),
        (
            "split-lists-disagree",
            "images/train.txt, images/val.txt",
            None,
            "the lists in imagesets/main are used",
            2,
        ),
        ("not-listed", "9_004, n0, n1, n2, n3, …", None, "they go to the split 'unassigned'", 7),
        ("tables-disagree", "VOC_CT.xlsx", "sheet Sheet, line 3: absent, 1, 2, 3, 4", xml, 1),
        ("tables-disagree", "VOC_CT.xlsx", "sheet Sheet, line 4: 9_004", xml, 1),
        *(("image-without-annotation", f"JPEGImages/n{k}.jpg", None, "kept, with no boxes", 1) for k in range(6)),
        ("member-unused", "other.bmp, notes.md, more.xlsx", None, "left out", 3),
    ]
    assert sorted(map(repr, found)) == sorted(map(repr, expected))
    assert {each.place.archive for each in plan.findings} == {DET2D}
    details = {str(each.code): each.detail for each in plan.findings if each.detail}
    assert details["duplicate-id"] in ("the same name as “JPEGImages/9_004.jpg”", None)
    assert details["split-lists-disagree"] == "these lists assign “7_20190304_003, 9_004” to another split"
    unit = next(unit for unit in plan.units if unit.source_name == "9_004")
    assert [(check.table, check.row, check.boxes) for check in unit.cross_checks] == [
        ("VOC_CT.xlsx", "", ((2, 3, 9, 11),))
    ]
    assert [member.name for member in unit.members] == ["JPEGImages/9_004.jpg", "Annotations/9_004.xml"]
    assert (unit.scan_id, unit.image_id, unit.counted().annotated) == ("9-1", "9-1_004", True)


def test_the_findings_of_stacks(tiny, planned) -> None:
    tiny[BMP0] |= {f"imgs/CaseA/{k}.bmp": noise_picture(k) for k in (2, 4, 7)}
    tiny[BMP1] |= {
        "imgs/00002/notes.txt": b"1",
        "imgs/00002/cover.bmp": b"2",
        "top.bmp": b"3",
        "imgs/00001/3.bmp": b"4",
    }
    header = "pid,zmin,zmax,ymin,ymax,xmin,xmax,diameter"
    tiny[BMP_TABLES]["image_annotation_augment_diameter.csv"] = table(
        header,
        "1,2,4,3,8,5,9,7.5",
        "00001,2,4,3,8,5,9,7.5",
        "00002,1,3,2,6,4,4,x",
        "9,1,2,3,4,5,6,7",
        "00002,a,3,2,6,4,4,1",
    )
    tiny[BMP_TABLES] |= {
        "notes.txt": b"1",
        "other.xlsx": b"2",
        "train.txt": b"00001\nabsent\n",
        "val.txt": b"1\n00002\n",
    }
    del tiny[BMP_TABLES]["train_anno.csv"], tiny[BMP_TABLES]["val_anno.csv"]
    plan = planned(tiny, STACKS)
    main = "image_annotation_augment_diameter.csv"
    expected = [
        ("duplicate-id", "imgs/00001/3.bmp", None, "left out, the first is used", 1),
        ("member-unused", "imgs/00002/notes.txt, top.bmp, imgs/00002/cover.bmp", None, "left out", 3),
        ("slice-gap", "imgs/CaseA/", None, "the available slices are stacked", 3),
        ("bad-row", main, "line 6: 00002,a,3,2,6,4,4,1", "left out", 1),
        ("listed-but-missing", "train.txt", "line 2: absent", "left out", 1),
        ("zeros-lost", "val.txt", "line 1: 1", "taken as 00001", 1),
        ("listed-twice", "val.txt", "line 1: 1", "it stays in train", 1),
        ("member-unused", "notes.txt, other.xlsx", None, "left out", 2),
        ("zeros-lost", main, "line 2: 1,2,4,3,8,5,9,7.5", "taken as 00001", 1),
        ("annotation-without-image", main, "line 5: 9,1,2,3,4,5,6,7", "left out", 1),
        ("duplicate-annotation", main, "line 3: 00001,2,4,3,8,5,9,7.5", "kept", 1),
        ("diameter-unreadable", main, "line 4: 00002,1,3,2,6,4,4,x", "diameter is null", 1),
        ("not-listed", "09001, CaseA", None, "they go to the split 'unassigned'", 2),
        ("no-patient", "imgs/CaseA/", None, "case_id is case-4", 1),
        ("image-without-annotation", "imgs/CaseA/", None, "kept, with no nodules", 1),
        ("image-without-annotation", "imgs/09001/", None, "kept, with no nodules", 1),
    ]
    assert sorted(map(repr, reported(plan))) == sorted(map(repr, expected))
    gap = next(each for each in plan.findings if each.code is Code.SLICE_GAP)
    assert gap.detail == "expected slices 2 to 7, got none of number 3, 5, 6"
    assert {unit.source_name: unit.case_id for unit in plan.units} == {
        "00001": "00001",
        "00002": "00002",
        "09001": "09001",
        "CaseA": "case-4",
    }
    assert [unit.split for unit in plan.units] == ["train", "unassigned", "validation", "unassigned"]
    case = next(unit for unit in plan.units if unit.source_name == "CaseA")
    assert [(number, member.name) for number, member in case.slices] == [
        (number, f"imgs/CaseA/{number}.bmp") for number in (2, 4, 7)
    ]


@pytest.mark.parametrize(
    ("members", "got"),
    [
        ({}, "no members"),
        ({f"{k}.txt": b"" for k in range(7)}, "0.txt, 1.txt, 2.txt, 3.txt, 4.txt"),
        ({"a.csv": b"1", "train_anno.csv": b""}, "no readable row in a.csv, train_anno.csv"),
    ],
)
def test_tables_without_a_box_stop_a_plan(tiny, planned, members, got) -> None:
    tiny[BMP_TABLES] = members
    with pytest.raises(ValueError, match="contains no box") as caught:
        planned(tiny, STACKS)
    assert caught.value.archive == BMP_TABLES
    assert caught.value.got == got
    assert caught.value.expected == "rows of boxes in image_annotation_augment_diameter.csv"


@pytest.mark.parametrize(
    ("members", "got"), [({}, "no members"), ({f"{k}.txt": b"" for k in range(7)}, "0.txt, 1.txt, 2.txt, 3.txt, 4.txt")]
)
def test_an_archive_without_an_annotation_table_stops_a_plan(tiny, planned, members, got) -> None:
    tiny[NODULES] = members
    with pytest.raises(ValueError, match="contains no annotation table") as caught:
        planned(tiny, DET3D)
    assert (caught.value.archive, caught.value.expected, caught.value.got) == (NODULES, "annotations.csv", got)


def test_the_table_of_nodules_is_found_by_its_name(tiny, planned) -> None:
    tiny[NODULES] = {"a.csv": b"", "x/Annotations.CSV": tiny[NODULES]["annotations.csv"]}
    assert [len(unit.nodules) for unit in planned(tiny, DET3D).units] == [1, 1, 1]
    tiny[NODULES] = {"a.csv": tiny[NODULES]["x/Annotations.CSV"]}
    assert [len(unit.nodules) for unit in planned(tiny, DET3D).units] == [1, 1, 1]


# --- equal pixels, inspection -------------------------------------------------------------------------------------------


def test_equal_pixels_are_one_finding_per_group() -> None:
    entries = [Pixels("train", "a.zip", f"t{k}", "one") for k in range(21)] + [Pixels("test", "b.zip", "v", "two")] * 2
    many, two = same_pixels([*entries, Pixels("train", "a.zip", "x", "three")])
    assert (many.code, many.count, many.place.archive, many.resolution) == (
        Code.SAME_PIXELS,
        20,
        "a.zip",
        "kept as published",
    )
    assert many.place.member.endswith("t19 (train), and 1 more")
    assert (two.code, two.place.member) == (Code.SAME_PIXELS, "v (test), v (test)")
    across = same_pixels([Pixels("train", "a.zip", "x", "k"), Pixels("test", "b.zip", "y", "k")])
    assert [(each.code, each.place.archive, each.count) for each in across] == [
        (Code.SAME_PIXELS_IN_TWO_SPLITS, "a.zip, b.zip", 1)
    ]
    assert not same_pixels(Pixels("train", "a.zip", f"t{k}", f"{k}") for k in range(3))


def test_an_inspection_describes_archives_and_configs(tiny, tmp_path) -> None:
    del tiny[BMP2]
    tiny[CT0] |= {"11.mhd": b"", "orphan.raw": b"1"}
    source = tiny.write(tmp_path / "in")
    (source / DET2D).write_bytes(b"not a zip")
    (source / "notes.txt").write_bytes(b"1")
    inspection = inspect_source(open_folder(source))
    document = inspection.document()
    states = {archive["name"]: archive for archive in document["archives"]}
    assert (states[BMP2]["state"], states[DET2D]["state"], states[CT0]["state"]) == ("missing", "unreadable", "found")
    assert (states[BMP2]["location"], states[BMP2]["problem"]) == (None, None)
    assert states[DET2D]["location"] == str(source / DET2D)
    assert DET2D in states[DET2D]["problem"]
    assert (states[CT0]["size"], states[CT0]["members"], states[CT0]["problem"]) == (
        (source / CT0).stat().st_size,
        6,
        None,
    )
    assert states[CT0]["role"] == str(get_config(DET3D).reads[0])
    assert document["source"] == inspection.source
    configs = document["configs"]
    assert set(inspection.plans) == {DET3D, THICK, CROPS, "longitudinal"}
    assert list(configs[SLICES]) == list(configs[STACKS]) == ["problem"]
    assert BMP2 in configs[STACKS]["problem"]
    assert configs[DET3D] == {
        "examples": {"train": 4},
        "patients": 3,
        "scans": 4,
        "timepoints": 4,
        "nodules": 3,
        "shared_patients": {},
        "findings": sum(each.count for each in inspection.plans[DET3D].findings),
    }
    assert (configs[CROPS]["timepoints"], configs[CROPS]["nodules"]) == (None, None)
    assert (configs[CROPS]["patients"], configs[CROPS]["scans"]) == (2, 3)
    unused = [each for each in inspection.plans[DET3D].findings if each.code is Code.MEMBER_UNUSED]
    assert [(each.place.member, each.count) for each in unused] == [("orphan.raw", 1)]
    assert document["names"] == "verbatim"
    assert document["generator"] == "lung-nodule-ct inspect"
    (notes,) = document["unrecognised"]
    assert (notes["name"], notes["archives"], notes["count"]) == ("notes.txt", [], 1)
    assert inspection.figures() == document["figures"]


def test_a_new_report_has_no_uses() -> None:
    uses = PlanReport().uses
    assert (uses.tables, uses.reported, uses.ignored, uses.undecided, uses.rows, dict(uses.left_out)) == (
        (),
        (),
        (),
        (),
        (),
        {},
    )
