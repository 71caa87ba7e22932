"""Tables, lists, annotation files and workbooks whose names, headers and rows are not as they should be, from the archives to the build."""

from __future__ import annotations

import json
import unicodedata

import pytest

import lung_nodule_ct
from lung_nodule_ct.audit import audit_build
from lung_nodule_ct.read.build_folder import open_build
from lung_nodule_ct.testing.archives import (
    BMP0,
    BMP1,
    BMP_TABLES,
    CLS,
    CT0,
    DET2D,
    MASKS,
    NODULE_COLUMNS,
    NODULES,
    metaimage,
    noise_picture,
    noise_volume,
    split_files,
    table,
    voc_annotation,
    workbook,
)
from lung_nodule_ct.testing.synthetic_archives import TinyArchives

DET3D, STACKS, SLICES, CROPS = "det3d_1.25mm", "det3d_bmp_1.25mm", "det2d_1.25mm", "cls_1.25mm"
STEMS = ("7_20180102_002", "7_20190304_003", "9_004")
BOXES = "pid,zmin,zmax,ymin,ymax,xmin,xmax,diameter"


@pytest.fixture
def tiny() -> TinyArchives:
    """Small archives to change."""
    return TinyArchives()


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", ["9.0", "09", "9.MHD", "ct\\9.raw", " 9 ", '"9"', "\uff19"])
def test_a_scan_is_found_however_its_table_writes_it(tiny, tmp_path, build, written) -> None:
    tiny[NODULES]["annotations.csv"] = table(NODULE_COLUMNS, f"{written},-6,-17,33,3.5")
    built = build(tiny.write(tmp_path / "in"), DET3D)
    assert [nodule["diameter_mm"] for nodule in built.by_name(DET3D)["9"]["nodules"]] == [3.5]
    repaired = [finding["action"] for finding in built.findings("zeros-lost")]
    assert repaired == (["taken as “9”"] if written in ("9.0", "09") else [])


def test_rows_and_masks_of_similar_names_are_not_confused(tiny, tmp_path, build) -> None:
    tiny[CT0] |= (
        metaimage("001", noise_volume(50)) | metaimage("0001", noise_volume(51)) | metaimage("02", noise_volume(52))
    )
    tiny[MASKS] |= {f"{name}.mhd": data for name, data in ()} | metaimage("0001", noise_volume(9) * 0)
    tiny[NODULES]["annotations.csv"] = table(
        NODULE_COLUMNS, "001,-6,-17,33,3", "0001,-6,-17,33,4", "1,-6,-17,33,5", "1.0,-6,-17,33,6", "2.0,-6,-17,33,7"
    )
    built = build(tiny.write(tmp_path / "in"), DET3D)
    rows = built.by_name(DET3D)
    assert {name: [nodule["diameter_mm"] for nodule in rows[name]["nodules"]] for name in ("001", "0001", "02")} == {
        "001": [3],
        "0001": [4],
        "02": [7],
    }
    assert (rows["001"]["lung_mask"], rows["0001"]["lung_mask"] is None) == (None, False)
    left_out = built.findings("annotation-without-image")
    assert [finding["row"][:9] for finding in left_out] == ["line 4: 1", "line 5: 1"]
    assert all("001, 0001" in finding["detail"] for finding in left_out)


def test_a_dash_is_not_an_underscore(tiny, tmp_path, build) -> None:
    tiny[CT0] |= metaimage("7-20180102", noise_volume(60))
    tiny[NODULES]["annotations.csv"] = table(NODULE_COLUMNS, "7_20180102,-6,-17,33,3", "7-20180102,-6,-17,33,4")
    built = build(tiny.write(tmp_path / "in"), DET3D)
    rows = built.by_name(DET3D)
    assert [nodule["diameter_mm"] for nodule in rows["7_20180102"]["nodules"]] == [3]
    # the second volume of one day is kept with its own nodule, or left out with a finding, and never replaces the first
    kept = "7-20180102" in rows
    assert len(built.findings("duplicate-id")) == len(built.findings("annotation-without-image")) == (not kept)
    assert not kept or [nodule["diameter_mm"] for nodule in rows["7-20180102"]["nodules"]] == [4]


