"""What a state holds: parameters, the statistics of batch normalisation, and the averages of both. Random streams."""

from __future__ import annotations

import csv
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")
for needed in ("flax", "grain", "optax", "orbax.checkpoint", "tensorboardX", "tyro", "matplotlib"):
    pytest.importorskip(needed)

import normalised_network  # noqa: E402
from flax import nnx  # noqa: E402

from lung_nodule_ct.testing.synthetic_archives import write_synthetic_archives  # noqa: E402
from lung_nodule_ct.train.averaging import make_measure, needs_statistics  # noqa: E402
from lung_nodule_ct.train.models.layers import BatchNorm  # noqa: E402
from lung_nodule_ct.train.network import network  # noqa: E402
from lung_nodule_ct.train.recipes import RECIPES, InputOptions, OptimOptions, Recipe  # noqa: E402
from lung_nodule_ct.train.runs import Checkpoints, open_run  # noqa: E402
from lung_nodule_ct.train.step import Predictor, initial_state, make_step, shardings  # noqa: E402
from lung_nodule_ct.train.tasks import classification  # noqa: E402

pytestmark = pytest.mark.train

OPTIM = OptimOptions(warmup=0, learning_rate=1e-2)
RECIPE = replace(
    RECIPES["cls_1.25mm"], input=InputOptions(size=(8, 8), augment=False), optim=OPTIM, batch_size=8, steps=10
)
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 8, 8)).astype(np.uint8)
BATCH = {"image": IMAGES, "label": np.arange(8, dtype=np.int32) % 6, "weight": np.ones(8, np.float32)}


@pytest.fixture(autouse=True)
def network_with_state(monkeypatch) -> None:
    normalised_network.use(monkeypatch)


def new_state(recipe: Recipe) -> dict[str, Any]:
    return jax.jit(lambda: initial_state(recipe))()


