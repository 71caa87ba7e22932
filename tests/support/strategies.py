"""Hypothesis strategies that several tests draw from."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

coordinates = st.floats(-500, 500, allow_subnormal=False)
points = st.tuples(coordinates, coordinates, coordinates)
spacings = st.tuples(*[st.floats(0.1, 10, allow_nan=False)] * 3)


@st.composite
def directions(draw: st.DrawFn) -> tuple[float, ...]:
    """Arbitrary rotations, half of them mirrored."""
    numbers = draw(st.lists(st.floats(-1, 1, allow_nan=False), min_size=9, max_size=9))
    matrix = np.array(numbers).reshape(3, 3) + 3 * np.eye(3)[draw(st.permutations(range(3)))]
    orthonormal, _ = np.linalg.qr(matrix)
    orthonormal[np.abs(orthonormal) < 1e-300] = 0.0  # ITK's parser has no subnormal numbers
    return tuple(orthonormal.ravel() * draw(st.sampled_from([1.0, -1.0])))