def test_cases_of_the_same_number_are_not_confused(tiny, tmp_path, build) -> None:
    tiny[BMP0] = {
        f"imgs/{case}/{k}.bmp": noise_picture(70 + k, (20 + len(case), 16))
        for case in ("001", "0001")
        for k in range(3)
    }
    tiny[BMP_TABLES] = {
        "image_annotation_augment_diameter.csv": table(
            BOXES, "001,0,1,3,5,4,8,5", "0001,0,1,3,5,4,8,6", "1.0,0,1,3,5,4,8,7"
        ),
        "train_anno.csv": table(BOXES, "001,0,1,3,5,4,8,5", "0001,0,1,3,5,4,8,6"),
        "train.txt": table("001", "1"),
        "val.txt": table("0001"),
    }
    built = build(tiny.write(tmp_path / "in"), STACKS)
    rows = built.by_name(STACKS)
    assert [nodule["diameter"] for case in ("001", "0001") for nodule in rows[case]["nodules"]] == [5, 6]
    assert [row["source_name"] for row in built.rows(STACKS, "validation")] == ["0001"]
    assert len(built.findings("annotation-without-image")) == len(built.findings("listed-but-missing")) == 1
    assert [finding["row"] for finding in built.findings("tables-disagree")] == ["line 4: 1.0,0,1,3,5,4,8,7"]


@pytest.mark.parametrize(
    "pattern",
    ["IMG ({}).bmp", "img [{}].BMP", "slice({}).bmp", "\uff23\uff34 \uff08{}\uff09.bmp", "ct {} .bmp", "a_{}.BMP"],
)
def test_slices_are_numbered_in_brackets_and_after_blanks(tiny, tmp_path, build, pattern) -> None:
    plain = build(tiny.write(tmp_path / "plain"), STACKS).by_name(STACKS)["00001"]["volume"]
    tiny[BMP0] = {f"imgs/00001/{pattern.format(k)}": noise_picture(1 + k) for k in range(11)}
    built = build(tiny.write(tmp_path / "in"), STACKS)
    assert built.by_name(STACKS)["00001"]["volume"] == plain
    assert not built.findings("member-unused")


def test_the_copy_of_a_slice_is_not_another_slice(tiny, tmp_path, build) -> None:
    tiny[BMP0] = {"imgs/00001/3 (1).bmp": noise_picture(99)} | tiny[BMP0]
    built = build(tiny.write(tmp_path / "in"), STACKS)
    assert built.by_name(STACKS)["00001"]["volume"]["shape"] == [11, 16, 20]
    assert [finding["member"] for finding in built.findings("member-unused")] == ["imgs/00001/3 (1).bmp"]


@pytest.mark.parametrize(
    "written", ["imgs/00001/", "imgs\\00001\\", "00001 ", "1.0", "\ufeff00001", "00001  # checked", "IMGS/00001"]
)
def test_a_case_is_found_however_a_list_writes_it(tiny, tmp_path, build, written) -> None:
    tiny[BMP_TABLES]["train.txt"] = table("09001").replace(b"\n", b"\r\n")
    tiny[BMP_TABLES]["val.txt"] = f"{written}\r\n00002\r\n".encode()
    built = build(tiny.write(tmp_path / "in"), STACKS)
    assert [row["source_name"] for row in built.rows(STACKS, "validation")] == ["00001", "00002"]
    assert len(built.findings("zeros-lost")) == (written == "1.0")


@pytest.mark.parametrize("stem", ["7_20200101 (1)", "7_20200101_é1", "7_20200101 1", "7_20200101_A"])
def test_an_image_is_found_by_its_list_xml_and_workbook(tiny, tmp_path, build, stem) -> None:
    other = unicodedata.normalize("NFD", stem).upper() if "é" in stem or "A" in stem else stem
    tiny[DET2D] |= {
        f"JPEGImages/{stem}.jpg": noise_picture(80, kind="JPEG"),
        f"Annotations/{other}.XML": voc_annotation((2, 3, 9, 11)),
    }
    tiny[DET2D] |= split_files(STEMS, [other.lower()], "ImageSets/Main/")
    header = ["image", "xmin", "ymin", "xmax", "ymax"]
    tiny[DET2D]["VOC_CT.xlsx"] = workbook([header, *([f"{name}.JPG", 2, 3, 9, 11] for name in (*STEMS, other))])
    built = build(tiny.write(tmp_path / "in"), SLICES)
    (row,) = built.rows(SLICES, "validation")
    assert (row["source_name"], len(row["objects"])) == (stem, 1)
    codes = (
        "tables-disagree",
        "listed-but-missing",
        "not-listed",
        "annotation-without-image",
        "image-without-annotation",
    )
    assert [code for code in codes if built.findings(code)] == []


