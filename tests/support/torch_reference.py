"""The published networks in PyTorch, and what they compute with the weights of ``seeded_weights``.

``python tests/support/torch_reference.py`` writes ``tests/train/published_networks.json``. It needs torch, torchvision and
timm, whose versions are in the file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import darknet
import numpy as np
import torch
from seeded_weights import (
    DETECTIONS,
    FROZEN,
    SHALLOW,
    SIZES,
    fingerprint,
    rounded,
    seeded_boxes,
    seeded_images,
    seeded_labels,
    seeded_weights,
    sparse_matches,
)
from torch import nn

PINNED = Path(__file__).parents[1] / "train" / "published_networks.json"
LEARNING_RATE = 1e-4
DETECTOR_LEARNING_RATE = 1e-5
CLASSES = 6
COUNTER = "num_batches_tracked"
TIMM = {
    "resnet50": "resnet50",
    "convnext": "convnext_tiny",
    "resnext50": "resnext50_32x4d",
    "res2net50": "res2net50_26w_4s",
    "se_resnet50": "seresnet50",
    "inception_v4": "inception_v4",
    "efficientnet": "efficientnet_b0",
}


DETECTORS = {
    "faster_rcnn": "fasterrcnn_resnet50_fpn",
    "retinanet": "retinanet_resnet50_fpn",
    "ssd": "ssd300_vgg16",
    "ssdlite": "ssdlite320_mobilenet_v3_large",
}
"""Detectors of torchvision."""
LOSSES = {"faster_rcnn": ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")}


def import_torchvision() -> Any:
    """Import torchvision, also a build for another device, whose compiled operators are missing: only two are declared."""
    try:
        import torchvision
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.impl("nms", _suppress, "CPU")
        import_torchvision.library = library  # type: ignore[attr-defined] -- operators exist as long as their library
        import torchvision

        torchvision.extension._has_ops = lambda: True
    return torchvision


def _suppress(boxes: torch.Tensor, scores: torch.Tensor, max_iou: float) -> torch.Tensor:
    order, kept = torch.argsort(scores, descending=True, stable=True), []
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        low, high = torch.maximum(boxes[best, :2], boxes[order, :2]), torch.minimum(boxes[best, 2:], boxes[order, 2:])
        common = (high - low).clamp(0).prod(1)
        # as the compiled operator: empty boxes, whose overlap is not a number, suppress nothing
        order = order[~(common / (area[best] + area[order] - common) > max_iou)]
    return torch.stack(kept) if kept else torch.zeros(0, dtype=torch.long)


class CABNet(nn.Module):
    """CABNet after its authors' Keras definition, on torchvision's DenseNet-121."""

    def __init__(self, blocks: tuple[int, ...], maps: int = 5) -> None:
        super().__init__()
        self.features = import_torchvision().models.DenseNet(32, blocks, 64).features
        width = self.features.norm5.num_features
        self.global_attention = nn.ModuleDict({f"conv{n}": nn.Conv2d(width, width, 1) for n in (1, 2)})
        self.category_attention = nn.ModuleDict(
            {
                "conv": nn.Conv2d(width, maps * CLASSES, 1),
                "bn": nn.BatchNorm2d(maps * CLASSES, eps=1e-3, momentum=0.01),
            }
        )
        self.classifier = nn.Linear(width, CLASSES)
        self.maps = maps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.features(x))
        squeezed = nn.functional.adaptive_avg_pool2d(x, 1)
        channels = self.global_attention["conv2"](torch.relu(self.global_attention["conv1"](squeezed)))
        x = x * torch.sigmoid(channels)
        x = x * torch.sigmoid(torch.mean(x, 1, keepdim=True))
        maps = torch.relu(self.category_attention["bn"](self.category_attention["conv"](x)))
        largest = nn.functional.adaptive_max_pool2d(maps, 1).reshape(len(x), CLASSES, self.maps).mean(2)
        means = maps.reshape(len(x), CLASSES, self.maps, *maps.shape[2:]).mean(2)
        attention = torch.einsum("nc,ncyx->nyx", largest, means) / CLASSES
        return self.classifier((x * attention[:, None]).mean((2, 3)))


class Darknet(nn.Module):
    """YOLOv3 for one class, built section by section after ``yolov3.cfg``. Its results are those of the three levels."""

    def __init__(self, blocks: tuple[int, ...]) -> None:
        super().__init__()
        self.sections = darknet.sections(blocks, 1)
        shapes = darknet.weight_shapes(blocks, channels=3, classes=1)
        for section in self.sections:
            if section.kind == "convolutional":
                name = f"{section.name}.conv.weight" if section.norm else f"{section.name}.weight"
                filters, inputs, size, _ = shapes[name]
                conv = nn.Conv2d(inputs, filters, size, section.stride, size // 2, bias=not section.norm)
                norm = nn.BatchNorm2d(filters, momentum=0.01)
                _add(self, section.name, nn.ModuleDict({"conv": conv, "bn": norm}) if section.norm else conv)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        outputs: list[torch.Tensor] = []
        results = []
        for section in self.sections:
            if section.kind == "convolutional":
                module: Any = self.get_submodule(section.name)
                x = nn.functional.leaky_relu(module["bn"](module["conv"](x)), 0.1) if section.norm else module(x)
            elif section.kind == "shortcut":
                x = x + outputs[section.layers[0]]
            elif section.kind == "upsample":
                x = nn.functional.interpolate(x, scale_factor=2)
            elif section.kind == "route":
                x = torch.cat([outputs[layer] for layer in section.layers], 1)
            else:
                results.append(x)
            outputs.append(x)
        return results


def _add(model: nn.Module, name: str, module: nn.Module) -> None:
    """Add a module by a name with dots."""
    *parents, last = name.split(".")
    for parent in parents:
        if not hasattr(model, parent):
            model.add_module(parent, nn.Module())
        model = model.get_submodule(parent)
    model.add_module(last, module)


def build(name: str) -> nn.Module:
    """The reference of a network with three channels: a classifier of six classes, or a detector of one."""
    if name == "cabnet":
        return CABNet((6, 12, 24, 16))
    if name == "yolov3":
        return Darknet(darknet.EVERY_BLOCK)
    models = import_torchvision().models.detection
    if name in DETECTORS:
        background = name != "retinanet"  # whose class 0 is a class
        make = getattr(models, DETECTORS[name])
        return make(weights=None, weights_backbone=None, num_classes=1 + background)
    import timm

    return timm.create_model(TIMM[name], pretrained=False, num_classes=CLASSES)


def build_shallow(name: str) -> Any:
    """The reference with fewer blocks per stage."""
    if name == "cabnet":
        return CABNet(SHALLOW[name])
    if name == "yolov3":
        return Darknet(SHALLOW[name])
    model: Any = build(name)
    if name not in SHALLOW:
        return model
    if name == "inception_v4":
        model.features = nn.Sequential(*(model.features[index] for index in (*range(7), 10, 11, 18, 19)))
        return model
    for index, count in enumerate(SHALLOW[name]):
        if name in DETECTORS:
            body = model.backbone.body
            setattr(body, f"layer{index + 1}", getattr(body, f"layer{index + 1}")[:count])
        elif name == "convnext":
            model.stages[index].blocks = model.stages[index].blocks[:count]
        elif name == "efficientnet":
            model.blocks[index] = model.blocks[index][:count]
        else:
            setattr(model, f"layer{index + 1}", getattr(model, f"layer{index + 1}")[:count])
    return model


def weight_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shapes of the weights and statistics by name."""
    return {key: tuple(value.shape) for key, value in model.state_dict().items() if not key.endswith(COUNTER)}


