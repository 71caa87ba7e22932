"""Our published networks with seeded weights, and what they compute: the counterpart of ``torch_reference``."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from seeded_weights import (
    DETECTIONS,
    SHALLOW,
    seeded_boxes,
    seeded_images,
    seeded_labels,
    seeded_weights,
    sparse_matches,
)

from lung_nodule_ct.train.boxes import suppress
from lung_nodule_ct.train.models import (
    NETWORKS,
    build_network,
    cabnet,
    convnext,
    detector_module,
    efficientnet,
    faster_rcnn,
    inception_v4,
    resnet,
    retinanet,
    ssd,
    ssdlite,
    yolov3,
)
from lung_nodule_ct.train.models.layers import Layers
from lung_nodule_ct.train.models.weights import load_weights, torch_weights

Values = dict[str, Any]
CLASSES = 6
LOSSES = {
    "faster_rcnn": ("loss_objects", "loss_proposals", "loss_where", "loss_boxes"),
    "yolov3": ("loss_objects", "loss_where", "loss_boxes"),
}
"""The losses in the order of the reference."""
_CLASSES: dict[str, Any] = {
    "resnet": resnet.ResNet,
    "convnext": convnext.ConvNeXt,
    "efficientnet": efficientnet.EfficientNet,
    "inception_v4": inception_v4.InceptionV4,
    "cabnet": cabnet.CABNet,
    "faster_rcnn": faster_rcnn.FasterRCNN,
    "retinanet": retinanet.RetinaNet,
    "ssd": ssd.SSD,
    "ssdlite": ssdlite.SSDLite,
    "yolov3": yolov3.YOLOv3,
}


def build_shallow(name: str, layers: Layers, *, channels: int, classes: int) -> Any:
    """The counterpart of ``build_network`` with fewer blocks, which compiles faster."""
    network = _CLASSES[NETWORKS[name].module]
    options: dict[str, Any] = {"variant": resnet.VARIANTS[name]} if network is resnet.ResNet else {}
    if network is inception_v4.InceptionV4:
        layers = replace(layers, epsilon=1e-3)
    if name in SHALLOW:
        options["blocks"] = SHALLOW[name]
    return network(layers, channels, classes, **options)


def _shapes_only(name: str, channels: int, *, shallow: bool, classes: int | None = None) -> Any:
    build = build_shallow if shallow else build_network
    if classes is None:
        classes = CLASSES if NETWORKS[name].task == "classification" else 1
    return nnx.eval_shape(lambda: build(name, Layers(nnx.Rngs(0), dtype=None), channels=channels, classes=classes))


def weight_shapes(name: str, *, shallow: bool, classes: int | None = None) -> dict[str, tuple[int, ...]]:
    """The shapes of the weights for three input channels, by PyTorch's names, for the classes of the task or other ones."""
    weights = torch_weights(_zeros(_shapes_only(name, 3, shallow=shallow, classes=classes)))
    return {key: value.shape for key, value in weights.items()}


def parameter_count(shapes: dict[str, tuple[int, ...]], *, grey: bool = False) -> int:
    """Number of parameters, of the same network for grey images if the kernels for three channels are to have one."""
    counted = {name: shape for name, shape in shapes.items() if "running_" not in name}
    of_colours = [math.prod(shape) for shape in counted.values() if len(shape) == 4 and shape[1] == 3]
    return sum(map(math.prod, counted.values())) - (sum(of_colours) // 3 * 2 if grey else 0)


def _zeros(model: Any, dtype: Any = np.float32) -> Values:
    _, params, statistics, _ = nnx.split(model, nnx.Param, nnx.BatchStat, nnx.RngState)
    shapes = {"params": nnx.to_pure_dict(params), "statistics": nnx.to_pure_dict(statistics)}
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, dtype), shapes)


