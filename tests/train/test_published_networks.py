"""The published networks equal their references: names, shapes, outputs in both modes, gradients, and a step of SGD.

What the references compute is pinned in ``published_networks.json``, in float64. Of deep networks with random weights,
gradients in float32 are accurate to 1e-3 only, so shallow variants with the same kinds of layers are compared. Where
PyTorch, timm and torchvision are installed, the whole references are run.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")
pytest.importorskip("flax")
pytest.importorskip("optax")

import darknet  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import network_outputs  # noqa: E402
from seeded_weights import FROZEN, GAINS, fingerprint  # noqa: E402

from lung_nodule_ct.declaration.published import BASELINES  # noqa: E402
from lung_nodule_ct.train.boxes import suppress  # noqa: E402
from lung_nodule_ct.train.models import NETWORKS, faster_rcnn, yolov3  # noqa: E402

pytestmark = pytest.mark.train

PINNED = json.loads((Path(__file__).parent / "published_networks.json").read_text())
DETECTORS = [name for name, network in NETWORKS.items() if network.task == "detection"]
CLASSIFIERS = [name for name, network in NETWORKS.items() if network.task == "classification"]
LEARNING_RATE = 1e-4
DETECTOR_LEARNING_RATE = 1e-5
PRECISE = {"cabnet"}
"""Networks whose gradients in float32 differ by 1e-2 even if they are shallow. Others take longer in float64."""


def assert_close(ours: Any, reference: Any, message: str) -> None:
    reference = np.asarray(reference)
    scale = max(1.0, float(np.abs(reference).max()))
    np.testing.assert_allclose(np.asarray(ours) / scale, reference / scale, rtol=0, atol=1e-4, err_msg=message)


def test_every_network_of_the_paper_is_there() -> None:
    assert [network.baseline for network in NETWORKS.values()] == [baseline.model for baseline in BASELINES]


@pytest.mark.parametrize("name", NETWORKS)
def test_names_and_shapes_are_those_of_the_reference(name) -> None:
    shapes = network_outputs.weight_shapes(name, shallow=False)
    assert fingerprint(shapes) == PINNED[name]["names"]
    assert NETWORKS[name].parameters == PINNED[name]["parameters"]
    assert network_outputs.parameter_count(shapes, grey=True) == PINNED[name]["parameters"]


FROZEN_SCALES = 53_120
"""Scales and biases of a ResNet-50, which are not counted where torchvision does not train them."""


@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [
        ("resnet50", 1000, 25_557_032),
        ("convnext", 1000, 28_589_128),
        ("resnext50", 1000, 25_028_904),
        ("res2net50", 1000, 25_699_120),
        ("se_resnet50", 1000, 28_088_024),
        ("inception_v4", 1000, 42_679_816),
        ("efficientnet", 1000, 5_288_548),
        ("faster_rcnn", 90, 41_755_286 + FROZEN_SCALES),
        ("yolov3", 80, 61_949_149),
        ("ssdlite", 90, 3_440_060),
        ("ssd", 90, 35_641_826),
        ("retinanet", 91, 34_014_999 + FROZEN_SCALES),
    ],
)
def test_with_colours_and_the_published_classes_it_has_the_published_number_of_parameters(
    name, classes, parameters
) -> None:
    shapes = network_outputs.weight_shapes(name, shallow=False, classes=classes)
    assert network_outputs.parameter_count(shapes) == parameters


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_shallow_variant_computes_what_is_pinned_of_its_reference(name) -> None:
    pinned, precise = PINNED[name], name in PRECISE
    with jax.enable_x64(precise):
        dtype = np.float64 if precise else np.float32
        ours = network_outputs.classifier_outputs(name, LEARNING_RATE, shallow=True, dtype=dtype)
    for key in ("evaluation", "training", "loss", "stepped"):
        assert_close(ours[key], pinned[key], key)
    norms = np.array([np.linalg.norm(ours["gradients"][key]) for key in sorted(ours["gradients"])])
    reference = np.array(pinned["gradients"])
    np.testing.assert_allclose(norms, reference, rtol=1e-3, atol=1e-5 * reference.max())


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_computes_what_its_reference_does(name) -> None:
    if not all(map(find_spec, ("torch", "timm", "torchvision"))):
        pytest.skip("needs torch, timm and torchvision")
    import torch_reference

    model = torch_reference.build(name)
    torch_reference.load_seeded(name, model)
    reference = torch_reference.classifier_outputs(name, model.double())
    precise = name == "inception_v4"  # in float32, its logits in training differ by 2e-3
    with jax.enable_x64(precise):
        dtype = np.float64 if precise else np.float32
        ours = network_outputs.classifier_outputs(name, LEARNING_RATE, shallow=False, dtype=dtype)
    for key in ("evaluation", "training"):
        assert_close(ours[key], reference[key], key)


def ordered(scores: Any, boxes: Any) -> np.ndarray:
    """Scores and boxes by score. Boxes of equal scores are in the order of their corners."""
    rows = np.concatenate([np.asarray(scores)[:, None], np.asarray(boxes)], 1)
    return rows[np.lexsort(rows.round(5).T[::-1])]


def assert_detector_equals(ours: dict[str, Any], reference: dict[str, Any], *keys: str) -> None:
    matched = [matches for matches in ours["matches"] if matches]  # the reference does not match images without boxes
    assert matched == reference["matches"]
    for key in ("losses", *keys):
        assert_close(ours[key], reference[key], key)
    for index in range(len(ours["boxes"])):
        one, other = (ordered(found["scores"][index], found["boxes"][index]) for found in (ours, reference))
        assert_close(one, other, f"boxes of image {index}")


@pytest.fixture
def first_samples(monkeypatch) -> None:
    """Samples that are otherwise drawn are the first ones, as in the reference."""
    monkeypatch.setattr(
        faster_rcnn, "_priorities", lambda _, shape: jnp.broadcast_to(1 - jnp.arange(shape[1]) / shape[1], shape)
    )


@pytest.mark.slow
@pytest.mark.usefixtures("first_samples")
@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_computes_what_is_pinned_of_its_reference(name, request) -> None:
    if name == "faster_rcnn":  # which takes longer to sample its features than to compile
        request.getfixturevalue("optimised")
    pinned = PINNED[name]
    ours = network_outputs.detector_outputs(name, DETECTOR_LEARNING_RATE, shallow=True, frozen=name in FROZEN)
    assert_detector_equals(ours, pinned, "stepped")
    norms = np.array([np.linalg.norm(ours["gradients"][key]) for key in sorted(ours["gradients"])])
    reference = np.array(pinned["gradients"])
    np.testing.assert_allclose(norms, reference, rtol=1e-3, atol=1e-5 * reference.max())


def test_yolov3_has_the_layers_of_its_authors() -> None:
    sections = darknet.sections(darknet.EVERY_BLOCK, 80)
    assert len(sections) == 107
    assert [section.layers for section in sections if section.kind == "route"] == [(-4,), (-1, 61), (-4,), (-1, 36)]
    shapes = darknet.weight_shapes(darknet.EVERY_BLOCK, channels=3, classes=80)
    assert network_outputs.weight_shapes("yolov3", shallow=False, classes=80) == shapes
    assert network_outputs.parameter_count(shapes) == 61_949_149


@pytest.mark.parametrize("name", ["yolov3", "ssdlite"])
def test_layers_that_depend_on_the_number_of_classes_are_named_as_head(name) -> None:
    one, other = (network_outputs.weight_shapes(name, shallow=False, classes=classes) for classes in (1, 80))
    different = {key for key in one if one[key] != other[key]}
    assert one.keys() == other.keys()
    assert different
    assert all(key.startswith(NETWORKS[name].head) for key in different)


class Outputs:
    """A network of three levels, the coarsest first, with given outputs (batch, channels, y, x)."""

    def __init__(self, levels: list[np.ndarray]) -> None:
        self.values = jnp.concatenate([self.flat(level) for level in levels], 1)

    def __call__(self, _image: Any) -> jax.Array:
        return self.values

    @staticmethod
    def flat(level: np.ndarray) -> jax.Array:
        """An output in the order of our network."""
        return jnp.asarray(level.transpose(0, 2, 3, 1).reshape(len(level), -1, level.shape[1] // 3), jnp.float32)


def test_targets_losses_and_boxes_of_yolov3_are_those_of_its_authors() -> None:
    random = np.random.default_rng(0)
    levels = [random.normal(0, 1, (3, 18, 3 * factor, 4 * factor)) for factor in (1, 2, 4)]
    boxes = np.zeros((3, 5, 4))
    boxes[0] = (20, 20, 36, 50), (21, 21, 37, 51), (0, 0, 128, 96), (100.5, 10, 126.25, 90), (60, 37, 76, 67)
    boxes[2, :4] = (5, 5, 18, 18), (60, 40, 76, 53), (64, 32, 74, 45), (20, 8, 42, 54)
    valid = np.arange(5) < np.array([5, 0, 4])[:, None]
    # the last box of the first image is predicted by its anchor, and by one that is not matched to it
    levels[2][:, 6:10, 6, 8] = 0
    levels[2][:, 12:16, 6, 8] = 0, 0, *np.log([16 / 33, 30 / 23])
    reference = darknet.yolo_layers(levels, boxes, valid, 32)
    batch = {"image": jnp.zeros((3, 96, 128, 1)), "boxes": jnp.asarray(boxes, jnp.float32), "valid": valid}
    targets, counts = jax.jit(yolov3.add_targets)(batch)
    ours = [[[int(i), int(row[i])] for i in np.flatnonzero(row >= 0)] for row in np.asarray(targets["matches"])]
    assert ours == [sorted(found) for found in reference["matches"]]
    assert [len(found) for found in ours] == [4, 0, 4]  # two boxes have the same anchor, and the last is matched
    assert reference["deltas"][2][:2, 16, 6, 8].tolist() == [0, -darknet.logistic(levels[2][1, 16, 6, 8])]

    def total(values: jax.Array) -> Any:
        losses = yolov3.losses(lambda _: values, targets, counts)
        return sum(losses.values()), losses

    (_, losses), gradients = jax.jit(jax.value_and_grad(total, has_aux=True))(Outputs(levels)(None))
    for name, expected in zip(network_outputs.LOSSES["yolov3"], reference["losses"], strict=True):
        np.testing.assert_allclose(losses[name], expected, rtol=1e-5)
    np.testing.assert_allclose(gradients, -Outputs(reference["deltas"])(None) / 3, atol=1e-5)
    predict = jax.jit(lambda image: yolov3.candidates(Outputs(levels), image))
    found, scores = (np.asarray(array) for array in predict(batch["image"]))
    for index, (some, some_scores) in enumerate(darknet.detections(levels, 32)):
        assert len(some) > yolov3.MAX_BOXES
        kept = suppress(found[index], scores[index], yolov3.MAX_IOU)
        kept = kept[scores[index, kept] > yolov3.MIN_SCORE]
        np.testing.assert_allclose(found[index, kept], some, atol=1e-3)
        np.testing.assert_allclose(scores[index, kept], some_scores, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("first_samples")
@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_computes_what_its_reference_does(name, monkeypatch, request) -> None:
    if not all(map(find_spec, ("torch", "timm", "torchvision"))):
        pytest.skip("needs torch, timm and torchvision")
    import torch_reference

    if name == "ssdlite":  # depthwise convolutions in float64 take half an hour otherwise
        request.getfixturevalue("optimised")
    if name == "yolov3":  # its residual blocks in evaluation add up to boxes of e^100 pixels otherwise
        monkeypatch.setitem(GAINS, name, 1.2)
    model = torch_reference.build(name)
    torch_reference.load_seeded(name, model)
    reference = torch_reference.detector_outputs(name, model.double())
    with jax.enable_x64(True):  # rounding in float32 exchanges boxes of nearly equal scores or overlaps
        ours = network_outputs.detector_outputs(name, DETECTOR_LEARNING_RATE, shallow=False, dtype=np.float64)
    assert_detector_equals(ours, reference, "stepped")
