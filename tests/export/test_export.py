"""Exports, read back with the reader of the receiving tool or with an independent reader."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import pickle
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import yaml
from altered import alter
from datasets import Nifti, load_dataset
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from unknown_config import as_unknown_config

from lung_nodule_ct import imaging
from lung_nodule_ct.cli.export import FormatName
from lung_nodule_ct.declaration.configs import CONFIGS
from lung_nodule_ct.errors import BuildFolderError, ExportError, OutputError
from lung_nodule_ct.export import FORMATS, export_config
from lung_nodule_ct.export.nndetection import draw_spheres
from lung_nodule_ct.export.pictures import write_coco
from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.read.build_folder import open_build
from lung_nodule_ct.read.rows import IndexedRow
from lung_nodule_ct.sources.resolve import open_folder
from lung_nodule_ct.targets.build import build_folder
from lung_nodule_ct.targets.options import BuildOptions
from lung_nodule_ct.testing.archives import (
    CT0,
    CT1,
    DET2D,
    FRAME,
    MASKS,
    NODULE_COLUMNS,
    NODULES,
    THICK0,
    THICK1,
    THICK2,
    metaimage,
    noise_picture,
    noise_volume,
    table,
    voc_annotation,
)
from lung_nodule_ct.testing.followups import Lesion, Warp, make_followups
from lung_nodule_ct.testing.synthetic_archives import TinyArchives

SLICES, STACKS, THIN = "det2d_1.25mm", "det3d_bmp_1.25mm", "det3d_1.25mm"
_PICTURES, _SCANS = (SLICES, STACKS), (THIN, "det3d_5mm", "longitudinal")
EXPORTABLE = dict.fromkeys(("coco", "yolo", "voc"), _PICTURES) | dict.fromkeys(
    (
        "monai",
        "nndetection",
        "luna16",
        "nnunet",
        "nnunet-lungs",
        "slicer",
        "dicom-seg",
        "nifti",
        "hub-nifti",
        "nifti-pairs",
    ),
    _SCANS,
)
ROTATED = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
TILTED = (1.0, 0.0, 0.0, 0.0, 0.8, -0.6, 0.0, 0.6, 0.8)
MIRRORED = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, -1.0)
LEFT_HANDED = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
SHEARED = (1.0, 0.2, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@pytest.fixture
def tiny() -> TinyArchives:
    return TinyArchives()


def every_row(folder: Path, config: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Iterate over the rows with their splits. Arrays are copies."""
    build = open_build(folder)
    for split in build.splits(config):
        for row in build.rows(config, split):
            yield split, {key: value.copy() if isinstance(value, np.ndarray) else value for key, value in row.items()}


def exported(folder: Path, config: str, to: str, out: Path) -> Path:
    export_config(open_build(folder), config, to, out)
    return out


def boxes_of_slices(folder: Path, config: str) -> dict[str, tuple[str, list[list[float]]]]:
    """Return the split and the boxes (x0, y0, x1, y1) of every picture by name, from the columns of the build."""
    expected: dict[str, tuple[str, list[list[float]]]] = {}
    for split, row in every_row(folder, config):
        if config == SLICES:
            expected[row["image_id"]] = split, [entry["bbox"] for entry in row["objects"]]
            continue
        boxes = [nodule["box_voxel"] for nodule in row["nodules"] if nodule["box_voxel"]]
        for z in range(row["volume"].shape[0]):
            on_slice = [[x0, y0, x1, y1] for x0, y0, z0, x1, y1, z1 in boxes if z in range(z0, z1)]
            expected[f"{row['case_id']}_{z:04d}"] = split, on_slice
    return expected


def pixels_of(folder: Path, config: str) -> dict[str, np.ndarray]:
    if config == SLICES:
        return {r["image_id"]: np.asarray(Image.open(io.BytesIO(r["image"]))) for _, r in every_row(folder, config)}
    return {
        f"{r['case_id']}_{z:04d}": plane for _, r in every_row(folder, config) for z, plane in enumerate(r["volume"])
    }


# --- boxes on pictures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [SLICES, STACKS])
def test_coco_is_read_by_pycocotools(build, dummy, tmp_path, config, capsys) -> None:
    from pycocotools import coco
    from pycocotools import cocoeval as evaluation

    folder = build(dummy, config).folder
    out = exported(folder, config, "coco", tmp_path / "coco")
    expected, pixels = boxes_of_slices(folder, config), pixels_of(folder, config)
    found: dict[str, tuple[str, list[list[float]]]] = {}
    ids: list[int] = []
    for path in (out / "annotations").iterdir():
        split = path.stem.removeprefix("instances_")
        read = coco.COCO(str(path))
        for image in read.loadImgs(read.getImgIds()):
            entries = read.loadAnns(read.getAnnIds(image["id"]))
            name = Path(image["file_name"]).stem
            boxes = [entry["bbox"] for entry in entries]
            found[name] = split, [[x, y, x + w, y + h] for x, y, w, h in boxes]
            assert [entry["area"] for entry in entries] == [w * h for _, _, w, h in boxes]
            assert {entry["iscrowd"] for entry in entries} <= {0}
            shown = np.asarray(Image.open(out / split / image["file_name"]))
            assert shown.shape[:2] == (image["height"], image["width"])
            assert (shown == pixels[name]).all()
            ids += [image["id"], *(entry["id"] for entry in entries)]
        predictions = [{**entry, "score": 1.0} for entry in read.dataset["annotations"]]
        evaluator = evaluation.COCOeval(read, read.loadRes(predictions), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
        assert evaluator.stats[0] == pytest.approx(1)  # the predictions are the annotations
    assert found == expected
    assert len(set(ids)) == len(ids)
    assert all(0 < number < 1 << 31 for number in ids)  # many readers keep them as int32


def test_coco_ids_do_not_depend_on_other_pictures(tiny, build, tmp_path) -> None:
    def ids(out: str) -> dict[str, int]:
        folder = build(tiny.write(tmp_path / "in"), SLICES).folder
        documents = (exported(folder, SLICES, "coco", tmp_path / out) / "annotations").iterdir()
        return {
            image["file_name"]: image["id"] for path in documents for image in json.loads(path.read_text())["images"]
        }

    before = ids("one")
    tiny[DET2D]["JPEGImages/5_20180102_002.jpg"] = noise_picture(50, kind="JPEG")
    tiny[DET2D]["Annotations/5_20180102_002.xml"] = voc_annotation((2, 3, 9, 11))
    after = ids("two")
    assert len(after) == len(before) + 1
    assert {name: after[name] for name in before} == before


def test_coco_ids_of_names_with_the_same_hash_differ(tmp_path) -> None:
    """Among 100,000 names, some pairs have the same hash of 31 bits."""
    known: dict[int, str] = {}
    for number in itertools.count():
        name = f"s{number}"
        value = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % ((1 << 31) - 1)
        if value in known:
            break
        known[value] = name
    pixels = noise_picture(1, kind="PNG")
    rows = [
        IndexedRow(SLICES, "train", index, {"image": pixels, "image_id": stem, "objects": []})
        for index, stem in enumerate((known[value], name, "other"))
    ]
    write_coco(CONFIGS[SLICES].schema, rows, tmp_path)
    images = json.loads((tmp_path / "annotations" / "instances_train.json").read_text())["images"]
    ids = [image["id"] for image in images]
    assert ids[0] == value + 1
    assert len(set(ids)) == 3
    assert all(0 < number < 1 << 31 for number in ids)


@pytest.mark.parametrize("config", [SLICES, STACKS])
def test_yolo_labels_equal_the_boxes(build, dummy, tmp_path, config) -> None:
    folder = build(dummy, config).folder
    out = exported(folder, config, "yolo", tmp_path / "yolo")
    expected, pixels = boxes_of_slices(folder, config), pixels_of(folder, config)
    document = yaml.safe_load((out / "data.yaml").read_text("utf-8"))
    assert document["names"] == {0: "nodule"}
    for key, split in (("train", "train"), ("val", "validation")):
        assert document[key] == f"images/{split}"
    images = {path.stem: path for path in (out / "images").rglob("*") if path.is_file()}
    assert set(images) == set(expected)
    for name, (split, boxes) in expected.items():
        assert images[name].parent.name == split
        height, width = pixels[name].shape[:2]
        lines = np.loadtxt(out / "labels" / split / f"{name}.txt", ndmin=2) if boxes else np.zeros((0, 5))
        assert (out / "labels" / split / f"{name}.txt").is_file()
        assert ((lines >= 0) & (lines <= 1)).all()
        centers, sizes = lines[:, 1:3] * (width, height), lines[:, 3:] * (width, height)
        clipped = np.clip(np.array(boxes).reshape(-1, 4), 0, (width, height, width, height))
        np.testing.assert_allclose(np.hstack([centers - sizes / 2, centers + sizes / 2]), clipped, atol=1e-4)


@pytest.mark.torch
@pytest.mark.parametrize("config", [SLICES, STACKS])
def test_yolo_is_read_by_ultralytics(build, dummy, tmp_path, config, monkeypatch) -> None:
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path / "settings"))
    monkeypatch.setenv("YOLO_OFFLINE", "true")
    utils = pytest.importorskip("ultralytics.data.utils", reason="Ultralytics needs PyTorch and a separate environment")
    datasets = pytest.importorskip("ultralytics.data.dataset")
    folder = build(dummy, config).folder
    out = exported(folder, config, "yolo", tmp_path / "yolo")
    expected = boxes_of_slices(folder, config)
    found = utils.check_det_dataset(str(out / "data.yaml"), autodownload=False)
    for key, split in (("train", "train"), ("val", "validation")):
        read = datasets.YOLODataset(img_path=found[key], data=found, task="detect", augment=False)
        labels = {Path(label["im_file"]).stem: label for label in read.labels}
        assert set(labels) == {name for name, (listed, _) in expected.items() if listed == split}
        for name, label in labels.items():
            height, width = label["shape"]
            boxes = np.array(expected[name][1]).reshape(-1, 4).clip(0, (width, height, width, height))
            centers, sizes = label["bboxes"][:, :2] * (width, height), label["bboxes"][:, 2:] * (width, height)
            np.testing.assert_allclose(np.hstack([centers - sizes / 2, centers + sizes / 2]), boxes, atol=1e-3)
    exported(folder, config, "coco", out)  # the caches of Ultralytics do not prevent another export