def load_seeded(name: str, model: nn.Module) -> dict[str, np.ndarray]:
    """Give a model its seeded weights, and return them."""
    weights = seeded_weights(name, weight_shapes(model))
    model.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()}, strict=False)
    return weights


def first_layer(model: nn.Module) -> str:
    """The name of the kernel that the image is convolved with."""
    return next(key for key, value in model.named_parameters() if value.ndim == 4 and value.shape[1] == 3)


def grey_parameters(model: nn.Module) -> int:
    """Number of parameters if the images had one channel."""
    count = sum(parameter.numel() for parameter in model.parameters())
    return count - model.get_parameter(first_layer(model)).numel() * 2 // 3


def classifier_outputs(name: str, model: nn.Module) -> dict[str, Any]:
    """What a classifier computes: in evaluation, in training, its gradients, and in evaluation after a step of SGD.

    All of it is in float64. In float32, deep networks with random weights have gradients that are only accurate to 1e-3.
    """
    images = torch.from_numpy(seeded_images(name)).double()[:, None].expand(-1, 3, -1, -1)
    labels = torch.from_numpy(seeded_labels()).long()
    model.eval()
    with torch.no_grad():
        evaluation = model(images)
    model.train()
    training = model(images)
    loss = nn.functional.cross_entropy(training, labels)
    loss.backward()
    # A first layer for grey images has the sum of the weights of three equal colours. Its gradient is that of one of them,
    # and a step of it is shared by the three.
    gradients = {key: value.grad.numpy().copy() for key, value in model.named_parameters()}
    stem = first_layer(model)
    gradients[stem] = gradients[stem][:, :1]
    model.get_parameter(stem).grad /= 3
    torch.optim.SGD(model.parameters(), LEARNING_RATE).step()
    model.eval()
    with torch.no_grad():
        stepped = model(images)
    return {
        "evaluation": evaluation.numpy(),
        "training": training.detach().numpy(),
        "loss": loss.item(),
        "gradients": gradients,
        "stepped": stepped.numpy(),
    }