def test_two_xml_files_of_one_image_are_reported_and_the_exact_name_is_used(tiny, tmp_path, build) -> None:
    tiny[DET2D] = {"Annotations/7_20180102_002 .xml": voc_annotation((1, 1, 2, 2))} | tiny[DET2D]
    built = build(tiny.write(tmp_path / "in"), SLICES)
    assert built.by_name(SLICES)[STEMS[0]]["objects"][0]["bbox"] == [2, 3, 9, 11]
    assert [finding["member"] for finding in built.findings("duplicate-id")] == ["Annotations/7_20180102_002 .xml"]


def test_folders_and_files_in_capitals_are_the_same(tiny, tmp_path, build) -> None:
    plain = build(tiny.write(tmp_path / "plain"), SLICES, CROPS, STACKS)
    rows = {config: plain.rows(config) for config in (SLICES, STACKS)}
    labels = [(row["label"], row["image"]) for row in plain.rows(CROPS, "train")]
    for archive in (CLS, DET2D, BMP0, BMP_TABLES):
        tiny[archive] = {
            "/".join([*map(str.upper, name.split("/")[:-1]), name.split("/")[-1]]): data
            for name, data in tiny[archive].items()
        }
    tiny[DET2D] = {name.replace(".txt", ".TXT"): data for name, data in tiny[DET2D].items()}
    tiny[CLS] = {name.replace("TRAIN", "Train"): data for name, data in tiny[CLS].items()}
    built = build(tiny.write(tmp_path / "in"), SLICES, CROPS, STACKS)
    assert {config: built.rows(config) for config in (SLICES, STACKS)} == rows
    assert [(row["label"], row["image"]) for row in built.rows(CROPS, "train")] == labels
    assert not built.findings("member-unused")


@pytest.mark.parametrize("written", ["7-20180102", "7_2018-01-02.mhd", "scans/7-2018-01-02"])
def test_a_row_names_a_scan_as_a_file_may(tiny, tmp_path, build, written) -> None:
    tiny[NODULES]["annotations.csv"] = table(NODULE_COLUMNS, f"{written},-6,-17,33,3.5")
    built = build(tiny.write(tmp_path / "in"), DET3D)
    assert [nodule["diameter_mm"] for nodule in built.by_name(DET3D)["7_20180102"]["nodules"]] == [3.5]
    assert not built.findings("annotation-without-image")


@pytest.mark.parametrize(
    ("config", "archive", "member", "line", "taken", "unread"),
    [
        (STACKS, BMP_TABLES, "train.txt", "00001 09001", "00001", "09001"),
        (STACKS, BMP_TABLES, "train.txt", "00001\t09001", "00001", "09001"),
        (STACKS, BMP_TABLES, "train.txt", "00001 2", "00001", "2"),
        (STACKS, BMP_TABLES, "train.txt", "imgs/00001/ imgs/09001/", "00001", "imgs/09001/"),
        (STACKS, BMP_TABLES, "train.txt", "imgs\\00001 imgs\\09001", "00001", "imgs\\09001"),
        (SLICES, DET2D, "ImageSets/Main/train.txt", "9_004.jpg 7_20190304_003.jpg", "9_004", "7_20190304_003.jpg"),
        (SLICES, DET2D, "ImageSets/Main/train.txt", "9_004.jpg, 9_005.jpg", "9_004", "9_005.jpg"),
        (SLICES, DET2D, "ImageSets/Main/train.txt", "9_004.jpg 1,2,3,4 9_005", "9_004", "9_005"),
        (SLICES, DET2D, "ImageSets/Main/train.txt", "9_004 12 14", "9_004", "12 14"),
        (SLICES, DET2D, "ImageSets/Main/train.txt", "9_004.jpg 1,2,3", "9_004", "1,2,3"),
    ],
)
def test_what_follows_a_name_in_a_list_is_read_or_reported(
    tiny, tmp_path, build, config, archive, member, line, taken, unread
) -> None:
    tiny[archive][member] = f"{line}\n".encode()
    built = build(tiny.write(tmp_path / "in"), config)
    (finding,) = [each for each in built.findings("bad-row") if each["member"] == member]
    assert (finding["archive"], finding["action"]) == (archive, f"taken as “{taken}”")
    assert finding["row"].startswith("line 1: ")
    assert f"got also “{unread}”" in finding["detail"]
    assert taken in {row["source_name"] for row in built.rows(config, "train")}
    assert not built.findings("not-accounted-for")


