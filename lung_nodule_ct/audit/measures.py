"""What is measured in the voxels of a row, by the functions of :mod:`lung_nodule_ct.imaging`. Needs the extra ``imaging``."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lung_nodule_ct.audit.views import View, views_of
from lung_nodule_ct.declaration.configs import Kind
from lung_nodule_ct.imaging.anatomy import Anatomy, measure_anatomy
from lung_nodule_ct.imaging.chest_search import chest_thumbnails
from lung_nodule_ct.imaging.comparison import CoarseScan, MaskAgreement, coarse_scan, compare_mask
from lung_nodule_ct.imaging.evidence import EvidenceFinder, finder_of
from lung_nodule_ct.imaging.hounsfield import OFFSET, Calibration, calibrate
from lung_nodule_ct.imaging.judgement import LEAST_MM, NoduleEvidence, NoduleVerdict, judge_box, judge_sphere
from lung_nodule_ct.imaging.lungs import block_mean, find_lungs, usual_hu
from lung_nodule_ct.imaging.slice_order import SliceOrder, slice_order
from lung_nodule_ct.imaging.thumbnails import Thumbnail, picture_thumbnail, slice_thumbnails, volume_thumbnail

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from lung_nodule_ct.declaration.rows import NoduleRecord, ObjectRecord, ScanRow, StackNoduleRecord
    from lung_nodule_ct.geometry.frame import CTVolume, Frame, GreyVolume, MaskVolume
    from lung_nodule_ct.read.build_folder import BuildFolder

PIXEL_MM: Final = 0.7
"""The size of a pixel of pictures and stacks, which have no spacing: that of a usual chest CT."""
_STACK_SLICE_MM = 1.25
MAX_OTHERS: Final = 10
"""Nodules of the patient's other scans that are searched in one scan, so that the cost stays linear."""


@dataclass(frozen=True, slots=True)
class OtherNodule:
    """A nodule of another scan of the same patient, or of the other thickness.

    Attributes:
        scan: The scan whose table lists it: ``scan_id`` and slice thickness.
        number: Its index there.
        world: Its centre in LPS mm.
        diameter_mm: Its diameter.
    """

    scan: tuple[str, float]
    number: int
    world: tuple[float, float, float]
    diameter_mm: float


@dataclass(frozen=True, eq=False)
class Judged:
    """One annotation that was judged.

    Attributes:
        evidence: Its evidence.
        views: Pictures of its place and of the place of the hint, if it is flagged.
    """

    evidence: NoduleEvidence
    views: tuple[View, ...] = ()


@dataclass(frozen=True, eq=False)
class ScanMeasures:
    """What was measured in a scan.

    Attributes:
        calibration: Whether its values look like Hounsfield units.
        has_lungs: Whether lungs were found.
        anatomy: The spine and the size of the lungs, ``None`` without lungs.
        order: The order of its slices, ``None`` for a few slices.
        mask: Its lung mask compared with what was found; ``None`` without a mask or lungs.
        coarse: The scan on a coarse grid.
        nodules: The evidence of each nodule.
        seen_here: The nodules of other scans for which there is clear evidence at the same place in this one.
        thumbnail: The thumbnails of its slices on the coarse grid, shape (z, 32, 32).
        chest: The same, cut to its lungs and in radiological orientation; ``None`` without lungs.
    """

    calibration: Calibration
    has_lungs: bool
    anatomy: Anatomy | None
    order: SliceOrder | None
    mask: MaskAgreement | None
    coarse: CoarseScan
    nodules: tuple[Judged, ...]
    seen_here: tuple[OtherNodule, ...]
    thumbnail: Thumbnail
    chest: Thumbnail | None


@dataclass(frozen=True, eq=False)
class StackMeasures:
    """What was measured in a slice stack.

    Attributes:
        order: The order of its slices, ``None`` for a few slices.
        nodules: The evidence of each nodule.
        thumbnail: Its thumbnail, ``None`` for a blank stack.
    """

    order: SliceOrder | None
    nodules: tuple[Judged, ...]
    thumbnail: Thumbnail | None


@dataclass(frozen=True, eq=False)
class PictureMeasures:
    """What was measured in a picture.

    Attributes:
        deviation: Standard deviation of its grey values.
        shape: Height and width in pixels.
        boxes: The evidence of each box.
        thumbnail: Its thumbnail, ``None`` for a blank picture.
    """

    deviation: float
    shape: tuple[int, int]
    boxes: tuple[Judged, ...]
    thumbnail: Thumbnail | None


