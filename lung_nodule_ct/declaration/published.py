"""What the paper and its records say of the dataset: citation, figures, baselines. Held beside a build, never into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

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
        preprint: As the preprint has it, ``None`` where it says nothing.
        published: As it is quoted for the published version, ``None`` where nothing is quoted.
    """

    name: str
    preprint: int | None
    published: int | None

    def __post_init__(self) -> None:
        if self.preprint is None and self.published is None:
            raise ValueError(f"figure {self.name!r}: one of the two versions must say something")

    def agreement(self, own: int) -> str:
        """Which source a build's own figure agrees with: ``preprint``, ``published``, ``both`` or ``neither``."""
        agrees = [name for name in ("preprint", "published") if getattr(self, name) == own]
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
"""The counts of the preprint, and those quoted elsewhere for the published version; 408 is inferred from its accuracies (k / 408)."""


@dataclass(frozen=True, slots=True)
class SizeGroup:
    """One of the paper's four groups of nodules by diameter.

    Attributes:
        name: As the figures have it.
        over: Diameters over this belong to it, mm.
        up_to: And up to this, mm.
    """

    name: str
    over: float
    up_to: float

    def holds(self, diameter_mm: float) -> bool:
        """Whether a nodule of that diameter belongs to it."""
        return self.over < diameter_mm <= self.up_to


SIZE_GROUPS: Final = (
    SizeGroup("nodules of 0 to 10 mm", 0, 10),
    SizeGroup("nodules of 10 to 20 mm", 10, 20),
    SizeGroup("nodules of 20 to 30 mm", 20, 30),
    SizeGroup("nodules over 30 mm", 30, float("inf")),
)

SPLIT_RATIOS: Final = {"cls_1.25mm": (5, 1), "det2d_1.25mm": (4, 1), "det3d_bmp_1.25mm": (5, 1)}
"""Train to validation, as the paper has it."""


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
