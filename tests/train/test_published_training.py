"""Training of published networks by name: their recipes, their weights from a file, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")
for needed in ("flax", "grain", "optax", "orbax.checkpoint", "tensorboardX", "tyro", "matplotlib"):
    pytest.importorskip(needed)

import jax.numpy as jnp  # noqa: E402
import network_outputs  # noqa: E402
from seeded_weights import safetensors, seeded_weights  # noqa: E402

from lung_nodule_ct.testing.synthetic_archives import write_synthetic_archives  # noqa: E402
from lung_nodule_ct.train.boxes import BELOW, BETWEEN, encode, matched  # noqa: E402
from lung_nodule_ct.train.models import NETWORKS, detector_module, faster_rcnn  # noqa: E402
from lung_nodule_ct.train.network import initial_values, network  # noqa: E402
from lung_nodule_ct.train.recipes import InputOptions, published_recipe, published_steps  # noqa: E402
from lung_nodule_ct.train.runs import Checkpoints, open_run  # noqa: E402
from lung_nodule_ct.train.tasks import classification, detection, get_task  # noqa: E402

pytestmark = pytest.mark.train

DETECTORS = [name for name, network in NETWORKS.items() if network.task == "detection"]
CLASSIFIERS = [name for name, network in NETWORKS.items() if network.task == "classification"]
CROPS = ("cls_1.25mm", "--model", "resnet50", "--input.size", "32", "32", "--batch-size", "8")


@pytest.fixture(scope="module")
def built(cli, tmp_path_factory) -> Path:
    """A build of synthetic patients."""
    folder = tmp_path_factory.mktemp("lesions")
    source = write_synthetic_archives(folder / "source", 20)
    done = cli("build", "cls_1.25mm", "det2d_1.25mm", "--source", source, "--out", folder / "build")
    assert done.returncode == 0, done.stderr
    return folder / "build"


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A file with a colour stem and a head of 1,000 classes, as timm publishes them, of a network with fewer blocks."""
    shapes = network_outputs.weight_shapes("resnet50", shallow=True)
    shapes |= {"fc.weight": (1000, 2048), "fc.bias": (1000,), "bn1.num_batches_tracked": ()}
    path = tmp_path_factory.mktemp("weights") / "resnet50.safetensors"
    path.write_bytes(safetensors(seeded_weights("resnet50", shapes)))
    return path