class Measurement:
    """Measures the rows of one build. A volume that two configs contain is measured once.

    Args:
        build: The build. Only its columns of metadata are read here.
    """

    def __init__(self, build: BuildFolder) -> None:
        self._others: defaultdict[str, dict[tuple[str, float], tuple[OtherNodule, ...]]] = defaultdict(dict)
        self._scans: dict[tuple[str, float, str], ScanMeasures] = {}
        for config in build.configs:
            if build.config(config).kind == Kind.SCAN and "nodules" in build.metadata_columns(config):
                for split in build.splits(config):
                    for row in build.rows(config, split, build.metadata_columns(config)):
                        self._list(row)

    def _list(self, row: Mapping[str, Any]) -> None:
        if row.get("patient_id") is None or row.get("scan_id") is None:
            return
        scan = row["scan_id"], row["slice_thickness_mm"]
        self._others[row["patient_id"]][scan] = tuple(
            OtherNodule(scan, number, tuple(nodule["center_world"]), nodule["diameter_mm"])
            for number, nodule in enumerate(row["nodules"])
            if nodule["diameter_mm"] is not None and nodule["diameter_mm"] >= LEAST_MM
        )

    def scan(self, row: ScanRow, frame: Frame, counts: NDArray[np.int64], pixels_key: str) -> ScanMeasures:
        """Measure a scan. A few nodules of the patient's other scans are searched in it as well."""
        scan = str(row["scan_id"]), row["slice_thickness_mm"]
        key = (*scan, pixels_key)
        if key not in self._scans:
            scans = self._others.get(row["patient_id"] or "", {})
            others = [nodule for name, nodules in scans.items() if name != scan for nodule in nodules][:MAX_OTHERS]
            mask = row.get("lung_mask")
            self._scans[key] = measure_scan(row["volume"], mask, frame, counts, row.get("nodules", ()), others)
        return self._scans[key]

    @staticmethod
    def stack(volume: GreyVolume, nodules: Sequence[StackNoduleRecord]) -> StackMeasures:
        """Measure a slice stack and its nodules.

        Args:
            volume: Grey values, axes (z, y, x).
            nodules: Its annotated nodules.
        """
        spacing = (PIXEL_MM, PIXEL_MM, _STACK_SLICE_MM)
        lungs = find_lungs(volume, spacing, is_crop=True)
        image = usual_hu(volume, lungs.low, lungs.high)
        finder = finder_of(image, lungs, (1.0, 1.0, _STACK_SLICE_MM / PIXEL_MM))
        evidence = tuple(
            _judged_box(finder, image, [*box[:3], *(end - 1 for end in box[3:])])
            if (box := nodule["box_voxel"]) is not None
            else Judged(NoduleEvidence(NoduleVerdict.NO_SIZE, None, "there is no box"))
            for nodule in nodules
        )
        return StackMeasures(slice_order(image, spacing), evidence, volume_thumbnail(volume))

    @staticmethod
    def picture(pixels: NDArray[Any], objects: Sequence[ObjectRecord] = ()) -> PictureMeasures:
        """Measure a picture and its boxes.

        Args:
            pixels: Grey values or colours, axes (y, x) or (y, x, colour).
            objects: Its annotated boxes; none for a crop.
        """
        grey = pixels if pixels.ndim == 2 else pixels[..., 0]
        height, width = grey.shape
        evidence: tuple[Judged, ...] = ()
        if objects:
            lungs = find_lungs(grey[None], (PIXEL_MM, PIXEL_MM, 1.0))
            image = usual_hu(grey, lungs.low, lungs.high)
            finder = finder_of(image, lungs, (1.0, 1.0))
            evidence = tuple(_judged_box(finder, image, entry["bbox"]) for entry in objects)
        return PictureMeasures(float(grey.std()), (height, width), evidence, picture_thumbnail(grey))


def measure_scan(
    volume: CTVolume,
    mask: MaskVolume | None,
    frame: Frame,
    counts: NDArray[np.int64],
    nodules: Sequence[NoduleRecord],
    others: Sequence[OtherNodule] = (),
) -> ScanMeasures:
    """Measure a scan and its nodules.

    Args:
        volume: HU, axes (z, y, x).
        mask: Its lung mask.
        frame: Its frame.
        counts: How often each value from -32768 occurs, shape (65536,).
        nodules: Its annotated nodules.
        others: Nodules of other scans of the patient.
    """
    lungs = find_lungs(volume, frame.spacing)
    coarse = block_mean(volume, lungs.step)
    smooth = np.bincount(np.rint(coarse).astype(np.int64).ravel() + OFFSET, minlength=len(counts))
    calibration = calibrate(counts, smooth, None if lungs.is_empty else float(coarse[lungs.mask].mean()))
    # values that are not in HU are mapped, so that a wrong intercept does not hide the nodules as well
    image = usual_hu(volume, lungs.low, lungs.high) if calibration.faults else volume
    finder = finder_of(image, lungs, frame.spacing)
    evidence = tuple(_judged_sphere(finder, image, frame, nodule) for nodule in nodules)
    seen = tuple(other for other in others if finder is not None and _is_seen(finder, frame, volume.shape, other))
    return ScanMeasures(
        calibration=calibration,
        has_lungs=not lungs.is_empty,
        anatomy=measure_anatomy(image, lungs, frame),
        order=slice_order(image, frame.spacing),
        mask=None if mask is None else compare_mask(mask, lungs, frame),
        coarse=coarse_scan(volume, frame),
        nodules=evidence,
        seen_here=seen,
        thumbnail=slice_thumbnails(coarse),
        chest=None if lungs.is_empty else chest_thumbnails(coarse, lungs.mask, frame),
    )


def _judged_sphere(finder: EvidenceFinder | None, image: NDArray[Any], frame: Frame, nodule: NoduleRecord) -> Judged:
    diameter = nodule["diameter_mm"]
    evidence = judge_sphere(finder, frame, image.shape, nodule["center_world"], diameter)
    return Judged(evidence, views_of(image, evidence, [(diameter or 0) / 2 / mm for mm in frame.spacing]))


def _judged_box(finder: EvidenceFinder | None, image: NDArray[Any], box: Sequence[float]) -> Judged:
    """A box with its first and last pixels: xmin, ymin(, zmin), xmax, ymax(, zmax)."""
    evidence = judge_box(finder, image.shape, box)
    sizes = [(last - first + 1) / 2 for first, last in zip(box, box[image.ndim :], strict=False)]
    return Judged(evidence, views_of(image, evidence, sizes))


def _is_seen(finder: EvidenceFinder, frame: Frame, shape: tuple[int, ...], other: OtherNodule) -> bool:
    evidence = judge_sphere(finder, frame, shape, other.world, other.diameter_mm)
    return evidence.verdict is NoduleVerdict.PRESENT