@pytest.mark.parametrize("line", ["9_004 1", "9_004.jpg -1", "my data/JPEGImages/9_004 # seen 2", "D:/my data/x/9_004"])
def test_classes_comments_and_paths_with_blanks_are_no_second_name(tiny, tmp_path, build, line) -> None:
    tiny[DET2D]["ImageSets/Main/train.txt"] = f"{line}\n".encode()
    built = build(tiny.write(tmp_path / "in"), SLICES)
    assert not built.findings("bad-row")
    assert "9_004" in {row["source_name"] for row in built.rows(SLICES, "train")}


@pytest.mark.parametrize("config", [SLICES, STACKS])
def test_a_name_in_two_lists_is_reported_and_stays_in_the_first(tiny, tmp_path, build, config) -> None:
    if config == SLICES:
        tiny[DET2D] |= split_files(STEMS, [STEMS[2]], "ImageSets/Main/")
        name, lists = STEMS[2], "ImageSets/Main/val.txt"
    else:
        tiny[BMP_TABLES] |= split_files(["00001", "09001"], ["1", "00002"])
        name, lists = "00001", "val.txt"
    built = build(tiny.write(tmp_path / "in"), config)
    assert name in {row["source_name"] for row in built.rows(config, "train")}
    assert name not in {row["source_name"] for row in built.rows(config, "validation")}
    twice = [(finding["member"], finding["action"]) for finding in built.findings("listed-twice")]
    assert twice == [(lists, "it stays in train")]


@pytest.mark.parametrize(
    ("counts", "mismatch"),
    [("1: 1", []), ("1: 0", ["line 2: 1: 0"]), ("1: 2", ["line 2: 1: 2"]), ("1: 1,001", ["line 2: 1: 1,001"])],
)
def test_a_published_count_is_compared_whether_it_is_higher_or_lower(tiny, tmp_path, build, counts, mismatch) -> None:
    tiny[CLS]["class_dataset/read_me.TXT"] = table("Train:", counts)
    built = build(tiny.write(tmp_path / "in"), CROPS)
    assert [finding["row"] for finding in built.findings("count-mismatch")] == mismatch
    assert not built.findings("cross-check-impossible")


# --- rows -------------------------------------------------------------------------------------------------------------


def test_a_nodule_without_a_diameter_keeps_its_centre_and_is_audited(tiny, tmp_path, build) -> None:
    tiny[NODULES]["annotations.csv"] = table(
        "seriesuid,coordX,coordY,coordZ,class", "9,-6,-17,33,1", "7_20180102,-6,-17,33,0"
    )
    built = build(tiny.write(tmp_path / "in"), DET3D)
    (nodule,) = built.by_name(DET3D)["9"]["nodules"]
    assert (nodule["center_world"], nodule["diameter_mm"], nodule["box_voxel"]) == ([-6, -17, 33], None, None)
    (finding,) = built.findings("diameter-unreadable")
    assert (finding["count"], finding["member"]) == (2, "annotations.csv")
    assert len(built.findings("table-header-unknown")) == 1
    assert audit_build(open_build(built.folder)).checks


