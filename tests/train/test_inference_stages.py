"""What follows a detector of volumes: the crop to the lungs, calibrated scores, and the stage that removes false positives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jax")
for needed in ("flax", "grain", "optax", "orbax.checkpoint", "tensorboardX", "tyro", "matplotlib"):
    pytest.importorskip(needed)
import jax  # noqa: E402

jax.config.update("jax_disable_most_optimizations", True)

from altered import alter  # noqa: E402

from lung_nodule_ct.read.build_folder import open_build  # noqa: E402
from lung_nodule_ct.testing.hard_archives import write_hard_archives  # noqa: E402
from lung_nodule_ct.train.batches import open_data_source  # noqa: E402
from lung_nodule_ct.train.box_prediction import predict_volumes  # noqa: E402
from lung_nodule_ct.train.data.volumes import Patches  # noqa: E402
from lung_nodule_ct.train.detection_options import InferenceOptions  # noqa: E402
from lung_nodule_ct.train.lung_regions import closed_lungs, describe_lung_crop, lung_crop_counts  # noqa: E402
from lung_nodule_ct.train.recipes import RECIPES, InputOptions  # noqa: E402

pytestmark = pytest.mark.train

CONFIG = "det3d_1.25mm"
SMALL = InputOptions(size=(12, 16, 16), spacing_mm=(3.0, 3.0, 3.0))
RECIPE = replace(RECIPES[CONFIG], input=SMALL, batch_size=4)


@pytest.fixture(scope="module")
def build(cli, tmp_path_factory) -> Path:
    """A build of blocks of lung, as Parquet. The last scan has no lung mask, and the masks of the others end after a quarter."""
    folder = tmp_path_factory.mktemp("blocks")
    source = write_hard_archives(folder / "in", train=8, validation=5)
    done = cli("build", CONFIG, "--source", source, "--out", folder / "build")
    assert done.returncode == 0, done.stderr

    def cut_masks(rows: list[dict]) -> None:
        for row in rows:
            mask = np.frombuffer(row["lung_mask"]["bytes"], np.uint8).reshape(row["lung_mask"]["shape"]).copy()
            mask[len(mask) // 4 :] = 0
            row["lung_mask"]["bytes"] = mask.tobytes()
        rows[-1]["lung_mask"] = rows[-1]["lung_mask_origin"] = None

    return alter(folder / "build", CONFIG, cut_masks)


# --- the crop to the lungs --------------------------------------------------------------------------------------------


def test_patches_and_boxes_outside_of_the_lungs_are_left_out(build) -> None:
    recipe = replace(RECIPE, inference=InferenceOptions(lungs=True))
    source = open_data_source(open_build(build), recipe, "validation")
    assert isinstance(source, Patches)
    seen = 0

    def apply(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A detector that finds a box of 3 voxels everywhere, on a grid."""
        nonlocal seen
        seen += len(batch["image"])
        low = np.stack(np.meshgrid(*(np.arange(0, n, 4) for n in SMALL.size), indexing="ij"), -1).reshape(-1, 3)
        boxes = np.tile(np.concatenate([low, low + 3], 1), (len(batch["image"]), 1, 1))
        return {"boxes": boxes, "scores": np.full(boxes.shape[:2], 0.5)}

    rows = list(predict_volumes(source, apply, recipe))
    cropped_patches, seen = seen, 0
    whole = list(predict_volumes(source, apply, RECIPE))
    assert cropped_patches < 0.8 * seen
    unmasked = [row["nodules_outside_lungs"] is None for row in rows]
    assert sum(unmasked) == 1
    for index, (row, before) in enumerate(zip(rows, whole, strict=True)):
        mask = source.rows.voxels(index, "lung_mask")
        if mask is None:
            assert row["boxes"] == before["boxes"]
            continue
        lungs = closed_lungs(mask, source.spacing(index))
        boxes = np.array(row["boxes"])
        x, y, z = ((boxes[:, :3] + boxes[:, 3:]) / 2).astype(int).T
        assert len(boxes) > 10
        assert lungs[z, y, x].all()
        x, y, z = np.array(row["truth_boxes"]).reshape(-1, 2, 3).mean(1).astype(int).T
        assert row["nodules_outside_lungs"] == (~lungs[z, y, x]).sum()
    assert "nodules_outside_lungs" not in whole[0]
    counts = lung_crop_counts(rows)
    assert counts is not None
    assert counts["nodules_outside"] > 0
    assert counts["cropped"] + counts["whole"] == len(rows) == 5
    assert "Predicted whole, without a lung mask: 1 scans" in describe_lung_crop(counts)
    assert lung_crop_counts(whole) is None