@pytest.mark.torch
@pytest.mark.parametrize("to", ["coco", "yolo", "voc"])
@pytest.mark.parametrize("config", [SLICES, STACKS])
def test_boxes_are_read_by_supervision(build, dummy, tmp_path, config, to) -> None:
    supervision = pytest.importorskip("supervision", reason="needs a separate environment")
    folder = build(dummy, config).folder
    out = exported(folder, config, to, tmp_path / to)
    expected, pixels = boxes_of_slices(folder, config), pixels_of(folder, config)
    read = supervision.DetectionDataset
    if to == "voc":
        parts = [read.from_pascal_voc(str(out / "JPEGImages"), str(out / "Annotations"))]
    elif to == "yolo":
        parts = [
            read.from_yolo(str(path), str(out / "labels" / path.name), str(out / "data.yaml"))
            for path in (out / "images").iterdir()
        ]
    else:
        parts = [
            read.from_coco(str(out / path.stem.removeprefix("instances_")), str(path))
            for path in (out / "annotations").iterdir()
        ]
    found: dict[str, list[list[float]]] = {}
    for part in parts:
        assert part.classes == ["nodule"]
        for path, image, detections in part:
            name = Path(path).stem
            found[name] = detections.xyxy.tolist()
            assert image.shape[:2] == pixels[name].shape[:2]
            assert set(detections.class_id.tolist()) <= {0}
    assert set(found) == set(expected)
    for name, boxes in found.items():
        height, width = pixels[name].shape[:2]
        published = np.array(expected[name][1]).reshape(-1, 4)
        published = published.clip(0, (width, height, width, height)) if to == "yolo" else published
        # supervision reads VOC as numbers from 1, with the last pixel included. What the numbers of the slices mean is not published.
        published = published - ([1, 1, 0, 0] if (to, config) == ("voc", SLICES) else 0)
        np.testing.assert_allclose(np.reshape(boxes, (-1, 4)), published, atol=1e-3)


def voc_boxes(path: Path) -> list[list[float]]:
    corners = ("xmin", "ymin", "xmax", "ymax")
    return [[float(box.findtext(name, "")) for name in corners] for box in ET.parse(path).iter("bndbox")]


def test_voc_of_a_stack_is_inclusive_and_counts_from_one(build, dummy, tmp_path) -> None:
    folder = build(dummy, STACKS).folder
    out = exported(folder, STACKS, "voc", tmp_path / "voc")
    pixels = pixels_of(folder, STACKS)
    boxes = 0
    for name, (split, expected) in boxes_of_slices(folder, STACKS).items():
        listed = "val" if split == "validation" else split
        assert name in (out / "ImageSets" / "Main" / f"{listed}.txt").read_text().splitlines()
        tree = ET.parse(out / "Annotations" / f"{name}.xml")
        shown = np.asarray(Image.open(out / "JPEGImages" / tree.findtext("filename", "")))
        assert (shown == pixels[name]).all()
        for (x0, y0, x1, y1), (xmin, ymin, xmax, ymax) in zip(
            expected, voc_boxes(out / "Annotations" / f"{name}.xml"), strict=True
        ):
            # VOC counts from 1, an array from 0
            assert np.arange(x0, x1).tolist() == [x - 1 for x in range(int(xmin), int(xmax) + 1)]
            assert np.arange(y0, y1).tolist() == [y - 1 for y in range(int(ymin), int(ymax) + 1)]
            boxes += 1
    assert boxes


def test_a_build_of_exported_voc_has_the_same_rows(build, dummy, tmp_path) -> None:
    folder = build(dummy, SLICES).folder
    before = boxes_of_slices(folder, SLICES)
    pixels = pixels_of(folder, SLICES)
    out = exported(folder, SLICES, "voc", tmp_path / "voc")
    source = tmp_path / "again"
    source.mkdir()
    with zipfile.ZipFile(source / DET2D, "w") as archive:
        for path in sorted(out.rglob("*")):
            if path.is_file() and path.name != "export.json":
                archive.write(path, path.relative_to(out))
    again = build(source, SLICES).folder
    rows = {row["source_name"]: (split, row) for split, row in every_row(again, SLICES)}
    assert {name: (split, [entry["bbox"] for entry in row["objects"]]) for name, (split, row) in rows.items()} == before
    for name, (_, row) in rows.items():
        assert (np.asarray(Image.open(io.BytesIO(row["image"]))) == pixels[name]).all()


