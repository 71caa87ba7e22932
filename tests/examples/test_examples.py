"""Rows and findings of every config. Each test changes the archives for one rule."""

from __future__ import annotations

import itertools
import zipfile
import zlib

import numpy as np
import pytest
import SimpleITK as sitk
from scan_rows import voxels

from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.testing.archives import (
    BMP0,
    BMP2,
    BMP_TABLES,
    CLS,
    CT0,
    CT1,
    DET2D,
    FRAME,
    MASKS,
    NODULE_COLUMNS,
    NODULES,
    SHAPE,
    THICK1,
    THICK_NODULES,
    metaimage,
    metaimage_header,
    noise_picture,
    noise_volume,
    split_files,
    table,
    voc_annotation,
    workbook,
    zip_archive,
)
from lung_nodule_ct.testing.synthetic_archives import TinyArchives

DET3D = "det3d_1.25mm"
THICK = "det3d_5mm"


@pytest.fixture
def tiny() -> TinyArchives:
    return TinyArchives()


# --- timepoints -------------------------------------------------------------------------------------------------------


def times(rows: list[dict]) -> dict[str, tuple]:
    return {row["source_name"]: (row["timepoint"], row["num_timepoints"], row["days_since_first"]) for row in rows}


def test_timepoints_count_the_dates_of_both_slice_thicknesses_together(tiny, tmp_path, build) -> None:
    del tiny[THICK1]["7_20190304.mhd"], tiny[THICK1]["7_20190304.raw"]
    tiny[THICK1] |= metaimage("7_20180601", noise_volume(1, (2, 10, 12)))
    built = build(tiny.write(tmp_path / "in"), DET3D, THICK, "longitudinal")
    assert times(built.rows(DET3D)) == {"7_20180102": (0, 3, 0), "7_20190304": (2, 3, 426), "9": (0, 1, None)}
    assert times(built.rows(THICK)) == {"7_20180102": (0, 3, 0), "7_20180601": (1, 3, 150), "9": (0, 1, None)}
    keys = [(row["patient_id"], row["timepoint"], row["slice_thickness_mm"]) for row in built.rows("longitudinal")]
    assert keys == [("7", 0, 1.25), ("7", 0, 5.0), ("7", 1, 5.0), ("7", 2, 1.25)]


def test_dates_in_the_names_of_slices_and_crops_are_not_timepoints(tiny, tmp_path, build) -> None:
    tiny[DET2D]["JPEGImages/9_20200101_001.jpg"] = noise_picture(kind="JPEG")
    tiny[CLS]["class_dataset/train/5/9_20200102_001.bmp"] = noise_picture(9)
    built = build(tiny.write(tmp_path / "in"), DET3D)
    assert times(built.rows(DET3D))["9"] == (0, 1, None)


def test_an_undated_scan_next_to_dated_scans_has_no_timepoint(tiny, tmp_path, build) -> None:
    tiny[CT1] |= metaimage("7", noise_volume(8))
    built = build(tiny.write(tmp_path / "in"), DET3D, "longitudinal")
    assert times(built.rows(DET3D))["7"] == (None, 2, None)
    assert [finding["member"] for finding in built.findings("undated-scan")] == ["7.mhd"]
    assert "7" not in built.by_name("longitudinal")
    assert len({row["scan_id"] for row in built.rows(DET3D)}) == 4


def test_several_undated_scans_of_a_patient_have_no_timepoint(tiny, tmp_path, build) -> None:
    tiny[CT0] |= {
        **metaimage("6_201903", noise_volume(1)),
        **metaimage("6_201911", noise_volume(2)),
        **metaimage("8", noise_volume(3)),
    }
    built = build(tiny.write(tmp_path / "in"), DET3D)
    found = times(built.rows(DET3D))
    assert (found["6_201903"], found["6_201911"], found["8"]) == ((None, None, None), (None, None, None), (0, 1, None))
    assert len(built.findings("undated-scan")) == 2


@pytest.mark.parametrize("name", ["7_20181301", "7_20190230", "7_99999999", "7_201903"])
def test_an_invalid_date_is_a_finding(tiny, tmp_path, build, name) -> None:
    tiny[CT1] |= metaimage(name, noise_volume(8))
    built = build(tiny.write(tmp_path / "in"), DET3D)
    assert times(built.rows(DET3D))[name] == (None, 2, None)
    assert built.by_name(DET3D)[name]["patient_id"] == "7"
    assert len(built.findings("invalid-date")) == 1


def test_longitudinal_rows_have_unique_keys_and_exclude_patients_with_one_date(tiny, tmp_path, build) -> None:
    tiny[CT1] |= metaimage("8_20200101", noise_volume(8))
    built = build(tiny.write(tmp_path / "in"), "longitudinal")
    rows = built.rows("longitudinal")
    assert {row["patient_id"] for row in rows} == {"7"}
    keys = [(row["scan_id"], row["slice_thickness_mm"]) for row in rows]
    assert len(set(keys)) == len(keys) == 4


# --- context ----------------------------------------------------------------------------------------------------------


def test_a_missing_context_archive_makes_its_columns_null(tiny, tmp_path, build) -> None:
    for name in (THICK1, CLS):
        del tiny[name]
    built = build(tiny.write(tmp_path / "in"), DET3D)
    for row in built.rows(DET3D):
        assert (row["timepoint"], row["num_timepoints"], row["days_since_first"]) == (None, None, None)
        assert [nodule["pathology"] for nodule in row["nodules"]] == [None]
        assert row["scan_id"]
        assert row["fold"] is not None
    missing = {(finding["archive"], finding["action"]) for finding in built.findings("context-missing")}
    assert missing == {
        (THICK1, "timepoint, num_timepoints and days_since_first are null"),
        (CLS, "pathology is null"),
        (f"{CLS}, {THICK1}", "the numbers in scan_id are counted without it"),
    }


def test_pathology_is_joined_if_it_is_unambiguous(tiny, tmp_path, build) -> None:
    built = build(tiny.write(tmp_path / "in"), DET3D, THICK)
    assert {name: row["nodules"][0]["pathology"] for name, row in built.by_name(DET3D).items()} == {
        "7_20180102": 0,
        "7_20190304": 0,
        "9": 4,
    }
    assert not built.findings("pathology-not-joined")


@pytest.mark.parametrize("reason", ["two classes", "two nodules", "no class", "a row that cannot be read"])
def test_pathology_is_null_if_it_is_ambiguous(tiny, tmp_path, build, reason) -> None:
    if reason == "two classes":
        tiny[CLS]["class_dataset/validate/2/7_20180102_001_01.bmp"] = noise_picture(9)
    elif reason == "two nodules":
        for name in (NODULES, THICK_NODULES):
            tiny[name]["annotations.csv"] += b"7_20180102,-5,-16,32,2\n7_20190304,-5,-16,32,2\n"
    elif reason == "a row that cannot be read":
        for name in (NODULES, THICK_NODULES):
            tiny[name]["annotations.csv"] += b"7_20180102,-5,-16,?,2\n7_20190304,-5,?,32,2\n"
    else:
        tiny[CLS] = {name: data for name, data in tiny[CLS].items() if "/7_" not in name}
    built = build(tiny.write(tmp_path / "in"), DET3D)
    pathology = {name: [n["pathology"] for n in row["nodules"]] for name, row in built.by_name(DET3D).items()}
    assert pathology["9"] == [4]
    assert set(pathology["7_20180102"] + pathology["7_20190304"]) == {None}
    (finding,) = built.findings("pathology-not-joined")
    assert finding["count"] == len(pathology["7_20180102"] + pathology["7_20190304"])


