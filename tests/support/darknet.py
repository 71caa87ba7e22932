"""YOLOv3 after its authors: the layers of ``yolov3.cfg`` in their order, and ``yolo_layer.c`` in loops. It needs only NumPy.

Outputs of the layers are (batch, channels, y, x). Boxes are x0 y0 x1 y1.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

ANCHORS = ((10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (59, 119), (116, 90), (156, 198), (373, 326))
IGNORE_THRESHOLD = 0.5
"""As in the paper and in ``yolov3-voc.cfg``; 0.7 in ``yolov3.cfg``."""
SCORE_THRESHOLD, MAX_IOU = 0.005, 0.45
"""Of ``validate_detector``."""
EVERY_BLOCK = (1, 2, 8, 8, 4)


class Section(NamedTuple):
    """A section of the file. ``layers`` is relative to the section if it is negative."""

    kind: str
    name: str = ""
    filters: int = 0
    size: int = 0
    stride: int = 1
    norm: bool = True
    layers: tuple[int, ...] = ()


def sections(blocks: tuple[int, ...], classes: int) -> list[Section]:
    """All sections, with ``blocks`` residual blocks in the five stages. Names are those of MMDetection."""
    made = [Section("convolutional", "backbone.conv1", 32, 3)]
    ends = []
    for stage, count in enumerate(blocks):
        filters, name = 64 * 2**stage, f"backbone.conv_res_block{stage + 1}"
        made.append(Section("convolutional", f"{name}.conv", filters, 3, 2))
        for block in range(count):
            made.append(Section("convolutional", f"{name}.res{block}.conv1", filters // 2, 1))
            made.append(Section("convolutional", f"{name}.res{block}.conv2", filters, 3))
            made.append(Section("shortcut", layers=(-3,)))
        ends.append(len(made) - 1)
    for level, filters in enumerate((512, 256, 128)):
        for index in range(1, 6):
            odd = index % 2
            made.append(
                Section(
                    "convolutional",
                    f"neck.detect{level + 1}.conv{index}",
                    filters if odd else 2 * filters,
                    1 if odd else 3,
                )
            )
        made.append(Section("convolutional", f"bbox_head.convs_bridge.{level}", 2 * filters, 3))
        outputs = 3 * (5 + classes)
        made.append(Section("convolutional", f"bbox_head.convs_pred.{level}", outputs, 1, norm=False))
        made.append(Section("yolo", layers=(6 - 3 * level, 7 - 3 * level, 8 - 3 * level)))
        if level < 2:
            made.append(Section("route", layers=(-4,)))
            made.append(Section("convolutional", f"neck.conv{level + 1}", filters // 2, 1))
            made.append(Section("upsample"))
            made.append(Section("route", layers=(-1, ends[3 - level])))
    return made


def weight_shapes(blocks: tuple[int, ...], *, channels: int, classes: int) -> dict[str, tuple[int, ...]]:
    """The shapes of the weights and statistics by name."""
    shapes: dict[str, tuple[int, ...]] = {}
    outputs: list[int] = []
    for section in sections(blocks, classes):
        inputs = outputs[-1] if outputs else channels
        if section.kind == "convolutional":
            kernel, filters = (section.filters, inputs, section.size, section.size), (section.filters,)
            if section.norm:
                shapes[f"{section.name}.conv.weight"] = kernel
                for leaf in ("weight", "bias", "running_mean", "running_var"):
                    shapes[f"{section.name}.bn.{leaf}"] = filters
            else:
                shapes |= {f"{section.name}.weight": kernel, f"{section.name}.bias": filters}
            outputs.append(section.filters)
        elif section.kind == "route":
            outputs.append(sum(outputs[layer] for layer in section.layers))
        else:
            outputs.append(inputs)
    return shapes


def logistic(x: Any) -> Any:
    """The logistic function."""
    return 1 / (1 + np.exp(-x))


def iou(a: Any, b: Any) -> float:
    """The IoU of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width < 0 or height < 0:
        return 0.0
    common = width * height
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def _cells(levels: list[np.ndarray]) -> Any:
    """The level, the anchor, and the cell of each predicted box, and its index in the order of our network."""
    first = 0
    for level, values in enumerate(levels):
        height, width = values.shape[2:]
        for y in range(height):
            for x in range(width):
                for n in range(3):
                    yield level, 6 - 3 * level + n, n * (values.shape[1] // 3), y, x, first + (y * width + x) * 3 + n
        first += height * width * 3


def _box(values: np.ndarray, anchor: int, y: int, x: int, stride: int) -> np.ndarray:
    center = (np.array([x, y]) + logistic(values[:2])) * stride
    side = np.exp(values[2:4]) * np.array(ANCHORS[anchor])
    return np.concatenate([center - side / 2, center + side / 2])


def _best_anchor(truth: Any) -> int:
    side = truth[2] - truth[0], truth[3] - truth[1]
    best, best_iou = 0, 0.0
    for n, anchor in enumerate(ANCHORS):
        overlap = iou((0, 0, *side), (0, 0, *anchor))
        if overlap > best_iou:
            best, best_iou = n, overlap
    return best


def yolo_layers(levels: list[np.ndarray], boxes: np.ndarray, valid: np.ndarray, stride: int) -> dict[str, Any]:
    """What is learned from the outputs of the three levels, the coarsest first, whose cells have ``stride`` pixels.

    Returns:
        ``deltas`` as the authors compute them, which are the negative gradients of the losses of all images; ``matches``; and
        the ``losses`` per image of objectness, class and boxes that have these gradients.
    """
    deltas = [np.zeros_like(values) for values in levels]
    strides = [stride // 2**level for level in range(3)]
    height, width = levels[0].shape[2] * stride, levels[0].shape[3] * stride
    cells, losses, every = list(_cells(levels)), np.zeros(3), []
    for image, (some, real) in enumerate(zip(boxes, valid, strict=True)):
        truths, matches = some[real], {}
        for t, truth in enumerate(truths):
            best = _best_anchor(truth)
            level = 2 - best // 3
            x, y = (int((truth[axis] + truth[axis + 2]) / 2 / strides[level]) for axis in (0, 1))
            matches[level, best, y, x] = t  # a later box replaces an earlier one
        found = []
        for level, anchor, channel, y, x, index in cells:
            values = levels[level][image, channel:, y, x]
            delta = deltas[level][image, channel:, y, x]
            if (t := matches.get((level, anchor, y, x))) is None:
                predicted = _box(values, anchor, y, x, strides[level])
                if max((iou(predicted, truth) for truth in truths), default=0) <= IGNORE_THRESHOLD:
                    delta[4] = -logistic(values[4])
                    losses[0] -= math.log(1 - logistic(values[4]))
                continue
            found.append([index, t])
            truth = truths[t]
            side = truth[2:] - truth[:2]
            scale = 2 - side.prod() / (height * width)
            target = (truth[:2] + truth[2:]) / 2 / strides[level] - (x, y)
            size = np.log(side / ANCHORS[anchor])
            center = logistic(values[:2])
            delta[:2] = scale * (target - center)
            delta[2:4] = scale * (size - values[2:4])
            delta[4:6] = 1 - logistic(values[4:6])
            losses[:2] -= np.log(logistic(values[4:6]))
            cross_entropy = -(target * np.log(center) + (1 - target) * np.log(1 - center))
            losses[2] += scale * (cross_entropy + (size - values[2:4]) ** 2 / 2).sum()
        every.append(found)
    return {"deltas": deltas, "matches": every, "losses": (losses / len(boxes)).tolist()}


def detections(levels: list[np.ndarray], stride: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Boxes and scores of each image after suppression, the highest score first.

    Boxes are clipped to the image before suppression, as by the other detectors; the authors clip them after it.
    """
    height, width = levels[0].shape[2] * stride, levels[0].shape[3] * stride
    results = []
    for image in range(len(levels[0])):
        found = []
        for level, anchor, channel, y, x, _ in _cells(levels):
            values = levels[level][image, channel:, y, x]
            score = logistic(values[4]) * logistic(values[5])
            if score > SCORE_THRESHOLD:
                box = _box(values, anchor, y, x, stride // 2**level)
                found.append((score, np.clip(box, 0, (width, height, width, height))))
        found.sort(key=lambda pair: -pair[0])
        kept: list[tuple[float, np.ndarray]] = []
        for score, box in found:
            if all(iou(other, box) <= MAX_IOU for _, other in kept):
                kept.append((score, box))
        results.append((np.array([box for _, box in kept]), np.array([score for score, _ in kept])))
    return results
