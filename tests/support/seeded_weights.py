"""Inputs and weights from NumPy, the same for the reference and for our networks. It needs neither PyTorch nor JAX."""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

SIZES = {"inception_v4": 112, **dict.fromkeys(("faster_rcnn", "yolov3", "ssdlite", "ssd", "retinanet"), 96)}
"""Pixels per axis of the images, where 64 are too few."""
SHALLOW = {
    **dict.fromkeys(("resnet50", "resnext50", "res2net50", "se_resnet50", "convnext"), (2, 1, 1, 1)),
    "cabnet": (2, 1, 1, 1),
    "inception_v4": (1, 1, 1),
    "efficientnet": (1, 2, 1, 1, 1, 1, 1),
    **dict.fromkeys(("retinanet", "faster_rcnn"), (1, 1, 1, 1)),
    "yolov3": (1, 1, 1, 1, 1),
}
"""Blocks per stage of shallow variants, which have every kind of layer and compile in seconds."""
GAINS = {"inception_v4": 2.8, "efficientnet": 2.6, "cabnet": 2.8, "ssd": 2, "ssdlite": 2, "yolov3": 2}
"""Variance of the kernels, where with 1 the image has no influence on the logits."""
FROZEN = {"ssdlite"}
"""Networks whose gradients are pinned with running statistics. The last levels of SSDLite have few pixels: normalised by the
batch, rounding in float32 changes its gradients by 3 %. In float64, they are those of the reference."""
BATCH = 3
DETECTIONS = 12
"""Boxes per image that are pinned, those of the highest scores."""


def seeded_weights(network: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Random weights by PyTorch's names. No scale and no statistic has its default, so that none can be ignored."""
    gain = GAINS.get(network, 1)
    return {name: _draw(name, shape, gain) for name, shape in shapes.items()}


def _draw(name: str, shape: tuple[int, ...], gain: float) -> np.ndarray:
    random = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        drawn = random.uniform(0.5, 1.5, shape)
    elif name.endswith(("bias", "running_mean")):
        drawn = random.normal(0, 0.1, shape)
    elif len(shape) == 1:
        drawn = random.uniform(0.5, 1.2, shape)
    else:
        drawn = random.normal(0, math.sqrt(gain / math.prod(shape[1:])), shape)
    return drawn.astype(np.float32)


def seeded_images(name: str, batch: int = BATCH) -> np.ndarray:
    """Grey images of a network, shape (batch, y, x)."""
    size = SIZES.get(name, 64)
    return np.random.default_rng(1).normal(0, 1, (batch, size, size)).astype(np.float32)


def seeded_labels(batch: int = BATCH) -> np.ndarray:
    """A class of six for each image."""
    return np.arange(batch, dtype=np.int32) * 2


def seeded_boxes() -> tuple[np.ndarray, np.ndarray]:
    """Boxes x0 y0 x1 y1 of three images, padded to three, and which are real.

    One image has none. The first box of the last image is equally far from two anchors.
    """
    boxes = np.zeros((BATCH, 3, 4), np.float32)
    boxes[0, :2] = (10, 12, 42, 50), (50, 46, 84, 80)
    boxes[2] = (4, 8, 36, 40), (30, 8, 60, 44), (0, 40, 90, 96)
    return boxes, np.arange(3) < np.array([2, 0, 3])[:, None]


def sparse_matches(matches: np.ndarray) -> list[list[int]]:
    """The anchors of an image that are not background, and their matches."""
    return [[int(index), int(matches[index])] for index in np.flatnonzero(matches != -1)]


def fingerprint(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Names and shapes as a hash."""
    text = "".join(f"{name} {tuple(shapes[name])}\n" for name in sorted(shapes))
    return hashlib.sha256(text.encode()).hexdigest()


def safetensors(arrays: dict[str, np.ndarray], types: dict[str, str] | None = None) -> bytes:
    """Arrays in the format ``safetensors``. ``types`` has the names of types that are not ``F32``."""
    header: dict[str, Any]
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        kind = (types or {}).get(name, "F32")
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    return b"".join([len(text).to_bytes(8, "little"), text, *(array.tobytes() for array in arrays.values())])


def rounded(values: Any) -> Any:
    """Numbers with seven significant digits, as they are pinned."""
    if isinstance(values, dict):
        return {name: rounded(value) for name, value in values.items()}
    array = np.asarray(values, np.float64)
    return [rounded(value) for value in array] if array.ndim else float(f"{float(array):.7g}")