# --- volumes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "direction", [ROTATED, TILTED, MIRRORED, SHEARED], ids=["rotated", "tilted", "mirrored", "sheared"]
)
def test_nifti_has_the_voxels_and_the_frame_of_the_build(tiny, build, tmp_path, direction) -> None:
    tiny[CT0] |= metaimage("7_20180102", noise_volume(1), Frame((5, -8, 30), FRAME.spacing, direction))
    folder = build(tiny.write(tmp_path / "in"), THIN, keep_source_names=False).folder
    out = exported(folder, THIN, "nifti", tmp_path / "nifti")
    with (out / "scans.csv").open(newline="") as file:
        scans = list(csv.DictReader(file))
    with (out / "nodules.csv").open(newline="") as file:
        nodules = list(csv.DictReader(file))
    rows = [row for _, row in every_row(folder, THIN)]
    assert [scan["scan_id"] for scan in scans] == [row["scan_id"] for row in rows]
    for scan, row in zip(scans, rows, strict=True):
        for kind, column in (("images", "volume"), ("lung_masks", "lung_mask")):
            path = out / kind / f"{scan['case']}.nii.gz"
            image = nibabel.load(path)
            assert image.header.get_xyzt_units()[0] == "mm"
            assert image.get_data_dtype() == row[column].dtype
            assert (np.asarray(image.dataobj) == row[column].transpose(2, 1, 0)).all()
            listed = [nodule for nodule in nodules if nodule["case"] == scan["case"]]
            for nodule, stored in zip(listed, row["nodules"], strict=True):
                voxel = [float(nodule[f"voxel_{axis}"]) for axis in "xyz"]
                lps = np.array([float(nodule[f"lps_mm_{axis}"]) for axis in "xyz"])
                assert lps.tolist() == stored["center_world"]
                np.testing.assert_allclose(image.affine @ [*voxel, 1], [*(lps * (-1, -1, 1)), 1], atol=1e-4)
            if image.header["qform_code"] == 0:
                assert direction is SHEARED  # a qform cannot shear
                assert not Frame(*(tuple(row[name]) for name in ("origin", "spacing", "direction"))).is_orthonormal
                continue
            np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)
            read = sitk.ReadImage(str(path))
            np.testing.assert_allclose(read.GetSpacing(), row["spacing"], rtol=1e-6)
            np.testing.assert_allclose(read.GetOrigin(), row["origin"], atol=1e-4)
            np.testing.assert_allclose(read.GetDirection(), row["direction"], atol=1e-6)
            assert (sitk.GetArrayFromImage(read) == row[column]).all()


@pytest.mark.parametrize("to", ["nifti", "monai", "nndetection", "slicer"])
def test_scans_that_itk_refuses_are_named(tiny, build, tmp_path, to) -> None:
    tiny[CT0] |= metaimage("7_20180102", noise_volume(1), Frame((5, -8, 30), FRAME.spacing, SHEARED))
    folder = build(tiny.write(tmp_path / "in"), THIN, keep_source_names=False).folder
    summary = export_config(open_build(folder), THIN, to, tmp_path / to)
    refused = []
    for path in sorted((tmp_path / to).rglob("*.nii.gz")):
        if "image" in path.parent.name:
            try:
                sitk.ReadImage(str(path))
            except RuntimeError as error:
                assert "orthonormal" in str(error)
                refused.append(path.name.removesuffix(".nii.gz").removesuffix("_0000"))
    assert len(refused) == 1
    (note,) = summary.notes
    assert note.startswith("1 scans have a direction matrix that is not a rotation, which ITK refuses to open.")
    assert note.endswith(f": {refused[0]}")
    tiny[CT0] |= metaimage("7_20180102", noise_volume(1), Frame((5, -8, 30), FRAME.spacing, TILTED))
    straight = build(tiny.write(tmp_path / "in"), THIN, keep_source_names=False).folder
    assert export_config(open_build(straight), THIN, to, tmp_path / "straight").notes == ()


def test_a_scan_without_mask_or_id_is_exported(tiny, build, tmp_path) -> None:
    tiny[CT1] |= metaimage("20200101", noise_volume(9))
    folder = build(tiny.write(tmp_path / "in"), THIN, keep_source_names=False).folder
    assert any(row["scan_id"] is None for _, row in every_row(folder, THIN))
    out = exported(folder, THIN, "nifti", tmp_path / "nifti")
    assert len(list((out / "images").iterdir())) == 4
    assert len(list((out / "lung_masks").iterdir())) == 3
    assert not list(out.rglob("*2020*"))


def test_the_monai_datalist_has_the_spheres_in_ras(tiny, build, tmp_path) -> None:
    """This test needs no PyTorch. ``test_the_monai_datalist_is_read_by_monai`` uses the reader of MONAI."""
    folder = _rotated_build(tiny, build, tmp_path)
    out = exported(folder, THIN, "monai", tmp_path / "monai")
    entries = json.loads((out / "datalist.json").read_text())["training"]
    for entry, (_, row) in zip(entries, every_row(folder, THIN), strict=True):
        assert len(entry["box"]) == len(entry["label"]) == len(row["nodules"])
        affine = nibabel.load(out / entry["image"]).affine
        for box, nodule in zip(entry["box"], row["nodules"], strict=True):
            voxel = np.linalg.inv(affine) @ [*box[:3], 1]
            np.testing.assert_allclose(voxel[:3], nodule["center_voxel"], atol=1e-4)
            assert box[3:] == [nodule["diameter_mm"]] * 3


def _rotated_build(tiny: TinyArchives, build: Any, tmp_path: Path) -> Path:
    tiny[CT0] |= metaimage("7_20180102", noise_volume(1), Frame((5, -8, 30), FRAME.spacing, ROTATED))
    tiny[CT0] |= metaimage("9", noise_volume(2), Frame((5, -8, 36), FRAME.spacing, MIRRORED))
    tiny[NODULES]["annotations.csv"] = table(
        NODULE_COLUMNS, "7_20180102,2.5,-5.25,33.1,2.2", "9,1,-12,33,3", "7_20190304,-6,-17,33,3"
    )
    return build(tiny.write(tmp_path / "in"), THIN, keep_source_names=False).folder


@pytest.mark.torch
def test_the_monai_datalist_is_read_by_monai(tiny, build, tmp_path) -> None:
    data = pytest.importorskip("monai.data", reason="MONAI needs PyTorch and a separate environment")
    transforms = pytest.importorskip("monai.transforms")
    detection = pytest.importorskip("monai.apps.detection.transforms.dictionary")
    folder = _rotated_build(tiny, build, tmp_path)
    out = exported(folder, THIN, "monai", tmp_path / "monai")
    entries = data.load_decathlon_datalist(str(out / "datalist.json"), is_segmentation=False, data_list_key="training")
    rows = [row for _, row in every_row(folder, THIN)]
    assert len(entries) == len(rows) == 3
    pipeline = transforms.Compose(
        [
            transforms.LoadImaged(keys=["image", "lung_mask"], image_only=False, meta_key_postfix="meta_dict"),
            transforms.EnsureChannelFirstd(keys=["image", "lung_mask"]),
            detection.ConvertBoxToStandardModed(box_keys=["box"], mode="cccwhd"),
            detection.AffineBoxToImageCoordinated(
                box_keys=["box"], box_ref_image_keys="image", image_meta_key_postfix="meta_dict"
            ),
        ]
    )
    for entry, row in zip(entries, rows, strict=True):
        read = pipeline({**entry, "box": np.array(entry["box"], np.float32)})
        assert (np.asarray(read["image"])[0] == row["volume"].transpose(2, 1, 0)).all()
        assert (np.asarray(read["lung_mask"])[0] == row["lung_mask"].transpose(2, 1, 0)).all()
        boxes = np.asarray(read["box"])
        for box, nodule in zip(boxes, row["nodules"], strict=True):
            np.testing.assert_allclose((box[:3] + box[3:]) / 2, nodule["center_voxel"], atol=1e-3)
            # these frames are rotated by multiples of 90 degrees, so the sides of the cube are along their axes
            np.testing.assert_allclose(box[3:] - box[:3], nodule["diameter_mm"] / np.array(row["spacing"]), atol=1e-3)


# --- nnDetection ------------------------------------------------------------------------------------------------------


