"""Two images brought together: the steps of a registration, each from a grid of cells to an affine map of the world.

1. A search of all translations at once: the normalized correlation within masks, by Fourier transform (Padfield 2012, "Masked object
   registration in the Fourier domain"). It needs no start, and finds a crop within a scan.
2. Rigid and affine optimization of the correlation by SimpleITK, from a start, with a fixed seed and one thread, so that the result is the
   same every time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import fft, ndimage

from lung_nodule_ct.geometry.affine import Affine
from lung_nodule_ct.geometry.frame import IDENTITY, Frame
from lung_nodule_ct.imaging.lungs import block_mean
from lung_nodule_ct.system.imports import optional_imports

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lung_nodule_ct.geometry.frame import WorldPoints

HU_RANGE: Final = (-1000.0, 200.0)
"""Values are clipped to this range: bone and metal do not decide."""

_SEED: Final = 1
_APART_MM = 15.0
"""Two peaks of the search are different starts if they are this far apart."""
_LEAST_CELLS = 60


@dataclass(frozen=True, eq=False)
class Cells:
    """An image on a grid of cells, with the cells that count.

    Attributes:
        values: HU within a range, float32, axes (z, y, x).
        mask: The cells that count, axes (z, y, x).
        frame: The frame of the cells.
    """

    values: NDArray[np.float32]
    mask: NDArray[np.bool_]
    frame: Frame

    @property
    def cell_ml(self) -> float:
        """Volume of a cell."""
        return float(np.prod(self.frame.spacing)) / 1000

    @property
    def corners(self) -> WorldPoints:
        """World positions of the eight outermost cells."""
        z, y, x = (length - 1 for length in self.values.shape)
        return self.frame.to_world([(i, j, k) for i in (0, x) for j in (0, y) for k in (0, z)])

    def masked(self, mask: NDArray[np.bool_]) -> Cells:
        """Return the same image with another mask."""
        return Cells(self.values, mask, self.frame)


def average_cells(
    volume: NDArray[Any], frame: Frame, size_mm: float, hu_range: tuple[float, float] = HU_RANGE
) -> Cells:
    """Average a volume over cells of about a size. All cells count.

    Args:
        volume: HU, axes (z, y, x).
        frame: Its frame.
        size_mm: Size of a cell. Voxels that are larger stay.
        hu_range: Values are clipped to it.
    """
    step = [
        min(length, max(1, round(size_mm / mm))) for length, mm in zip(volume.shape[::-1], frame.spacing, strict=True)
    ]
    values = np.clip(block_mean(volume, step), *hu_range)
    origin = frame.to_world([(count - 1) / 2 for count in step]).tolist()
    spacing = [count * mm for count, mm in zip(step, frame.spacing, strict=True)]
    coarse = Frame(tuple(origin), (spacing[0], spacing[1], spacing[2]), frame.direction)
    return Cells(values, np.ones(values.shape, np.bool_), coarse)


def sample_cells(cells: Cells, frame: Frame, shape: Sequence[int], by: Affine | None = None) -> Cells:
    """Sample an image on another grid; what is outside the image does not count there.

    Args:
        cells: The image.
        frame: Frame of the grid.
        shape: Its shape: z, y, x.
        by: Takes a world point of the grid to the image; by default they have the same world.
    """
    depth, height, width = shape
    by = by or Affine()
    origin = cells.frame.to_voxel(by.map(frame.to_world((0, 0, 0))))
    matrix = (cells.frame.to_voxel(by.map(frame.to_world(np.eye(3)))) - origin).T
    turned, start = matrix[::-1, ::-1], origin[::-1]
    common = {"offset": start, "output_shape": (depth, height, width), "prefilter": False}
    values = ndimage.affine_transform(cells.values, turned, order=1, mode="nearest", output=np.float32, **common)
    mask = ndimage.affine_transform(cells.mask.view(np.uint8), turned, order=0, mode="constant", cval=0, **common)
    return Cells(values, mask > 0, frame)


def straight_grid(points: WorldPoints, size_mm: Sequence[float]) -> tuple[Frame, tuple[int, int, int]]:
    """The grid along the axes of the world that covers some points."""
    low, high = points.min(axis=0), points.max(axis=0)
    count = np.ceil((high - low) / size_mm).astype(int) + 1
    x, y, z = low.tolist()
    sx, sy, sz = (float(size) for size in size_mm)
    return Frame((x, y, z), (sx, sy, sz), IDENTITY), (int(count[2]), int(count[1]), int(count[0]))


def search_translations(
    fixed: Cells, moving: Cells, *, count: int, least_overlap: float, within_mm: float | None = None
) -> list[tuple[Affine, float]]:
    """Find the translations at which two images agree best, among all translations by whole cells.

    Args:
        fixed: An image; its mask says where the two are compared.
        moving: An image on a grid of the same spacing along the same axes; cells outside its mask are not known.
        count: The largest number of translations, the best first.
        least_overlap: The share of the fixed mask that must be inside the moving image.
        within_mm: The largest translation along an axis, by default any.

    Returns:
        Maps from fixed to moving and their correlations; empty if the images never overlap that much.
    """
    shape = [
        fft.next_fast_len(a + b - 1, real=True) for a, b in zip(fixed.values.shape, moving.values.shape, strict=True)
    ]

    def spectra(cells: Cells) -> list[NDArray[np.complex64]]:
        mask = cells.mask.astype(np.float32)
        scaled = (cells.values - cells.values[cells.mask].mean()) / np.float32(500) * mask
        return [fft.rfftn(part, shape) for part in (mask, scaled, scaled * scaled)]

    if not (fixed.mask.any() and moving.mask.any()):
        return []
    (mask_f, sum_f, square_f), (mask_m, sum_m, square_m) = spectra(fixed), spectra(moving)

    def correlate(of_fixed: NDArray[np.complex64], of_moving: NDArray[np.complex64]) -> NDArray[np.float32]:
        result: NDArray[np.float32] = fft.irfftn(of_fixed.conj() * of_moving, shape)
        return result

    number = np.maximum(np.rint(correlate(mask_f, mask_m)), 0)
    safe = np.maximum(number, 1)
    a, b = correlate(sum_f, mask_m), correlate(mask_f, sum_m)
    spread_f = correlate(square_f, mask_m) - a * a / safe
    spread_m = correlate(mask_f, square_m) - b * b / safe
    product = np.sqrt(np.maximum(spread_f, 1e-3 * safe) * np.maximum(spread_m, 1e-3 * safe))
    score = (correlate(sum_f, sum_m) - a * b / safe) / product
    score[number < max(_LEAST_CELLS, least_overlap * fixed.mask.sum())] = -1
    return _peaks(score, fixed, moving, count, within_mm)


def _peaks(
    score: NDArray[np.float32], fixed: Cells, moving: Cells, count: int, within_mm: float | None
) -> list[tuple[Affine, float]]:
    spacing = np.array(fixed.frame.spacing)
    base = np.array(moving.frame.origin) - np.array(fixed.frame.origin)
    offsets = []
    for length, size, mm, start in zip(score.shape, fixed.values.shape, spacing[::-1], base[::-1], strict=True):
        lag = np.arange(length)
        offsets.append(np.where(lag > length - size, lag - length, lag) * mm + start)
    z, y, x = offsets
    if within_mm is not None:
        for axis, offset in enumerate(offsets):
            shape = [1, 1, 1]
            shape[axis] = -1
            score = np.where((np.abs(offset) <= within_mm).reshape(shape), score, -1)
    found: list[tuple[Affine, float]] = []
    while len(found) < count:
        k, j, i = np.unravel_index(int(score.argmax()), score.shape)
        best = float(score[k, j, i])
        if best <= 0:
            break
        found.append((Affine(offset=(float(x[i]), float(y[j]), float(z[k]))), best))
        near = np.ix_(
            *(
                np.flatnonzero(np.abs(offset - offset[at]) < _APART_MM)
                for offset, at in zip(offsets, (k, j, i), strict=True)
            )
        )
        score[near] = -1
    return found


@dataclass(frozen=True)
class Effort:
    """How hard an optimization tries.

    Attributes:
        samples: Number of cells that are compared in each step, of those that count.
        steps: The largest number of steps.
        first_mm: Length of the first step.
        last_mm: Length at which it ends.
    """

    samples: int
    steps: int
    first_mm: float
    last_mm: float


def optimize(
    fixed: Cells, moving: Cells, start: Affine, center: Sequence[float], *, rigid: bool, effort: Effort
) -> Affine | None:
    """Improve a map by the correlation of two images.

    Args:
        fixed: An image; its mask says where the two are compared.
        moving: The other one, on any grid.
        start: From fixed to moving.
        center: The world point around which it turns and stretches, in the fixed image.
        rigid: Whether it only turns and moves. A start that stretches then stays as it is, and is turned.
        effort: How hard to try.

    Returns:
        The map; ``None`` if the two do not overlap on the way.
    """
    with optional_imports("imaging", "registration"):
        import SimpleITK  # noqa: PLC0415 -- an extra that takes long to import
    itk: Any = SimpleITK
    # the start moves the frame of the moving image, so that the optimization begins at the identity
    brought = start.inverse.move(moving.frame)
    change = itk.Euler3DTransform() if rigid else itk.AffineTransform(3)
    change.SetCenter([float(value) for value in center])
    method = itk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsCorrelation()
    method.SetMetricFixedMask(_image(itk, fixed.mask.astype(np.uint8), fixed.frame))
    method.SetMetricMovingMask(_image(itk, moving.mask.astype(np.uint8), brought))
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(min(1.0, effort.samples / max(1, int(fixed.mask.sum()))), _SEED)
    method.SetInterpolator(itk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(effort.first_mm, effort.last_mm, effort.steps, 0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(change, True)
    shows_warnings = itk.ProcessObject.GetGlobalWarningDisplay()
    itk.ProcessObject.SetGlobalWarningDisplay(False)  # of steps without overlap, which are refused
    try:
        method.Execute(_image(itk, fixed.values, fixed.frame), _image(itk, moving.values, brought))
    except RuntimeError:  # "All samples map outside moving image buffer", or too few of them
        return None
    finally:
        itk.ProcessObject.SetGlobalWarningDisplay(shows_warnings)
    matrix = np.array(change.GetMatrix()).reshape(3, 3)
    middle = np.array(change.GetCenter())
    offset = np.array(change.GetTranslation()) + middle - matrix @ middle
    if not (np.isfinite(matrix).all() and np.isfinite(offset).all() and abs(np.linalg.det(matrix)) > 0.1):
        return None
    return start.after(Affine.from_arrays(matrix, offset))


def _image(itk: Any, array: NDArray[Any], frame: Frame) -> Any:
    image = itk.GetImageFromArray(array)
    image.SetOrigin(frame.origin)
    image.SetSpacing(frame.spacing)
    image.SetDirection(frame.direction)
    return image
