"""One training step: parts of a batch, crowded examples, values that are not finite, and checkpoints of a full disk."""

from __future__ import annotations

import os
import re
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")
for needed in ("flax", "grain", "optax", "orbax.checkpoint", "tensorboardX", "tyro", "matplotlib"):
    pytest.importorskip(needed)
import jax.numpy as jnp  # noqa: E402
from flax import nnx  # noqa: E402

from lung_nodule_ct.read.build_folder import open_build  # noqa: E402
from lung_nodule_ct.read.rows import Rows  # noqa: E402
from lung_nodule_ct.system import files  # noqa: E402
from lung_nodule_ct.testing.synthetic_archives import write_synthetic_archives  # noqa: E402
from lung_nodule_ct.train.batches import open_data_source  # noqa: E402
from lung_nodule_ct.train.recipes import InputOptions, ModelOptions, OptimOptions, Recipe  # noqa: E402
from lung_nodule_ct.train.step import initial_state, initialize_jax, make_step  # noqa: E402
from lung_nodule_ct.train.tasks import classification  # noqa: E402

pytestmark = pytest.mark.train

CROPS = ("cls_1.25mm", "--model.width", "4", "--model.blocks", "1", "--input.size", "16", "16", "--batch-size", "8")
STEPS = ("--watch", "0", "--steps", "4", "--save-every", "2")


@pytest.fixture(scope="module")
def built(cli, tmp_path_factory) -> Path:
    """A build of synthetic patients."""
    folder = tmp_path_factory.mktemp("lesions")
    source = write_synthetic_archives(folder / "source", 20)
    names = ("cls_1.25mm", "det2d_1.25mm", "det3d_1.25mm")
    done = cli("build", *names, "--source", source, "--out", folder / "build", "--format", "arrow")
    assert done.returncode == 0, done.stderr
    return folder / "build"


# --- compiled programs ------------------------------------------------------------------------------------------------


def test_compiled_programs_are_kept_where_the_environment_says_or_in_the_cache() -> None:
    given = jax.config.jax_compilation_cache_dir
    initialize_jax()
    assert jax.config.jax_compilation_cache_dir == given == os.environ["JAX_COMPILATION_CACHE_DIR"]
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        initialize_jax()
        assert jax.config.jax_compilation_cache_dir == str(files.cache_folder() / "compiled")
    finally:
        jax.config.update("jax_compilation_cache_dir", given)


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_written_is_one_error(built, python, tmp_path) -> None:
    """As with a quota, which the free space does not show. Orbax logs a traceback for each array."""
    pytest.importorskip("resource")
    command = ["train", str(built), *CROPS, *STEPS, "--out", str(tmp_path / "run")]
    done = python(
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "from lung_nodule_ct.cli import main\n"
        f"sys.argv[1:] = {command!r}\n"
        "main()",
        cwd=tmp_path,
        JAX_COMPILATION_CACHE_DIR=str(tmp_path / "cache"),  # what is cut off there is not read by other tests
    )
    assert done.returncode == 1, done.stderr
    lines = [line for line in done.stderr.splitlines() if "checkpoints" in line]
    assert len(lines) == 1
    assert lines[0].startswith("error: a checkpoint cannot be written to ")
    assert "File too large" in lines[0]
    assert "ERROR:" not in done.stderr, done.stderr  # as the loggers of Orbax and asyncio write


# --- parts of a batch -------------------------------------------------------------------------------------------------


def detection_batch() -> dict[str, np.ndarray]:
    """Four slices with 0 to 3 nodules, so that the halves of the batch have different numbers of them."""
    random = np.random.default_rng(0)
    low = random.uniform(0, 20, (4, 3, 2))
    boxes = np.concatenate([low, low + random.uniform(4, 10, (4, 3, 2))], 2).astype(np.float32)
    valid = np.arange(3) < np.array([0, 1, 2, 3])[[3, 0, 2, 1], None]
    return {"image": random.integers(0, 256, (4, 32, 32)).astype(np.uint8), "boxes": boxes, "valid": valid}


def sequence_batch() -> dict[str, np.ndarray]:
    """Four sequences, of which three have a known pathology and one has a change."""
    random = np.random.default_rng(0)
    return {
        "image": random.integers(-1000, 200, (4, 2, 8, 8, 8)).astype(np.int16),
        "spacing": np.ones((4, 2, 3), np.float32),
        "years": np.array([[0, 1]] * 4, np.float32),
        "present": np.ones((4, 2), bool),
        "malignant": np.array([1, -1, 0, 1], np.int32),
        "change": np.array([3, 0, 0, 0], np.float32),
        "changed": np.array([True, False, False, False]),
    }


SMALL = InputOptions(augment=True)
CUBES = InputOptions(size=(8, 8, 8), spacing_mm=(1.0, 1.0, 1.0), scans=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "batch"),
    [
        (Recipe("det2d_1.25mm", "detection", ModelOptions("center", 4, (1, 1)), SMALL), detection_batch()),
        (Recipe("det2d_1.25mm", "detection", ModelOptions("anchors", 4, (1, 1)), SMALL), detection_batch()),
        (Recipe("longitudinal", "longitudinal", ModelOptions("sequence", 4, (1,)), CUBES), sequence_batch()),
    ],
    ids=["center", "anchors", "sequence"],
)
def test_the_loss_does_not_depend_on_the_number_of_parts(recipe, batch) -> None:
    results = {}
    for parts in (1, 2):
        divided = replace(recipe, batch_size=4, optim=OptimOptions(accumulate=parts))
        _, results[parts] = make_step(divided)(jax.jit(lambda made=divided: initial_state(made))(), batch)
    for name in results[1]:
        values = [float(results[parts][name]) for parts in (1, 2)]
        np.testing.assert_allclose(values, values[0], rtol=1e-4, err_msg=name)