def test_nndetection_folder_follows_the_rules_of_nndet(tiny, build, tmp_path) -> None:
    """The rules are those of ``nndet.utils.check``: dataset.json, instances from 1 without a gap and all in the mask, equal geometry."""
    rows = ["9,-6,-17,33,3.5", "9,-6,-17,33,1.0", "9,-6,-17,33,1.0", "9,-3.4,-15.3,33.6,0.01", "9,500,0,0,4"]
    tiny[NODULES]["annotations.csv"] = table(NODULE_COLUMNS, *rows, "7_20180102,-6,-17,33,3")
    folder = build(tiny.write(tmp_path / "in"), THIN, keep_source_names=False).folder
    out = exported(folder, THIN, "nndetection", tmp_path / "nndet")
    (task,) = (path for path in out.iterdir() if path.is_dir())
    dataset = json.loads((task / "dataset.json").read_text())
    assert (dataset["task"], dataset["dim"], dataset["labels"]) == (task.name, 3, {"0": "nodule"})
    assert dataset["annotation_style"] in ("seg", "weak")
    raw = task / "raw_splitted"
    cases = sorted(path.name.removesuffix("_0000.nii.gz") for path in (raw / "imagesTr").iterdir())
    assert len(cases) == 3
    rows_by_id = {row["scan_id"]: row for _, row in every_row(folder, THIN)}
    instances = {}
    for case in cases:
        image = sitk.ReadImage(str(raw / "imagesTr" / f"{case}_0000.nii.gz"))
        labels = sitk.ReadImage(str(raw / "labelsTr" / f"{case}.nii.gz"))
        for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
            assert getattr(image, name)() == getattr(labels, name)()
        written = json.loads((raw / "labelsTr" / f"{case}.json").read_text())
        row = rows_by_id[case.split("_")[0]]
        values = set(np.unique(sitk.GetArrayFromImage(labels)).tolist()) - {0}
        assert values == set(map(int, written["instances"])) == set(range(1, len(values) + 1))
        assert set(written["instances"].values()) <= {0}
        nodules = {nodule["nodule_id"]: nodule for nodule in row["nodules"]}
        instances[case] = [nodules[identity] for identity in written["nodule_ids"].values()]
    exported_nodules = next(
        nodules for case, nodules in instances.items() if rows_by_id[case.split("_")[0]]["patient_id"] == "9"
    )
    # two equal spheres give one instance, and one sphere is outside; the smallest sphere marks the voxel of its centre
    assert sorted(nodule["diameter_mm"] for nodule in exported_nodules) == [0.01, 1.0, 3.5]
    assert json.loads((out / "export.json").read_text())["left_out"] == 2


def test_nndetection_splits_keep_patients_apart(build, dummy, tmp_path) -> None:
    folder = build(dummy, THIN).folder
    out = exported(folder, THIN, "nndetection", tmp_path / "nndet")
    splits = pickle.loads(next(out.rglob("splits_final.pkl")).read_bytes())
    patient = {f"{row['scan_id']}_1p25mm": row["patient_id"] for _, row in every_row(folder, THIN)}
    assert len(splits) > 1
    for split in splits:
        train, validation = ({patient[case] for case in split[key]} for key in ("train", "val"))
        assert train
        assert validation
        assert not train & validation
    assert sorted(itertools.chain.from_iterable(split["val"] for split in splits)) == sorted(patient)


@given(
    st.lists(st.tuples(st.tuples(*[st.floats(-8, 8)] * 3), st.floats(0.1, 9)), min_size=1, max_size=4),
    st.sampled_from([ROTATED, TILTED, MIRRORED, SHEARED]),
)
def test_spheres_contain_the_voxels_whose_centres_are_inside(spheres, direction) -> None:
    frame = Frame((-4.0, 3.0, -5.0), (0.8, 1.1, 2.0), direction)
    shape = (6, 9, 11)
    labels, drawn = draw_spheres(shape, frame, spheres)
    world = np.array(
        [np.array(frame.origin) + frame.matrix @ (np.array(index[::-1]) * frame.spacing) for index in np.ndindex(shape)]
    )
    inside = {
        number: np.linalg.norm(world - center, axis=1).reshape(shape) <= diameter / 2
        for number, (center, diameter) in enumerate(spheres)
    }
    for number, voxels in inside.items():
        # each voxel inside a sphere has the label of this sphere or of a smaller one
        assert set(np.unique(labels[voxels]).tolist()) <= {
            label for label, other in enumerate(drawn, 1) if spheres[other][1] <= spheres[number][1]
        }
    for label, number in enumerate(drawn, 1):
        voxels = labels == label
        assert voxels.any()
        if inside[number].any():
            assert not (voxels & ~inside[number]).any()
        else:
            assert voxels.sum() == 1
    assert set(np.unique(labels).tolist()) <= set(range(len(drawn) + 1))


# --- LUNA16 -----------------------------------------------------------------------------------------------------------


def test_luna16_is_read_as_its_tools_read_it(tiny, build, tmp_path) -> None:
    """They find a scan by its seriesuid in ``subset*``, open it with SimpleITK, and go from world to voxels by origin and spacing."""
    tiny[CT0] |= metaimage("7_20180102", noise_volume(1), Frame((5, -8, 30), FRAME.spacing, MIRRORED))
    rows = ["7_20180102,2.5,-12.25,33.1,2.2", "9,-6,-17,33,3", "9,-5,-16,33,0", "7_20190304,-6,-17,33,3.5"]
    tiny[NODULES]["annotations.csv"] = table(NODULE_COLUMNS, *rows)
    folder = build(tiny.write(tmp_path / "in"), THIN, keep_source_names=False).folder
    summary = export_config(open_build(folder), THIN, "luna16", tmp_path / "luna16")
    out = tmp_path / "luna16"
    stored = {f"{row['scan_id']}_1p25mm": (split, row) for split, row in every_row(folder, THIN)}
    assert (out / "seriesuids.csv").read_text().splitlines() == list(stored)  # without a header, as in LUNA16
    for split in {split for split, _ in stored.values()}:
        listed = (out / f"seriesuids_{split}.csv").read_text().splitlines()
        assert listed == [case for case, (own, _) in stored.items() if own == split]
    with (out / "annotations.csv").open(newline="") as file:
        annotations = list(csv.reader(file))
    assert annotations[0] == ["seriesuid", "coordX", "coordY", "coordZ", "diameter_mm"]
    found: dict[str, list[list[float]]] = {}
    for case, (_, row) in stored.items():
        (path,) = out.glob(f"subset{row['fold']}/{case}.mhd")
        image = sitk.ReadImage(str(path))
        assert (sitk.GetArrayFromImage(image) == row["volume"]).all()
        np.testing.assert_allclose(image.GetOrigin(), row["origin"])
        np.testing.assert_allclose(image.GetSpacing(), row["spacing"])
        np.testing.assert_allclose(image.GetDirection(), row["direction"])
        mask = sitk.ReadImage(str(out / "seg-lungs-LUNA16" / f"{case}.mhd"))
        assert (sitk.GetArrayFromImage(mask) == row["lung_mask"]).all()
        assert mask.GetOrigin() == image.GetOrigin()
        for seriesuid, *world, diameter in annotations[1:]:
            if seriesuid == case:
                voxel = image.TransformPhysicalPointToContinuousIndex([float(value) for value in world])
                found.setdefault(case, []).append([*voxel, float(diameter)])
    for case, (_, row) in stored.items():
        expected = [[*n["center_voxel"], n["diameter_mm"]] for n in row["nodules"] if n["diameter_mm"]]
        np.testing.assert_allclose(found.get(case, []), expected, atol=1e-9)
    (excluded,) = csv.DictReader((out / "annotations_excluded.csv").open(newline=""))
    assert [float(excluded[name]) for name in ("coordX", "coordY", "coordZ", "diameter_mm")] == [-5, -16, 33, -1]
    assert (summary.images, summary.annotations, summary.left_out) == (3, 3, 1)
    assert summary.notes == ("1 nodules without a positive diameter are in annotations_excluded.csv",)


