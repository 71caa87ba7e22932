"""Weights by the names of PyTorch: what a network's values are called there, and files of them.

A ``state_dict`` of the reference has the same names as the attributes of our network, except for the last part, and its
arrays have other axes. Every entry is used exactly once.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

import jax.numpy as jnp
import numpy as np
from flax import nnx

from lung_nodule_ct.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Values = dict[str, Any]

_LEAVES: Final = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
"""The names of PyTorch for those of NNX, where they differ."""
_COUNTER: Final = "num_batches_tracked"
"""PyTorch counts the batches of a batch normalisation, and uses the count only if there is no momentum."""
_NAMED: Final = 5
"""Number of names in an error."""
_TYPES: Final = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(jnp.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}


def torch_weights(values: Values) -> dict[str, NDArray[Any]]:
    """Return parameters and statistics by PyTorch's names, with PyTorch's order of axes."""
    return {name: _to_torch(np.asarray(value)) for name, value in by_torch_names(values).items()}


def by_torch_names(values: Values) -> Values:
    """Return parameters and statistics by PyTorch's names."""
    return {
        _name(path): value
        for kind in ("params", "statistics")
        for path, value in nnx.traversals.flatten_mapping(values[kind]).items()
    }


def load_weights(values: Values, weights: Mapping[str, NDArray[Any]], *, new: tuple[str, ...] = ()) -> Values:
    """Return values of the same shapes, taken from weights by PyTorch's names.

    Weights of a first layer for RGB are summed over the colours for grey images. That is the same as an image with three
    equal colours.

    Args:
        values: Parameters and statistics of a network, or their shapes and types.
        weights: Arrays by name, as in a ``state_dict``.
        new: Layers whose names begin with one of these keep their ``values`` if the number of outputs differs: their number of
            classes is another one.

    Raises:
        TrainingError: A name is missing or not used, a shape differs, or an array is not of finite numbers of a floating type.
    """
    fixed = new or ("\0",)  # no name begins with it
    unused = {name for name in weights if not name.endswith(_COUNTER)}
    loaded: Values = {}
    missing: list[str] = []
    other: dict[str, tuple[Any, Any]] = {}
    unusable: list[str] = []
    for kind in ("params", "statistics"):
        arrays = {}
        for path, value in nnx.traversals.flatten_mapping(values[kind]).items():
            name = _name(path)
            if name not in unused:
                missing.append(name)
                continue
            unused.remove(name)
            array = _from_torch(weights[name], value.shape)
            is_new = (
                name.startswith(fixed) and len(array.shape) == len(value.shape) and array.shape[:-1] == value.shape[:-1]
            )
            if array.shape != value.shape and not is_new:
                other[name] = value.shape, array.shape
            if not (jnp.issubdtype(array.dtype, jnp.floating) and np.isfinite(array).all()):
                unusable.append(name)
            arrays[path] = jnp.asarray(array, value.dtype) if array.shape == value.shape else value
        loaded[kind] = nnx.traversals.unflatten_mapping(arrays)
    problems = [
        f"{subject} {first_names(names)}{ending}"
        for subject, names, ending in (
            ("the weights have no", sorted(missing), ""),
            ("the network has no", sorted(unused), ""),
            ("the array", list(other), " has another shape"),
            ("the array", unusable, " is not of finite numbers of a floating type"),
        )
        if names
    ]
    if problems:
        expected, got = next(iter(other.values()), (None, None))
        raise TrainingError(
            "; ".join(problems),
            expected=expected and f"{expected}, with the axes as in JAX",
            got=got,
            remedy="check that the weights are of the network of --model",
        )
    return loaded


def first_names(names: list[str]) -> str:
    """The first names, and the number of the others."""
    rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + rest


def _name(path: tuple[Any, ...]) -> str:
    *layers, leaf = map(str, path)
    return ".".join([*layers, _LEAVES.get(leaf, leaf)])


def _to_torch(array: NDArray[Any]) -> NDArray[Any]:
    """Kernels of convolutions (y, x, inputs, outputs) and of linear layers (inputs, outputs) with PyTorch's axes."""
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def _from_torch(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """The inverse of :func:`_to_torch`. Three input channels become one where ``shape`` has one."""
    if array.ndim != 4:
        return array.T
    kernel = array.transpose(2, 3, 1, 0)
    grey = len(shape) == 4 and (kernel.shape[2], shape[2]) == (3, 1)
    return kernel.sum(2, np.float64, keepdims=True) if grey else kernel


def read_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    """Read a ``safetensors`` file: a header in JSON with names, types and offsets, and the bytes of the arrays.

    Raises:
        TrainingError: The file cannot be read, is not of this format, or is not complete.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TrainingError(f"{path} cannot be read: {error}") from error
    try:
        start = 8 + int.from_bytes(data[:8], "little")
        if start > len(data):
            raise ValueError(f"{len(data)} bytes do not hold a header of {start - 8}")
        header = json.loads(data[8:start])
        header.pop("__metadata__", None)
        return {name: _array(data, start, entry) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TrainingError(
            f"{path} is not a complete safetensors file: {error}", remedy="download or write it again"
        ) from error


def _array(data: bytes, start: int, entry: dict[str, Any]) -> NDArray[Any]:
    if entry["dtype"] not in _TYPES:
        raise ValueError(f"an array has the type {entry['dtype']}, which is none of {', '.join(_TYPES)}")
    dtype, shape, (first, end) = _TYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    count = math.prod(shape)
    if first < 0 or end - first != count * dtype.itemsize or start + end > len(data):
        raise ValueError(f"bytes {first} to {end} do not hold an array of shape {shape}")
    return np.frombuffer(data, dtype, count, start + first).reshape(shape)
