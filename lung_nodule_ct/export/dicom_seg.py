"""Scans as DICOM: the CT as one file per slice, and the lung mask as a segmentation of it.

The archives have no DICOM headers. Everything is made from the voxels, their frame and the ids of the build; nothing else is
known of patient, scanner and time, and no date is written. UIDs are hashes of the ids. Segmentations are written by highdicom.
"""

from __future__ import annotations

import datetime
import uuid
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lung_nodule_ct.declaration.manifest import GENERATOR
from lung_nodule_ct.declaration.published import HOMEPAGE
from lung_nodule_ct.declaration.schema import Voxels
from lung_nodule_ct.export.formats import ExportSummary, column_names, scan_stem, shortened_list
from lung_nodule_ct.system.imports import optional_imports

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from lung_nodule_ct.declaration.schema import Schema
    from lung_nodule_ct.geometry.frame import Frame
    from lung_nodule_ct.read.rows import IndexedRow

_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, HOMEPAGE)
_CT_IMAGE_STORAGE: Final = "1.2.840.10008.5.1.4.1.1.2"
_MANUFACTURER: Final = "lung_nodule_ct"
_NO_DATE: Final = datetime.date(1900, 1, 1)
"""The standard requires a date of the content; PS3.15 replaces it by a dummy."""
_METHODS: Final = {
    "published": "as published: Jian et al. 2024, Data Preprocessing",
    "made": "lung_nodule_ct.imaging.segment_lungs",
}
"""How the lung masks of each origin were made."""


def write_dicom_seg(schema: Schema, rows: Iterable[IndexedRow], folder: Path) -> ExportSummary:
    """Write ``<case>/ct/<slice>.dcm``, and ``<case>/lung_mask.dcm`` where there is a mask.

    Each label of the mask is a segment. A volume whose direction matrix is not a rotation is left out and named, because
    DICOM cannot describe it.

    Raises:
        MissingExtraError: highdicom is not installed.
    """
    volume, mask, *_ = column_names(schema, Voxels)
    images = annotations = 0
    sheared: list[str] = []
    without_mask: list[str] = []
    for indexed in rows:
        row, case, frame = indexed.row, scan_stem(indexed), indexed.frame
        if not frame.is_orthonormal:
            sheared.append(case)
            continue
        slices = _ct_slices(row, case, row[volume].shape, frame)
        (folder / case / "ct").mkdir(parents=True)
        for number, (plane, dataset) in enumerate(zip(row[volume], slices, strict=True), 1):
            dataset.PixelData = plane.astype("<i2").tobytes()
            dataset.save_as(folder / case / "ct" / f"{number:04d}.dcm", enforce_file_format=True)
            del dataset.PixelData
        images += 1
        if row[mask] is None or not row[mask].any():
            without_mask.append(case)
            continue
        segmentation = _segmentation(row[mask], row.get(f"{mask}_origin"), case, slices)
        segmentation.save_as(folder / case / f"{mask}.dcm", enforce_file_format=True)
        annotations += 1
    notes: tuple[str, ...] = ()
    if sheared:
        notes += (
            f"{len(sheared):,} scans have a direction matrix that is not a rotation, which DICOM cannot describe, and are "
            f"left out: {shortened_list(sheared)}",
        )
    if without_mask:
        notes += (f"{len(without_mask):,} scans have no lung mask and no segmentation: {shortened_list(without_mask)}",)
    return ExportSummary(images, annotations, notes=notes)