def test_rows_of_one_archive_are_counted_beyond_the_first_hundred(tiny, tmp_path, build, cli) -> None:
    tiny[NODULES]["annotations.csv"] += b"9,1,?,3,4\n" * 5000 + b"absent,1,2,3,4\n" * 5000
    tiny[DET2D]["ImageSets/Main/train.txt"] += b"absent\n" * 5000
    tiny[DET2D]["Annotations/9_004.xml"] = voc_annotation(*[(1, 1, 0, 0)] * 900)
    source = tiny.write(tmp_path / "in")
    built = build(source, DET3D, SLICES)
    summary = built.report["summary"]
    assert (
        summary["bad-row"]["count"]
        == summary["annotation-without-image"]["count"]
        == summary["listed-but-missing"]["count"]
        == 5000
    )
    assert summary["box-inverted"]["count"] == 900
    assert {
        len(built.findings(code))
        for code in ("bad-row", "annotation-without-image", "listed-but-missing", "box-inverted")
    } == {101}
    assert len(json.dumps(built.report)) < 300_000
    done = cli("inspect", "--source", source)
    assert "bad-row x 5,000" in done.stdout
    assert "4,995 more" in done.stdout
    assert len(done.stdout) < 20_000


def test_texts_of_findings_are_bounded(tiny, tmp_path, build) -> None:
    tiny[DET2D]["Annotations/9_004.xml"] = voc_annotation((2, 3, 9, 11), name="x" * 1_000_000, filename="y" * 1_000_000)
    tiny[DET2D]["ImageSets/Main/train.txt"] += b"z" * 1_000_000
    built = build(tiny.write(tmp_path / "in"), SLICES)
    assert len(json.dumps(built.report)) < 20_000


def test_a_table_beyond_the_limit_is_an_error_that_names_it(tiny, tmp_path, cli, monkeypatch) -> None:
    monkeypatch.setattr("lung_nodule_ct.formats.tables.MAX_ROWS", 2)
    done = cli("build", DET3D, "--source", tiny.write(tmp_path / "in"), "--out", tmp_path / "out")
    assert done.returncode == 1
    assert f"{NODULES} > annotations.csv: exceeds a limit" in done.stderr
    assert "more than 2 rows" in done.stderr
    assert "download" not in done.stderr


# --- annotation files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("xml", "detail"),
    [
        (voc_annotation((2, 3, 9, 11), filename="R&D.jpg"), "well-formed"),
        (voc_annotation((2, 3, 9, 11))[:-20], "well-formed"),
        (b"", "well-formed"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', "entities"),
        (voc_annotation(*[(2, 3, 9, 11)] * 1001), "more than 1,000 boxes"),
    ],
)
@pytest.mark.parametrize("format_", ["parquet", "arrow"])
def test_an_image_whose_annotation_cannot_be_read_is_left_out_and_the_build_goes_on(
    tiny, tmp_path, build, xml, detail, format_
) -> None:
    tiny[DET2D]["Annotations/9_004.xml"] = xml
    built = build(tiny.write(tmp_path / "in"), SLICES, format=format_)
    (finding,) = built.findings("annotation-unreadable")
    assert (finding["grade"], finding["archive"], finding["member"]) == ("error", DET2D, "Annotations/9_004.xml")
    assert detail in finding["detail"]
    assert "download" not in finding["detail"]
    assert open_build(built.folder).configs[SLICES] == {"train": 1, "validation": 1}


def test_a_split_whose_images_are_all_left_out_does_not_exist(tiny, tmp_path, build) -> None:
    import datasets

    tiny[DET2D][f"Annotations/{STEMS[1]}.xml"] = b"<annotation>"
    built = build(tiny.write(tmp_path / "in"), SLICES)
    assert open_build(built.folder).configs[SLICES] == {"train": 2}
    loaded = datasets.load_dataset(str(built.folder), SLICES)
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 2}
    assert len(built.findings("annotation-unreadable")) == 1
    prepared = lung_nodule_ct.load(SLICES, source=tmp_path / "in")
    assert {split: len(rows) for split, rows in prepared.items()} == {"train": 2}


