"""The example of a scan: one CT volume with its geometry, lung mask and nodules."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lung_nodule_ct.declaration.findings import Code, Finding, FindingCollector
from lung_nodule_ct.declaration.rows import NoduleRecord, ScanRow
from lung_nodule_ct.errors import Place
from lung_nodule_ct.examples.family import Example, Reading
from lung_nodule_ct.examples.scans.consistency import outside_hint
from lung_nodule_ct.examples.scans.measured import centre_slices, make_lung_mask, measured_slices
from lung_nodule_ct.formats.metaimage_volume import MetaImage, open_metaimage
from lung_nodule_ct.formats.pictures import pixels_key
from lung_nodule_ct.geometry.boxes import sphere_box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lung_nodule_ct.examples.scans.listing import Nodule
    from lung_nodule_ct.examples.scans.measured import KeySlice
    from lung_nodule_ct.examples.scans.plan import ScanUnit
    from lung_nodule_ct.geometry.frame import CTVolume, Frame, MaskVolume
    from lung_nodule_ct.system.memory import BufferPool

_HU_MIN: Final = -32768
_HU_MAX: Final = 32767
_GEOMETRY_CODES = (Code.GEOMETRY_MISSING, Code.NEGATIVE_SPACING, Code.DIRECTION_NOT_ORTHONORMAL)
_DIRECTION_TOLERANCE = 1e-3
"""The maximum difference of two equal directions: their numbers are rounded when they are written."""
_SAME_DIRECTION = 0.7
"""Least cosine between two axes that mean the same direction of the patient; a mask keeps the tilt of its scan or not."""
_SPACING_TOLERANCE = 1e-3
"""The maximum relative difference of two equal spacings."""
_USUAL_LABELS = (0, 3, 4)
"""Outside, and the two lungs."""
_MAX_LABELS = 8
"""Unknown labels that a finding lists."""


def make_scan(unit: ScanUnit, reading: Reading) -> list[Example]:
    """Make the example of a scan: the volume exactly as stored, as int16, without a flip to a standard frame.

    Raises:
        MemberError: The header, the volume or the mask is damaged.
    """
    report = FindingCollector()
    in_mask = FindingCollector()
    buffers = reading.buffers
    image = open_metaimage(unit.header, unit.data, reading.archives, buffers.packed)
    frame = image.header.frame
    report.extend(_header_findings(image))
    read = image.data_members
    mask = None
    if unit.mask:  # before the volume, because the mask passes through the memory of the volume
        mask_image = open_metaimage(unit.mask, unit.mask_data, reading.archives, buffers.packed)
        read += mask_image.data_members
        in_mask.extend(_frame_findings(mask_image, frame))
        unused = "not used" if unit.makes_mask else "lung_mask is null"
        mask = _read_mask(mask_image, image.header.shape, buffers, in_mask, unused)
    volume = _read_hounsfield(image, buffers, report)
    report.extend(in_mask.findings)
    origin = None if mask is None else "published"
    if mask is None and unit.makes_mask:
        mask, finding = make_lung_mask(volume, frame, unit.header.place)
        origin = None if mask is None else "made"
        report.extend([finding])
    prefix = f"{unit.volume_id}_{unit.slice_thickness_mm:g}mm"
    find_slices = measured_slices if unit.seeks_key_slices else centre_slices
    slices = find_slices(unit.nodules, volume, frame)
    row = ScanRow(
        scan_id=unit.scan_id,
        patient_id=unit.patient_id,
        timepoint=unit.timepoint,
        num_timepoints=unit.num_timepoints,
        days_since_first=unit.days_since_first,
        fold=unit.fold,
        slice_thickness_mm=unit.slice_thickness_mm,
        volume=volume,
        lung_mask=mask,
        lung_mask_origin=origin,
        spacing=frame.spacing,
        origin=frame.origin,
        direction=frame.direction,
        nodules=[
            _nodule(nodule, f"{prefix}_{number}", key, unit.pathology, frame, volume.shape, report)
            for number, (nodule, key) in enumerate(zip(unit.nodules, slices, strict=True))
        ],
        source_name=unit.source_name,
    )
    crc = image.crc if volume.dtype == image.header.dtype else None
    return [Example(row, pixels_key(volume, crc), report.findings, read)]


def _header_findings(image: MetaImage) -> list[Finding]:
    report = FindingCollector()
    for code, detail, resolution in image.issues:
        report.add(code, resolution, image.member.place, detail)
    return list(report.findings)


def _frame_findings(mask: MetaImage, scan: Frame) -> list[Finding]:
    """A finding if the header of a mask gives another direction or spacing than that of its scan; its origin is unreliable."""
    frame = mask.header.frame
    agreements = {
        "direction": np.allclose(frame.direction, scan.direction, rtol=0, atol=_DIRECTION_TOLERANCE),
        "spacing": np.allclose(frame.spacing, scan.spacing, rtol=_SPACING_TOLERANCE, atol=0),
    }
    details = [
        f"expected {name} {_listed(getattr(scan, name))} as in the scan, got {_listed(getattr(frame, name))}"
        for name, agrees in agreements.items()
        if not agrees
    ]
    if not details:
        return []
    resolution = "its array is taken by index, as it is stored; check whether it has to be turned"
    cosines = (frame.matrix * scan.matrix).sum(axis=0)
    code = Code.MASK_TURNED if (cosines < _SAME_DIRECTION).any() else Code.MASK_FRAME
    return [Finding(code, resolution, mask.member.place, "; ".join(details))]


def _listed(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _read_hounsfield(image: MetaImage, buffers: BufferPool, report: FindingCollector) -> CTVolume:
    """The elements as int16: as stored if they are int16, converted exactly if they fit, otherwise changed and reported."""
    header, member = image.header, image.member
    if header.dtype == np.dtype("<i2") or header.dtype == np.dtype(">i2"):
        stored = buffers.take("volume", header.shape, header.dtype)
        image.read_into(stored)
        return stored if header.dtype.isnative else stored.byteswap(inplace=True).view("<i2")
    volume = buffers.take("volume", header.shape, "<i2")
    flat, position, rounded, clipped = volume.reshape(-1), 0, 0, 0
    for slab in image.slabs():
        if slab.dtype.kind == "f":
            if not np.isfinite(slab).all():
                problem = "the volume has elements that are not numbers"
                raise member.error(problem, expected="finite Hounsfield units", got="NaN or infinity")
            integral = np.rint(slab)
            rounded += int((integral != slab).sum())
            slab = integral  # noqa: PLW2901 -- from here on the rounded values
        fitting = np.clip(slab, _HU_MIN, _HU_MAX)
        clipped += int((fitting != slab).sum())
        flat[position : position + slab.size] = fitting
        position += slab.size
    if rounded:
        detail = f"{rounded:,} voxels of {header.dtype}"
        report.add(Code.INTENSITY_ROUNDED, "rounded to integer HU", member.place, detail)
    if clipped:
        detail = f"{clipped:,} voxels of {header.dtype}"
        report.add(Code.INTENSITY_CLIPPED, f"clipped to {_HU_MIN} to {_HU_MAX}", member.place, detail)
    return volume


def _read_mask(
    image: MetaImage, shape: tuple[int, ...], buffers: BufferPool, report: FindingCollector, unused: str
) -> MaskVolume | None:
    """The labels as published on the grid of the volume, aligned by array index: the origin of a mask is unreliable.

    ``unused`` is the resolution of the finding about a mask that cannot be used.
    """
    place = image.member.place
    report.extend(finding for finding in _header_findings(image) if finding.code not in _GEOMETRY_CODES)
    if image.header.shape != shape:
        detail = f"expected shape {shape} (z, y, x), got {image.header.shape}"
        report.add(Code.MASK_SHAPE, unused, place, detail)
        return None
    mask = buffers.take("mask", shape, np.uint8)
    flat, position = mask.reshape(-1), 0
    counts = np.zeros(256, np.int64)
    below = np.empty(0, np.uint8)
    for slab in image.slabs(buffers.borrow("volume", math.prod(shape) * np.dtype(np.int16).itemsize)):
        labels = flat[position : position + slab.size]
        if not _write_labels(slab, labels):
            detail = f"values from {slab.min()} to {slab.max()}, as in an image and not a segmentation"
            report.add(Code.MASK_VALUES, unused, place, detail)
            return None
        position += slab.size
        if below.size != labels.size:
            below = np.empty(labels.size, np.uint8)  # reused: new memory for every slab would cost its page faults
        np.subtract(labels, 1, out=below)  # 0 becomes 255, so that only 1 and 2 are then below 2
        if labels.max() > max(_USUAL_LABELS) or below.min() < 2:  # 20 times as fast as counting every label
            counts += np.bincount(labels, minlength=256)
    _report_labels(counts, place, report)
    return mask


def _report_labels(counts: NDArray[np.int64], place: Place, report: FindingCollector) -> None:
    """Report the labels other than those of the lungs."""
    counts[list(_USUAL_LABELS)] = 0
    if counts[7]:
        report.add(Code.MASK_LABEL_7, "kept as published", place, f"{counts[7]:,} voxels")
    other = [label for label in np.flatnonzero(counts).tolist() if label != 7]
    if other:
        detail = ", ".join(f"label {label}: {counts[label]:,} voxels" for label in other[:_MAX_LABELS])
        report.add(Code.MASK_LABEL_UNKNOWN, "kept as published", place, detail)


def _write_labels(slab: NDArray[Any], out: NDArray[np.uint8]) -> bool:
    """Write the values as uint8, and return whether each of them is one; values that do not fit are never cast."""
    if slab.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            out[...] = slab.astype(np.uint8)
        return bool((out == slab).all())
    unsigned = slab.view(slab.dtype.str.replace("i", "u"))  # in which negative values are above all others
    if slab.size and unsigned.max() > min(255, np.iinfo(slab.dtype).max):
        return False
    np.copyto(out, slab, casting="unsafe")
    return True


def _nodule(
    nodule: Nodule,
    nodule_id: str,
    key_slice: KeySlice,
    pathology: int | None,
    frame: Frame,
    shape: Sequence[int],
    report: FindingCollector,
) -> NoduleRecord:
    center = frame.to_voxel(nodule.center_world).tolist()
    box = None
    if nodule.diameter_mm is None:
        pass  # reported once for the table
    elif nodule.diameter_mm <= 0:
        detail = f"got {nodule.diameter_mm:g} mm"
        report.add(Code.DIAMETER_NOT_POSITIVE, "kept, its box is null", nodule.place, detail)
    else:
        bounds = sphere_box(center, nodule.diameter_mm, frame.spacing, shape)
        box = bounds.clipped
        if box is None:
            code = Code.NODULE_BETWEEN_VOXELS if bounds.between_voxels else Code.NODULE_OUTSIDE_VOLUME
            size = " x ".join(map(str, reversed(shape)))
            detail = f"centre at voxel ({', '.join(f'{index:.2f}' for index in center)}) of {size}"
            if code is Code.NODULE_OUTSIDE_VOLUME:
                detail += outside_hint(nodule.center_world, frame, shape)
            report.add(code, "its centre is kept, its box is null", nodule.place, detail)
    return NoduleRecord(
        nodule_id=nodule_id,
        center_world=nodule.center_world,
        center_voxel=center,
        diameter_mm=nodule.diameter_mm,
        box_voxel=box,
        pathology=pathology,
        key_slice=key_slice[0],
        key_slice_basis=key_slice[1],
        track_id=nodule.track.id,
        track_confidence=nodule.track.confidence,
        track_event=nodule.track.event,
        track_parent_id=nodule.track.parent_id,
        track_ended=nodule.track.ended,
        track_reason=nodule.track.reason,
        track_pathology=nodule.track.pathology,
    )