def test_luna16_has_every_scan_without_fold(tiny, build, tmp_path) -> None:
    tiny[CT1] |= metaimage("20200101", noise_volume(9))
    folder = build(tiny.write(tmp_path / "in"), THIN, keep_source_names=False).folder
    assert any(row["fold"] is None for _, row in every_row(folder, THIN))
    summary = export_config(open_build(folder), THIN, "luna16", tmp_path / "export")
    assert len(list((tmp_path / "export").glob("subset*/*.mhd"))) == 4
    assert "1 scans have no fold and are in subset_unassigned" in summary.notes


# --- nnU-Net ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("to", "label"), [("nnunet", "sphere_of_published_diameter"), ("nnunet-lungs", "lung")])
def test_nnunet_folder_follows_the_rules_of_nnunet(tiny, build, tmp_path, to, label) -> None:
    """The rules are those of its ``verify_dataset_integrity``, which the test below runs itself."""
    tiny[MASKS] = {name: data for name, data in tiny[MASKS].items() if not name.startswith("9.")}
    tiny[NODULES]["annotations.csv"] = table(NODULE_COLUMNS, "9,-6,-17,33,3.5", "9,500,0,0,4", "7_20180102,-6,-17,33,3")
    folder = build(tiny.write(tmp_path / "in"), THIN, keep_source_names=False).folder
    summary = export_config(open_build(folder), THIN, to, tmp_path / "export")
    rows = {f"{row['scan_id']}_1p25mm": row for _, row in every_row(folder, THIN)}
    (raw,) = (tmp_path / "export" / "nnUNet_raw").iterdir()
    dataset = json.loads((raw / "dataset.json").read_text())
    assert dataset["channel_names"] == {"0": "CT"}
    assert dataset["labels"] == {"background": 0, label: 1}
    assert f"{summary.notes[0]}." == dataset["description"]
    assert "not a segmentation" in dataset["description"] or label == "lung"
    cases = [path.name.removesuffix("_0000.nii.gz") for path in (raw / "imagesTr").iterdir()]
    assert dataset["numTraining"] == len(cases) == summary.images == (3 if to == "nnunet" else 2)
    assert {path.name.removesuffix(".nii.gz") for path in (raw / "labelsTr").iterdir()} == set(cases)
    for case in cases:
        image = sitk.ReadImage(str(raw / "imagesTr" / f"{case}_0000.nii.gz"))
        labels = sitk.ReadImage(str(raw / "labelsTr" / f"{case}.nii.gz"))
        for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
            assert getattr(image, name)() == getattr(labels, name)()
        voxels, row = sitk.GetArrayFromImage(labels), rows[case]
        assert set(np.unique(voxels).tolist()) <= {0, 1}
        if to == "nnunet-lungs":
            assert (voxels == (row["lung_mask"] > 0)).all()
            continue
        frame = Frame(*(tuple(row[name]) for name in ("origin", "spacing", "direction")))
        world = frame.to_world(np.stack(np.nonzero(np.ones(voxels.shape)), -1)[:, ::-1])
        inside = [
            np.linalg.norm(world - n["center_world"], axis=1) <= n["diameter_mm"] / 2 + 1e-6 for n in row["nodules"]
        ]
        assert (voxels.ravel() == np.any([np.zeros(voxels.size, bool), *inside], axis=0)).all()
    if to == "nnunet":
        assert (summary.annotations, summary.left_out) == (2, 1)  # one sphere has no voxel in its volume
    else:
        (missing,) = set(rows) - set(cases)
        assert any(note.endswith(f"no lung mask and are left out: {missing}") for note in summary.notes)


def test_nnunet_splits_keep_patients_apart(build, dummy, tmp_path) -> None:
    folder = build(dummy, THIN).folder
    out = exported(folder, THIN, "nnunet", tmp_path / "nnunet")
    (path,) = out.glob("nnUNet_preprocessed/Dataset100_*/splits_final.json")
    patient = {f"{row['scan_id']}_1p25mm": row["patient_id"] for _, row in every_row(folder, THIN)}
    splits = json.loads(path.read_text())
    for split in splits:
        train, validation = ({patient[case] for case in split[key]} for key in ("train", "val"))
        assert train
        assert validation
        assert not train & validation
    assert sorted(itertools.chain.from_iterable(split["val"] for split in splits)) == sorted(patient)


@pytest.mark.torch
@pytest.mark.parametrize("to", ["nnunet", "nnunet-lungs"])
@pytest.mark.parametrize("direction", [ROTATED, SHEARED], ids=["rotated", "sheared"])
def test_nnunet_accepts_its_dataset(tiny, build, tmp_path, to, direction, capsys) -> None:
    integrity = pytest.importorskip(
        "nnunetv2.experiment_planning.verify_dataset_integrity",
        reason="nnU-Net needs PyTorch and a separate environment",
    )
    tiny[CT0] |= metaimage("7_20180102", noise_volume(1), Frame((5, -8, 30), FRAME.spacing, direction))
    folder = build(tiny.write(tmp_path / "in"), THIN, keep_source_names=False).folder
    (raw,) = (exported(folder, THIN, to, tmp_path / "export") / "nnUNet_raw").iterdir()
    integrity.verify_dataset_integrity(str(raw), num_processes=1)
    printed = capsys.readouterr().out
    assert "verify_dataset_integrity Done" in printed
    assert "arning" not in printed.replace("error messages", "")


# --- 3D Slicer --------------------------------------------------------------------------------------------------------


def test_slicer_markups_have_the_centres_and_cubes_in_lps(tiny, build, tmp_path) -> None:
    """The keys and types are those of version 1.0.3 of Slicer's schema of markups."""
    tiny[NODULES]["annotations.csv"] = table(
        NODULE_COLUMNS, "9,-6,-17,33,3.5", "9,-5,-16,33,0", "7_20180102,-6,-17.25,33,3"
    )
    folder = build(tiny.write(tmp_path / "in"), THIN, keep_source_names=False).folder
    summary = export_config(open_build(folder), THIN, "slicer", tmp_path / "slicer")
    assert (summary.images, summary.annotations, summary.left_out) == (3, 3, 0)
    for _, row in every_row(folder, THIN):
        case = f"{row['scan_id']}_1p25mm"
        document = json.loads((tmp_path / "slicer" / "markups" / f"{case}.mrk.json").read_text())
        assert document["@schema"].startswith("https://raw.githubusercontent.com/slicer/slicer/master/")
        assert document["@schema"].endswith("/markups-schema-v1.0.3.json#")
        points, *boxes = document["markups"]
        for markup in (points, *boxes):
            assert (markup["coordinateSystem"], markup["coordinateUnits"]) == ("LPS", "mm")
            assert isinstance(markup["name"], str)
            for point in markup["controlPoints"]:
                assert isinstance(point["id"], str)
                assert point["positionStatus"] in ("undefined", "preview", "defined")
        assert points["type"] == "Fiducial"
        assert [point["position"] for point in points["controlPoints"]] == [n["center_world"] for n in row["nodules"]]
        assert [point["label"] for point in points["controlPoints"]] == [n["nodule_id"] for n in row["nodules"]]
        sized = [nodule for nodule in row["nodules"] if nodule["diameter_mm"]]
        assert len(boxes) == len(sized)
        for box, nodule in zip(boxes, sized, strict=True):
            assert (box["type"], box["roiType"]) == ("ROI", "Box")
            assert box["center"] == box["controlPoints"][0]["position"] == nodule["center_world"]
            assert box["size"] == [nodule["diameter_mm"]] * 3
            assert np.array(box["orientation"]).reshape(3, 3).tolist() == np.eye(3).tolist()
        image = sitk.ReadImage(str(tmp_path / "slicer" / "images" / f"{case}.nii.gz"))
        for point, nodule in zip(points["controlPoints"], row["nodules"], strict=True):
            voxel = image.TransformPhysicalPointToContinuousIndex(point["position"])
            np.testing.assert_allclose(voxel, nodule["center_voxel"], atol=1e-4)