# --- identity ---------------------------------------------------------------------------------------------------------


def test_keys_join_the_configs(tiny, tmp_path, build) -> None:
    built = build(tiny.write(tmp_path / "in"), "cls_1.25mm", "det2d_1.25mm", DET3D, THICK, "longitudinal")
    thin = {row["source_name"]: row for row in built.rows(DET3D)}
    for row in built.rows("det2d_1.25mm"):
        scan = thin[row["source_name"].rpartition("_")[0]]
        assert (row["scan_id"], row["patient_id"], row["fold"]) == (scan["scan_id"], scan["patient_id"], scan["fold"])
    for config in (THICK, "longitudinal"):
        for row in built.rows(config):
            assert row["scan_id"] == thin[row["source_name"]]["scan_id"]
    assert {row["scan_id"] for row in built.rows("cls_1.25mm")} == {row["scan_id"] for row in thin.values()}


def test_a_name_without_a_patient_gives_null_patient_scan_and_fold(tiny, tmp_path, build) -> None:
    tiny[DET2D]["JPEGImages/00012.jpg"] = noise_picture(5, kind="JPEG")
    tiny[CLS]["class_dataset/train/2/17.bmp"] = noise_picture(6)
    built = build(tiny.write(tmp_path / "in"), "cls_1.25mm", "det2d_1.25mm")
    for config, name in (("det2d_1.25mm", "00012"), ("cls_1.25mm", "train/2/17")):
        row = built.by_name(config)[name]
        assert (row["patient_id"], row["scan_id"], row["fold"]) == (None, None, None)
        assert row["image_id"]
    assert len(built.findings("no-patient")) == 2


def test_a_second_volume_of_one_patient_and_date_is_a_duplicate(tiny, tmp_path, build) -> None:
    tiny[CT1] |= metaimage("7_20180102", noise_volume(99))
    built = build(tiny.write(tmp_path / "in"), DET3D)
    assert (voxels(built.by_name(DET3D)["7_20180102"]) == noise_volume(1)).all()
    (finding,) = built.findings("duplicate-id")
    assert (finding["archive"], finding["member"]) == (CT1, "7_20180102.mhd")


def test_extra_top_folders_and_system_files_change_nothing(tiny, tmp_path, build) -> None:
    plain = build(tiny.write(tmp_path / "in"), *ALL)
    rows = {config: plain.rows(config) for config in ALL}
    for name, members in tiny.items():
        tiny[name] = {f"top/{name[:-4]}/{member}": data for member, data in members.items()}
        tiny[name] |= {"__MACOSX/top/._x.mhd": b"", "top/.DS_Store": b"1"}
    wrapped = build(tiny.write(tmp_path / "wrapped"), *ALL)
    assert {config: wrapped.rows(config) for config in ALL} == rows
    assert not wrapped.findings("member-unused")


ALL = ("cls_1.25mm", "det2d_1.25mm", DET3D, THICK, "longitudinal", "det3d_bmp_1.25mm")


# --- volumes ----------------------------------------------------------------------------------------------------------


def test_the_geometry_of_volumes_and_nodules_equals_that_of_itk(tiny, tmp_path, build) -> None:
    rotated = Frame((5, -8, 30), FRAME.spacing, (0, -1, 0, 1, 0, 0, 0, 0, 1))
    tiny[CT0] |= metaimage("7_20180102", noise_volume(1), rotated)
    tiny[NODULES]["annotations.csv"] = table(NODULE_COLUMNS, "7_20180102,2.5,-5.25,33.1,4.2")
    row = build(tiny.write(tmp_path / "in"), DET3D).by_name(DET3D)["7_20180102"]
    for name, data in metaimage("7_20180102", noise_volume(1), rotated).items():
        (tmp_path / name).write_bytes(data)
    image = sitk.ReadImage(str(tmp_path / "7_20180102.mhd"))
    assert (voxels(row) == sitk.GetArrayFromImage(image)).all()
    assert (tuple(row["spacing"]), tuple(row["origin"]), tuple(row["direction"])) == (
        image.GetSpacing(),
        image.GetOrigin(),
        image.GetDirection(),
    )
    (nodule,) = row["nodules"]
    index = np.array(image.TransformPhysicalPointToContinuousIndex((2.5, -5.25, 33.1)))
    np.testing.assert_allclose(nodule["center_voxel"], index, atol=1e-6)
    reach = 2.1 / np.array(image.GetSpacing())
    box = np.concatenate([np.ceil(index - reach), np.floor(index + reach) + 1])
    size = np.array(image.GetSize())
    assert nodule["box_voxel"] == np.concatenate([box[:3].clip(0), np.minimum(box[3:], size)]).astype(int).tolist()


@pytest.mark.parametrize("kind", ["MET_USHORT", "MET_UCHAR", "MET_FLOAT", "MET_INT", "MET_DOUBLE"])
def test_other_element_types_are_converted_to_int16_exactly(tiny, tmp_path, build, kind) -> None:
    dtype = {"MET_USHORT": "<u2", "MET_UCHAR": "u1", "MET_FLOAT": "<f4", "MET_INT": "<i4", "MET_DOUBLE": "<f8"}[kind]
    values = np.abs(noise_volume(5)) % 250
    tiny[CT0]["9.mhd"] = metaimage_header("9", ElementType=kind)
    tiny[CT0]["9.raw"] = values.astype(dtype).tobytes()
    built = build(tiny.write(tmp_path / "in"), DET3D)
    assert (voxels(built.by_name(DET3D)["9"]) == values).all()
    assert not built.findings("intensity-rounded") + built.findings("intensity-clipped")


def test_intensities_that_do_not_fit_are_reported(tiny, tmp_path, build) -> None:
    values = noise_volume(5).astype("<f4")
    values[0, 0, :3] = (0.4, 40000, -99999)
    tiny[CT0]["9.mhd"], tiny[CT0]["9.raw"] = metaimage_header("9", ElementType="MET_FLOAT"), values.tobytes()
    built = build(tiny.write(tmp_path / "in"), DET3D)
    assert voxels(built.by_name(DET3D)["9"])[0, 0, :3].tolist() == [0, 32767, -32768]
    assert len(built.findings("intensity-rounded")) == len(built.findings("intensity-clipped")) == 1