def test_every_box_of_an_object_is_used_and_unusual_content_is_reported(tiny, tmp_path, build) -> None:
    second = b"<bndbox><xmin>4</xmin><ymin>4</ymin><xmax>8</xmax><ymax>9</ymax></bndbox><polygon/></object>"
    tiny[DET2D]["Annotations/9_004.xml"] = voc_annotation((2, 3, 9, 11)).replace(b"</object>", second)
    built = build(tiny.write(tmp_path / "in"), SLICES)
    assert [entry["bbox"] for entry in built.by_name(SLICES)["9_004"]["objects"]] == [[2, 3, 9, 11], [4, 4, 8, 9]]
    unusual = {finding["detail"]: finding["action"] for finding in built.findings("annotation-unusual")}
    assert unusual == {
        "an object has 2 boxes": "each is used as a box of its own",
        "an element “polygon” in <object>": "not read",
    }


@pytest.mark.parametrize(("size", "mismatch"), [((20, 16), 0), ((20, 17), 1), ((21, 16), 1), ((16, 20), 1)])
def test_width_and_height_of_the_xml_are_compared_with_the_image(tiny, tmp_path, build, size, mismatch) -> None:
    tiny[DET2D]["Annotations/9_004.xml"] = voc_annotation((2, 3, 9, 11), size=size)
    built = build(tiny.write(tmp_path / "in"), SLICES)
    assert len(built.findings("image-size-mismatch")) == mismatch


def test_a_workbook_of_several_sheets_agrees_with_the_xml(tiny, tmp_path, build) -> None:
    header = ["", "file name", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"]
    rows = [[number, f"{stem}.jpg", 20, 16, "nodule", "2", 3.0, 9, 11] for number, stem in enumerate(STEMS)]
    tiny[DET2D]["VOC_CT.xlsx"] = workbook(
        [["boxes"], header, *rows[:1]], more={"more": [header, *rows[1:]], "notes": [["done"]]}
    )
    built = build(tiny.write(tmp_path / "in"), SLICES)
    assert not built.findings("tables-disagree") + built.findings("cross-check-impossible")
    assert [finding["row"] for finding in built.findings("table-lines-skipped")] == ["sheet “notes”"]


def test_slices_of_two_cases_never_become_one_stack(tiny, tmp_path, build) -> None:
    slices = {f"{name}.bmp": noise_picture(number) for number, name in enumerate(("1", "2", "3"))}
    tiny[BMP0] = {f"imgs/00001/axial/{name}": data for name, data in slices.items()}
    tiny[BMP1] = {f"imgs/00002/axial/{name}": data for name, data in slices.items()}
    tiny[BMP1] |= {f"more/00002/axial/{number}.bmp": noise_picture(9) for number in (4, 5)}
    built = build(tiny.write(tmp_path / "in"), "det3d_bmp_1.25mm")
    shapes = {row["case_id"]: row["volume"]["shape"][0] for row in built.rows("det3d_bmp_1.25mm")}
    assert (shapes["00001"], shapes["00002"]) == (3, 3)
    assert [finding["member"] for finding in built.findings("duplicate-id")] == [
        "more/00002/axial/4.bmp",
        "more/00002/axial/5.bmp",
    ] or [finding["member"] for finding in built.findings("duplicate-id")] == [
        "<name>/00002/<name>/4.bmp",
        "<name>/00002/<name>/5.bmp",
    ]


@pytest.mark.parametrize("name", ["-1", "1.5", "20170203"])
def test_what_is_not_the_number_of_a_slice_is_reported(tiny, tmp_path, build, name) -> None:
    tiny[BMP0][f"imgs/00001/{name}.bmp"] = noise_picture(99)
    built = build(tiny.write(tmp_path / "in"), "det3d_bmp_1.25mm")
    assert [row["volume"]["shape"][0] for row in built.rows("det3d_bmp_1.25mm")] == [11] * 3
    assert built.findings("member-unused")
    assert not built.findings("slice-gap")


def test_an_image_whose_annotation_is_too_large_is_left_out(tiny, tmp_path, build) -> None:
    tiny[DET2D]["Annotations/9_004.xml"] = b"<annotation>" + b" " * (5 << 20) + b"</annotation>"
    built = build(tiny.write(tmp_path / "in"), "det2d_1.25mm")
    assert len(built.rows("det2d_1.25mm")) == 2
    (finding,) = built.findings("annotation-unreadable")
    assert "more than 4,194,304" in finding["detail"]
