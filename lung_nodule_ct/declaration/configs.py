"""The six configs: the archives that each reads, the columns of an example, and the splits.

Coordinates: world is LPS millimetres (x, y, z); voxel is the continuous index (x, y, z) at the centre of a voxel; 3D boxes are
half-open, ``volume[z0:z1, y0:y1, x0:x1]``. A further config is added with :func:`add_config`.

Example:
    >>> from lung_nodule_ct import CONFIGS
    >>> CONFIGS["cls_1.25mm"].schema.names
    ('image', 'label', 'malignant', 'image_id', 'patient_id', 'scan_id', 'fold')
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from lung_nodule_ct.declaration.archives import NAMING_ROLES, Role
from lung_nodule_ct.declaration.labels import PATHOLOGY_NAMES, TRAIN, VALIDATION
from lung_nodule_ct.declaration.schema import (
    Category,
    Column,
    Flag,
    Integer,
    Picture,
    Real,
    Records,
    Schema,
    Text,
    Vector,
    Voxels,
)
from lung_nodule_ct.errors import UnknownConfigError, closest


class Kind(StrEnum):
    """What one example of a config is. Each kind has one family, which plans and makes its examples.

    A config of another kind uses a string of its own; see :func:`lung_nodule_ct.examples.plan.add_family`.
    """

    CROP = "crop"
    SLICE = "slice"
    SCAN = "scan"
    STACK = "stack"


@dataclass(frozen=True, slots=True)
class Config:
    """One view of the dataset.

    Attributes:
        name: The name that users pass to ``load_dataset``.
        kind: What one example is: a :class:`Kind`, or the name of another kind that has a family.
        summary: One sentence about the config.
        example: What one example is, as a noun.
        reads: Roles of the archives that are read completely.
        context: Roles of the archives of which only directories and tables are read: for the numbers of scans, timepoints and
            pathology. If one is missing, the columns that depend on it are null.
        schema: The columns, in order.
        splits: The published splits.
        task: The Hub's task category.
        longitudinal: Whether it holds only patients with two or more dates, their scans in the order of time.
    """

    name: str
    kind: str
    summary: str
    example: str
    reads: tuple[Role, ...]
    context: tuple[Role, ...]
    schema: Schema
    splits: tuple[str, ...]
    task: str
    longitudinal: bool = False

    def __post_init__(self) -> None:
        if not self.name or not self.kind:
            raise ValueError(f"a config has a name and a kind, got {self.name!r} and {self.kind!r}")
        if not self.reads or set(self.reads) & set(self.context):
            raise ValueError(
                f"{self.name}: expected archives that are either read or context, got {self.reads} and {self.context}"
            )
        if not self.splits:
            raise ValueError(f"{self.name}: expected at least one split")

    @property
    def roles(self) -> tuple[Role, ...]:
        """All roles, those that are read completely first."""
        return (*self.reads, *self.context)

    def built_schema(self, *, keep_source_names: bool) -> Schema:
        """Return the columns of a build: the schema, and the column ``source_name`` if it is kept."""
        return self.schema.with_column(SOURCE_NAME) if keep_source_names else self.schema


def _naming_roles(*read: Role) -> tuple[Role, ...]:
    """The roles whose names number the scans, without those that are read anyway."""
    return tuple(role for role in NAMING_ROLES if role not in read)


SOURCE_NAME: Final = Column("source_name", Text(), "name in the archives, which may contain a calendar date")

_PATIENT = Column("patient_id", Text(), "patient number in the archives", nullable=True)
_SCAN = Column(
    "scan_id", Text(), "patient and rank of the scan among the patient's dates, the same in every config", nullable=True
)
_FOLD = Column(
    "fold", Integer(), "cross-validation fold of the patient, 0 to 4, the same in every config", nullable=True
)
_IMAGE = Column("image", Picture(), "encoded image without metadata, with the pixels as published")
_IMAGE_ID = Column("image_id", Text(), "scan and slice, or the number of the image in its archive")
_BOX_3D = Column(
    "box_voxel", Vector(Integer(), 6), "half-open voxel box x0 y0 z0 x1 y1 z1, clipped to the volume", nullable=True
)
_CENTER_VOXEL = Column("center_voxel", Vector(Real(), 3), "centre as continuous voxel index x, y, z")

_NODULE = (
    Column("nodule_id", Text(), "scan, slice thickness and number of the annotation, from 0"),
    Column("center_world", Vector(Real(), 3), "centre in LPS mm, x, y, z"),
    _CENTER_VOXEL,
    Column("diameter_mm", Real(), "diameter in mm, null if the tables do not give it", nullable=True),
    _BOX_3D,
    Column(
        "pathology",
        Category(PATHOLOGY_NAMES),
        "pathology class, if the archives determine it for certain",
        nullable=True,
    ),
    Column(
        "key_slice",
        Integer(),
        "index z of the slice that shows the nodule most, null outside the volume",
        nullable=True,
    ),
    Column(
        "key_slice_basis",
        Text(),
        "what the key slice was chosen by: `evidence` in the voxels, or the annotated `centre`",
        nullable=True,
    ),
)
_TRACK = (
    Column(
        "track_id",
        Text(),
        "patient and number of the nodule that several scans show, if tracks were computed",
        nullable=True,
    ),
    Column(
        "track_confidence",
        Real(),
        "0 to 1, of the link to the scan before; null for the first scan of a track",
        nullable=True,
    ),
    Column(
        "track_event",
        Text(),
        "`first`, `continued`, `born` (an earlier scan shows its place without it) or `split`",
        nullable=True,
    ),
    Column("track_parent_id", Text(), "for `split`, the track that it left", nullable=True),
    Column(
        "track_ended", Flag(), "whether a later scan shows its place, and none has an annotation there", nullable=True
    ),
    Column("track_reason", Text(), "why the nodule has no track", nullable=True),
    Column(
        "track_pathology",
        Category(PATHOLOGY_NAMES),
        "pathology class of the track, if that of one of its annotations is certain",
        nullable=True,
    ),
)


def _scan_schema(*nodule: Column) -> Schema:
    """The columns of a scan, with further fields of its nodules."""
    return Schema(
        (
            _SCAN,
            _PATIENT,
            Column("timepoint", Integer(), "rank of the scan's date among the patient's dates, from 0", nullable=True),
            Column("num_timepoints", Integer(), "number of the patient's distinct dates", nullable=True),
            Column("days_since_first", Integer(), "days since the patient's first scan", nullable=True),
            _FOLD,
            Column("slice_thickness_mm", Real(), "nominal slice thickness, 1.25 or 5.0 mm"),
            Column("volume", Voxels("int16"), "CT volume in Hounsfield units, axes z, y, x"),
            Column(
                "lung_mask",
                Voxels("uint8"),
                "lung segmentation on the volume's grid, labels as published (0 outside, 3 and 4 the lungs)",
                nullable=True,
            ),
            Column("lung_mask_origin", Text(), "`published` or `made`, null without a mask", nullable=True),
            Column("spacing", Vector(Real(), 3), "distance between voxel centres in mm, x, y, z"),
            Column("origin", Vector(Real(), 3), "world position of voxel (0, 0, 0) in LPS mm, x, y, z"),
            Column(
                "direction", Vector(Real(), 9), "3 x 3 direction matrix, row by row; its columns are the axes x, y, z"
            ),
            Column("nodules", Records((*_NODULE, *nodule)), "annotated nodules"),
        )
    )


_SCAN_SCHEMA = _scan_schema()

CLS_1_25MM: Final = Config(
    name="cls_1.25mm",
    kind=Kind.CROP,
    summary="Nodule crops with one of six pathology classes.",
    example="one crop of a 1.25 mm slice",
    reads=(Role.CLASSIFICATION,),
    context=_naming_roles(Role.CLASSIFICATION),
    schema=Schema(
        (
            _IMAGE,
            Column("label", Category(PATHOLOGY_NAMES), "pathology class"),
            Column("malignant", Flag(), "whether the paper counts the class as malignant"),
            _IMAGE_ID,
            _PATIENT,
            _SCAN,
            _FOLD,
        )
    ),
    splits=(TRAIN, VALIDATION),
    task="image-classification",
)

DET2D_1_25MM: Final = Config(
    name="det2d_1.25mm",
    kind=Kind.SLICE,
    summary="Slices with 2D nodule boxes.",
    example="one 1.25 mm slice",
    reads=(Role.DETECTION_2D,),
    context=_naming_roles(Role.DETECTION_2D),
    schema=Schema(
        (
            _IMAGE,
            _IMAGE_ID,
            Column("width", Integer(), "width of the image in pixels"),
            Column("height", Integer(), "height of the image in pixels"),
            Column(
                "objects",
                Records(
                    (
                        Column("bbox", Vector(Real(32), 4), "xmin, ymin, xmax, ymax in pixels, as published"),
                        Column("category", Category(("nodule",)), "class of the object"),
                        Column("area", Real(32), "(xmax - xmin) (ymax - ymin)"),
                    )
                ),
                "annotated nodules",
            ),
            _PATIENT,
            _SCAN,
            _FOLD,
        )
    ),
    splits=(TRAIN, VALIDATION),
    task="object-detection",
)

DET3D_1_25MM: Final = Config(
    name="det3d_1.25mm",
    kind=Kind.SCAN,
    summary="CT volumes of 1.25 mm slice thickness with nodule centres, diameters, boxes and lung masks.",
    example="one scan",
    reads=(Role.CT_1_25MM, Role.LUNG_MASKS, Role.NODULES_1_25MM),
    context=_naming_roles(Role.CT_1_25MM, Role.LUNG_MASKS),
    schema=_SCAN_SCHEMA,
    splits=(TRAIN,),
    task="object-detection",
)

DET3D_5MM: Final = Config(
    name="det3d_5mm",
    kind=Kind.SCAN,
    summary="CT volumes of 5 mm slice thickness with nodule centres, diameters and boxes.",
    example="one scan",
    reads=(Role.CT_5MM, Role.NODULES_5MM),
    context=_naming_roles(Role.CT_5MM),
    schema=_SCAN_SCHEMA,
    splits=(TRAIN,),
    task="object-detection",
)

LONGITUDINAL: Final = Config(
    name="longitudinal",
    kind=Kind.SCAN,
    summary="All dated scans, of both thicknesses, of the patients with two or more dates, in chronological order.",
    example="one scan; `patient_sequences` groups them",
    reads=(Role.CT_1_25MM, Role.CT_5MM, Role.LUNG_MASKS, Role.NODULES_1_25MM, Role.NODULES_5MM),
    context=_naming_roles(Role.CT_1_25MM, Role.CT_5MM, Role.LUNG_MASKS),
    schema=_scan_schema(*_TRACK),
    splits=(TRAIN,),
    task="object-detection",
    longitudinal=True,
)

DET3D_BMP_1_25MM: Final = Config(
    name="det3d_bmp_1.25mm",
    kind=Kind.STACK,
    summary="Stacks of 8-bit slices, including flipped and rotated copies, with nodule boxes in voxels.",
    example="one case",
    reads=(Role.BMP_SLICES, Role.BMP_TABLES),
    context=(),
    schema=Schema(
        (
            Column("case_id", Text(), "number of the case as published"),
            Column("volume", Voxels("uint8"), "grey values, axes z, y, x"),
            Column(
                "nodules",
                Records(
                    (
                        _BOX_3D,
                        _CENTER_VOXEL,
                        Column("diameter", Real(), "diameter as published", nullable=True),
                    )
                ),
                "annotated nodules",
            ),
            Column("augmented", Flag(), "whether the case is a flipped or rotated copy", nullable=True),
            _FOLD,
        )
    ),
    splits=(TRAIN, VALIDATION),
    task="object-detection",
)

CONFIGS: Final[dict[str, Config]] = {
    config.name: config
    for config in (CLS_1_25MM, DET2D_1_25MM, DET3D_1_25MM, DET3D_5MM, LONGITUDINAL, DET3D_BMP_1_25MM)
}
DEFAULT_CONFIG: Final = DET2D_1_25MM


def add_config(config: Config) -> None:
    """Add a config, so that it can be built, loaded and read like the six.

    Args:
        config: The declaration. If its kind is new, a family must be added, too.

    Raises:
        ValueError: Another config has this name.
    """
    if CONFIGS.setdefault(config.name, config) is not config:
        raise ValueError(f"name: there is another config {config.name!r}")


def get_config(name: str) -> Config:
    """Return the config of a name.

    Raises:
        UnknownConfigError: The config is unknown.

    Example:
        >>> get_config("det2d_1.25mm").splits
        ('train', 'validation')
    """
    try:
        return CONFIGS[name]
    except KeyError:
        raise UnknownConfigError(
            f"there is no config {name!r}", expected=f"one of {', '.join(CONFIGS)}", remedy=closest(name, CONFIGS)
        ) from None
