"""Operations on scans and measurements of their voxels. Needs the extra ``imaging`` (SciPy, scikit-image, SimpleITK).

The names in ``__all__`` are public: lung masks, resampling, crops and orientation, key slices,
registration, tracks and growth. They are imported at their first use. The
other modules measure lungs, evidence of a nodule at a place, calibration, orientation and the order of slices; the audit
(:mod:`lung_nodule_ct.audit`) applies them to a build. All are pure functions of arrays. docs/spacetime.md describes the methods.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lung_nodule_ct.system.imports import import_name

if TYPE_CHECKING:
    from lung_nodule_ct.imaging.grids import canonical, crop, crop_to_lungs, on_grid, pad, resample
    from lung_nodule_ct.imaging.interpolation import Interpolation
    from lung_nodule_ct.imaging.key_slices import KeySlice, KeySliceBasis, SpatialSeries, key_slice, spatial_series
    from lung_nodule_ct.imaging.nodule_growth import GrowthRow, growth
    from lung_nodule_ct.imaging.nodule_volume import NoduleMeasure, measure_nodule
    from lung_nodule_ct.imaging.prepared_scan import prepare_scan
    from lung_nodule_ct.imaging.registration import RegisteredPair, Registration, refine, register, registered_pair
    from lung_nodule_ct.imaging.scan import Scan, map_boxes, window
    from lung_nodule_ct.imaging.segmentation import segment_lungs
    from lung_nodule_ct.imaging.tracks import TrackedNodule, track_nodules

_MODULES = {
    "GrowthRow": "nodule_growth",
    "Interpolation": "interpolation",
    "KeySlice": "key_slices",
    "KeySliceBasis": "key_slices",
    "NoduleMeasure": "nodule_volume",
    "RegisteredPair": "registration",
    "Registration": "registration",
    "Scan": "scan",
    "SpatialSeries": "key_slices",
    "TrackedNodule": "tracks",
    "canonical": "grids",
    "crop": "grids",
    "crop_to_lungs": "grids",
    "growth": "nodule_growth",
    "key_slice": "key_slices",
    "map_boxes": "scan",
    "measure_nodule": "nodule_volume",
    "on_grid": "grids",
    "pad": "grids",
    "prepare_scan": "prepared_scan",
    "refine": "registration",
    "register": "registration",
    "registered_pair": "registration",
    "resample": "grids",
    "segment_lungs": "segmentation",
    "spatial_series": "key_slices",
    "track_nodules": "tracks",
    "window": "scan",
}

__all__ = [
    "GrowthRow",
    "Interpolation",
    "KeySlice",
    "KeySliceBasis",
    "NoduleMeasure",
    "RegisteredPair",
    "Registration",
    "Scan",
    "SpatialSeries",
    "TrackedNodule",
    "canonical",
    "crop",
    "crop_to_lungs",
    "growth",
    "key_slice",
    "map_boxes",
    "measure_nodule",
    "on_grid",
    "pad",
    "prepare_scan",
    "refine",
    "register",
    "registered_pair",
    "resample",
    "segment_lungs",
    "spatial_series",
    "track_nodules",
    "window",
]


def __getattr__(name: str) -> Any:
    return import_name(__name__, _MODULES, name, "imaging", f"imaging.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
