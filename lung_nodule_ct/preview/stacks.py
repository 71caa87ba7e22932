"""A volume as a stack of small pictures that fits a budget: first smaller pictures, then fewer slices away from the nodules."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from lung_nodule_ct.preview.codes import encode, encode_exactly, shrink, to_codes

if TYPE_CHECKING:
    from collections.abc import Collection
    from concurrent.futures import Executor

    import numpy as np
    from numpy.typing import NDArray

# (longest side in pixels, every how many slices), from the best to the smallest
_RUNGS: Final = ((512, 1), (384, 1), (256, 1), (256, 2), (256, 3), (256, 5), (192, 8), (128, 12))
_MASK_SIDE = 192
_PROBES = 4


@dataclass(frozen=True)
class Stack:
    """Slices as pictures.

    Attributes:
        slices: The shown index of each, ascending.
        size: Width and height of the pictures in pixels.
        pictures: WebP of codes, one a slice.
        mask_size: The same of the masks' pictures; ``None`` without a mask.
        masks: WebP of lung labels, one a slice; empty without a mask.
    """

    slices: tuple[int, ...]
    size: tuple[int, int]
    pictures: tuple[bytes, ...]
    mask_size: tuple[int, int] | None
    masks: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if len(self.pictures) != len(self.slices) or len(self.masks) not in (0, len(self.slices)):
            raise ValueError(
                f"expected a picture a slice, got {len(self.slices)} slices, {len(self.pictures)} pictures and "
                f"{len(self.masks)} masks"
            )

    @property
    def num_bytes(self) -> int:
        """Of all pictures."""
        return sum(map(len, (*self.pictures, *self.masks)))


def encode_stack(
    volume: NDArray[Any], mask: NDArray[np.uint8] | None, wanted: Collection[int], budget: int, pool: Executor
) -> Stack | None:
    """The best stack that fits the budget, or ``None`` where not even the smallest fits.

    Args:
        volume: In shown order, axes (z, y, x), HU or 8-bit grey.
        mask: Lung labels of the same shape.
        wanted: Slices that are in it whatever else is left out: those through the nodules.
        budget: Bytes.
        pool: Where slices are encoded.
    """
    longest = max(volume.shape[1:])
    # of sides that are no smaller than the slices themselves, one is enough
    rungs = [
        rung for rung, below in zip(_RUNGS, (*_RUNGS[1:], (0, 0)), strict=True) if below[0] < longest or below[1] > 1
    ]
    small = None if mask is None else _thinned(mask)
    for side, step in rungs:
        slices = sorted({*range(0, len(volume), step), *wanted})
        probes = {slices[(2 * number + 1) * len(slices) // (2 * _PROBES)] for number in range(_PROBES)}
        probed = sum(pool.map(lambda index, side=side: len(_picture(volume, side, index)), probes))
        if probed / len(probes) * len(slices) > budget:
            continue
        pictures = tuple(pool.map(partial(_picture, volume, side), slices))
        masks = () if small is None else tuple(pool.map(partial(_labels, small), slices))
        size, mask_size = _size(shrink(volume[0], side)), None if small is None else _size(small[0])
        stack = Stack(tuple(slices), size, pictures, mask_size, masks)
        if stack.num_bytes <= budget:
            return stack
    return None


def _picture(volume: NDArray[Any], side: int, index: int) -> bytes:
    return encode(to_codes(shrink(volume[index], side)))


def _labels(mask: NDArray[np.uint8], index: int) -> bytes:
    return encode_exactly(mask[index])


def _thinned(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A mask with every n-th pixel of its slices: labels cannot be averaged."""
    step = -(-max(mask.shape[1:]) // _MASK_SIDE)
    return mask[:, step // 2 :: step, step // 2 :: step]


def _size(plane: NDArray[Any]) -> tuple[int, int]:
    height, width = plane.shape
    return width, height