@pytest.mark.parametrize("kind", ["<f4", "<f8"])
def test_intensities_are_rounded_to_the_nearest(tiny, tmp_path, build, kind) -> None:
    values = noise_volume(5).astype(kind)
    values[0, 0, :7] = (0.6, -0.6, 1.5, 2.5, -1.2, 32767.4, -32768.4)
    element = {"<f4": "MET_FLOAT", "<f8": "MET_DOUBLE"}[kind]
    tiny[CT0]["9.mhd"], tiny[CT0]["9.raw"] = metaimage_header("9", ElementType=element), values.tobytes()
    built = build(tiny.write(tmp_path / "in"), DET3D)
    assert voxels(built.by_name(DET3D)["9"])[0, 0, :7].tolist() == [1, -1, 2, 2, -1, 32767, -32768]
    (finding,) = built.findings("intensity-rounded")
    assert (finding["archive"], finding["member"]) == (CT0, "9.mhd")
    assert finding["detail"] == f"7 voxels of {np.dtype(kind)}"
    assert not built.findings("intensity-clipped")


@pytest.mark.parametrize(
    ("kind", "value", "stored"),
    [
        ("MET_INT", 32767, 32767),
        ("MET_INT", 32768, 32767),
        ("MET_INT", -32768, -32768),
        ("MET_INT", -32769, -32768),
        ("MET_USHORT", 32768, 32767),
    ],
)
def test_intensities_beyond_int16_are_clipped(tiny, tmp_path, build, kind, value, stored) -> None:
    values = np.abs(noise_volume(5)).astype("<i4" if kind == "MET_INT" else "<u2")
    values[3, 4, 5] = value
    tiny[CT0]["9.mhd"], tiny[CT0]["9.raw"] = metaimage_header("9", ElementType=kind), values.tobytes()
    built = build(tiny.write(tmp_path / "in"), DET3D)
    assert voxels(built.by_name(DET3D)["9"])[3, 4, 5] == stored
    assert [finding["detail"] for finding in built.findings("intensity-clipped")] == [f"1 voxels of {values.dtype}"] * (
        value != stored
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_volume_with_an_element_that_is_not_a_number_is_refused(tiny, tmp_path, cli, value) -> None:
    values = noise_volume(5).astype("<f4")
    values[5, 9, 11] = value
    tiny[CT0]["9.mhd"], tiny[CT0]["9.raw"] = metaimage_header("9", ElementType="MET_FLOAT"), values.tobytes()
    done = cli("build", DET3D, "--source", tiny.write(tmp_path / "in"), "--out", tmp_path / "out")
    assert done.returncode == 1
    assert f"{CT0} > 9.mhd: the volume has elements that are not numbers" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_transposed_mask_is_null(tiny, tmp_path, build) -> None:
    labels = np.zeros(SHAPE, np.int16)
    labels[2, 3:5, 3:8] = 3
    tiny[MASKS] |= metaimage("9", np.ascontiguousarray(labels.transpose(0, 2, 1)))
    built = build(tiny.write(tmp_path / "in"), DET3D)
    assert built.by_name(DET3D)["9"]["lung_mask"] is None
    (finding,) = built.findings("mask-shape")
    assert (finding["archive"], finding["member"]) == (MASKS, "9.mhd")
    assert finding["detail"] == "expected shape (6, 10, 12) (z, y, x), got (6, 12, 10)"


def test_every_voxel_of_unusual_labels_is_counted(tiny, tmp_path, build) -> None:
    labels = np.zeros(SHAPE, np.int16)
    labels[0, 0, :9] = (1, 2, 5, 6, 8, 9, 10, 11, 255)
    labels[1] = 7
    labels[2, 0, :2] = 12
    tiny[MASKS] |= metaimage("9", labels)
    built = build(tiny.write(tmp_path / "in"), DET3D)
    (seven,), (other,) = built.findings("mask-label-7"), built.findings("mask-label-unknown")
    assert (seven["detail"], seven["member"]) == ("120 voxels", "9.mhd")
    first = (1, 2, 5, 6, 8, 9, 10, 11)  # eight are listed
    assert other["detail"] == ", ".join(f"label {label}: 1 voxels" for label in first)
    tiny[MASKS] |= metaimage("9", np.full(SHAPE, 256, np.int16))
    built = build(tiny.write(tmp_path / "in"), DET3D)
    (values,) = built.findings("mask-values")
    assert values["detail"].startswith("values from 256 to 256")


def test_ids_of_nodules_start_at_zero_in_the_order_of_the_table(tiny, tmp_path, build) -> None:
    tiny[NODULES]["annotations.csv"] = table(
        NODULE_COLUMNS, "9,-6,-17,33,3", "7_20190304,-6,-17,33,3", "9,-6,-17,32,3", "9,-6,-17,31,3"
    )
    tiny[CT0] |= metaimage("b scan", noise_volume(8)) | metaimage("a scan", noise_volume(9))
    tiny[NODULES]["annotations.csv"] += b"b scan,-6,-17,31,3\n"
    built = build(tiny.write(tmp_path / "in"), DET3D, THICK)
    rows = built.by_name(DET3D)
    ids = {name: [nodule["nodule_id"] for nodule in row["nodules"]] for name, row in rows.items()}
    assert ids == {
        "7_20180102": [],
        "7_20190304": ["7-2_1.25mm_0"],
        "9": ["9-1_1.25mm_0", "9-1_1.25mm_1", "9-1_1.25mm_2"],
        "a scan": [],
        "b scan": ["volume-5_1.25mm_0"],  # its rank among all volumes of the set
    }
    assert [nodule["nodule_id"] for nodule in built.by_name(THICK)["7_20180102"]["nodules"]] == ["7-1_5mm_0"]


def test_a_mask_keeps_its_labels_or_is_null(tiny, tmp_path, build) -> None:
    labels = np.zeros(SHAPE, np.int16)
    labels[2, 3:5, 3:5], labels[3], labels[4, 4, 4] = 7, 3, 9
    tiny[MASKS] |= metaimage("7_20180102", labels, Frame((999, 999, 999), FRAME.spacing))
    tiny[MASKS] |= metaimage("7_20190304", noise_volume(3))
    tiny[MASKS] |= metaimage("9", labels[:-1])
    tiny[MASKS] |= metaimage("10", labels)
    built = build(tiny.write(tmp_path / "in"), DET3D)
    rows = built.by_name(DET3D)
    assert (voxels(rows["7_20180102"], "lung_mask", "u1") == labels).all()
    assert rows["7_20190304"]["lung_mask"] is None
    assert rows["9"]["lung_mask"] is None
    counts = {
        code: len(built.findings(code))
        for code in ("mask-label-7", "mask-label-unknown", "mask-values", "mask-shape", "mask-without-scan")
    }
    assert set(counts.values()) == {1}, counts


@pytest.mark.parametrize(
    ("dtype", "label"),
    [
        (dtype, label)
        for dtype in ("i1", "u1", "<i2", ">i2", "<u2", "<i4", "<f4")
        for label in (0, 1, 2, 3, 4, 5, 7, 127, -1)
        if label >= 0 or "u" not in dtype
    ],
)
def test_every_label_of_a_mask_is_kept_or_reported(tiny, tmp_path, build, label, dtype) -> None:
    labels = np.full(SHAPE, 3, dtype)
    labels[4, 5, 6] = label
    kind = {"i1": "MET_CHAR", "u1": "MET_UCHAR", "<u2": "MET_USHORT", "<i4": "MET_INT", "<f4": "MET_FLOAT"}
    fields = {"ElementType": kind.get(dtype, "MET_SHORT"), "BinaryDataByteOrderMSB": str(dtype[0] == ">")}
    tiny[MASKS] |= {"9.mhd": metaimage_header("9", **fields), "9.raw": labels.tobytes()}
    built = build(tiny.write(tmp_path / "in"), DET3D)
    row = built.by_name(DET3D)["9"]
    expected = {0: None, 3: None, 4: None, 7: "mask-label-7", -1: "mask-values"}.get(label, "mask-label-unknown")
    codes = ("mask-label-7", "mask-label-unknown", "mask-values")
    assert [code for code in codes if built.findings(code)] == ([expected] if expected else [])
    if label < 0:
        assert row["lung_mask"] is None
    else:
        assert (voxels(row, "lung_mask", "u1") == labels).all()


def test_equal_voxels_are_found_in_every_storage_format(tiny, tmp_path, build) -> None:
    volume = noise_volume(77)
    tiny[CT0] |= metaimage("301", volume)
    tiny[CT0] |= {
        "302.mhd": metaimage_header("302", BinaryDataByteOrderMSB="True"),
        "302.raw": volume.astype(">i2").tobytes(),
    }
    tiny[CT0] |= {
        "303.mhd": metaimage_header("303", ElementType="MET_FLOAT"),
        "303.raw": volume.astype("<f4").tobytes(),
    }
    compressed = zlib.compress(volume.tobytes())
    tiny[CT0] |= {
        "304.mhd": metaimage_header("304", CompressedData="True", ElementDataFile="304.zraw"),
        "304.zraw": compressed,
    }
    tiny[CT0]["305.mha"] = metaimage_header("305", ElementDataFile="LOCAL") + volume.tobytes()
    tiny[CT0] |= {"306.mhd": metaimage_header("306"), "306.raw": volume.tobytes() + b"more"}
    other = volume.copy()
    other[0, 0, 0] += 1
    tiny[CT0] |= metaimage("307", other)
    (finding,) = build(tiny.write(tmp_path / "in"), DET3D).findings("same-pixels")
    assert finding["count"] == 5
    assert all(name in finding["member"] for name in ("301", "302", "303", "304", "305", "306"))


def test_a_fractional_or_large_mask_is_null(tiny, tmp_path, build) -> None:
    for stem, value in (("9", 2.5), ("7_20180102", 300.0), ("7_20190304", float("nan"))):
        mask = np.full(SHAPE, value, "<f4")
        tiny[MASKS] |= {f"{stem}.mhd": metaimage_header(stem, ElementType="MET_FLOAT"), f"{stem}.raw": mask.tobytes()}
    built = build(tiny.write(tmp_path / "in"), DET3D)
    assert [row["lung_mask"] for row in built.rows(DET3D)] == [None] * 3
    assert len(built.findings("mask-values")) == 3


def test_data_files_that_are_too_long_are_used_and_reported(tiny, tmp_path, build) -> None:
    tiny[CT0]["9.raw"] += b"12"
    tiny[MASKS]["9.raw"] += b"1"
    built = build(tiny.write(tmp_path / "in"), "det3d_1.25mm")
    volume, mask = built.findings("data-file-too-long")
    assert (volume["grade"], volume["archive"], volume["member"]) == ("error", CT0, "9.mhd")
    assert volume["detail"] == "9.raw: expected 1,440 bytes (DimSize 12 x 10 x 6, 2 bytes per element), got 1,442"
    assert volume["action"] == "its first 1,440 bytes are used, as ITK does"
    assert (mask["archive"], mask["member"]) == (MASKS, "9.mhd")
    (row,) = [row for row in built.rows("det3d_1.25mm") if row["source_name"] == "9"]
    assert row["volume"]["bytes"] == tiny[CT0]["9.raw"][:-2]
    assert row["lung_mask"] is not None


@pytest.mark.parametrize(
    ("frame", "code", "words"),
    [
        (FRAME, "mask-frame", []),
        (Frame((9, 9, 9), FRAME.spacing), "mask-frame", []),
        (
            Frame(FRAME.origin, FRAME.spacing, (1, 0, 0, 0, -1, 0, 0, 0, -1)),
            "mask-turned",
            ["direction 1 0 0 0 1 0 0 0 1", "-1"],
        ),
        (Frame(FRAME.origin, FRAME.spacing, (0, 1, 0, 1, 0, 0, 0, 0, 1)), "mask-turned", ["direction"]),
        (Frame(FRAME.origin, FRAME.spacing, (0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1)), "mask-frame", ["direction"]),
        (
            Frame(FRAME.origin, (0.8, 0.7, 2.5)),
            "mask-frame",
            ["expected spacing 0.8 0.7 1.25 as in the scan, got 0.8 0.7 2.5"],
        ),
    ],
)
def test_a_mask_in_another_frame_than_its_scan_is_reported(tiny, tmp_path, build, frame, code, words) -> None:
    labels = np.zeros(SHAPE, np.int16)
    labels[1:3, 4, 5:9] = 3
    tiny[MASKS] |= metaimage("9", labels, frame)
    built = build(tiny.write(tmp_path / "in"), DET3D)
    findings = built.findings(code)
    assert {entry["grade"] for entry in findings} <= {"warning" if code == "mask-turned" else "note"}
    assert [(entry["archive"], entry["member"]) for entry in findings] == [(MASKS, "9.mhd")] * bool(words)
    assert all(word in entry["detail"] for entry in findings for word in words)
    assert (voxels(built.by_name(DET3D)["9"], "lung_mask", "u1") == labels).all()


def test_a_header_that_names_the_data_file_of_another_scan_is_reported(tiny, tmp_path, build) -> None:
    tiny[CT0]["9.mhd"] = metaimage_header("9", ElementDataFile="7_20180102.raw")
    built = build(tiny.write(tmp_path / "in"), DET3D)
    (finding,) = built.findings("data-file-of-another-name")
    assert (finding["archive"], finding["member"]) == (CT0, "9.mhd")
    assert finding["action"] == "7_20180102.raw is used, as ITK does, and 9.raw is not"
    rows = built.by_name(DET3D)
    assert rows["9"]["volume"] == rows["7_20180102"]["volume"]


def test_a_missing_mask_is_null_and_reported(tiny, tmp_path, build) -> None:
    del tiny[MASKS]["9.mhd"], tiny[MASKS]["9.raw"]
    built = build(tiny.write(tmp_path / "in"), DET3D, THICK)
    assert built.by_name(DET3D)["9"]["lung_mask"] is None
    assert {row["lung_mask"] for row in built.rows(THICK)} == {None}
    assert len(built.findings("mask-missing")) == 1


def test_nodules_that_no_voxel_shows_and_invalid_rows_are_reported(tiny, tmp_path, build) -> None:
    tiny[NODULES]["annotations.csv"] = table(
        NODULE_COLUMNS,
        "9.mhd,-6,-17,33,3",  # a name with its extension
        "9,500,500,500,3",
        "9,-6.4,-17.35,33.1,0.1",
        "9,-6,-17,33,0",
        "9,-10,-20,30,4",
        "9,-10,-20,30,4",
        "absent,1,2,3,4",
        "9,a,b,c,d",
    )
    built = build(tiny.write(tmp_path / "in"), DET3D)
    row = built.by_name(DET3D)["9"]
    boxes = [nodule["box_voxel"] for nodule in row["nodules"]]
    assert boxes[1:4] == [None, None, None]
    assert boxes[4] == boxes[5] == [0, 0, 0, 3, 3, 2]
    assert row["nodules"][1]["center_voxel"] == pytest.approx([637.5, 742.857143, 376])
    assert len({nodule["nodule_id"] for nodule in row["nodules"]}) == 6
    for code in (
        "nodule-outside-volume",
        "nodule-between-voxels",
        "diameter-not-positive",
        "annotation-without-image",
        "bad-row",
    ):
        assert len(built.findings(code)) == 1, code
    assert len(built.findings("duplicate-annotation")) == 3  # one row twice, and two rows within 1 mm of the first
    assert len(built.findings("image-without-annotation")) == 2


# --- 2D ---------------------------------------------------------------------------------------------------------------


def test_2d_boxes_are_kept_or_dropped_and_never_changed(tiny, tmp_path, build) -> None:
    tiny[DET2D]["Annotations/9_004.xml"] = voc_annotation(
        (1, 2, 5, 4),
        (1.5, 2, "007", 4),
        (5, 2, 5, 9),
        (5, 9, 8, 2),
        (-3, -3, 4, 4),
        (30, 2, 40, 9),
        (20, 2, 25, 9),
        (-5, 2, 0, 9),
        (2, 3, 25, 9),
        ("x", 1, 2, 3),
        (1, 2, "1e39", 4),
    )
    built = build(tiny.write(tmp_path / "in"), "det2d_1.25mm")
    objects = built.by_name("det2d_1.25mm")["9_004"]["objects"]
    assert [entry["bbox"] for entry in objects] == [[1, 2, 5, 4], [1.5, 2, 7, 4], [-3, -3, 4, 4], [2, 3, 25, 9]]
    assert [entry["area"] for entry in objects] == [8, 11, 49, 138]
    counts = {
        code: len(built.findings(code)) for code in ("box-inverted", "box-outside", "box-partly-outside", "bad-row")
    }
    assert counts == {"box-inverted": 2, "box-outside": 3, "box-partly-outside": 2, "bad-row": 2}


@pytest.mark.parametrize(
    ("box", "code"),
    [
        ((0, 0, 20, 16), None),  # the complete image, which has 20 x 16 pixels
        ((19, 15, 20, 16), None),
        ((-1, 0, 20, 16), "box-partly-outside"),
        ((0, -1, 20, 16), "box-partly-outside"),
        ((0, 0, 21, 16), "box-partly-outside"),
        ((0, 0, 20, 17), "box-partly-outside"),
        ((20, 0, 21, 16), "box-outside"),
        ((0, 16, 20, 17), "box-outside"),
        ((-2, 0, 0, 16), "box-outside"),
        ((0, -2, 20, 0), "box-outside"),
        ((-2, 0, 1, 16), "box-partly-outside"),
        ((0, -2, 20, 1), "box-partly-outside"),
        ((3, 3, 3, 9), "box-inverted"),
        ((3, 3, 9, 3), "box-inverted"),
    ],
)
def test_a_2d_box_may_end_at_the_border_of_its_image(tiny, tmp_path, build, box, code) -> None:
    tiny[DET2D]["Annotations/9_004.xml"] = voc_annotation(box)
    built = build(tiny.write(tmp_path / "in"), "det2d_1.25mm")
    codes = ("box-partly-outside", "box-outside", "box-inverted")
    assert [each for each in codes if built.findings(each)] == ([code] if code else [])
    objects = built.by_name("det2d_1.25mm")["9_004"]["objects"]
    kept = code in (None, "box-partly-outside")
    area = (box[2] - box[0]) * (box[3] - box[1])
    assert objects == [{"bbox": list(box), "category": 0, "area": area}] * kept


def test_a_duplicated_2d_box_is_kept_and_reported(tiny, tmp_path, build) -> None:
    tiny[DET2D]["Annotations/9_004.xml"] = voc_annotation((1, 2, 5, 4), (1, 2, 5, 4))
    built = build(tiny.write(tmp_path / "in"), "det2d_1.25mm")
    assert [entry["bbox"] for entry in built.by_name("det2d_1.25mm")["9_004"]["objects"]] == [[1, 2, 5, 4]] * 2
    assert len(built.findings("duplicate-annotation")) == 1


def test_an_image_is_kept_if_all_its_boxes_are_dropped(tiny, tmp_path, build) -> None:
    tiny[DET2D]["Annotations/9_004.xml"] = voc_annotation((5, 2, 5, 9), filename="elsewhere/other.jpg", size=(99, 99))
    tiny[DET2D]["Annotations/7_20180102_002.xml"] = voc_annotation((1, 2, 3, 4), name="mass")
    tiny[DET2D]["Annotations/absent.xml"] = voc_annotation((1, 2, 3, 4))
    del tiny[DET2D]["Annotations/7_20190304_003.xml"]
    built = build(tiny.write(tmp_path / "in"), "det2d_1.25mm")
    assert [row["objects"] for row in built.rows("det2d_1.25mm")] == [[], [], []]
    for code in (
        "box-inverted",
        "image-size-mismatch",
        "stale-file-name",
        "object-unknown",
        "annotation-without-image",
        "image-without-annotation",
    ):
        assert len(built.findings(code)) == 1, code


def test_2d_rows_are_as_published(tiny, tmp_path, build) -> None:
    tiny[DET2D]["Annotations/9_004.xml"] = voc_annotation((1, 2, 5, 4), filename="9_004", size=(0, 0))
    built = build(tiny.write(tmp_path / "in"), "det2d_1.25mm")
    for row in built.rows("det2d_1.25mm"):
        assert row["image"] == {"bytes": tiny[DET2D][f"JPEGImages/{row['source_name']}.jpg"], "path": None}
        assert (row["width"], row["height"]) == (20, 16)
    assert not built.findings("stale-file-name") + built.findings("image-size-mismatch")


STEMS = ["7_20180102_002", "7_20190304_003", "9_004"]
LIST_FOLDERS = ["ImageSets/Main/", "ImageSets/", "", "images/"]


def test_empty_split_lists_are_not_used(tiny, tmp_path, build) -> None:
    tiny[DET2D] |= split_files([], [], "ImageSets/Main/") | split_files(STEMS[:2], STEMS[2:], "ImageSets/")
    built = build(tiny.write(tmp_path / "in"), "det2d_1.25mm")
    assert [row["source_name"] for row in built.rows("det2d_1.25mm", "train")] == STEMS[:2]
    assert len(built.findings("split-lists-disagree")) == 1


def test_split_lists_may_be_at_another_depth_than_images(tiny, tmp_path, build) -> None:
    tiny[DET2D] = {
        name if name.startswith("ImageSets") else f"some/folder/{name}": data for name, data in tiny[DET2D].items()
    }
    built = build(tiny.write(tmp_path / "in"), "det2d_1.25mm")
    assert not built.rows("det2d_1.25mm", "unassigned")
    assert not built.findings("member-unused")


@pytest.mark.parametrize("first", range(4))
def test_split_lists_are_found_in_every_folder_and_the_first_is_used(tiny, tmp_path, build, first) -> None:
    tiny[DET2D] = {name: data for name, data in tiny[DET2D].items() if not name.startswith("ImageSets")}
    for rank, folder in enumerate(LIST_FOLDERS[first:]):
        order = STEMS if rank == 0 else STEMS[::-1]
        listed = [
            f"JPEGImages/{s}.jpg" if folder == "images/" else f"D:\\x\\{s}.jpg 2,3,9,11" if folder == "" else s
            for s in order
        ]
        tiny[DET2D] |= split_files(listed[:2], listed[2:], folder)
    built = build(tiny.write(tmp_path / "in"), "det2d_1.25mm")
    assert [row["source_name"] for row in built.rows("det2d_1.25mm", "train")] == STEMS[:2]
    assert [row["source_name"] for row in built.rows("det2d_1.25mm", "validation")] == STEMS[2:]
    assert len(built.findings("split-lists-disagree")) == 3 - first


def test_duplicate_missing_and_unlisted_names_of_split_lists_are_reported(tiny, tmp_path, build) -> None:
    tiny[DET2D] |= split_files(["7_20180102_002", "absent"], ["7_20180102_002", "9_004"], "ImageSets/Main/")
    built = build(tiny.write(tmp_path / "in"), "det2d_1.25mm")
    assert {
        split: [row["source_name"] for row in built.rows("det2d_1.25mm", split)]
        for split in ("train", "validation", "unassigned")
    } == {
        "train": ["7_20180102_002"],
        "validation": ["9_004"],
        "unassigned": ["7_20190304_003"],
    }
    for code in ("listed-twice", "listed-but-missing", "not-listed"):
        assert len(built.findings(code)) == 1, code


def test_the_xml_is_compared_with_the_workbook_and_with_listed_boxes(tiny, tmp_path, build) -> None:
    rows = [
        ["image", "a", "b", "c", "d"],
        ["9_004.jpg", 2, 3, 9, 12],
        ["7_20180102_002", 2, 3, 9, 11],
        ["absent.jpg", 1, 2, 3, 4],
    ]
    tiny[DET2D]["VOC_CT.xlsx"] = workbook(rows)
    tiny[DET2D]["Annotations/7_20180102_002.xml"] = voc_annotation((2, 3, 9, 11), (1, 1, 2, 2))
    rows.append(["7_20180102_002", 1, 1, 2, 2])
    tiny[DET2D]["VOC_CT.xlsx"] = workbook(rows)
    one_box_per_line = [f"{STEMS[0]}.jpg 2,3,9,11", f"{STEMS[0]}.jpg 1,1,2,2", f"{STEMS[1]}.jpg 2 3 9 11"]
    tiny[DET2D] |= split_files(one_box_per_line, [f"{STEMS[2]}.jpg 2,3,9,11 1,1,2,2"])
    built = build(tiny.write(tmp_path / "in"), "det2d_1.25mm")
    found = {(finding["member"], finding["row"]) for finding in built.findings("tables-disagree")}
    assert found == {
        ("VOC_CT.xlsx", "line 4: absent.jpg, 1, 2, 3, 4"),
        ("VOC_CT.xlsx", None),
        ("val.txt", "line 1: 9_004.jpg 2,3,9,11 1,1,2,2"),
    }
    assert len(built.findings("tables-disagree")) == 4  # 9_004 differs and 7_20190304_003 is not in the workbook


def test_a_damaged_workbook_only_prevents_the_comparison(tiny, tmp_path, build) -> None:
    tiny[DET2D]["VOC_CT.xlsx"] = zip_archive({"xl/workbook.xml": b"<x/>"})
    built = build(tiny.write(tmp_path / "in"), "det2d_1.25mm")
    assert len(built.rows("det2d_1.25mm")) == 3
    assert len(built.findings("cross-check-impossible")) == 1


# --- crops ------------------------------------------------------------------------------------------------------------


def test_crops_are_labelled_by_folder_and_their_counts_are_compared(tiny, tmp_path, build) -> None:
    tiny[CLS]["class_dataset/READ_ME.txt"] = table("train:", "  1: 1", "5: 2", "test:", "1: 1")
    tiny[CLS]["class_dataset/train/7/9_009.bmp"] = noise_picture(8)
    built = build(tiny.write(tmp_path / "in"), "cls_1.25mm")
    assert {(row["source_name"], row["label"], row["malignant"]) for row in built.rows("cls_1.25mm")} == {
        ("train/1/7_20180102_003_01", 0, True),
        ("train/5/9_001_02", 4, False),
        ("validate/1/7_20190304_003_03", 0, True),
    }
    assert [finding["row"] for finding in built.findings("count-mismatch")] == ["line 3: 5: 2"]
    assert [finding["member"] for finding in built.findings("member-unused")] == ["class_dataset/train/7/9_009.bmp"]


def test_equal_pixels_are_found_in_every_encoding(tiny, tmp_path, build) -> None:
    import io

    from PIL import Image

    published = tiny[CLS]["class_dataset/train/1/7_20180102_003_01.bmp"]
    colour = io.BytesIO()
    Image.open(io.BytesIO(published)).convert("RGB").save(colour, "PNG")
    tiny[CLS]["class_dataset/validate/3/9_002_02.png"] = colour.getvalue()
    tiny[CLS]["class_dataset/train/5/9_002_03.bmp"] = tiny[CLS]["class_dataset/train/5/9_001_02.bmp"]
    built = build(tiny.write(tmp_path / "in"), "cls_1.25mm")
    (across,), (within,) = built.findings("same-pixels-in-two-splits"), built.findings("same-pixels")
    assert across["member"] == "train/1/7_20180102_003_01 (train), validate/3/9_002_02 (validation)"
    assert within["member"] == "train/5/9_001_02 (train), train/5/9_002_03 (train)"


# --- stacks -----------------------------------------------------------------------------------------------------------


def slices_of(tiny: TinyArchives, archive: str, pid: str) -> list[bytes]:
    return [tiny[archive][f"imgs/{pid}/{k}.bmp"] for k in range(11)]


def test_slices_of_stacks_are_in_numeric_order_and_boxes_are_half_open(tiny, tmp_path, build) -> None:
    import io

    from PIL import Image

    built = build(tiny.write(tmp_path / "in"), "det3d_bmp_1.25mm")
    rows = built.by_name("det3d_bmp_1.25mm")
    assert set(rows) == {"00001", "00002", "09001"}
    expected = np.stack([np.asarray(Image.open(io.BytesIO(data))) for data in slices_of(tiny, BMP0, "00001")])
    assert (voxels(rows["00001"], dtype="u1") == expected).all()
    assert rows["00001"]["nodules"] == [
        {"box_voxel": [5, 3, 2, 10, 9, 5], "center_voxel": [7, 5.5, 3], "diameter": 7.5}
    ]
    assert rows["00002"]["nodules"][0]["box_voxel"] == [4, 2, 1, 5, 7, 4]
    assert rows["09001"]["nodules"][0]["box_voxel"] == [0, 0, 0, 20, 16, 11]
    assert {row["augmented"] for row in rows.values()} == {row["fold"] for row in rows.values()} == {None}
    assert [row["source_name"] for row in built.rows("det3d_bmp_1.25mm", "validation")] == ["00002"]
    assert built.report["findings"] == []


def test_z_follows_from_the_number_in_the_name_of_the_slice(tiny, tmp_path, build) -> None:
    tiny[BMP0] = {
        f"imgs/00001/{k + 5:04d}.bmp": data for k, data in enumerate(slices_of(tiny, BMP0, "00001")) if k != 2
    }
    tiny[BMP_TABLES]["image_annotation_augment_diameter.csv"] = table(
        "pid,zmin,zmax,ymin,ymax,xmin,xmax,diameter",
        "00001,6,9,0,15,0,19,7",
        "00001,0,2,0,1,0,1,7",
        "00001,3,5,0,1,0,1,7",
    )
    built = build(tiny.write(tmp_path / "in"), "det3d_bmp_1.25mm")
    boxes = [nodule["box_voxel"] for nodule in built.by_name("det3d_bmp_1.25mm")["00001"]["nodules"]]
    assert boxes == [[0, 0, 1, 20, 16, 4], None, [0, 0, 0, 2, 2, 1]]
    assert (
        len(built.findings("slice-gap"))
        == len(built.findings("nodule-outside-volume"))
        == len(built.findings("box-partly-outside"))
        == 1
    )


def test_a_box_of_a_stack_may_end_at_the_border(tiny, tmp_path, build) -> None:
    tiny[BMP_TABLES][MAIN_TABLE] = table(
        "pid,zmin,zmax,ymin,ymax,xmin,xmax,diameter",
        "00001,10,10,15,15,19,19,1",
        "00001,0,0,0,0,0,0,1",
        "00001,0,11,0,15,0,19,1",
        "00001,0,10,0,16,0,19,1",
        "00001,0,10,0,15,-1,19,1",
        "00001,11,11,0,15,0,19,1",
    )
    built = build(tiny.write(tmp_path / "in"), "det3d_bmp_1.25mm")
    nodules = built.by_name("det3d_bmp_1.25mm")["00001"]["nodules"]
    whole = [0, 0, 0, 20, 16, 11]
    assert [nodule["box_voxel"] for nodule in nodules] == [
        [19, 15, 10, 20, 16, 11],
        [0, 0, 0, 1, 1, 1],
        whole,
        whole,
        whole,
        None,
    ]
    assert [nodule["center_voxel"] for nodule in nodules[:3]] == [[19, 15, 10], [0, 0, 0], [9.5, 7.5, 5.5]]
    outside = [finding["row"][:7] for finding in built.findings("box-partly-outside")]
    assert outside == ["line 4:", "line 5:", "line 6:"]
    assert {finding["detail"] for finding in built.findings("box-partly-outside")} == {
        "the volume has 20 x 16 x 11 voxels"
    }
    assert [finding["row"][:7] for finding in built.findings("nodule-outside-volume")] == ["line 7:"]


def test_invalid_boxes_and_split_lists_of_stacks_are_reported(tiny, tmp_path, build) -> None:
    tiny[BMP_TABLES] |= {
        "image_annotation_augment_diameter.csv": table(
            "pid,z_min,z_max,y_min,y_max,x_min,x_max,diameter",
            "1,2,4,3,8,5,9,7.5",
            "00002,1,3,2,6,4,4,7.5",
            "00002,3,1,2,6,4,4,7.5",
            "00002,1,3,2,99,4,4,7.5",
            "00002,90,93,2,9,4,4,7.5",
            "77777,1,3,2,9,4,4,7.5",
            "0²,1,3,2,9,4,4,7.5",
            "00002,1,3,2,x,4,4,7.5",
            "00002,1,3,2,7,4,4,nan",
        ),
        "train.txt": table("00001", "88888"),
        "val.txt": table("1", "00002"),
    }
    del tiny[BMP_TABLES]["train_anno.csv"], tiny[BMP_TABLES]["val_anno.csv"]
    built = build(tiny.write(tmp_path / "in"), "det3d_bmp_1.25mm")
    rows = built.by_name("det3d_bmp_1.25mm")
    assert rows["00001"]["nodules"][0]["box_voxel"] == [5, 3, 2, 10, 9, 5]
    assert [nodule["box_voxel"] for nodule in rows["00002"]["nodules"]] == [
        [4, 2, 1, 5, 7, 4],
        [4, 2, 1, 5, 16, 4],
        None,
        [4, 2, 1, 5, 8, 4],
    ]
    assert rows["00002"]["nodules"][3]["diameter"] is None
    assert rows["00002"]["nodules"][2]["center_voxel"] == [4, 5.5, 91.5]
    assert len(built.findings("zeros-lost")) == 2
    for code in (
        "diameter-unreadable",
        "box-inverted",
        "box-partly-outside",
        "nodule-outside-volume",
        "bad-row",
        "listed-twice",
        "listed-but-missing",
        "not-listed",
        "image-without-annotation",
    ):
        assert len(built.findings(code)) == 1, code
    assert len(built.findings("annotation-without-image")) == 2
    assert [row["source_name"] for row in built.rows("det3d_bmp_1.25mm", "unassigned")] == ["09001"]


def test_tables_of_the_splits_are_compared_and_replace_missing_lists(tiny, tmp_path, build) -> None:
    del tiny[BMP_TABLES]["train.txt"], tiny[BMP_TABLES]["val.txt"]
    tiny[BMP_TABLES]["anno_val.csv"] = tiny[BMP_TABLES].pop("val_anno.csv").replace(b"2,6", b"2,7")
    built = build(tiny.write(tmp_path / "in"), "det3d_bmp_1.25mm")
    assert [row["source_name"] for row in built.rows("det3d_bmp_1.25mm", "validation")] == ["00002"]
    assert len(built.findings("tables-disagree")) == 2


MAIN_TABLE = "image_annotation_augment_diameter.csv"


@pytest.mark.parametrize("main", [None, b"", b"pid,zmin,zmax,ymin,ymax,xmin,xmax,diameter\n", b"a,b\n1,2\n"])
def test_a_replacement_of_the_main_table_is_reported(tiny, tmp_path, build, main) -> None:
    del tiny[BMP_TABLES][MAIN_TABLE]
    if main is not None:
        tiny[BMP_TABLES][MAIN_TABLE] = main
    built = build(tiny.write(tmp_path / "in"), "det3d_bmp_1.25mm")
    nodules = [nodule for row in built.by_name("det3d_bmp_1.25mm").values() for nodule in row["nodules"]]
    assert nodules
    assert {nodule["diameter"] for nodule in nodules} == {None}
    assert len(built.findings("table-stands-in")) == 1
    assert [finding["member"] for finding in built.findings("table-empty")] == [MAIN_TABLE] * (main is not None)


@pytest.mark.parametrize("content", [b"", f"{NODULE_COLUMNS}\n".encode(), b"\n\n"])
def test_an_empty_table_is_a_finding_that_names_it(tiny, tmp_path, build, content) -> None:
    tiny[NODULES]["annotations.csv"] = content
    built = build(tiny.write(tmp_path / "in"), DET3D)
    assert [(finding["archive"], finding["member"]) for finding in built.findings("table-empty")] == [
        (NODULES, "annotations.csv")
    ]


def test_a_case_in_two_tables_is_not_reported_as_missing_from_the_main_table(tiny, tmp_path, build) -> None:
    tables = tiny[BMP_TABLES]
    tables["val_anno.csv"] += tables["train_anno.csv"].split(b"\n", 1)[1]
    built = build(tiny.write(tmp_path / "in"), "det3d_bmp_1.25mm")
    assert built.findings("listed-twice")
    assert not built.findings("tables-disagree")


def test_a_disagreement_of_split_lists_and_tables_is_reported(tiny, tmp_path, build) -> None:
    tiny[BMP_TABLES]["train.txt"], tiny[BMP_TABLES]["val.txt"] = b"00001\n", b"00002\n09001\n"
    built = build(tiny.write(tmp_path / "in"), "det3d_bmp_1.25mm")
    assert [row["source_name"] for row in built.rows("det3d_bmp_1.25mm", "validation")] == ["00002", "09001"]
    assert len(built.findings("split-lists-disagree")) == 1


def test_a_case_may_be_in_several_archives_and_be_marked_as_augmented(tiny, tmp_path, build) -> None:
    tiny[BMP2] |= {f"imgs/00001/{k}.bmp": tiny[BMP0].pop(f"imgs/00001/{k}.bmp") for k in range(5)}
    tiny[BMP2]["imgs/00001/7.bmp"] = noise_picture(77)
    lines = tiny[BMP_TABLES]["image_annotation_augment_diameter.csv"].decode().split()
    tiny[BMP_TABLES]["image_annotation_augment_diameter.csv"] = table(
        f"{lines[0]},augmented", f"{lines[1]},0", f"{lines[2]},", f"{lines[3]},1"
    )
    built = build(tiny.write(tmp_path / "in"), "det3d_bmp_1.25mm")
    rows = built.by_name("det3d_bmp_1.25mm")
    assert voxels(rows["00001"], dtype="u1").shape == (11, 16, 20)
    assert {pid: row["augmented"] for pid, row in rows.items()} == {"00001": False, "00002": None, "09001": True}
    assert len(built.findings("duplicate-id")) == 1


# --- splits and options -----------------------------------------------------------------------------------------------


def test_splits_by_patient_share_no_patient(tiny, tmp_path, build) -> None:
    for patient in range(20, 40):
        tiny[CLS][f"class_dataset/{'train' if patient % 2 else 'validate'}/3/{patient}_001.bmp"] = noise_picture(
            patient
        )
    tiny[CLS]["class_dataset/train/3/0001.bmp"] = noise_picture(99)
    built = build(tiny.write(tmp_path / "in"), "cls_1.25mm", "det3d_bmp_1.25mm", split_by="patient")
    splits = {split: built.rows("cls_1.25mm", split) for split in ("train", "validation", "test")}
    for split, rows in splits.items():
        assert {row["fold"] for row in rows} <= {"train": {0, 1, 2}, "validation": {3}, "test": {4}}[split]
        assert rows
    for one, other in itertools.combinations(splits.values(), 2):
        assert not {row["patient_id"] for row in one} & {row["patient_id"] for row in other}
    assert sum(map(len, splits.values())) == 23
    assert [finding["count"] for finding in built.findings("no-fold")] == [1, 3]
    assert not (built.folder / "data" / "det3d_bmp_1.25mm").exists()
    assert "det3d_bmp" not in (built.folder / "README.md").read_text().split("---")[1]


def test_a_build_without_source_names_contains_no_date(tiny, tmp_path, build) -> None:
    import re

    tiny[CT1] |= metaimage("7_20190230", noise_volume(8))
    tiny[NODULES]["annotations.csv"] += b"99_20200101,1,2,3,4\n"
    built = build(tiny.write(tmp_path / "in"), *ALL, keep_source_names=False)
    pattern = re.compile(rb"(?:2018|2019|2020)(?:0[1-9]|1[0-2])[0-3]\d")
    for path in built.folder.rglob("*"):
        if path.is_file() and path.suffix != ".parquet":
            assert not pattern.search(path.read_bytes()), path.name
    import pyarrow.parquet as pq

    for config in ALL:
        for row in built.rows(config):
            assert "source_name" not in row
            metadata = {key: value for key, value in row.items() if key not in ("image", "volume", "lung_mask")}
            assert not pattern.search(repr(metadata).encode())
        for path in (built.folder / "data" / config).glob("*"):
            assert not pattern.search(repr(pq.read_schema(path).metadata).encode())
    assert any("<date>" in finding["row"] for finding in built.findings("annotation-without-image"))


def test_archives_with_backslashes_in_names_give_the_same_build(tiny, tmp_path, build) -> None:
    plain = build(tiny.write(tmp_path / "in"), *ALL)
    rows = {config: plain.rows(config) for config in ALL}
    source = tiny.write(tmp_path / "stored", method=zipfile.ZIP_STORED)
    for name in tiny:
        path = source / name
        data = path.read_bytes()
        for member in tiny[name]:
            if "/" in member:
                data = data.replace(member.encode(), member.replace("/", "\\").encode())
        path.write_bytes(data)
    again = build(source, *ALL)
    assert {config: again.rows(config) for config in ALL} == rows


def test_gbk_names_and_tables_are_read(tiny, tmp_path, build) -> None:
    tiny[NODULES] = {
        "annotations.csv": tiny[NODULES]["annotations.csv"].replace(b"seriesuid", "扫描".encode("gb18030"))
    }
    tiny[CT0]["9.mhd"] = metaimage_header("9", ElementDataFile="肺 9.raw").decode().encode("gb18030")
    data = tiny[CT0].pop("9.raw")
    placeholder = "_" * len("肺 9.raw".encode("gbk"))
    tiny[CT0][placeholder] = data
    source = tiny.write(tmp_path / "in")
    path = source / CT0
    path.write_bytes(path.read_bytes().replace(placeholder.encode(), "肺 9.raw".encode("gbk")))
    built = build(source, DET3D)
    row = built.by_name(DET3D)["9"]
    assert (voxels(row) == noise_volume(2)).all()
    assert len(row["nodules"]) == 1
