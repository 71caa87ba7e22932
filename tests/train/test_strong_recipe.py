"""The options of detectors of volumes: matching, hard negatives, augmentation, and boxes from overlapping, mirrored patches."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")
for needed in ("flax", "grain", "optax", "orbax.checkpoint", "tensorboardX", "tyro", "matplotlib"):
    pytest.importorskip(needed)
import jax.numpy as jnp  # noqa: E402
from flax import nnx  # noqa: E402

from lung_nodule_ct.errors import TrainingError  # noqa: E402
from lung_nodule_ct.testing.hard_archives import write_hard_archives  # noqa: E402
from lung_nodule_ct.train import box_prediction  # noqa: E402
from lung_nodule_ct.train.augmentation import change_patch, move, rotation  # noqa: E402
from lung_nodule_ct.train.box_targets import adaptive_positives, hard_negative_loss  # noqa: E402
from lung_nodule_ct.train.boxes import fuse  # noqa: E402
from lung_nodule_ct.train.detection_options import AugmentOptions, InferenceOptions  # noqa: E402
from lung_nodule_ct.train.recipes import InputOptions, ModelOptions, OptimOptions  # noqa: E402
from lung_nodule_ct.train.runs import open_run  # noqa: E402
from lung_nodule_ct.train.step import initial_state, make_optimizer, make_step  # noqa: E402
from lung_nodule_ct.train.strong_recipe import STRONG, strong_recipe  # noqa: E402
from lung_nodule_ct.train.tasks import detection  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.train

TINY_MODEL = replace(STRONG.model, width=4, blocks=(1, 1), tower=1)
TINY = replace(STRONG, model=TINY_MODEL, input=InputOptions(size=(16, 16, 16)), batch_size=2, steps=4)


def batch(boxes: list[list[float]], size: int = 16) -> dict[str, Any]:
    """Two patches of noise: the first with boxes, the second without."""
    random = np.random.default_rng(0)
    image = random.integers(-1000, 200, (2, size, size, size), np.int16)
    padded = np.zeros((2, 8, 6), np.float32)
    valid = np.zeros((2, 8), bool)
    padded[0, : len(boxes)] = np.array(boxes).reshape(-1, 6)
    valid[0, : len(boxes)] = True
    return {"image": image, "spacing": np.ones((2, 3), np.float32), "boxes": padded, "valid": valid}


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("boxes", "hard_negatives"),
    [
        ([], 3),
        pytest.param([], 0, marks=pytest.mark.slow),
        pytest.param([[4, 4, 4, 9, 9, 9]], 3, marks=pytest.mark.slow),
    ],
)
def test_a_step_of_patches_without_a_nodule_is_finite(boxes, hard_negatives) -> None:
    recipe = replace(TINY, model=replace(TINY_MODEL, hard_negatives=hard_negatives))
    state, losses = make_step(recipe)(jax.jit(partial(initial_state, recipe))(), batch(boxes))
    assert all(np.isfinite(float(value)) for value in losses.values()), losses
    assert float(losses["gradient_norm"]) > 0
    assert (float(losses["loss_boxes"]) > 0) is bool(boxes)
    assert int(state["step"]) == 1


def test_adaptive_selection_agrees_with_its_definition() -> None:
    random = np.random.default_rng(1)
    overlap = random.uniform(0, 1, (30, 4)).astype(np.float32)
    distance = random.uniform(0, 9, (30, 4)).astype(np.float32)
    inside = random.random((30, 4)) < 0.8
    overlap[:, 3] = -1  # padding
    found = np.array(adaptive_positives(*map(jnp.array, (overlap, distance, inside)), levels=[20, 10], nearest=5))
    for box in range(4):
        levels = (np.arange(20), np.arange(20, 30))
        candidates = np.concatenate([level[np.argsort(distance[level, box])[:5]] for level in levels])
        values = overlap[candidates, box]
        chosen = candidates[(values >= values.mean() + values.std()) & (values > 0) & inside[candidates, box]]
        assert set(np.flatnonzero(found[:, box])) == set(chosen)
    assert found.any()
    assert not found[:, 3].any()


def test_only_the_negatives_with_the_largest_loss_count() -> None:
    logits = jnp.concatenate([jnp.linspace(-4, 4, 100)[None], jnp.linspace(-4, 4, 100)[None]])
    heat = jnp.zeros((2, 100)).at[0, :20].set(1.0)
    losses = np.array(hard_negative_loss(logits, heat, jnp.ones((2, 100)), 2))
    assert (losses[0] > 0).tolist() == [True] * 20 + [False] * 40 + [True] * 40
    assert (losses[1] > 0).sum() == 32


def rates(options: OptimOptions, steps: int) -> list[float]:
    """The learning rate of each step, which is the size of AdamW's steps if the gradient is constant."""
    optimizer = make_optimizer(replace(options, weight_decay=0, clip=1e9), steps)
    params = {"w": jnp.zeros(1)}

    def step(state: Any, _: None) -> tuple[Any, jax.Array]:
        update, state = optimizer.update({"w": jnp.ones(1)}, state, params)
        return state, -update["w"][0]

    return jax.lax.scan(step, optimizer.init(params), length=steps)[1].tolist()