@pytest.mark.slow
def test_a_published_network_starts_with_weights_and_is_evaluated(built, weights, cli, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(classification, "build_network", network_outputs.build_shallow)  # which compiles faster
    run = tmp_path / "run"
    slow = ("--optim.learning-rate", "1e-9", "--optim.warmup", "0", "--optim.weight-decay", "0")

    def train(path: Path) -> Any:
        options = ("--out", run, "--steps", "1", "--watch", "0", *slow)
        return cli("train", built, *CROPS, "--pretrained", path, *options)

    done = train(weights)
    assert done.returncode == 0, done.stderr
    assert "resnet50.safetensors has another number of classes: random weights for fc.bias, fc.weight" in done.stderr
    opened = open_run(run)
    with Checkpoints(run, opened.recipe) as checkpoints:
        params = checkpoints.restore(lambda _: jax.sharding.SingleDeviceSharding(jax.devices()[0]))["params"]
    given = seeded_weights("resnet50", {"conv1.weight": (64, 3, 7, 7), "layer1.1.conv2.weight": (64, 64, 3, 3)})
    stem = given["conv1.weight"].transpose(2, 3, 1, 0).sum(2, keepdims=True)
    np.testing.assert_allclose(params["conv1"]["kernel"], stem, atol=1e-6)
    np.testing.assert_allclose(
        params["layer1"][1]["conv2"]["kernel"], given["layer1.1.conv2.weight"].transpose(2, 3, 1, 0), atol=1e-6
    )
    assert params["fc"]["kernel"].shape == (2048, 6)
    document = json.loads(cli("evaluate", built, run, "--draws", "20", "--json").stdout)
    assert document["rows"] == 16
    assert document["scores"]["accuracy"]["value"] is not None
    metrics = (run / "metrics.csv").read_bytes()
    assert train(weights).returncode == 0
    assert (run / "metrics.csv").read_bytes() == metrics
    other = tmp_path / "other.safetensors"
    other.write_bytes(safetensors(seeded_weights("other", {"w": (1,)})))
    refused = train(other)
    assert refused.returncode == 1
    message = " ".join(refused.stderr.split())
    assert "other.safetensors does not fit resnet50: the weights have no bn1.bias, bn1.running_mean, " in message
    assert "and 97 more; the network has no w. Check that" in message
    shutil.copy(weights, other)
    with other.open("ab") as file:
        file.write(b"\0")
    refused = train(other)
    assert "holds another run: its pretrained differs" in " ".join(refused.stderr.split())


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_is_built_by_its_recipe(name) -> None:
    recipe = replace(published_recipe("cls_1.25mm", name), input=InputOptions(size=(96, 96)))
    recipe = replace(recipe, model=replace(recipe.model, remat=True))  # an error if no part can be computed again
    net = network(recipe)
    batch = {"image": jax.ShapeDtypeStruct((2, 96, 96, 1), np.float32)}
    values = jax.eval_shape(partial(initial_values, recipe))
    assert sum(leaf.size for leaf in jax.tree.leaves(values["params"])) == NETWORKS[name].parameters
    predict = partial(get_task(recipe).predict, recipe=recipe)
    output = jax.eval_shape(lambda values, batch: predict(net.in_evaluation(values), batch), values, batch)
    assert (output["probabilities"].shape, output["probabilities"].dtype) == ((2, 6), np.float32)


@pytest.mark.parametrize("name", [name for name in CLASSIFIERS if NETWORKS[name].pixels > 1])
def test_the_smallest_image_of_a_network_is_stated(name) -> None:
    recipe = published_recipe("cls_1.25mm", name)
    net, predict = network(recipe), partial(get_task(recipe).predict, recipe=recipe)
    values = jax.eval_shape(partial(initial_values, recipe))

    def is_possible(pixels: int) -> bool:
        batch = {"image": jax.ShapeDtypeStruct((2, pixels, pixels, 1), np.float32)}
        try:
            program = jax.make_jaxpr(lambda values, batch: predict(net.in_evaluation(values), batch))(values, batch)
        except TypeError:  # a window of no pixels
            return False
        return all(0 not in out.aval.shape for equation in program.eqns for out in equation.outvars)

    assert is_possible(NETWORKS[name].pixels)
    assert not is_possible(NETWORKS[name].pixels - 1)


@pytest.mark.parametrize("name", DETECTORS)
def test_boxes_of_a_detector_are_in_array_order_outside_of_it(name) -> None:
    recipe = published_recipe("det2d_1.25mm", name)
    task, module = get_task(recipe), detector_module(name)
    boxes = np.array([[[10, 40, 40, 90], [0, 0, 0, 0]]], np.float32)  # y0 x0 y1 x1
    batch = {"image": np.zeros((1, 64, 96, 1), np.float32), "boxes": boxes, "valid": np.array([[True, False]])}
    targets, _ = task.add_targets(jax.tree.map(jnp.asarray, batch), recipe)
    matches = np.asarray(targets["matches"][0])
    assert (matches == 0).any()
    assert set(matches.tolist()) <= {0, BELOW, BETWEEN}

    class Model:
        """Predicts the true box with a high score at the matched anchors, and nothing elsewhere."""

        logits = jnp.where(targets["matches"] == 0, 9.0, -9.0)[..., None]

        def __call__(self, _image: Any) -> Any:
            if name in ("ssd", "ssdlite"):
                return jnp.concatenate([jnp.zeros_like(self.logits), self.logits], -1), targets["codes"]
            if name == "yolov3":
                center, size = jnp.split(targets["codes"], 2, -1)
                center = jax.scipy.special.logit(jnp.where(self.logits > 0, center, 0.5))
                return jnp.concatenate([center, size, self.logits, self.logits], -1)
            return self.levels(self.logits), self.levels(targets["codes"])

        def levels(self, array: Any) -> Any:
            sizes = np.cumsum([len(level) for level in module.anchors((64, 96))])[:-1].tolist()
            return jnp.split(array, sizes, 1)

        def propose(self, _image: Any) -> Any:
            every = jnp.concatenate(module.anchors((64, 96)))
            codes = encode(matched(targets["boxes"], targets["matches"]), every)
            return [], self.levels(self.logits[..., 0]), self.levels(codes)

        def classify(self, _levels: Any, found: Any, _height: int) -> Any:
            """The first proposals are the true box."""
            return jnp.stack([jnp.zeros(found.shape[:2]), -jnp.arange(found.shape[1])[None]], -1), jnp.zeros(
                (*found.shape[:2], 2, 4)
            )

    output = task.predict(Model(), batch, recipe)
    best = int(np.argmax(output["scores"][0]))
    np.testing.assert_allclose(output["boxes"][0][best], boxes[0, 0], atol=1e-3)


def test_samples_of_proposals_are_drawn_at_random_up_to_their_limits() -> None:
    positive = jnp.arange(1000)[None] < jnp.array([[300], [5], [0]])
    negative = ~positive & (jnp.arange(1000) < 600)
    drawn = {}
    for key in (0, 1):
        index, counted = map(np.asarray, faster_rcnn._draw(jax.random.key(key), positive, negative, (256, 128)))
        assert counted.all()
        assert [len(set(row)) for row in index.tolist()] == [256] * 3
        assert [(row < limit).sum() for row, limit in zip(index, (300, 5, 0), strict=True)] == [128, 5, 0]
        assert (index < 600).all()
        drawn[key] = set(index[0].tolist())
    assert drawn[0] != drawn[1]
    _, counted = faster_rcnn._draw(jax.random.key(0), positive[:, :20], negative[:, :20] & False, (256, 128))
    assert np.asarray(counted).sum(1).tolist() == [20, 5, 0]


@pytest.mark.slow
def test_a_detector_is_trained_and_evaluated(built, cli, tmp_path, monkeypatch) -> None:
    """``test_baselines.py`` trains all of them."""
    monkeypatch.setattr(detection, "build_network", network_outputs.build_shallow)
    run = tmp_path / "run"
    options = ("--model", "retinanet", "--batch-size", "1", "--steps", "1", "--watch", "0", "--out", run)
    done = cli("train", built, "det2d_1.25mm", *options)
    assert done.returncode == 0, done.stderr
    document = json.loads(cli("evaluate", built, run, "--draws", "5", "--json").stdout)
    assert document["rows"] == 8
    assert document["scores"]["AP50"]["value"] is not None


def test_the_number_of_epochs_is_the_paper_s() -> None:
    recipe = published_recipe("cls_1.25mm", "resnet50")
    assert published_steps(recipe, 2040) == 9563  # 150 * 2040 / 32
    assert published_steps(replace(recipe, batch_size=64), 64) == 150
    assert published_steps(published_recipe("det2d_1.25mm", "retinanet"), 80) == 500


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cls_1.25mm", "--model", "resnet5"), "no network is named 'resnet5'; expected one of resnet50, convnext"),
        (("cls_1.25mm", "--model", "resnet5"), "Did you mean resnet50?"),
        (("det3d_1.25mm", "--model", "retinanet3"), "Did you mean retinanet3d?"),
        (("cls_1.25mm-squeeze", "--model", "resnet50"), "expected the recipe cls_1.25mm"),
        (("det2d_1.25mm", "--model", "resnet50"), "expected the recipe cls_1.25mm"),
        (("det3d_1.25mm", "--model", "retinanet"), "expected the recipe det2d_1.25mm"),
        (("longitudinal", "--model", "resnet50"), "longitudinal cannot be trained with the network resnet50"),
        (("cls_1.25mm", "--model", "resnet50", "--model.width", "8"), "model.width has no effect on the published"),
        (("cls_1.25mm", "--model", "resnet50", "--pretrained", "none.safetensors"), "none.safetensors cannot be read"),
        (("cls_1.25mm", "--pretrained", "none.safetensors"), "it needs the network of these weights"),
        (("cls_1.25mm", "--model", "resnet50", "--steps", "0"), "steps must be above 0"),
        (("cls_1.25mm", "--model", "inception_v4", "--input.size", "80", "74"), "expected 75 pixels or more, got 74"),
    ],
)
def test_the_error_states_what_cannot_be_trained(built, cli, tmp_path, arguments, message) -> None:
    done = cli("train", built, *arguments, "--out", tmp_path / "run")
    assert done.returncode != 0
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["train", "leakage"])
def test_weights_are_checked_before_a_build_is_decoded(built, cli, tmp_path, monkeypatch, command) -> None:
    monkeypatch.setenv("LUNG_NODULE_CT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "w.safetensors").write_bytes(safetensors({"w": np.zeros(1, np.float32)}))
    done = cli(command, built, *CROPS, "--pretrained", tmp_path / "w.safetensors", "--out", tmp_path / "run")
    assert done.returncode == 1
    assert "does not fit resnet50" in done.stderr
    assert not (tmp_path / "cache/training").exists()


def test_a_check_is_of_our_own_network(cli, tmp_path) -> None:
    done = cli("train", "cls_1.25mm", "--check", "--model", "resnet50", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "a small network of our own" in " ".join(done.stderr.replace("│", " ").split())