def yolov3_outputs(model: Any) -> dict[str, Any]:
    """What YOLOv3 computes; see :func:`detector_outputs`."""
    images = torch.from_numpy(seeded_images("yolov3")).double()[:, None].expand(-1, 3, -1, -1)
    boxes, valid = seeded_boxes()

    def levels() -> tuple[list[torch.Tensor], dict[str, Any]]:
        values = model(images)
        arrays = [value.detach().numpy() for value in values]
        return values, darknet.yolo_layers(arrays, boxes.astype(np.float64), valid, 32)

    model.eval()
    with torch.no_grad():
        detections = darknet.detections([value.numpy() for value in model(images)], 32)
    model.train()
    values, outputs = levels()
    torch.autograd.backward(values, [torch.from_numpy(-delta / len(images)) for delta in outputs["deltas"]])
    gradients = step(model)
    with torch.no_grad():
        _, stepped = levels()
    return {
        "boxes": [found[:DETECTIONS] for found, _ in detections],
        "scores": [scores[:DETECTIONS] for _, scores in detections],
        "matches": [matches for matches in outputs["matches"] if matches],
        "losses": outputs["losses"],
        "gradients": gradients,
        "stepped": stepped["losses"],
    }


def step(model: nn.Module) -> dict[str, np.ndarray]:
    """Return the gradients of a detector, and change its weights by a step of SGD, as :func:`classifier_outputs` does."""
    gradients = {key: value.grad.numpy().copy() for key, value in model.named_parameters()}
    stem = first_layer(model)
    gradients[stem] = gradients[stem][:, :1]
    model.get_parameter(stem).grad /= 3
    torch.optim.SGD(model.parameters(), DETECTOR_LEARNING_RATE).step()
    return gradients