def test_the_learning_rate_falls_as_a_power() -> None:
    found = rates(OptimOptions(learning_rate=1.0, warmup=10, schedule="poly"), 110)
    assert found[5] == pytest.approx(0.5, rel=1e-3)
    assert found[60] == pytest.approx(0.5**0.9, rel=1e-3)


@pytest.mark.parametrize("schedule", ["cosine", "poly"])
def test_the_rate_of_averaged_steps_is_constant_and_the_decay_ends_there(schedule) -> None:
    options = OptimOptions(learning_rate=2.0, warmup=4, schedule=schedule, swa=0.4, swa_rate=0.25)
    progress = np.arange(8) / 8  # of the steps 4 to 11; 12 to 19 are averaged
    share = (1 + np.cos(np.pi * progress)) / 2 if schedule == "cosine" else (1 - progress) ** 0.9
    expected = [0, 0.5, 1, 1.5, *(0.5 + 1.5 * share), *[0.5] * 8]
    np.testing.assert_allclose(rates(options, 20), expected, rtol=1e-4, atol=1e-6)
    decaying = rates(replace(options, swa_rate=0.0), 20)
    assert decaying == rates(replace(options, swa=0.0, swa_rate=0.0), 20)
    assert decaying[19] < 0.2


@pytest.mark.parametrize("steps", [2, 3])
def test_the_rate_of_averaged_steps_holds_in_a_short_run(steps) -> None:
    options = OptimOptions(learning_rate=1.0, warmup=50, swa=0.5, swa_rate=0.25)
    assert rates(options, steps)[1:] == pytest.approx([0.25] * (steps - 1), rel=1e-4)


# --- augmentation -----------------------------------------------------------------------------------------------------


