"""How well two images agree after a registration: correlation, overlap, and what blocks of them still move.

A block is a small cube with structure in it, as vessels have. The moving image is searched around its place for the translation at which it
agrees best. After a good fit the blocks stay where they are; after a wrong one they go to places of their own, and few agree with anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import ndimage

from lung_nodule_ct.imaging.alignment import sample_cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lung_nodule_ct.geometry.affine import Affine
    from lung_nodule_ct.imaging.alignment import Cells

SIMILAR: Final = 0.6
"""A block agrees if its correlation is at least this, and if it moves little."""

_BLOCKS = 48
_LEAST_SPREAD = 60.0
"""A block is used if the standard deviation of its values is at least this, in HU."""
_LEAST_INSIDE = 0.6
"""And this share of it counts: the border of the lungs does not show movements along it."""
_PER_MM = 0.004
"""What a millimetre costs a block in correlation: of equal places it takes the nearest."""


@dataclass(frozen=True, slots=True)
class FitQuality:
    """Measures of a fit, on the grid of the fixed image.

    Attributes:
        correlation: Of the values in and around the fixed lungs, -1 to 1.
        overlap: The share of the fixed lungs that is inside the moving image, 0 to 1.
        jacobian: Volume after the map, divided by volume before.
        stretches: The largest and the smallest change of a length.
        rotation_deg: The rotation.
        blocks: Number of blocks that were compared.
        agreement: The share of the blocks that have a similar place nearby: within 3 mm around a nodule, 8 mm for the lungs as a whole.
        residual_mm: Median movement of the blocks that have a similar place; ``None`` if none has.
    """

    correlation: float
    overlap: float
    jacobian: float
    stretches: tuple[float, float]
    rotation_deg: float
    blocks: int
    agreement: float
    residual_mm: float | None


@dataclass(frozen=True)
class Limits:
    """What a fit must reach.

    Attributes:
        correlation: The least correlation.
        overlap: The least share of the fixed lungs inside the moving image.
        agreement: The least share of blocks that agree.
        blocks: The least number of blocks.
        residual_mm: The largest median movement of the blocks.
        stretch: The largest change of a length, as a factor.
        rotation_deg: The largest rotation.
    """

    correlation: float
    overlap: float
    agreement: float
    blocks: int
    residual_mm: float
    stretch: float
    rotation_deg: float

    def refusal(self, quality: FitQuality) -> str | None:
        """Why a fit is not good, ``None`` if it is."""
        most, least = quality.stretches
        residual = quality.residual_mm
        rules = (
            (quality.overlap < self.overlap, f"the scans share {quality.overlap:.0%} of the lungs"),
            (quality.correlation < self.correlation, f"the correlation is {quality.correlation:.2f}"),
            (
                max(most, 1 / least) > self.stretch,
                f"lengths change by the factors {least:.2f} to {most:.2f}",
            ),
            (quality.rotation_deg > self.rotation_deg, f"the rotation is {quality.rotation_deg:.0f} degrees"),
            (quality.blocks < self.blocks, f"only {quality.blocks} blocks have structure"),
            (quality.agreement < self.agreement, f"{quality.agreement:.0%} of the blocks agree"),
            (
                residual is None or residual > self.residual_mm,
                f"the blocks move by {residual or 0:.1f} mm",
            ),
        )
        return next((reason for fails, reason in rules if fails), None)


@dataclass(frozen=True)
class BlockSearch:
    """How blocks are searched.

    Attributes:
        size_mm: Size of a block.
        reach_mm: How far it may move along each axis.
        near_mm: A block agrees if it moves by at most this.
    """

    size_mm: float
    reach_mm: float
    near_mm: float


def measure_fit(fixed: Cells, moving: Cells, transform: Affine, search: BlockSearch) -> FitQuality:
    """Measure how well two images agree.

    Args:
        fixed: An image; its mask says where they are compared.
        moving: The other one.
        transform: From fixed to moving.
        search: How blocks are searched.
    """
    warped = sample_cells(moving, fixed.frame, fixed.values.shape, transform)
    both = fixed.mask & warped.mask
    moves, likeness = move_blocks(fixed, warped, search)
    length = np.linalg.norm(moves, axis=1)
    similar = likeness >= SIMILAR
    return FitQuality(
        correlation=correlate_values(fixed.values[both], warped.values[both]),
        overlap=float(both.sum() / max(1, int(fixed.mask.sum()))),
        jacobian=abs(transform.jacobian),
        stretches=(transform.stretches[0], transform.stretches[2]),
        rotation_deg=transform.rotation_deg,
        blocks=len(length),
        agreement=float((similar & (length <= search.near_mm)).mean()) if len(length) else 0.0,
        residual_mm=float(np.median(length[similar])) if similar.any() else None,
    )


def move_blocks(fixed: Cells, warped: Cells, search: BlockSearch) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Search where each block of an image is in another one.

    Args:
        fixed: An image; blocks with structure are taken within its mask.
        warped: The other one, on the same grid.
        search: How blocks are searched.

    Returns:
        The movement of each block in mm, in the directions of the axes x, y, z, shape (n, 3); its correlation there, shape (n,).
    """
    spacing = np.array(fixed.frame.spacing[::-1])
    half = np.maximum(1, np.round(search.size_mm / spacing / 2)).astype(int)
    both = fixed.mask & warped.mask
    if not both.any():
        return np.empty((0, 3)), np.empty(0)
    shared = np.array([np.flatnonzero(both.any(axis=axes)).size for axes in ((1, 2), (0, 2), (0, 1))])
    half = np.minimum(half, (shared - 1) // 3)  # blocks of thin slabs are thin
    reach = np.maximum(1, np.round(search.reach_mm / spacing)).astype(int)
    moves, likeness = [], []
    for place in _places(fixed, warped.mask, half):
        part = tuple(slice(at - size, at + size + 1) for at, size in zip(place, half, strict=True))
        block = fixed.values[part]
        low = np.maximum(0, place - half - reach)
        high = np.minimum(fixed.values.shape, place + half + reach + 1)
        around = tuple(slice(first, last) for first, last in zip(low, high, strict=True))
        scores = _scores(block, warped.values[around], warped.mask[around])
        offsets = [
            (first - (at - size) + np.arange(count)) * mm
            for first, at, size, count, mm in zip(low, place, half, scores.shape, spacing, strict=True)
        ]
        distance = np.sqrt(sum(grid**2 for grid in np.meshgrid(*offsets, indexing="ij")))
        best = np.unravel_index(int((scores - _PER_MM * distance).argmax()), scores.shape)
        at_peak = [
            float(offset[at])
            + mm * _vertex(np.take(_line(scores, best, axis), [at - 1, at, at + 1], mode="clip"), at, len(offset))
            for axis, (offset, at, mm) in enumerate(zip(offsets, best, spacing, strict=True))
        ]
        moves.append(at_peak[::-1])
        likeness.append(float(scores[best]))
    return np.array(moves, np.float64).reshape(-1, 3), np.array(likeness, np.float64)


def _places(fixed: Cells, known: NDArray[np.bool_], half: NDArray[np.int_]) -> NDArray[np.int_]:
    """Centres of blocks, those with most structure, where the other image is known."""
    size = tuple((2 * half + 1).tolist())
    mean = ndimage.uniform_filter(fixed.values, size)
    spread = ndimage.uniform_filter(fixed.values**2, size) - mean**2
    grid = [np.arange(h, length - h, h + 1) for h, length in zip(half, fixed.values.shape, strict=True)]
    z, y, x = (axis.ravel() for axis in np.meshgrid(*grid, indexing="ij"))
    usable = fixed.mask & (ndimage.minimum_filter(known.view(np.uint8), size) > 0)
    usable &= ndimage.uniform_filter(fixed.mask.astype(np.float32), size) >= _LEAST_INSIDE
    good = usable[z, y, x] & (spread[z, y, x] >= _LEAST_SPREAD**2)
    order = np.argsort(-spread[z, y, x][good], kind="stable")[:_BLOCKS]
    places: NDArray[np.int_] = np.stack([z, y, x], 1)[good][order]
    return places


def _scores(block: NDArray[np.float32], around: NDArray[np.float32], known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Correlation of a block with every place of the same shape in an image; -1 where the image is not known completely."""
    windows = np.lib.stride_tricks.sliding_window_view(around, block.shape)
    flat = windows.reshape(-1, block.size)
    centred = block.ravel() - block.mean()
    product = flat @ centred
    spread = np.sqrt(np.maximum(flat.var(axis=1), 1.0)) * np.sqrt(float((centred**2).sum()) * block.size)
    scores: NDArray[np.float32] = (product / spread).reshape(windows.shape[:3])
    if not known.all():
        scores[~np.lib.stride_tricks.sliding_window_view(known, block.shape).all(axis=(3, 4, 5))] = -1
    return scores


def _line(scores: NDArray[np.float32], at: Sequence[int | np.integer], axis: int) -> NDArray[np.float32]:
    index: list[int | slice | np.integer] = list(at)
    index[axis] = slice(None)
    line: NDArray[np.float32] = scores[tuple(index)]
    return line


def _vertex(values: NDArray[np.float32], at: int | np.integer, length: int) -> float:
    """Where the parabola through three values has its top, in steps from the middle one; 0 at the ends."""
    below, middle, above = (float(value) for value in values)
    bend = below - 2 * middle + above
    return 0.0 if at in (0, length - 1) or bend >= 0 else max(-0.5, min(0.5, (below - above) / (2 * bend)))


def correlate_values(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Correlation of values, 0 if one side is constant."""
    if len(a) < 2 or a.std() < 1 or b.std() < 1:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
