"""Operations on scans and measurements of their voxels. Needs the extra ``imaging`` (SciPy, scikit-image, SimpleITK).

The names in ``__all__`` are public: lung masks, resampling, crops and orientation, key slices. They are imported at their first use. The
other modules measure lungs, evidence of a nodule at a place, calibration, orientation and the order of slices; the audit
(:mod:`lung_nodule_ct.audit`) applies them to a build. All are pure functions of arrays. docs/spacetime.md describes the methods.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.system.imports import optional_imports

if TYPE_CHECKING:
    from lung_nodule_ct.imaging.grids import canonical, crop, crop_to_lungs, on_grid, pad, resample
    from lung_nodule_ct.imaging.interpolation import Interpolation
    from lung_nodule_ct.imaging.key_slices import KeySlice, KeySliceBasis, SpatialSeries, key_slice, spatial_series
    from lung_nodule_ct.imaging.scan import Scan, map_boxes, window
    from lung_nodule_ct.imaging.segmentation import segment_lungs

_MODULES = {
    "Interpolation": "interpolation",
    "KeySlice": "key_slices",
    "KeySliceBasis": "key_slices",
    "Scan": "scan",
    "SpatialSeries": "key_slices",
    "canonical": "grids",
    "crop": "grids",
    "crop_to_lungs": "grids",
    "key_slice": "key_slices",
    "map_boxes": "scan",
    "on_grid": "grids",
    "pad": "grids",
    "resample": "grids",
    "segment_lungs": "segmentation",
    "spatial_series": "key_slices",
    "window": "scan",
}

__all__ = [
    "Interpolation",
    "KeySlice",
    "KeySliceBasis",
    "Scan",
    "SpatialSeries",
    "canonical",
    "crop",
    "crop_to_lungs",
    "key_slice",
    "map_boxes",
    "on_grid",
    "pad",
    "resample",
    "segment_lungs",
    "spatial_series",
    "window",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with optional_imports("imaging", f"imaging.{name}"):
        value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