def ball(center: tuple[float, ...], radius_mm: float, spacing: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A ball with a soft surface; 0.5 is its edge."""
    distance = np.linalg.norm((np.moveaxis(np.indices(shape), 0, -1) + 0.5 - center) * spacing, axis=-1)
    return np.clip(radius_mm - distance + 0.5, 0, 1).astype(np.float32)


def box_around(image: np.ndarray) -> np.ndarray:
    inside = np.argwhere(image > 0.5)
    return np.concatenate([inside.min(0), inside.max(0) + 1])


@pytest.mark.parametrize(
    ("zoom", "angles"),
    [(1.0, (0, 0, 0)), (1.3, (0, 0, 0)), (1.0, (0.6, 0, 0)), (0.8, (-1.0, 0, 0)), (1, (0.4, 0.5, -0.6))],
)
def test_a_box_moves_with_its_nodule_in_millimetres(zoom, angles) -> None:
    spacing, center = np.array([2.0, 0.9, 1.1], np.float32), (14, 20, 11)
    image = ball(center, 6, spacing, (24, 40, 32))
    half = 6 / spacing
    boxes = np.concatenate([center - half, center + half])[None].astype(np.float32)
    turn = rotation(jnp.array(angles, jnp.float32))
    moved, box = move(*map(jnp.array, (image, boxes, spacing, np.float32(zoom))), turn)
    moved = np.array(moved)
    found = [float((axis * moved).sum() / moved.sum()) for axis in np.indices(moved.shape) + 0.5]
    np.testing.assert_allclose((np.array(box[0, :3]) + np.array(box[0, 3:])) / 2, found, atol=0.15)
    np.testing.assert_allclose(np.array(box[0, 3:] - box[0, :3]), 2 * half * zoom, rtol=1e-5)
    np.testing.assert_allclose(box[0], box_around(moved), atol=1)


def test_the_box_of_a_ball_stays_around_the_deformed_ball() -> None:
    spacing, center = np.array([1.5, 1.0, 1.0], np.float32), (17.0, 27.0, 22.0)
    image = ball(center, 7, spacing, (32, 48, 48))
    half = 7 / spacing
    boxes = np.tile(np.concatenate([center - half, center + half]), (2, 1)).astype(np.float32)
    options, most = AugmentOptions(elastic=0.3, tilt=20.0, rotate=20.0), 0.0
    change = jax.jit(partial(change_patch, options=options))
    for seed in range(12):
        moved, box = change(jax.random.key(seed), *map(jnp.array, (image, boxes, spacing)))
        moved, box = np.array(moved), np.array(box)
        np.testing.assert_allclose(box[0], box_around(moved), atol=1.3)
        assert (box[0] == box[1]).all()
        most = max(most, float(np.abs((box[0, 3:] - box[0, :3]) / (2 * half) - 1).max()))
    assert most > 0.1  # nodules are stretched


def test_an_elastic_field_of_equal_shifts_is_a_translation() -> None:
    image = ball((10.0, 10.0, 10.0), 4, np.ones(3), (24, 24, 24))
    boxes = jnp.array([[6.0, 6, 6, 14, 14, 14]])
    shifts = jnp.full((6, 6, 6, 3), jnp.array([0.25, 0.0, -0.125]))  # 2 voxels, 0 and -1
    moved, box = jax.jit(move)(jnp.array(image), boxes, jnp.ones(3), jnp.array(1.0), jnp.eye(3), shifts)
    np.testing.assert_allclose(box, [[4, 6, 7, 12, 14, 15]], atol=1e-4)
    np.testing.assert_allclose(moved[:-2, :, 1:], image[2:, :, :-1], atol=1e-5)


def test_changes_stay_within_the_grey_values_and_none_is_the_default() -> None:
    image = jnp.array(np.random.default_rng(0).random((8, 12, 12)), jnp.float32)
    boxes = jnp.array([[1.0, 2, 3, 4, 5, 6]])
    same, same_boxes = change_patch(jax.random.key(0), image, boxes, jnp.ones(3), AugmentOptions())
    assert (same == image).all()
    assert (same_boxes == boxes).all()
    for name in ("noise", "blur", "contrast", "gamma", "low_resolution"):
        options = AugmentOptions(**{name: getattr(STRONG.augment, name)})
        largest = 0.0
        for seed in range(10):  # one draw may be small
            changed, kept = change_patch(jax.random.key(seed), image, boxes, jnp.ones(3), options)
            largest = max(largest, float(jnp.abs(changed - image).max()))
            assert (kept == boxes).all()
            assert float(changed.min()) >= 0
            assert float(changed.max()) <= 1
        assert largest > 0.02, name


# --- inference --------------------------------------------------------------------------------------------------------


def test_fused_boxes_are_means_by_score_and_boxes_of_few_views_have_lower_scores() -> None:
    boxes = np.array([[0, 0, 0, 10, 10, 10], [1, 0, 0, 11, 10, 10], [30, 30, 30, 35, 35, 35]], float)
    fused, scores = fuse(boxes, np.array([0.6, 0.2, 0.9]), 0.3, views=2)
    np.testing.assert_allclose(fused, [[30, 30, 30, 35, 35, 35], [0.25, 0, 0, 10.25, 10, 10]])
    np.testing.assert_allclose(scores, [0.45, 0.4])
    none, no_scores = fuse(np.zeros((0, 6)), np.zeros(0), 0.3, views=8)
    assert none.shape == (0, 6)
    assert no_scores.shape == (0,)


class OneVolume:
    """A source with one volume of 20 x 24 x 28 voxels, with one bright voxel."""

    extent = (16, 16, 16)
    array = np.zeros((20, 24, 28), np.int16)
    array[7, 15, 20] = 1

    def grid(self, index: int, overlap: float) -> list[np.ndarray]:
        return [np.array(first) for first in ((0, 0, 0), (4, 8, 12))]

    def spacing(self, index: int) -> np.ndarray:
        return np.ones(3)

    def patch(self, index: int, first: np.ndarray) -> dict[str, np.ndarray]:
        z, y, x = first
        return {"image": self.array[z : z + 16, y : y + 16, x : x + 16]}


def test_mirrored_views_and_overlapping_patches_agree_on_the_place_of_a_box() -> None:
    def apply(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A detector that finds the bright voxel."""
        boxes, scores = np.zeros((2, 1, 6)), np.zeros((2, 1))
        for number, image in enumerate(batch["image"]):
            for low in np.argwhere(image):
                boxes[number, 0], scores[number] = [*low, *(low + 1)], 0.5
        return {"boxes": boxes, "scores": scores}

    found, scores = box_prediction._volume_candidates(OneVolume(), 0, apply, TINY)
    assert len(found) == 8  # the second patch has the voxel, in eight views
    assert (found == [7, 15, 20, 8, 16, 21]).all()
    fused, fused_scores = fuse(found, scores, 0.3, views=8)
    assert fused.tolist() == [[7, 15, 20, 8, 16, 21]]
    assert fused_scores.tolist() == [0.5]
    plain = replace(TINY, inference=InferenceOptions())
    assert len(box_prediction._volume_candidates(OneVolume(), 0, apply, plain)[0]) == 2


# --- options and the command ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: AugmentOptions(zoom=(0.0, 1.0)),
        lambda: AugmentOptions(noise=-1),
        lambda: AugmentOptions(low_resolution=0.5),
        lambda: AugmentOptions(tilt=-1),
        lambda: AugmentOptions(elastic=0.5),
        lambda: InferenceOptions(overlap=1.0),
        lambda: InferenceOptions(mirrors=True),
        lambda: ModelOptions("center", matching="atss"),
        lambda: ModelOptions("anchors", hard_negatives=-1),
        lambda: strong_recipe("det3d_5mm"),
    ],
)
def test_options_that_make_no_sense_are_refused(make) -> None:
    with pytest.raises(TrainingError):
        make()


