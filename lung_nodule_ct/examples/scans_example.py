"""``det3d_*`` and ``longitudinal``: one CT volume with its geometry, lung mask and nodules."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lung_nodule_ct.declaration.findings import Code, Finding
from lung_nodule_ct.declaration.identity import image_id
from lung_nodule_ct.examples.family import Example, pixels_key
from lung_nodule_ct.formats.metaimage_volume import MetaImage, open_metaimage
from lung_nodule_ct.geometry.boxes import sphere_box
from lung_nodule_ct.geometry.frame import Frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lung_nodule_ct.examples.family import Nodule, ScanUnit
    from lung_nodule_ct.geometry.types import CTVolume, MaskVolume
    from lung_nodule_ct.sources.source import ArchivePool
    from lung_nodule_ct.sources.zip_directory import Member
    from lung_nodule_ct.system.memory import BufferPool

_HU_MIN, _HU_MAX = -32768, 32767
_OF_GEOMETRY = (Code.GEOMETRY_MISSING, Code.NEGATIVE_SPACING, Code.DIRECTION_NOT_ORTHONORMAL)  # a mask's is not used
_USUAL_LABELS = (0, 3, 4)  # outside, and the lungs


def build_scan(unit: ScanUnit, archives: ArchivePool, buffers: BufferPool) -> Example:
    """The volume exactly as stored (no flip to a standard frame), as int16, with everything known of it.

    Raises:
        MemberError: Header, volume or mask is damaged.
    """
    findings: list[Finding] = []
    image = open_metaimage(unit.header, unit.data, archives, buffers.packed)
    frame = image.header.frame
    findings += _header_findings(image)
    in_mask: list[Finding] = []
    mask = None
    if unit.mask:  # first, because it passes through the volume's memory
        mask = _read_mask(unit.mask, unit.mask_data, image.header.shape, archives, buffers, in_mask)
    volume = _read_hounsfield(image, buffers, findings)
    findings += in_mask
    prefix = f"{unit.scan_id or image_id(unit.source_name)}-{unit.slice_thickness_mm:g}mm"
    row = {
        "scan_id": unit.scan_id,
        "patient_id": unit.patient_id,
        "timepoint": unit.timepoint,
        "num_timepoints": unit.num_timepoints,
        "days_since_first": unit.days_since_first,
        "fold": unit.fold,
        "slice_thickness_mm": unit.slice_thickness_mm,
        "volume": volume,
        "lung_mask": mask,
        "spacing": frame.spacing,
        "origin": frame.origin,
        "direction": frame.direction,
        "nodules": [
            {
                "nodule_id": f"{prefix}-{number}",
                **_nodule(sphere, frame, volume.shape, findings),
                "pathology": unit.pathology,
            }
            for number, sphere in enumerate(unit.nodules)
        ],
        "source_name": unit.source_name,
    }
    return Example(row, pixels_key(volume, image.crc if volume.dtype == image.header.dtype else None), tuple(findings))


def _header_findings(image: MetaImage) -> list[Finding]:
    where = (image.member.archive, image.member.name, None)
    return [Finding(code, action, *where, detail) for code, detail, action in image.issues]


def _read_hounsfield(image: MetaImage, buffers: BufferPool, findings: list[Finding]) -> CTVolume:
    """The elements as int16: as they are where they are int16, exactly converted where they fit, reported where not."""
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
                problem = "the volume has elements that are no numbers"
                raise member.error(problem, expected="finite Hounsfield units", got="NaN or infinity")
            whole = np.rint(slab)
            rounded += int((whole != slab).sum())
            slab = whole  # noqa: PLW2901 -- from here on the rounded values
        fitting = np.clip(slab, _HU_MIN, _HU_MAX)
        clipped += int((fitting != slab).sum())
        flat[position : position + slab.size] = fitting
        position += slab.size
    where = (member.archive, member.name, None)
    if rounded:
        findings.append(
            Finding(Code.INTENSITY_ROUNDED, "rounded to whole HU", *where, f"{rounded:,} voxels of {header.dtype}")
        )
    if clipped:
        findings.append(
            Finding(
                Code.INTENSITY_CLIPPED,
                f"clipped to {_HU_MIN} to {_HU_MAX}",
                *where,
                f"{clipped:,} voxels of {header.dtype}",
            )
        )
    return volume


def _read_mask(
    header: Member,
    data: Sequence[Member],
    shape: tuple[int, ...],
    archives: ArchivePool,
    buffers: BufferPool,
    findings: list[Finding],
) -> MaskVolume | None:
    """The labels as published, on the volume's grid (by array index: the masks' own origins are not to be trusted)."""
    image = open_metaimage(header, data, archives, buffers.packed)
    where = (header.archive, header.name, None)
    findings += [finding for finding in _header_findings(image) if finding.code not in _OF_GEOMETRY]
    if image.header.shape != shape:
        detail = f"expected shape {shape} (z, y, x), got {image.header.shape}"
        findings.append(Finding(Code.MASK_SHAPE, "lung_mask is null", *where, detail))
        return None
    mask = buffers.take("mask", shape, np.uint8)
    flat, position = mask.reshape(-1), 0
    counts = np.zeros(256, np.int64)
    below = np.empty(0, np.uint8)
    for slab in image.slabs(buffers.borrow("volume", math.prod(shape) * np.dtype(np.int16).itemsize)):
        labels = flat[position : position + slab.size]
        if not _write_labels(slab, labels):
            detail = f"values from {slab.min()} to {slab.max()}, as in an image and not a segmentation"
            findings.append(Finding(Code.MASK_VALUES, "lung_mask is null", *where, detail))
            return None
        position += slab.size
        if below.size != labels.size:
            below = np.empty(labels.size, np.uint8)  # kept: allocated for every slab it would be touched anew
        np.subtract(labels, 1, out=below)  # 0 becomes 255, so only 1 and 2 are then below 2
        if labels.max() > max(_USUAL_LABELS) or below.min() < 2:  # 20 times as fast as to count everything
            counts += np.bincount(labels, minlength=256)
    counts[list(_USUAL_LABELS)] = 0
    if counts[7]:
        findings.append(Finding(Code.MASK_LABEL_7, "kept as published", *where, f"{counts[7]:,} voxels"))
    other = [label for label in np.flatnonzero(counts).tolist() if label != 7]
    if other:
        detail = ", ".join(f"label {label}: {counts[label]:,} voxels" for label in other[:8])
        findings.append(Finding(Code.MASK_LABEL_UNKNOWN, "kept as published", *where, detail))
    return mask


def _write_labels(slab: NDArray[Any], out: NDArray[np.uint8]) -> bool:
    """The values as uint8 if each is one, else ``False``: what does not fit is never cast."""
    if slab.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            out[...] = slab.astype(np.uint8)
        return bool((out == slab).all())
    unsigned = slab.view(slab.dtype.str.replace("i", "u"))  # in which what is negative lies above all that is not
    if slab.size and unsigned.max() > min(255, np.iinfo(slab.dtype).max):
        return False
    np.copyto(out, slab, casting="unsafe")
    return True


def _nodule(sphere: Nodule, frame: Frame, shape: tuple[int, ...], findings: list[Finding]) -> dict[str, Any]:
    center = frame.to_voxel(sphere.center_world)
    where = (*sphere.table, sphere.row)
    box = None
    if sphere.diameter_mm <= 0:
        findings.append(
            Finding(Code.DIAMETER_NOT_POSITIVE, "kept, its box is null", *where, f"got {sphere.diameter_mm:g} mm")
        )
    else:
        bounds = sphere_box(center.tolist(), sphere.diameter_mm, frame.spacing, shape)
        box = bounds.clipped
        if box is None:
            code = Code.NODULE_BETWEEN_VOXELS if bounds.between_voxels else Code.NODULE_OUTSIDE_VOLUME
            detail = f"centre at voxel ({', '.join(f'{c:.2f}' for c in center)}) of {' x '.join(map(str, shape[::-1]))}"
            findings.append(Finding(code, "its centre is kept, its box is null", *where, detail))
    return {
        "center_world": sphere.center_world,
        "center_voxel": center.tolist(),
        "diameter_mm": sphere.diameter_mm,
        "box_voxel": box,
    }
