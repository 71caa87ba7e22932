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

import jax.numpy as jnp  # noqa: E402
from flax import nnx  # noqa: E402

from lung_nodule_ct.testing.synthetic_archives import write_synthetic_archives  # noqa: E402
from lung_nodule_ct.train.layers import Recomputed  # noqa: E402
from lung_nodule_ct.train.models import cabnet, inception_v4, ssd, ssdlite, yolov3  # noqa: E402
from lung_nodule_ct.train.models.layers import Layers  # noqa: E402
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


def kept_bytes(outputs: Any, params: Any) -> int:
    """The size of what a function keeps for the gradient of its parameters."""
    pull_back = jax.eval_shape(lambda params: jax.vjp(outputs, params)[1], params)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(pull_back))


def kept_by_network(recipe: Recipe, images: np.ndarray) -> int:
    """The size of what the network of a recipe keeps."""
    values, net = jax.eval_shape(lambda: initial_values(recipe)), network(recipe)

    def outputs(params: Any) -> Any:
        return net.in_training(values | {"params": params}, jax.random.key(0))(images[..., None] / 255)

    return kept_bytes(outputs, values["params"])


def test_activations_that_are_computed_again_give_the_same_step_and_are_not_kept() -> None:
    model, size = ModelOptions("classes", width=8, blocks=(3,), native_conv=True), InputOptions(size=(32, 32))
    recipe = Recipe("cls_1.25mm", "classification", model, size, batch_size=8)
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32)).astype(np.uint8)
    batch = {"image": images, "label": np.arange(8, dtype=np.int32) % 6, "weight": np.ones(8, np.float32)}
    again = replace(recipe, model=replace(model, remat=True))
    assert kept_by_network(again, images) < kept_by_network(recipe, images) / 2
    plain, computed = (make_step(variant)(new_state(variant), batch) for variant in (recipe, again))
    for one, other in zip(jax.tree.leaves(plain), jax.tree.leaves(computed), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


class Dropped(Recomputed):
    """Batch normalisation and dropout."""

    def __init__(self, layers: Layers) -> None:
        self.norm, self.dropout = layers.norm(8), nnx.Dropout(0.5, rngs=layers.rngs)

    def forward(self, x: Any) -> Any:
        return self.dropout(nnx.tanh(self.norm(x)))


def _branches(layers: Layers) -> Any:
    conv = inception_v4.ConvNorm(layers, 8, 4, 3, same=True)
    return inception_v4.Branches(branch0=conv, branch1=[inception_v4.AveragePool()])


BLOCKS: dict[str, Any] = {
    "dropout": Dropped,
    "inception_v4": _branches,
    "cabnet": lambda made: cabnet.DenseLayer(8, made),
    "yolov3": lambda made: yolov3.Residual(made, 8),
    "ssdlite": lambda made: ssdlite.InvertedResidual(8, ssdlite.Bottleneck(3, 16, 8, squeeze=True), made),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_that_is_computed_again_has_the_same_gradients_statistics_and_draws(name) -> None:
    block = BLOCKS[name](Layers(nnx.Rngs(0)))
    x = jax.random.normal(jax.random.key(1), (4, 6, 6, 8))
    results, kept = {}, {}
    for remat in (False, True):
        block.set_attributes(remat=remat)
        graph, *states = nnx.split(block, nnx.Param, ...)
        params, others = map(nnx.to_pure_dict, states)

        def loss(params: Any, x: Any, parts: Any = (graph, others)) -> Any:
            called = nnx.merge(parts[0], params, parts[1])
            y = called(x)
            weights = jnp.cos(jnp.arange(y.size)).reshape(y.shape)
            return (weights * nnx.tanh(y)).sum(), nnx.state(called, nnx.BatchStat, nnx.RngCount)

        results[remat] = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, x)
        kept[remat] = kept_bytes(lambda params, loss=loss: loss(params, x)[0], params)
    for one, other in zip(*(jax.tree.leaves(result) for result in results.values()), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert kept[True] < kept[False]


def test_ssd_keeps_less_of_each_resolution() -> None:
    kept = {}
    for remat in (False, True):
        extractor = nnx.eval_shape(lambda: ssd.Extractor(Layers(nnx.Rngs(0)), 1))
        extractor.set_attributes(remat=remat)
        graph, params = nnx.split(extractor, nnx.Param)

        def results(params: Any, graph: Any = graph) -> Any:
            return nnx.merge(graph, params)(jnp.zeros((8, 300, 300, 1)))

        kept[remat] = kept_bytes(results, params)
    assert kept[True] < kept[False] / 2
