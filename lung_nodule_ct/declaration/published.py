"""What the paper and its records state about the dataset: citation, counts, baselines.

The published counts are compared with a build, and never become part of it. :func:`count_figures` is the one place that counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from lung_nodule_ct.declaration.archives import Role
from lung_nodule_ct.declaration.configs import Kind
from lung_nodule_ct.declaration.labels import PATHOLOGY, VALIDATION

if TYPE_CHECKING:
    from lung_nodule_ct.declaration.configs import Config

DOI: Final = "10.1038/s41597-024-03851-7"
HOMEPAGE: Final = f"https://doi.org/{DOI}"
CITATION: Final = """\
@article{jian2024lungnodule,
  title   = {A Cross Spatio-Temporal Pathology-based Lung Nodule Dataset},
  author  = {Jian and others},
  journal = {Scientific Data},
  year    = {2024},
  doi     = {10.1038/s41597-024-03851-7}
}"""


@dataclass(frozen=True, slots=True)
class Figure:
    """A published count.

    Attributes:
        name: What is counted.
        preprint: The count in the preprint, ``None`` if it gives none.
        published: The count quoted for the published version, ``None`` if none is quoted.
    """

    name: str
    preprint: int | None
    published: int | None

    def __post_init__(self) -> None:
        if self.preprint is None and self.published is None:
            raise ValueError(f"figure {self.name!r}: one of the two versions must give a count")

    @property
    def expected(self) -> str:
        """Both published counts as text: ``preprint 328, published 317``."""
        counts = {"preprint": self.preprint, "published": self.published}
        return ", ".join(f"{version} {count:,}" for version, count in counts.items() if count is not None)

    def agreement(self, measured: int) -> str:
        """Which version a count agrees with: ``preprint``, ``published``, ``both`` or ``neither``."""
        agrees = [name for name in ("preprint", "published") if getattr(self, name) == measured]
        return "both" if len(agrees) == 2 else (agrees[0] if agrees else "neither")


FIGURES: Final = (
    Figure("patients", 109, 109),
    Figure("CT scans", 328, 317),
    Figure("annotated nodules (slices)", 362, 2295),
    Figure("malignant nodules", 250, None),
    Figure("benign nodules", 112, None),
    Figure("scans in the cross spatio-temporal part", 182, None),
    Figure("nodules of 0 to 10 mm", 146, None),
    Figure("nodules of 10 to 20 mm", 144, None),
    Figure("nodules of 20 to 30 mm", 52, None),
    Figure("nodules over 30 mm", 20, None),
    Figure("crops to validate on", 408, None),
)
"""The counts of the preprint, and those quoted elsewhere for the published version. 408 is inferred from its accuracies (k / 408)."""


@dataclass(frozen=True, slots=True)
class SizeGroup:
    """One of the paper's four groups of nodules by diameter.

    Attributes:
        name: Name of the figure.
        over: Lower bound of the diameter in mm, exclusive.
        up_to: Upper bound in mm, inclusive.
    """

    name: str
    over: float
    up_to: float

    def holds(self, diameter_mm: float) -> bool:
        """Whether a nodule of this diameter belongs to the group."""
        return self.over < diameter_mm <= self.up_to


SIZE_GROUPS: Final = (
    SizeGroup("nodules of 0 to 10 mm", 0, 10),
    SizeGroup("nodules of 10 to 20 mm", 10, 20),
    SizeGroup("nodules of 20 to 30 mm", 20, 30),
    SizeGroup("nodules over 30 mm", 30, float("inf")),
)


@dataclass(frozen=True, slots=True)
class Baseline:
    """One row of the paper's Tables 1 and 2.

    Attributes:
        config: The config it was trained on.
        model: The architecture.
        scores: The published scores by name.
    """

    config: str
    model: str
    scores: tuple[tuple[str, float], ...]


def _classification(model: str, accuracy: float, kappa: float) -> Baseline:
    return Baseline("cls_1.25mm", model, (("accuracy", accuracy), ("quadratic_kappa", kappa)))


def _detection(model: str, *precision: float) -> Baseline:
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    return Baseline("det2d_1.25mm", model, tuple(zip(names, precision, strict=True)))


BASELINES: Final = (
    _classification("ResNet", 0.6103, 0.5413),
    _classification("ConvNeXt", 0.5787, 0.4662),
    _classification("ResNeXt", 0.6054, 0.5525),
    _classification("Res2Net", 0.5441, 0.5238),
    _classification("SE-ResNet", 0.5613, 0.5553),
    _classification("CABNet", 0.5711, 0.3717),
    _classification("InceptionV4", 0.4436, 0.3368),
    _classification("EfficientNet", 0.5441, 0.4149),
    _detection("Faster R-CNN", 0.772, 0.969, 0.840, 0.733, 0.815, 0.854),
    _detection("YOLOv3", 0.669, 0.958, 0.765, 0.574, 0.764, 0.828),
    _detection("MobileNet", 0.645, 0.954, 0.731, 0.562, 0.738, 0.823),
    _detection("SSD", 0.757, 0.980, 0.862, 0.712, 0.809, 0.871),
    _detection("RetinaNet", 0.810, 0.980, 0.876, 0.769, 0.858, 0.934),
)
"""150 epochs of classification, 50 of detection; both on splits that share patients, so they carry leakage."""


@dataclass(frozen=True, slots=True)
class CountedExample:
    """What the published counts need of one example.

    Attributes:
        split: The split.
        patient_id: The patient, ``None`` if unknown.
        scan_id: The scan, or any other key that is the same for both thicknesses of a scan.
        diameters_mm: Diameters of its nodules.
        annotated: Whether it has an annotation.
        label: Index of its pathology class.
        timepoint: Rank of its date, ``None`` if unknown.
    """

    split: str
    patient_id: str | None = None
    scan_id: str | None = None
    diameters_mm: tuple[float, ...] = ()
    annotated: bool = False
    label: int | None = None
    timepoint: int | None = None


@dataclass(frozen=True, slots=True)
class CountedConfig:
    """A config and its examples, planned or built."""

    config: Config
    examples: tuple[CountedExample, ...]


@dataclass(frozen=True, slots=True)
class FigureCount:
    """A published count, and the same count in the archives or in a build.

    Attributes:
        figure: The published counts.
        measured: The count here; ``None`` if it cannot be counted.
        method: What was counted, or why nothing was.
        config: The config in which it was counted; ``None`` if the config that would show it is missing.
    """

    figure: Figure
    measured: int | None
    method: str
    config: str | None

    @property
    def agreement(self) -> str | None:
        """Which version it agrees with, ``None`` if it was not counted."""
        return None if self.measured is None else self.figure.agreement(self.measured)

    def to_dict(self) -> dict[str, Any]:
        """The comparison as JSON values."""
        return {
            "figure": self.figure.name,
            "here": self.measured,
            "preprint": self.figure.preprint,
            "published": self.figure.published,
            "agrees_with": self.agreement,
            "counted": self.method,
        }


def count_figures(configs: Iterable[CountedConfig], *, annotated: str) -> list[FigureCount]:
    """Count what the paper counts, in the order of :data:`FIGURES`.

    Args:
        configs: The configs that were planned or built.
        annotated: What :attr:`CountedExample.annotated` means for a slice.
    """
    by_role: dict[str | None, CountedConfig] = {}
    for counted in configs:  # the first of each role: a config that a user adds does not replace one of the six
        by_role.setdefault(_role(counted.config), counted)
    thin, thick = by_role.get("thin"), by_role.get("thick")
    crops, slices, longitudinal = by_role.get("crops"), by_role.get("slices"), by_role.get("longitudinal")
    counts: dict[str, tuple[int | None, str, str | None]] = {}
    if thin and thick:
        scans = (*thin.examples, *thick.examples)
        patients = len({scan.patient_id for scan in scans} - {None})
        counts["patients"] = patients, "patients of the 1.25 mm and the 5 mm scans", thin.config.name
        distinct = len({scan.scan_id for scan in scans})
        counts["CT scans"] = distinct, "a scan of both thicknesses counts once", thin.config.name
    if thin:
        for group in SIZE_GROUPS:
            number = count_group(group, thin.examples)
            counts[group.name] = number, "diameters of the 1.25 mm scans, the upper bound included", thin.config.name
    if longitudinal:
        dates = len({scan.scan_id for scan in longitudinal.examples})
        method = "dates of patients with two or more dates"
        counts["scans in the cross spatio-temporal part"] = dates, method, longitudinal.config.name
    if slices:
        number = sum(example.annotated for example in slices.examples)
        counts["annotated nodules (slices)"] = number, annotated, slices.config.name
    if crops:
        number = sum(crop.split == VALIDATION for crop in crops.examples)
        counts["crops to validate on"] = number, "crops of the split validation", crops.config.name
        for word, malignant in (("malignant", True), ("benign", False)):
            labels = {entry.index for entry in PATHOLOGY if entry.malignant is malignant}
            number = sum(crop.label in labels for crop in crops.examples)
            method = f"the archives classify crops ({number:,} are {word}), and do not show which crops are one nodule"
            counts[f"{word} nodules"] = None, method, crops.config.name
    missing = (None, "the config that would show it is missing", None)
    return [FigureCount(figure, *counts.get(figure.name, missing)) for figure in FIGURES]


def count_group(group: SizeGroup, examples: Sequence[CountedExample]) -> int:
    """Number of nodules of a size group."""
    return sum(group.holds(diameter) for example in examples for diameter in example.diameters_mm)


def _role(config: Config) -> str | None:
    """What a config contributes to the published counts, ``None`` if nothing."""
    if config.kind == Kind.SCAN:
        if config.longitudinal:
            return "longitudinal"
        return "thin" if Role.CT_1_25MM in config.reads else "thick"
    by_kind: dict[str, str] = {Kind.CROP: "crops", Kind.SLICE: "slices"}
    return by_kind.get(config.kind)
