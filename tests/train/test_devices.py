"""Training on eight devices: the batch is divided, and on demand the parameters. Activations that are computed again."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")
for needed in ("flax", "grain", "optax", "orbax.checkpoint", "tensorboardX", "tyro", "matplotlib"):
    pytest.importorskip(needed)

from lung_nodule_ct.testing.synthetic_archives import write_synthetic_archives  # noqa: E402
from lung_nodule_ct.train.network import initial_values, network  # noqa: E402
from lung_nodule_ct.train.recipes import InputOptions, ModelOptions, Recipe  # noqa: E402
from lung_nodule_ct.train.step import make_step, new_state  # noqa: E402

pytestmark = pytest.mark.train

OPTIONS = (
    *("cls_1.25mm", "--model.width", "24", "--model.blocks", "1", "--input.size", "8", "8", "--batch-size", "8"),
    *("--optim.warmup", "0", "--steps", "6", "--save-every", "2", "--watch", "8"),
)
DIVIDED = "--optim.shard-parameters"
TRAIN = """
import json, os, pathlib, signal
import jax
from lung_nodule_ct.cli import app
from lung_nodule_ct.train import runs

def train(*options):
    app([*COMMAND, *options], standalone_mode=False)
"""
SHARES = """
save, shares = runs.Checkpoints.save, {}

def save_and_measure(self, state, steps):
    \"\"\"Sizes of all arrays, and of the part on one device.\"\"\"
    leaves = jax.tree.leaves(state)
    shares[self._run.name] = [[leaf.size, leaf.addressable_data(0).size] for leaf in leaves]
    save(self, state, steps)

runs.Checkpoints.save = save_and_measure
"""
KILL = """
pathlib.Path("shares.json").write_text(json.dumps(list(shares.values())))
calls = []

def save_and_die(self, state, steps):
    calls.append(steps)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    save(self, state, steps)
    self._manager.wait_until_finished()

runs.Checkpoints.save = save_and_die
"""


@pytest.fixture(scope="module")
def crops(cli, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("crops")
    source = write_synthetic_archives(folder / "source", 20)
    done = cli("build", "cls_1.25mm", "--source", source, "--out", folder / "build", "--format", "arrow")
    assert done.returncode == 0, done.stderr
    return folder / "build"


@pytest.fixture(scope="module")
def runs(crops, python, tmp_path_factory) -> Path:
    """Runs on eight devices: ``copied``, ``divided``, and ``killed``, which is ``divided`` after kill -9 and the same command again."""
    folder = tmp_path_factory.mktemp("runs")
    command = f"COMMAND = {['train', str(crops), *OPTIONS, '--out']!r}\n"
    killed = f"train('killed', {DIVIDED!r})\n"
    first = f"train('copied')\ntrain('divided', {DIVIDED!r})\nprint('trained')\n"
    done = python(command + TRAIN + SHARES + first + KILL + killed, cwd=folder, devices=8)
    assert "trained" in done.stdout, done.stderr
    assert done.returncode == -9, done.stderr
    assert not (folder / "killed/checkpoints/6").exists()
    done = python(command + TRAIN + killed, cwd=folder, devices=8)
    assert done.returncode == 0, done.stderr
    return folder


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def values(run: Path) -> np.ndarray:
    """All losses and norms of a run, shape (steps, columns)."""
    return np.array([[float(row[name]) for name in row if not name.endswith("hex")] for row in rows(run)])


@pytest.mark.slow
def test_divided_parameters_give_the_losses_of_copies_and_of_one_device(runs, crops, cli, tmp_path) -> None:
    done = cli("train", crops, *OPTIONS, "--out", tmp_path / "one")
    assert done.returncode == 0, done.stderr
    assert len(rows(runs / "divided")) == 6
    np.testing.assert_allclose(values(runs / "divided"), values(runs / "copied"), rtol=1e-4)
    np.testing.assert_allclose(values(runs / "divided"), values(tmp_path / "one"), rtol=1e-3)


@pytest.mark.slow
def test_a_killed_run_of_divided_parameters_continues_bit_for_bit(runs) -> None:
    assert [row["loss_hex"] for row in rows(runs / "killed")] == [row["loss_hex"] for row in rows(runs / "divided")]
    for name in ("metrics.csv", "scores.csv"):
        assert (runs / "killed" / name).read_bytes() == (runs / "divided" / name).read_bytes()


@pytest.mark.slow
def test_divided_parameters_are_read_and_continued_on_one_device(runs, crops, cli, tmp_path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs / "divided", run)
    done = cli("evaluate", crops, run, "--draws", "20", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 6
    shutil.rmtree(run / "checkpoints/6")
    done = cli("train", crops, *OPTIONS, "--out", run)  # the option has no influence on the weights
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(values(run), values(runs / "divided"), rtol=1e-3)


@pytest.mark.slow
def test_large_arrays_are_divided_and_small_ones_are_copied(runs) -> None:
    copied, divided = json.loads((runs / "shares.json").read_text())
    assert all(share == size for size, share in copied)
    assert all(share == (size // 8 if size >= 4096 else size) for size, share in divided)
    large = [size for size, _ in divided if size >= 4096]
    assert len(large) == 2 * 4  # two kernels: weights, averages and two moments


def kept_bytes(recipe: Recipe, batch: dict[str, Any]) -> int:
    """The size of what the forward pass of a network keeps for the gradient of its parameters."""
    values, net = jax.eval_shape(lambda: initial_values(recipe)), network(recipe)

    def outputs(params: Any) -> Any:
        return net.in_training(values | {"params": params}, jax.random.key(0))(batch["image"][..., None] / 255)

    pull_back = jax.eval_shape(lambda params: jax.vjp(outputs, params)[1], values["params"])
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(pull_back))


def test_activations_that_are_computed_again_give_the_same_step_and_are_not_kept() -> None:
    model, size = ModelOptions("classes", width=8, blocks=(3,), native_conv=True), InputOptions(size=(32, 32))
    recipe = Recipe("cls_1.25mm", "classification", model, size, batch_size=8)
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32)).astype(np.uint8)
    batch = {"image": images, "label": np.arange(8, dtype=np.int32) % 6, "weight": np.ones(8, np.float32)}
    again = replace(recipe, model=replace(model, remat=True))
    assert kept_bytes(again, batch) < kept_bytes(recipe, batch) / 2
    plain, computed = (make_step(variant)(new_state(variant), batch) for variant in (recipe, again))
    for one, other in zip(jax.tree.leaves(plain), jax.tree.leaves(computed), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
