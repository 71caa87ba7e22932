"""A config that only the tests declare: axial slices of the lung masks.

A new config needs one declaration and one family. One unit is a mask volume, which is decompressed once for all of its slices.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image

from lung_nodule_ct.declaration.archives import NAMING_ROLES, Role
from lung_nodule_ct.declaration.configs import CONFIGS, Config, add_config
from lung_nodule_ct.declaration.findings import Finding, FindingCollector
from lung_nodule_ct.declaration.labels import TRAIN
from lung_nodule_ct.declaration.schema import Column, Flag, Integer, Picture, Schema, Text
from lung_nodule_ct.examples.family import Example, Family, Reading, Unit, number_scans
from lung_nodule_ct.examples.plan import FAMILIES, add_family
from lung_nodule_ct.examples.scans.listing import list_volumes
from lung_nodule_ct.formats.metaimage_volume import open_metaimage
from lung_nodule_ct.formats.pictures import pixels_key
from lung_nodule_ct.sources.source import Source
from lung_nodule_ct.sources.zip_directory import Member

LUNG_MASK_2D = Config(
    name="lung_mask_2d",
    kind="mask_slice",
    summary="Axial slices of the lung masks.",
    example="one slice of a lung mask",
    reads=(Role.LUNG_MASKS,),
    context=tuple(role for role in NAMING_ROLES if role is not Role.LUNG_MASKS),
    schema=Schema(
        (
            Column("mask", Picture(), "PNG with the labels as grey values: 0 outside, 3 and 4 the lungs"),
            Column("slice_index", Integer(), "axial slice of the volume, from 0"),
            Column("has_lung", Flag(), "whether the slice shows a lung"),
            Column("patient_id", Text(), "patient number in the archives", nullable=True),
            Column("scan_id", Text(), "patient and rank of the scan", nullable=True),
            Column("fold", Integer(), "cross-validation fold of the patient, 0 to 4", nullable=True),
        )
    ),
    splits=(TRAIN,),
    task="image-segmentation",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskUnit(Unit):
    """One mask volume, which yields one example per slice."""

    header: Member
    data: tuple[Member, ...]

    @property
    def members(self) -> tuple[Member, ...]:
        return (self.header, *self.data)

    @property
    def num_examples(self) -> int | None:
        return None  # the header is not read before the build


def plan_masks(config: Config, source: Source) -> tuple[list[MaskUnit], tuple[Finding, ...]]:
    report = FindingCollector()
    numbers = number_scans(source).numbers
    units = [
        MaskUnit(
            split=TRAIN,
            source_name=volume.stem,
            patient_id=volume.name.patient,
            scan_id=numbers.scan_id(volume.name),
            fold=volume.name.fold,
            header=volume.header,
            data=volume.data,
        )
        for volume in list_volumes(source.archives(Role.LUNG_MASKS), report)
    ]
    return units, report.findings


def make_masks(unit: MaskUnit, reading: Reading) -> list[Example]:
    image = open_metaimage(unit.header, unit.data, reading.archives, reading.buffers.packed)
    volume = np.empty(image.header.shape, image.header.dtype)
    image.read_into(volume)
    return [_example(unit, index, labels.astype(np.uint8)) for index, labels in enumerate(volume)]


def _example(unit: MaskUnit, index: int, labels: np.ndarray) -> Example:
    encoded = io.BytesIO()
    Image.fromarray(labels).save(encoded, "PNG")
    row = {
        "mask": encoded.getvalue(),
        "slice_index": index,
        "has_lung": bool(labels.any()),
        "patient_id": unit.patient_id,
        "scan_id": unit.scan_id,
        "fold": unit.fold,
        "source_name": f"{unit.source_name}[{index}]",
    }
    return Example(row, pixels_key(labels))


MASK_SLICES = Family(plan_masks, make_masks)


def register() -> None:
    """Add the config and its family to the package, as a user would."""
    add_config(LUNG_MASK_2D)
    add_family(LUNG_MASK_2D.kind, MASK_SLICES)


def unregister() -> None:
    """Remove both, so that other tests see the six configs of the package."""
    del CONFIGS[LUNG_MASK_2D.name]
    del FAMILIES[LUNG_MASK_2D.kind]


@contextmanager
def registered() -> Iterator[None]:
    """Register the config until the end of the block."""
    register()
    try:
        yield
    finally:
        unregister()