# --- DICOM ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", [ROTATED, TILTED, LEFT_HANDED], ids=["rotated", "tilted", "left-handed"])
def test_dicom_is_read_by_highdicom_and_itk(tiny, build, tmp_path, direction) -> None:
    highdicom = pytest.importorskip("highdicom", reason="the extra dicom is not installed")
    pydicom = pytest.importorskip("pydicom")
    frame = Frame((5, -8.0625, 30), FRAME.spacing, direction)
    labels = (np.arange(720).reshape(6, 10, 12) // 100).astype(np.int16)
    labels = np.select([labels == 1, labels == 3, labels == 4], [3, 4, 7], 0).astype(np.int16)
    tiny[CT0] |= metaimage("7_20180102", noise_volume(1), frame)
    tiny[MASKS] |= metaimage("7_20180102", labels, frame)
    tiny[MASKS] = {name: data for name, data in tiny[MASKS].items() if not name.startswith("9.")}
    folder = build(tiny.write(tmp_path / "in"), THIN, keep_source_names=False).folder
    summary = export_config(open_build(folder), THIN, "dicom-seg", tmp_path / "dicom")
    assert (summary.images, summary.annotations) == (3, 2)
    uids: list[str] = []
    for _, row in every_row(folder, THIN):
        case = tmp_path / "dicom" / f"{row['scan_id']}_1p25mm"
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames([str(path) for path in sorted((case / "ct").iterdir())])
        image = reader.Execute()
        assert (sitk.GetArrayFromImage(image) == row["volume"]).all()
        np.testing.assert_allclose(image.GetOrigin(), row["origin"], atol=1e-9)
        np.testing.assert_allclose(image.GetSpacing(), row["spacing"], atol=1e-9)
        if row["direction"] != list(LEFT_HANDED):  # ITK takes the third axis from the first two
            np.testing.assert_allclose(image.GetDirection(), row["direction"], atol=1e-9)
        slices = [pydicom.dcmread(path) for path in sorted((case / "ct").iterdir())]
        uids += [dataset.SOPInstanceUID for dataset in slices]
        assert {dataset.PatientID for dataset in slices} == {row["patient_id"]}
        if row["lung_mask"] is None:
            assert any(case.name in note for note in summary.notes)
            continue
        segmentation = highdicom.seg.segread(case / "lung_mask.dcm")
        assert segmentation.StudyInstanceUID == slices[0].StudyInstanceUID
        assert segmentation.FrameOfReferenceUID == slices[0].FrameOfReferenceUID
        referenced = segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence
        assert {item.ReferencedSOPInstanceUID for item in referenced} <= {dataset.SOPInstanceUID for dataset in slices}
        own = Frame.from_row(row)
        for number in segmentation.segment_numbers:
            description = segmentation.get_segment_description(number)
            assert description.segmented_property_type.meaning == "Lung"
            volume = segmentation.get_volume(segment_numbers=[number], allow_missing_positions=True)
            indices = np.argwhere(volume.array[..., 0])
            world = volume.map_indices_to_reference(indices)
            found = np.rint(own.to_voxel(world)).astype(int)
            value = int(description.segment_label.rpartition(" ")[2])
            assert sorted(map(tuple, found[:, ::-1])) == sorted(map(tuple, np.argwhere(row["lung_mask"] == value)))
        assert segmentation.number_of_segments == len(np.unique(row["lung_mask"])) - 1
        for dataset in (*slices, segmentation):
            dates = [e for e in dataset.iterall() if e.VR in ("DA", "DT") and e.value]
            assert [str(e.value) for e in dates] in ([], ["19000101"])  # the content date of a segmentation is required
    assert len(set(uids)) == len(uids)


def test_dicom_leaves_out_sheared_scans_by_name(tiny, build, tmp_path) -> None:
    pytest.importorskip("highdicom", reason="the extra dicom is not installed")
    tiny[CT0] |= metaimage("7_20180102", noise_volume(1), Frame((5, -8, 30), FRAME.spacing, SHEARED))
    folder = build(tiny.write(tmp_path / "in"), THIN, keep_source_names=False).folder
    summary = export_config(open_build(folder), THIN, "dicom-seg", tmp_path / "dicom")
    (sheared,) = (row for _, row in every_row(folder, THIN) if not Frame.from_row(row).is_orthonormal)
    written = {path.name for path in (tmp_path / "dicom").iterdir() if path.is_dir()}
    assert summary.images == len(written) == 2
    assert f"{sheared['scan_id']}_1p25mm" not in written
    assert summary.notes[0].endswith(f"DICOM cannot describe, and are left out: {sheared['scan_id']}_1p25mm")


# --- the volume view of the Hub ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("masks", ["some", "none"])
def test_nifti_for_the_hub_is_loaded_by_datasets(tiny, build, tmp_path, masks) -> None:
    tiny[CT0] |= metaimage("7_20180102", noise_volume(1), Frame((5, -8, 30), FRAME.spacing, ROTATED))
    kept = () if masks == "none" else ("7_20190304",)
    tiny[MASKS] = {name: data for name, data in tiny[MASKS].items() if name.rpartition(".")[0] in kept}
    folder = build(tiny.write(tmp_path / "in"), THIN, keep_source_names=False, split_by="patient").folder
    out = exported(folder, THIN, "hub-nifti", tmp_path / "hub")
    loaded = load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    stored: dict[str, list[dict[str, Any]]] = {}
    for split, row in every_row(folder, THIN):
        stored.setdefault(split, []).append(row)
    assert list(loaded) == list(stored)
    for split, rows in stored.items():
        assert isinstance(loaded[split].features["nifti"], Nifti)
        assert ("lung_mask" in loaded[split].features) == (masks == "some")
        by_scan = {row["scan_id"]: row for row in loaded[split]}
        for row in rows:
            read = by_scan[row["scan_id"]]
            for column, key in {"nifti": "volume", "lung_mask": "lung_mask"}.items():
                if row[key] is None:
                    assert read.get(column) is None
                    continue
                assert (np.asarray(read[column].dataobj) == row[key].transpose(2, 1, 0)).all()
                np.testing.assert_allclose(read[column].affine, Frame.from_row(row).affine("RAS"), atol=1e-4)
            assert {name: read[name] for name in ("patient_id", "timepoint", "fold")} == {
                name: row[name] for name in ("patient_id", "timepoint", "fold")
            }
            centres = [[nodule[f"lps_mm_{axis}"] for axis in "xyz"] for nodule in read["nodules"]]
            assert centres == [nodule["center_world"] for nodule in row["nodules"]]


# --- registered pairs -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def followed(tmp_path_factory) -> tuple[Path, Path]:
    """A build of a patient with a warped follow-up, and a scan that shows nothing; and its registered pairs."""
    lesion = Lesion((74.0, 20.0, 0.0), (10.0, 13.0))
    warps = Warp(), Warp((14.0, -9.0, 11.0), (3.0, -4.0, 5.0), (1.03, 0.98, 0.97))
    scans = make_followups((0, 200), [lesion], warps, shape=(56, 110, 140), spacing=(2.6, 2.6, 2.6))
    tiny, names = TinyArchives(), ("7_20180102", "7_20180721")
    tiny[CT0], tiny[CT1] = {}, metaimage("7_20200101", noise_volume(9)) | metaimage("9", noise_volume(1))
    tiny[THICK0], tiny[THICK1], tiny[THICK2] = {}, {}, {}
    for name, scan in zip(names, scans, strict=True):
        tiny[CT0] |= metaimage(name, scan.phantom.volume, scan.phantom.frame)
    rows = [
        ",".join(map(str, (name, *scan.nodules[0].center_world, scan.nodules[0].diameter_mm)))
        for name, scan in zip(names, scans, strict=True)
    ]
    tiny[NODULES] = {"annotations.csv": table(NODULE_COLUMNS, *rows)}
    tiny[MASKS] = metaimage(names[0], scans[0].phantom.lung_mask.astype(np.int16), scans[0].phantom.frame)
    source = tiny.write(tmp_path_factory.mktemp("source"))
    folder = tmp_path_factory.mktemp("followed") / "build"
    build_folder([CONFIGS["longitudinal"]], open_folder(source), folder, BuildOptions())
    return folder, exported(folder, "longitudinal", "nifti-pairs", folder.parent / "pairs")


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_transform_is_read_by_itk_and_takes_points_where_the_registration_does(followed) -> None:
    folder, out = followed
    patient = [row for _, row in every_row(folder, "longitudinal")]
    registered = imaging.registered_pair(patient, 0, 1)
    (pair,) = [pair for pair in _table(out / "pairs.csv") if pair["transform"]]
    assert (pair["patient_id"], pair["fixed_timepoint"], pair["moving_timepoint"], pair["days"]) == (
        "7",
        "0",
        "1",
        "200",
    )
    assert float(pair["correlation"]) == registered.registration.quality.correlation
    transform = sitk.ReadTransform(str(out / pair["transform"]))
    fixed = sitk.ReadImage(str(out / pair["fixed_image"]))
    for index in itertools.product(*((0, size - 1) for size in fixed.GetSize())):
        point = fixed.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(transform.TransformPoint(point), registered.registration.map(point), atol=1e-9)
    nodules = patient[0]["nodules"], patient[1]["nodules"]
    there = transform.TransformPoint(nodules[0][0]["center_world"])
    assert np.linalg.norm(np.subtract(there, nodules[1][0]["center_world"])) < 6


def test_the_warped_follow_up_is_what_itk_resamples(followed, tmp_path) -> None:
    folder, out = followed
    exported(folder, "longitudinal", "nifti", tmp_path / "nifti")
    (pair,) = [pair for pair in _table(out / "pairs.csv") if pair["transform"]]
    fixed, warped, original = (
        sitk.ReadImage(str(path))
        for path in (
            out / pair["fixed_image"],
            out / pair["warped_image"],
            tmp_path / f"nifti/images/{pair['moving']}.nii.gz",
        )
    )
    for name in ("GetSize", "GetOrigin", "GetSpacing", "GetDirection"):
        assert getattr(fixed, name)() == getattr(warped, name)()
    transform = sitk.ReadTransform(str(out / pair["transform"]))
    expected = sitk.GetArrayFromImage(sitk.Resample(original, fixed, transform, sitk.sitkLinear, -1024.0))
    difference = np.abs(sitk.GetArrayFromImage(warped).astype(int) - expected)
    assert (difference > 1).mean() < 0.001  # at the border of the follow-up
    mask = sitk.ReadImage(str(out / pair["fixed_lung_mask"]))
    assert mask.GetSize() == fixed.GetSize()
    assert (pair["fixed_lung_mask_origin"], pair["moving_lung_mask_origin"]) == ("published", "")
    assert pair["warped_lung_mask"] == ""
    back = transform.GetInverse()
    (_, moved) = _table(out / "nodules.csv")
    (row,) = [row for _, row in every_row(folder, "longitudinal") if row["timepoint"] == 1]
    world = [float(moved[f"lps_mm_{axis}"]) for axis in "xyz"]
    np.testing.assert_allclose(world, back.TransformPoint(row["nodules"][0]["center_world"]), atol=1e-6)
    voxel = [float(moved[f"voxel_{axis}"]) for axis in "xyz"]
    np.testing.assert_allclose(fixed.TransformContinuousIndexToPhysicalPoint(voxel), world, atol=1e-3)
    assert (moved["case"], moved["nodule_id"]) == (pair["pair"], row["nodules"][0]["nodule_id"])


def test_a_refused_pair_is_listed_with_its_reason_and_not_written(followed) -> None:
    _, out = followed
    kept, refused = _table(out / "pairs.csv")
    assert (kept["is_registered"], refused["is_registered"]) == ("True", "False")
    assert refused["moving_timepoint"] == "2"
    assert "no lungs were found in the moving scan" in refused["reason"]
    assert not any(refused[name] for name in ("fixed_image", "warped_image", "transform"))
    assert not [path for path in out.rglob("*") if refused["moving"] in path.name]
    (note,) = json.loads((out / "export.json").read_text())["notes"]
    assert note == "1 of 2 pairs are unregistered and not written; pairs.csv has their reasons"


@pytest.mark.slow
def test_pairs_of_real_ct_keep_their_nodules_together(mirror, build, tmp_path) -> None:
    out = exported(build(mirror, "longitudinal").folder, "longitudinal", "nifti-pairs", tmp_path / "pairs")
    nodules = {nodule["case"]: nodule for nodule in _table(out / "nodules.csv")}
    pairs = _table(out / "pairs.csv")
    assert [pair["is_registered"] for pair in pairs] == ["True"] * 5
    for pair in pairs:
        both = [[float(nodules[pair[key]][f"lps_mm_{axis}"]) for axis in "xyz"] for key in ("fixed", "pair")]
        assert np.linalg.norm(np.subtract(*both)) < 2.5


_PATHS = ("../../esc", "a/b", "a\\b", "..", ".hidden", "</script>", "C:x", "a\nb", "a.")


@pytest.mark.parametrize(
    ("to", "name"),
    [*((to, "/absolute") for to in EXPORTABLE), *itertools.product(("coco", "nifti"), _PATHS)],
)
def test_an_id_that_is_a_path_is_refused_and_nothing_is_written(dummy_build, tmp_path, to, name) -> None:
    """In a build that someone has changed: nothing is written outside of the folder of the export."""
    config = SLICES if SLICES in EXPORTABLE[to] else "longitudinal" if to == "nifti-pairs" else THIN
    (tmp_path / "outside").mkdir()
    if name == "/absolute":
        name = str(tmp_path / "outside" / "0")

    def change(rows) -> None:
        for row in rows:
            row["image_id" if config == SLICES else "scan_id"] = name

    folder = tmp_path / "build"
    shutil.copytree(dummy_build(), folder)
    with pytest.raises(ExportError, match="cannot be the name of a file"):
        exported(alter(folder, config, change), config, to, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()
    assert not list(tmp_path.glob("outside/*"))


def test_an_export_of_a_limited_build_says_so(dummy, build, tmp_path) -> None:
    folder = build(dummy, THIN, limit=1).folder
    summary = export_config(open_build(folder), THIN, "nifti", tmp_path / "nifti")
    assert summary.notes[-1] == "the build is not complete: it was made with --limit 1"
    assert json.loads((tmp_path / "nifti" / "export.json").read_text())["notes"] == list(summary.notes)


def test_lungs_of_a_config_without_masks_are_refused(dummy_build, tmp_path) -> None:
    with pytest.raises(ExportError, match=r"no scan has a lung mask.*--make-lung-masks"):
        exported(dummy_build(), "det3d_5mm", "nnunet-lungs", tmp_path / "lungs")
    assert not (tmp_path / "lungs").exists()


def test_scans_that_are_not_in_the_order_of_time_are_refused(followed, tmp_path) -> None:
    def turn(rows) -> None:
        for row in rows:
            row["timepoint"] = None if row["timepoint"] is None else 2 - row["timepoint"]

    shutil.copytree(followed[0], tmp_path / "build")
    with pytest.raises(ExportError, match=r"not in the order of time.*got timepoint 1 of patient 7"):
        exported(alter(tmp_path / "build", "longitudinal", turn), "longitudinal", "nifti-pairs", tmp_path / "pairs")
    assert not (tmp_path / "pairs").exists()


def test_an_export_without_any_pair_is_refused_with_the_reason(followed, tmp_path) -> None:
    def part(rows) -> None:
        rows[1]["slice_thickness_mm"], rows[2]["patient_id"] = 5.0, None

    shutil.copytree(followed[0], tmp_path / "build")
    folder = alter(tmp_path / "build", "longitudinal", part)
    with pytest.raises(
        ExportError, match=r"no pair to export: 3 scans have no pair: .*expected scans of two dates of a patient"
    ):
        export_config(open_build(folder), "longitudinal", "nifti-pairs", tmp_path / "pairs")
    assert not (tmp_path / "pairs").exists()


def test_scans_without_an_earlier_one_are_counted(followed, tmp_path) -> None:
    def part(rows) -> None:
        rows[2]["patient_id"] = None

    shutil.copytree(followed[0], tmp_path / "build")
    folder = alter(tmp_path / "build", "longitudinal", part)
    summary = export_config(open_build(folder), "longitudinal", "nifti-pairs", tmp_path / "pairs")
    assert len(_table(tmp_path / "pairs" / "pairs.csv")) == 1
    assert summary.notes[-1].startswith("1 scan has no pair: it is the only one")


def test_without_simpleitk_the_error_names_the_extra(followed, python, tmp_path) -> None:
    code = (
        "import sys; sys.modules['SimpleITK'] = None; from lung_nodule_ct.cli import main; "
        f"sys.argv[1:] = ['export', {str(followed[0])!r}, 'longitudinal', '--to', 'nifti-pairs', '--out', 'pairs']; main()"
    )
    done = python(code, cwd=tmp_path)
    assert done.returncode == 1
    assert 'pip install "lung_nodule_ct[imaging]"' in done.stderr.replace("\n", " ").replace("Pip", "pip")


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", FORMATS)
def test_a_config_that_a_format_does_not_support_is_refused(build, dummy, tmp_path, to) -> None:
    opened = open_build(build(dummy, "cls_1.25mm", SLICES, THIN).folder)
    for config in opened.configs:
        if config not in EXPORTABLE[to]:
            with pytest.raises(ExportError, match=f"in this build: {EXPORTABLE[to][0]}"):
                export_config(opened, config, to, tmp_path / "export")
    with pytest.raises(BuildFolderError, match="has no"):
        export_config(opened, "det3d_5mm", to, tmp_path / "export")
    with pytest.raises(ExportError, match="there is no export to 'dicom'"):
        export_config(opened, SLICES, "dicom", tmp_path / "export")
    assert not (tmp_path / "export").exists()


def test_the_command_lists_every_format() -> None:
    assert [str(name) for name in FormatName] == list(FORMATS)


def test_formats_apply_to_the_schemas_that_they_support() -> None:
    for to, configs in EXPORTABLE.items():
        assert tuple(name for name in CONFIGS if FORMATS[to].applies_to(CONFIGS[name].schema)) == configs


def test_a_new_scan_config_can_be_exported(dummy_build, tmp_path) -> None:
    """The config has another name, other column names, no mask, no patient and no fold. Formats depend only on the schema."""
    columns = {"volume": "ct", "nodules": "lesions", "lung_mask": None, "fold": None, "patient_id": None}
    build = as_unknown_config(dummy_build(), tmp_path / "build", THIN, "lesions_3d", columns, kind="lesion_scan")
    rows = list(build.rows("lesions_3d", "train"))
    for to in ("nifti", "monai", "nndetection", "luna16", "nnunet", "slicer", "hub-nifti"):
        summary = export_config(build, "lesions_3d", to, tmp_path / to)
        assert summary.images == len(rows)
        assert 0 < summary.annotations <= sum(len(row["lesions"]) for row in rows)
    for path in (tmp_path / "nifti").glob("images/*"):
        assert (tmp_path / "monai" / "images" / path.name).read_bytes()[10:] == path.read_bytes()[10:]
    with (tmp_path / "nifti" / "scans.csv").open(newline="") as file:
        scans = list(csv.DictReader(file))
    assert [scan["scan_id"] for scan in scans] == [row["scan_id"] for row in rows]
    assert not set(scans[0]) & {"fold", "patient_id"}
    for scan, row in zip(scans, rows, strict=True):
        image = nibabel.load(tmp_path / "nifti" / "images" / f"{scan['case']}.nii.gz")
        assert (np.asarray(image.dataobj) == row["ct"].transpose(2, 1, 0)).all()
    with pytest.raises(
        ExportError,
        match="Export lesions_3d to monai or nndetection or luna16 or nnunet or slicer or nifti or hub-nifti",
    ):
        export_config(build, "lesions_3d", "coco", tmp_path / "coco")


@pytest.mark.parametrize(
    ("config", "columns"),
    [
        (SLICES, {"image": "ct_slice", "objects": "boxes", "image_id": None, "width": None, "height": None}),
        (STACKS, {"volume": "ct", "nodules": "boxes", "case_id": None}),
    ],
)
def test_a_new_config_with_boxes_can_be_exported(dummy_build, tmp_path, config, columns) -> None:
    build = as_unknown_config(dummy_build(), tmp_path / "build", config, "boxes_2d", columns, kind="boxed")
    original = open_build(dummy_build())
    for to in ("coco", "yolo", "voc"):
        summary = export_config(build, "boxes_2d", to, tmp_path / to)
        assert summary == export_config(original, config, to, tmp_path / f"original-{to}")


def test_the_command_replaces_an_export_and_keeps_other_files(cli, build, dummy, tmp_path) -> None:
    folder, out = build(dummy, SLICES, THIN).folder, tmp_path / "export"
    done = cli("export", folder, THIN, "--to", "nifti", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["images"] == len(list((out / "images").iterdir()))
    again = cli("export", folder, SLICES, "--to", "yolo", "--out", out)  # another export may replace it
    assert again.returncode == 0, again.stderr
    assert not (out / "scans.csv").exists()
    (out / "notes.txt").write_text("written by the user")
    refused = cli("export", folder, SLICES, "--to", "coco", "--out", out)
    assert refused.returncode == 1
    assert "notes.txt" in refused.stderr
    assert (out / "data.yaml").is_file()


def test_a_failed_export_writes_nothing(build, dummy, tmp_path) -> None:
    folder = build(dummy, THIN).folder
    opened = open_build(folder)
    shard = next(folder.rglob("*.parquet"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(BuildFolderError):
        export_config(opened, THIN, "nifti", tmp_path / "export")
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_with_other_files_is_not_replaced(build, dummy, tmp_path) -> None:
    opened = open_build(build(dummy, SLICES).folder)
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "thesis.tex").write_text("")
    with pytest.raises(OutputError, match=r"not the result of a previous export.*thesis\.tex"):
        export_config(opened, SLICES, "coco", tmp_path / "documents")


def test_without_nibabel_the_error_names_the_extra(build, dummy, python, tmp_path) -> None:
    folder = build(dummy, THIN).folder
    code = (
        "import sys; sys.modules['nibabel'] = None; from lung_nodule_ct.cli import main; "
        f"sys.argv[1:] = ['export', {str(folder)!r}, {THIN!r}, '--to', 'nifti', '--out', 'exported']; main()"
    )
    done = python(code, cwd=tmp_path)
    assert done.returncode == 1
    assert 'pip install "lung_nodule_ct[export]"' in done.stderr.replace("\n", " ").replace("Pip", "pip")
    assert not (tmp_path / "exported").exists()
