"""Random patches of 96 x 96 x 96 voxels, which the benchmarks of reading extract from volumes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PATCH_SIZE = 96
Patch = tuple[slice, slice, slice]


def random_patch(rng: np.random.Generator, shape: Sequence[int]) -> Patch:
    """Return the index (z, y, x) of a random patch of a volume of the given shape."""
    z, y, x = (int(rng.integers(size - PATCH_SIZE)) for size in shape)
    return slice(z, z + PATCH_SIZE), slice(y, y + PATCH_SIZE), slice(x, x + PATCH_SIZE)