# --- data sources -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "column", "size"), [("det2d_1.25mm", "objects", ()), ("det3d_1.25mm", "nodules", (8, 32, 32))]
)
def test_no_box_of_a_crowded_example_is_dropped(built, config, column, size) -> None:
    model = ModelOptions("center", width=4, blocks=(1,))
    recipe = Recipe(config, "detection", model, InputOptions(size=size), split_by="patient")
    source = open_data_source(open_build(built), recipe, "train")
    index = next(number for number, row in enumerate(source.rows.metadata) if row[column])
    rows = list(source.rows.metadata)
    rows[index] = rows[index] | {column: rows[index][column][:1] * 11}
    crowded = type(source)(replace(source.rows, metadata=tuple(rows)), recipe)

    def example(number: int) -> dict[str, np.ndarray]:
        if config == "det2d_1.25mm":
            return crowded.load(number, np.random.default_rng(0))
        box = crowded.nodule_boxes(index)[0]
        return crowded.patch(number, crowded.first_voxel((box[:3] + box[3:]) / 2))

    assert example(index)["valid"].sum() == 11
    assert example(index - 1)["boxes"].shape == example(index)["boxes"].shape  # so that examples form a batch


def test_names_patients_and_labels_are_collected_once(built, monkeypatch) -> None:
    recipe = Recipe("cls_1.25mm", "classification", ModelOptions("classes"), InputOptions(size=(8, 8)))
    source = open_data_source(open_build(built), recipe, "train")
    calls = []
    collect = Rows.ids
    monkeypatch.setattr(Rows, "ids", lambda *arguments: calls.append(1) or collect(*arguments))
    assert len({source.ids[index] for index in range(len(source))}) == len(source)
    assert len(calls) == 1
    assert source.patients is source.patients
    assert source.labels is source.labels


# --- values that are not finite ---------------------------------------------------------------------------------------


class Poisoned(nnx.Module):
    """A linear layer. The gradient of a root at 0 is infinite, and the loss is not."""

    def __init__(self, recipe: Any, rngs: nnx.Rngs) -> None:
        height, width = recipe.input.size
        self.head = nnx.Linear(height * width, classification.CLASSES, rngs=rngs)
        self.root = nnx.Param(jnp.zeros(1))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map images (batch, y, x, 1) to logits (batch, 6)."""
        return self.head(x.reshape(len(x), -1)) + jnp.sqrt(jnp.abs(self.root[...])) * x.reshape(len(x), -1)[:, :1]


def test_a_bad_gradient_is_named_with_its_step_and_not_saved(built, cli, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(classification, "build_model", Poisoned)
    run = tmp_path / "run"
    for steps in ("1", "3"):
        done = cli("train", built, *CROPS, "--watch", "0", "--steps", steps, "--save-every", "1", "--out", run)
        assert done.returncode == 1
        message = " ".join(done.stderr.split())
        assert re.search(
            r"error: the loss at step 0 is [0-9.]+, but its gradient is not finite; got examples \S", message
        )
        assert not any((run / "checkpoints").glob("[0-9]*"))
        shutil.rmtree(run)


def test_bad_weights_after_a_good_gradient_are_named(built, cli, tmp_path) -> None:
    run = tmp_path / "run"
    options = ("--optim.learning-rate", "3e38", "--optim.warmup", "0", "--optim.weight-decay", "0")
    done = cli("train", built, *CROPS, *options, "--watch", "0", "--steps", "1", "--out", run)
    assert done.returncode == 1
    assert "but the weights after it are not finite" in " ".join(done.stderr.split())
    assert not any((run / "checkpoints").glob("[0-9]*"))


# --- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(cli, built, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("finished") / "run"
    done = cli("train", built, *CROPS, *STEPS, "--out", run)
    assert done.returncode == 0, done.stderr
    return run


@pytest.mark.parametrize("emptied", [".", "default"])
def test_a_run_continues_from_the_checkpoint_before_an_emptied_one(finished, built, cli, tmp_path, emptied) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    folder = run / "checkpoints/4" / emptied
    shutil.rmtree(folder)
    folder.mkdir()
    done = cli("train", built, *CROPS, *STEPS, "--out", run)
    assert done.returncode == 0, done.stderr
    assert "the one of step 2 is used" in " ".join(done.stderr.split())
    assert (run / "metrics.csv").read_bytes() == (finished / "metrics.csv").read_bytes()


def test_a_disk_without_space_for_a_checkpoint_is_one_line(finished, built, cli, tmp_path, monkeypatch) -> None:
    run = tmp_path / "run"
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(files.shutil, "disk_usage", lambda _: usage(2**30, 2**30, files._SPARE_BYTES + 1000))
        done = cli("train", built, *CROPS, *STEPS, "--out", run)
    assert done.returncode == 1
    assert done.stderr.startswith("error: there is not enough free space for a checkpoint in ")
    assert done.stderr.count("\n") == 1
    assert "the same command continues from the last checkpoint" in done.stderr
    assert cli("train", built, *CROPS, *STEPS, "--out", run).returncode == 0
    assert (run / "metrics.csv").read_bytes() == (finished / "metrics.csv").read_bytes()