def detector_outputs(name: str, model: Any, *, frozen: bool = False) -> dict[str, Any]:
    """What a detector computes: predicted boxes, matches, losses, their gradients, and losses after a step of SGD.

    ``frozen`` losses and gradients are those with running statistics.
    """
    if name == "yolov3":
        return yolov3_outputs(model)
    transform, size = model.transform, SIZES[name]
    transform.image_mean, transform.image_std = [0.0] * 3, [1.0] * 3
    if not name.startswith("ssd"):
        transform.min_size, transform.max_size = (size,), size
    images = list(torch.from_numpy(seeded_images(name)).double()[:, None].expand(-1, 3, -1, -1))
    boxes, valid = seeded_boxes()
    label = int(name != "retinanet")
    targets = [
        {
            "boxes": torch.from_numpy(some[real]).double(),
            "labels": torch.full((int(real.sum()),), label),
        }
        for some, real in zip(boxes, valid, strict=True)
    ]
    matches: list[torch.Tensor] = []
    owner = model.rpn if name == "faster_rcnn" else model
    matcher = owner.proposal_matcher
    record = type(matcher).__call__

    def recorded(overlap: torch.Tensor) -> torch.Tensor:
        matches.append(record(matcher, overlap))
        return matches[-1]

    if name == "faster_rcnn":  # instead of random samples, the first ones are taken
        torch.randperm = lambda count, **_: torch.arange(count)
        recorded.BELOW_LOW_THRESHOLD, recorded.BETWEEN_THRESHOLDS = -1, -2
        del owner.proposal_matcher
    owner.proposal_matcher = recorded
    model.eval()
    with torch.no_grad():
        detections = model(images)
    model.train()
    for module in model.modules():
        module.train(not (frozen and isinstance(module, nn.BatchNorm2d)))
    parts = model(images, targets)
    sum(parts.values()).backward()
    gradients = step(model)
    model.train()
    with torch.no_grad():
        stepped = model(images, targets)
    losses = LOSSES.get(name, ("classification", "bbox_regression"))
    return {
        "boxes": [found["boxes"][:DETECTIONS].numpy() for found in detections],
        "scores": [found["scores"][:DETECTIONS].numpy() for found in detections],
        "matches": [sparse_matches(found.numpy()) for found in matches[:2]],
        "losses": [parts[key].item() for key in losses],
        "gradients": gradients,
        "stepped": [stepped[key].item() for key in losses],
    }


def pinned_detector(name: str) -> dict[str, Any]:
    """What is pinned of a detector; see :func:`pinned_classifier`."""
    whole, model = build(name), build_shallow(name).double()
    load_seeded(name, model)
    outputs = detector_outputs(name, model, frozen=name in FROZEN)
    norms = [np.linalg.norm(outputs["gradients"][key]) for key in sorted(outputs["gradients"])]
    return {
        "parameters": grey_parameters(whole),
        "names": fingerprint(weight_shapes(whole)),
        **rounded({key: outputs[key] for key in ("boxes", "scores", "losses", "stepped")} | {"gradients": norms}),
        "matches": outputs["matches"],
    }


def pinned_classifier(name: str) -> dict[str, Any]:
    """What is pinned: names and shapes of the network, and outputs of its shallow variant.

    Of a gradient, its norm is pinned. Gradients are in the order of the sorted names.
    """
    whole, model = build(name), build_shallow(name).double()
    load_seeded(name, model)
    outputs = classifier_outputs(name, model)
    norms = [np.linalg.norm(outputs["gradients"][key]) for key in sorted(outputs["gradients"])]
    return {
        "parameters": grey_parameters(whole),
        "names": fingerprint(weight_shapes(whole)),
        **rounded(outputs | {"gradients": norms}),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    document = json.loads(PINNED.read_text()) if PINNED.is_file() else {}
    for each in sys.argv[1:] or [*TIMM, "cabnet", "yolov3", *DETECTORS]:
        document[each] = pinned_detector(each) if each in (*DETECTORS, "yolov3") else pinned_classifier(each)
    import timm

    document["versions"] = {"torch": torch.__version__, "timm": timm.__version__}
    document["versions"]["torchvision"] = import_torchvision().__version__
    lines = [f"{json.dumps(key)}: {json.dumps(document[key])}" for key in sorted(document)]
    PINNED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