class Split:
    """A network without values, in training and in evaluation, and its values from seeded weights.

    Args:
        name: The network.
        shallow: Whether it is the variant with fewer blocks.
        dtype: The type of its values.
    """

    def __init__(self, name: str, *, shallow: bool, dtype: Any = np.float32) -> None:
        model = _shapes_only(name, 1, shallow=shallow)
        model.train()
        self.training = nnx.graphdef(model)
        model.eval()
        self.evaluation = nnx.graphdef(model)
        streams = nnx.to_pure_dict(nnx.state(model, nnx.RngState))
        self.streams = jax.tree.map(
            lambda leaf: (
                jax.random.key(0)
                if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
                else jnp.zeros(leaf.shape, leaf.dtype)
            ),
            streams,
        )
        zeros = _zeros(model, dtype)
        self.values = load_weights(zeros, seeded_weights(name, weight_shapes(name, shallow=shallow)))

    def merge(self, values: Values, *, training: bool) -> Any:
        """The network with values."""
        graph = self.training if training else self.evaluation
        return nnx.merge(graph, values["params"], values["statistics"], self.streams)


def _step_of_sgd(params: Any, gradients: Any, learning_rate: float) -> Any:
    """The parameters after a step. With NumPy, since JAX would compile a program for every shape."""

    def stepped(value: Any, gradient: Any) -> Any:
        return np.asarray(value) - learning_rate * np.asarray(gradient)

    return jax.tree.map(stepped, params, gradients)


def classifier_outputs(name: str, learning_rate: float, *, shallow: bool, dtype: Any = np.float32) -> dict[str, Any]:
    """What a classifier computes; see the function of the same name in ``torch_reference``."""
    net = Split(name, shallow=shallow, dtype=dtype)
    images, labels = jnp.asarray(seeded_images(name), dtype)[..., None], jnp.asarray(seeded_labels())

    @jax.jit
    def evaluate(values: Values) -> jax.Array:
        return net.merge(values, training=False)(images)

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def train(params: Any, statistics: Any) -> Any:
        model = net.merge({"params": params, "statistics": statistics}, training=True)
        logits = model(images)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss, (logits, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))

    (loss, (logits, statistics)), gradients = train(net.values["params"], net.values["statistics"])
    params = _step_of_sgd(net.values["params"], gradients, learning_rate)
    return {
        "evaluation": np.asarray(evaluate(net.values)),
        "training": np.asarray(logits),
        "loss": float(loss),
        "gradients": torch_weights({"params": gradients, "statistics": {}}),
        "stepped": np.asarray(evaluate({"params": params, "statistics": statistics})),
    }


def detector_outputs(
    name: str, learning_rate: float, *, shallow: bool, dtype: Any = np.float32, frozen: bool = False
) -> dict[str, Any]:
    """What a detector computes; see the function of the same name in ``torch_reference``."""
    net, module = Split(name, shallow=shallow, dtype=dtype), detector_module(name)
    images = jnp.asarray(seeded_images(name), dtype)[..., None]
    boxes, valid = seeded_boxes()
    batch, totals = jax.jit(module.add_targets)({"image": images, "boxes": jnp.asarray(boxes, dtype), "valid": valid})
    counts = {key: jnp.maximum(total, 1) for key, total in totals.items()}

    @jax.jit
    def candidates(values: Values) -> Any:
        return module.candidates(net.merge(values, training=False), images)

    def losses_of(params: Any, statistics: Any, *, training: bool) -> Any:
        model = net.merge({"params": params, "statistics": statistics}, training=training)
        losses = module.losses(model, batch, counts)
        return sum(losses.values()), losses

    params, statistics = net.values["params"], net.values["statistics"]
    train = jax.jit(jax.value_and_grad(partial(losses_of, training=not frozen), has_aux=True))
    (_, losses), gradients = train(params, statistics)
    stepped = _step_of_sgd(params, gradients, learning_rate)
    if frozen:
        _, after = jax.jit(partial(losses_of, training=True))(stepped, statistics)
    else:
        _, after = train(stepped, statistics)[0]
    found, scores = (np.asarray(array) for array in candidates(net.values))
    kept = [suppress(found[index], scores[index], module.MAX_IOU)[:DETECTIONS] for index in range(len(found))]
    return {
        "boxes": [found[index][rows] for index, rows in enumerate(kept)],
        "scores": [scores[index][rows] for index, rows in enumerate(kept)],
        "matches": [sparse_matches(matches) for matches in np.asarray(batch["matches"])],
        "losses": [float(losses[key]) for key in LOSSES.get(name, ("loss_where", "loss_boxes"))],
        "gradients": torch_weights({"params": gradients, "statistics": {}}),
        "stepped": [float(after[key]) for key in LOSSES.get(name, ("loss_where", "loss_boxes"))],
    }
