"""A build of real chest CT: every id, count, hash, frame, box, class and timepoint equals the ground truth."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from built import Built

CONFIGS = ["cls_1.25mm", "det2d_1.25mm", "det3d_1.25mm", "det3d_5mm", "longitudinal", "det3d_bmp_1.25mm"]


@pytest.fixture(scope="module")
def expected(mirror: Path) -> dict[str, Any]:
    return json.loads((mirror / "expected.json").read_text())


@pytest.fixture(scope="module")
def built(mirror, cli, tmp_path_factory) -> Built:
    out = tmp_path_factory.mktemp("mirror") / "lung_nodule_ct"
    done = cli("build", "--all", "--source", mirror, "--out", out, "--keep-source-names")
    assert done.returncode == 0, done.stderr
    return Built(out)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def names(built: Built, config: str, split: str) -> set[str]:
    return {row["source_name"] for row in built.rows(config, split)}


@pytest.mark.slow
def test_classification_rows_equal_the_ground_truth(built, expected) -> None:
    truth = expected["configs"]["cls"]
    rows = built.by_name("cls_1.25mm")
    for split, published in (("train", "train"), ("validation", "validate")):
        assert names(built, "cls_1.25mm", split) == set(truth["splits"][published]["ids"])
    assert set(rows) == set(truth["examples"])
    for name, example in truth["examples"].items():
        assert sha256(rows[name]["image"]["bytes"]) == example["sha256_file"]
        assert rows[name]["label"] == example["label"] - 1
        assert rows[name]["malignant"] == (example["label"] <= 4)


def test_slices_equal_the_ground_truth(built, expected) -> None:
    truth = expected["configs"]["det2d"]
    rows = built.by_name("det2d_1.25mm")
    for split, published in (("train", "train"), ("validation", "val")):
        assert names(built, "det2d_1.25mm", split) == set(truth["splits"][published]["ids"])
    assert set(rows) == set(truth["examples"])
    for name, example in truth["examples"].items():
        row = rows[name]
        assert sha256(row["image"]["bytes"]) == example["sha256_file"]
        assert (row["width"], row["height"]) == (example["width"], example["height"])
        assert [entry["bbox"] for entry in row["objects"]] == example["boxes"]


@pytest.mark.parametrize("config", ["det3d_1.25mm", "det3d_5mm"])
def test_scans_equal_the_ground_truth(built, expected, config) -> None:
    truth = expected["configs"][config]
    rows = built.by_name(config)
    assert set(rows) == set(truth["splits"]["all"]["ids"])
    assert sum(len(row["nodules"]) for row in rows.values()) == truth["nodule_count"]
    for name, example in truth["examples"].items():
        row = rows[name]
        assert row["patient_id"] == example["patient"]
        assert row["volume"]["shape"] == example["shape_zyx"]
        assert sha256(row["volume"]["bytes"]) == example["sha256_int16"]
        assert row["spacing"] == example["spacing_xyz"]
        assert row["origin"] == example["origin_xyz"]
        assert row["direction"] == example["direction"]
        for nodule, published in zip(row["nodules"], example["nodules"], strict=True):
            assert nodule["center_world"] == published["world_xyz_mm"]
            assert nodule["diameter_mm"] == published["diameter_mm"]
            np.testing.assert_allclose(nodule["center_voxel"], published["index_xyz"], atol=1e-6)
            assert nodule["box_voxel"] == sphere_box(published, example)
        if "mask" in example:
            labels = np.frombuffer(row["lung_mask"]["bytes"], "u1")
            assert sha256(labels.astype("<i2").tobytes()) == example["mask"]["sha256_int16"]
            assert {str(v): int(n) for v, n in zip(*np.unique(labels, return_counts=True), strict=True)} == example[
                "mask"
            ]["label_voxels"]
        else:
            assert row["lung_mask"] is None


def sphere_box(nodule: dict[str, Any], example: dict[str, Any]) -> list[int] | None:
    """Return the bounding box of the voxels in a sphere, computed from the ground truth."""
    center, spacing = np.array(nodule["index_xyz"]), np.array(example["spacing_xyz"])
    reach = nodule["diameter_mm"] / 2 / spacing
    low = np.ceil(center - reach).clip(0)
    high = np.minimum(np.floor(center + reach) + 1, example["shape_zyx"][::-1])
    return None if (high <= low).any() else np.concatenate([low, high]).astype(int).tolist()


def test_timepoints_equal_the_ground_truth(built, expected) -> None:
    longitudinal = {(row["source_name"], row["slice_thickness_mm"]) for row in built.rows("longitudinal")}
    for entry in expected["timepoints"]:
        row = built.by_name(entry["config"])[entry["id"]]
        for column in ("timepoint", "num_timepoints", "days_since_first"):
            assert row[column] == entry[column]
        thickness = 1.25 if entry["config"] == "det3d_1.25mm" else 5.0
        assert ((entry["id"], thickness) in longitudinal) == entry["in_longitudinal"]
    keys = [(row["patient_id"], row["timepoint"], row["slice_thickness_mm"]) for row in built.rows("longitudinal")]
    assert keys == sorted(keys)


def test_stacks_equal_the_ground_truth(built, expected) -> None:
    truth = expected["configs"]["bmp3d"]
    rows = built.by_name("det3d_bmp_1.25mm")
    for split, published in (("train", "train"), ("validation", "val")):
        assert names(built, "det3d_bmp_1.25mm", split) == set(truth["splits"][published]["ids"])
    assert set(rows) == set(truth["examples"])
    for pid, example in truth["examples"].items():
        row = rows[pid]
        assert row["volume"]["shape"] == example["shape_zyx"]
        assert sha256(row["volume"]["bytes"]) == example["sha256_uint8"]
        boxes = [[x0, y0, z0, x1 + 1, y1 + 1, z1 + 1] for z0, z1, y0, y1, x0, x1 in example["boxes"]]
        assert [nodule["box_voxel"] for nodule in row["nodules"]] == boxes
        assert [nodule["diameter"] for nodule in row["nodules"]] == example["diameters"]


def test_the_only_finding_is_the_nodule_between_two_slices(built) -> None:
    codes = {finding["code"] for finding in built.report["findings"] if finding["grade"] != "note"}
    assert codes == {"nodule-between-voxels"}  # a nodule of 3 mm between two slices of 5 mm


@pytest.mark.slow
def test_loading_the_archives_gives_the_rows_of_the_build(built, mirror, python, tmp_path) -> None:
    """The rows are equal if they are prepared by two processes, streamed, or loaded from the build."""
    code = f"""
import datasets, lung_nodule_ct
if __name__ == "__main__":
    for config in {CONFIGS!r}:
        built = datasets.load_dataset({str(built.folder)!r}, config, cache_dir={str(tmp_path / "built")!r})
        prepared = datasets.load_dataset("lung_nodule_ct", config, data_dir={str(mirror)!r}, keep_source_names=True, num_proc=2, cache_dir={str(tmp_path / "prepared")!r})
        streamed = datasets.load_dataset("lung_nodule_ct", config, data_dir={str(mirror)!r}, keep_source_names=True, streaming=True)
        assert list(built) == list(prepared) == list(streamed), (list(built), list(prepared), list(streamed))
        for split in built:
            if "image" in built[split].column_names:
                built[split], prepared[split], streamed[split] = (rows.cast_column("image", datasets.Image(decode=False)) for rows in (built[split], prepared[split], streamed[split]))
            assert built[split].features == prepared[split].features == streamed[split].features
            for a, b, c in zip(built[split], prepared[split], streamed[split], strict=True):
                assert a == b == c
    print("equal")
"""
    done = python(code, cwd=tmp_path)
    assert done.stdout.splitlines()[-1:] == ["equal"], done.stderr