def _uid(*parts: object) -> str:
    """A UID that is a hash of what it identifies."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, '/'.join(map(str, parts))).int}"


def _ct_slices(row: dict[str, Any], case: str, shape: tuple[int, int, int], frame: Frame) -> list[Any]:
    """The slices of a scan as datasets without pixels."""
    with optional_imports("dicom", "the export to DICOM"):
        from pydicom.dataset import Dataset, FileMetaDataset  # noqa: PLC0415 -- an extra
        from pydicom.uid import ExplicitVRLittleEndian  # noqa: PLC0415
    spacing_x, spacing_y, spacing_z = frame.spacing
    scan = row.get("scan_id") or case
    shared: dict[str, Any] = {
        "SpecificCharacterSet": "ISO_IR 192",
        "SOPClassUID": _CT_IMAGE_STORAGE,
        "Modality": "CT",
        "ImageType": ["DERIVED", "PRIMARY", "AXIAL"],
        "PatientID": row.get("patient_id") or scan,
        "PatientIdentityRemoved": "YES",
        "DeidentificationMethod": "made from a MetaImage volume without DICOM headers",
        "StudyInstanceUID": _uid("study", scan),
        "SeriesInstanceUID": _uid("series", case),
        "FrameOfReferenceUID": _uid("frame", case),
        "SeriesNumber": 1,
        "Manufacturer": _MANUFACTURER,
        "Rows": shape[1],
        "Columns": shape[2],
        "PixelSpacing": [_decimal(spacing_y), _decimal(spacing_x)],
        "SliceThickness": _decimal(spacing_z),
        "ImageOrientationPatient": [_decimal(value) for value in frame.matrix[:, :2].T.ravel()],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "RescaleIntercept": 0,
        "RescaleSlope": 1,
        "RescaleType": "HU",
        **dict.fromkeys(("PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"), ""),
        **dict.fromkeys(("AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator", "KVP"), ""),
        "AcquisitionNumber": None,
    }
    positions = frame.to_world([[0, 0, index] for index in range(shape[0])])
    slices = []
    for number, position in enumerate(positions, 1):
        dataset = Dataset()
        for keyword, value in shared.items():
            setattr(dataset, keyword, value)
        dataset.SOPInstanceUID = _uid("slice", case, number)
        dataset.InstanceNumber = number
        dataset.ImagePositionPatient = [_decimal(value) for value in position]
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        slices.append(dataset)
    return slices


def _segmentation(mask: NDArray[np.uint8], origin: str | None, case: str, slices: Sequence[Any]) -> Any:
    """The segmentation of a mask with some label."""
    with optional_imports("dicom", "the export to DICOM"):
        import highdicom  # noqa: PLC0415 -- an extra
        from pydicom.sr.codedict import codes  # noqa: PLC0415
    labels = [int(label) for label in np.unique(mask) if label]
    segments = np.zeros(256, np.uint8)
    segments[labels] = np.arange(1, len(labels) + 1)
    method = highdicom.AlgorithmIdentificationSequence(
        _METHODS.get(origin or "", "not stated"), codes.DCM.MorphologicalOperations, GENERATOR
    )
    segmentation = highdicom.seg.Segmentation(
        source_images=slices,
        pixel_array=segments[mask],
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            highdicom.seg.SegmentDescription(
                segment_number=number,
                segment_label=f"lung, label {label}",
                segmented_property_category=codes.SCT.AnatomicalStructure,
                segmented_property_type=codes.SCT.Lung,
                algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
                algorithm_identification=method,
            )
            for number, label in enumerate(labels, 1)
        ],
        series_instance_uid=_uid("segmentation series", case),
        series_number=2,
        sop_instance_uid=_uid("segmentation", case),
        instance_number=1,
        manufacturer=_MANUFACTURER,
        manufacturer_model_name=GENERATOR.partition(" ")[0],
        software_versions=GENERATOR,
        device_serial_number="none",
        content_date=_NO_DATE,
        content_time=datetime.time(),
    )
    del segmentation.InstanceCreationDate, segmentation.InstanceCreationTime
    for equipment in segmentation.get("ContributingEquipmentSequence", ()):
        equipment.pop("ContributionDateTime", None)
    return segmentation


def _decimal(value: float) -> Any:
    """A number as a decimal string of at most 16 characters, as DICOM stores it."""
    from pydicom.valuerep import DSfloat  # noqa: PLC0415 -- an extra

    return DSfloat(float(value), auto_format=True)
