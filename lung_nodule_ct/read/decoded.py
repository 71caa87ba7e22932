"""Rows of a loaded dataset with arrays or tensors in place of bytes, for ``with_transform``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from lung_nodule_ct.read.conversions import to_tensor
from lung_nodule_ct.read.voxel_columns import decode_cell
from lung_nodule_ct.system.imports import optional_imports

Framework = Literal["numpy", "torch", "jax"]


def decoded(framework: Framework = "numpy") -> Decoder:
    """Return a function for ``with_transform`` that decodes the rows of a config.

    Volumes become arrays (z, y, x), pictures become arrays (y, x) or (y, x, 3), and lists of numbers become arrays; everything else stays
    as it is: numbers, strings, lists of nodules, and nulls. Geometry stays float64 (in JAX only if ``jax_enable_x64`` is set).

    Args:
        framework: The arrays to return: ``numpy``, ``torch`` (extra ``torch``) or ``jax`` (extra ``train``).

    Raises:
        ValueError: The framework is unknown.
        MissingExtraError: It is not installed.

    Example:
        >>> import lung_nodule_ct
        >>> scans = lung_nodule_ct.load("det3d_1.25mm", source="dummy_data", split="train")
        >>> scan = scans.with_transform(lung_nodule_ct.decoded("numpy"))[0]
        >>> scan["volume"].shape, scan["spacing"].tolist(), scan["nodules"][0]["box_voxel"].shape
        ((16, 60, 84), [4.0, 4.0, 1.25], (6,))
    """
    if framework not in get_args(Framework):
        raise ValueError(f"framework: expected {', '.join(get_args(Framework))}, got {framework!r}")
    decoder = Decoder(framework)
    decoder.convert(np.zeros(0))  # is it installed?
    return decoder


@dataclass(frozen=True)
class Decoder:
    """Decodes batches of rows. It can be pickled, for the workers of a loader. Returned by :func:`decoded`.

    Attributes:
        framework: Of the arrays that it returns.
    """

    framework: Framework

    def __call__(self, batch: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        """Return the columns of a batch, decoded."""
        convert = self.convert
        return {name: [_decoded(value, convert) for value in values] for name, values in batch.items()}

    def convert(self, array: Any) -> Any:
        """Return a NumPy array as one of the framework."""
        if self.framework == "torch":
            return to_tensor(array)
        if self.framework == "jax":
            with optional_imports("train", "decoded('jax')"):
                import jax.numpy as jnp  # noqa: PLC0415 -- an extra
            return jnp.asarray(array)
        return array


def _decoded(value: Any, convert: Callable[[Any], Any]) -> Any:
    if isinstance(value, Mapping):
        if set(value) == {"bytes", "shape"}:
            return convert(decode_cell(memoryview(value["bytes"]), value["shape"])[...])
        return {name: _decoded(item, convert) for name, item in value.items()}
    if isinstance(value, list | tuple):
        if value and all(isinstance(item, int | float) for item in value):
            return convert(np.array(value))
        return [_decoded(item, convert) for item in value]
    if hasattr(value, "__array_interface__") and hasattr(value, "getbands"):  # a picture of Pillow
        return convert(np.asarray(value))
    return value