def test_a_step_updates_the_statistics_and_their_average() -> None:
    state = new_state(RECIPE)
    assert state["statistics"]["norm"]["mean"] == 0
    state, _ = make_step(RECIPE)(state, BATCH)
    values = IMAGES / 255
    mean, variance = 0.1 * values.mean(), 0.9 + 0.1 * values.var()
    np.testing.assert_allclose(state["statistics"]["norm"]["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(state["statistics"]["norm"]["var"], variance, rtol=1e-5)
    averaged = state["average"]["statistics"]["norm"]  # the first decay is 1 / 10
    np.testing.assert_allclose(averaged["mean"], 0.9 * mean, rtol=1e-5)
    np.testing.assert_allclose(averaged["var"], 0.1 + 0.9 * variance, rtol=1e-5)


def test_statistics_are_no_parameters_and_have_no_optimiser() -> None:
    state = new_state(RECIPE)
    assert state["params"].keys() == {"norm", "hidden", "head"}
    assert state["params"]["norm"].keys() == {"scale", "bias"}
    moments = [leaf for leaf in jax.tree.leaves(state["optimizer"]) if leaf.ndim]
    assert len(moments) == 2 * len(jax.tree.leaves(state["params"]))


def test_accumulated_parts_update_the_statistics_one_after_the_other() -> None:
    recipe = replace(RECIPE, optim=replace(OPTIM, accumulate=2))
    state, _ = make_step(recipe)(new_state(recipe), BATCH)
    values = IMAGES / 255
    mean = 0.9 * 0.1 * values[::2].mean() + 0.1 * values[1::2].mean()
    np.testing.assert_allclose(state["statistics"]["norm"]["mean"], mean, rtol=1e-5)


def test_evaluation_uses_the_statistics_and_drops_nothing() -> None:
    class Source:
        ids = patients = ("a",) * 8
        labels = (0,) * 8

        def __init__(self, images: np.ndarray) -> None:
            self.images = images

        def __len__(self) -> int:
            return 8

        def load(self, index: int, random: np.random.Generator) -> dict[str, np.ndarray]:
            return {"image": self.images[index]}

    state, _ = make_step(RECIPE)(new_state(RECIPE), BATCH)
    changed = IMAGES.copy()
    changed[1:] = 255 - changed[1:]
    first, other = (
        Predictor(Source(images), RECIPE).predict(state["average"])[0]["probabilities"] for images in (IMAGES, changed)
    )
    assert first == other  # the other examples of the batch have no influence
    average = jax.device_get(state["average"])
    params, statistics = average["params"], average["statistics"]["norm"]
    image = (IMAGES[0] / 255 - statistics["mean"]) / np.sqrt(statistics["var"] + 1e-5)
    image = (image * params["norm"]["scale"] + params["norm"]["bias"]).ravel()
    hidden = np.maximum(image @ params["hidden"]["kernel"] + params["hidden"]["bias"], 0)
    logits = hidden @ params["head"]["kernel"] + params["head"]["bias"]
    np.testing.assert_allclose(first, np.exp(logits) / np.exp(logits).sum(), rtol=1e-4)


def test_what_is_dropped_depends_on_the_key_only() -> None:
    state, net = new_state(RECIPE), network(RECIPE)
    image = IMAGES[..., None] / np.float32(255)

    def logits(key: int) -> np.ndarray:
        return np.asarray(net.in_training(state, jax.random.key(key))(image))

    assert (logits(1) == logits(1)).all()
    assert (logits(1) != logits(2)).any()


@pytest.fixture(scope="module")
def crops(cli, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("crops")
    source = write_synthetic_archives(folder / "source", 20)
    done = cli("build", "cls_1.25mm", "--source", source, "--out", folder / "build")
    assert done.returncode == 0, done.stderr
    return folder / "build"


OPTIONS = ("cls_1.25mm", "--input.size", "8", "8", "--batch-size", "8", "--steps", "8", "--save-every", "4")


def losses(run: Path) -> list[str]:
    with (run / "metrics.csv").open() as file:
        return [row["loss_hex"] for row in csv.DictReader(file)]


def test_a_run_with_statistics_and_dropout_continues_bit_for_bit(crops, cli, tmp_path) -> None:
    command = ("train", crops, *OPTIONS, "--out", tmp_path / "run")
    done = cli(*command)
    assert done.returncode == 0, done.stderr
    before, scores = losses(tmp_path / "run"), (tmp_path / "run/scores.csv").read_bytes()
    shutil.rmtree(tmp_path / "run/checkpoints/8")
    done = cli(*command)
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "run") == before
    assert len(set(before)) == 8
    assert (tmp_path / "run/scores.csv").read_bytes() == scores
    # a run of the version before, whose checkpoints had no statistics
    document = json.loads((tmp_path / "run/run.json").read_text())
    (tmp_path / "run/run.json").write_text(json.dumps(document | {"format_version": 1}))
    done = cli(*command)
    assert done.returncode == 1
    message = " ".join(done.stderr.split())
    assert "no statistics of batch normalisation" in message
    assert "expected 2, got 1" in message


class NormalisedFeatures(nnx.Module):
    """A linear layer, batch normalisation of its output, and a linear layer."""

    def __init__(self, recipe: Recipe, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(64, 5, rngs=rngs)
        self.norm = BatchNorm(5, momentum=0.8, epsilon=1e-5)
        self.head = nnx.Linear(5, classification.CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(self.norm(self.hidden(x.reshape(len(x), -1))))


def test_the_last_weights_are_averaged_with_equal_shares_and_their_statistics_measured_again(monkeypatch) -> None:
    monkeypatch.setattr(classification, "build_model", NormalisedFeatures)
    recipe = replace(RECIPE, optim=replace(OPTIM, swa=0.4))
    state, step, kernels = new_state(recipe), make_step(recipe), []
    for number in range(10):
        before = jax.device_get(state["average"]["params"])
        state, _ = step(state, BATCH)
        kernels.append(np.asarray(state["params"]["hidden"]["kernel"]))
        assert needs_statistics(recipe, state, number + 1) is (number >= 6)
        if number == 5:
            moving = 6 / 15 * before["hidden"]["kernel"] + 9 / 15 * kernels[-1]
            np.testing.assert_allclose(state["average"]["params"]["hidden"]["kernel"], moving, rtol=1e-5)
    average = state["average"]["params"]
    np.testing.assert_allclose(average["hidden"]["kernel"], np.mean(kernels[6:], 0), rtol=1e-5)

    other = BATCH | {"image": 255 - IMAGES[::-1]}
    measured = make_measure(recipe, shardings()[0])(state["average"], [BATCH, other])
    assert measured["params"] is state["average"]["params"]
    hidden = [
        (batch["image"].reshape(8, -1) / 255) @ average["hidden"]["kernel"] + average["hidden"]["bias"]
        for batch in (BATCH, other)
    ]
    statistics = measured["statistics"]["norm"]
    np.testing.assert_allclose(statistics["mean"], np.mean([x.mean(0) for x in hidden], 0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(statistics["var"], np.mean([x.var(0, ddof=1) for x in hidden], 0), rtol=1e-4)
    assert np.abs(statistics["mean"] - state["average"]["statistics"]["norm"]["mean"]).max() > 1e-2


def test_averages_with_equal_shares_continue_bit_for_bit(crops, cli, tmp_path) -> None:
    averaged = ("--optim.swa", "0.5", "--optim.swa-rate", "0.2")
    command = ("train", crops, *OPTIONS, "--save-every", "3", *averaged, "--out", tmp_path / "run")
    assert cli(*command).returncode == 0

    def saved() -> tuple[list[bytes], bytes]:
        """The average after the last step, and the scores, which need the measured statistics."""
        with Checkpoints(tmp_path / "run", open_run(tmp_path / "run").recipe) as checkpoints:
            state = checkpoints.restore(lambda _: jax.sharding.SingleDeviceSharding(jax.devices()[0]))
        assert int(state["step"]) == 8
        average = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state["average"])]
        return average, (tmp_path / "run/scores.csv").read_bytes()

    before = saved()
    shutil.rmtree(tmp_path / "run/checkpoints/8")  # it continues after step 6, among the steps with equal shares
    assert cli(*command).returncode == 0
    assert saved() == before


@pytest.mark.slow
def test_statistics_are_those_of_the_batch_on_all_devices(crops, cli, python, tmp_path) -> None:
    command = ("train", str(crops), *OPTIONS, "--watch", "0", "--out")
    done = cli(*command, tmp_path / "one")
    assert done.returncode == 0, done.stderr
    done = python(
        "import pytest, normalised_network\n"
        "from lung_nodule_ct.cli import app\n"
        "normalised_network.use(pytest.MonkeyPatch())\n"
        f"app({[*command, str(tmp_path / 'four')]!r}, standalone_mode=False)\n",
        cwd=tmp_path,
        devices=4,
        PYTHONPATH=os.pathsep.join([str(Path(normalised_network.__file__).parent), os.environ.get("PYTHONPATH", "")]),
    )
    assert done.returncode == 0, done.stderr
    one, four = ([float.fromhex(loss) for loss in losses(tmp_path / name)] for name in ("one", "four"))
    np.testing.assert_allclose(one, four, rtol=1e-3)