def test_the_strong_recipe_has_the_size_of_a_resnet_50_with_a_pyramid() -> None:
    model = nnx.eval_shape(lambda: detection.build_model(STRONG, nnx.Rngs(0)))
    count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert 45e6 < count < 55e6
    blocks = [len(stage) for stage in model.encoder.stages]
    assert blocks == [3, 4, 6, 3]
    assert model.encoder.widths == (256, 512, 1024, 2048)


@pytest.mark.slow
def test_the_strong_recipe_is_trained_continued_and_evaluated(cli, tmp_path: Path) -> None:
    source = write_hard_archives(tmp_path / "in", train=3, validation=2)
    assert cli("build", "det3d_1.25mm", "--source", source, "--out", tmp_path / "build").returncode == 0
    size = ("--input.size", "16", "16", "16", "--input.spacing-mm", "3", "3", "3", "--batch-size", "2", "--watch", "0")
    small = ("--model.width", "4", "--model.blocks", "1", "1", "--model.tower", "1", "--inference.overlap", "0.25")
    command = ("train", tmp_path / "build", "det3d_1.25mm", "--model", "retinanet3d", "--out", tmp_path / "run")
    done = cli(*command, *size, *small, "--steps", "3", "--save-every", "2")
    assert done.returncode == 0, done.stderr
    run = open_run(tmp_path / "run")
    assert run.recipe.augment == STRONG.augment
    assert run.recipe.inference.mirrors
    assert cli(*command, *size, *small, "--steps", "3", "--save-every", "2").returncode == 0
    assert cli("evaluate", tmp_path / "build", tmp_path / "run", "--draws", "20").returncode == 0
