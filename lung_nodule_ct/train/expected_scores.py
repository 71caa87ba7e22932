"""The scores that small variants of the recipes must reach in their checks, easy and hard. Without JAX."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class ExpectedScore:
    """The score that a small variant of a recipe must reach on synthetic patients that it was not trained on.

    Attributes:
        options: Command-line options that make the small variant.
        score: Name of the score. Higher is better.
        minimum: The lowest value that passes the check; ``None`` if any value passes.
        overlap: The lowest ``hit_IoU`` that passes, which judges the size of boxes in volumes; ``None`` if any passes.
        vessels: The number of pieces of vessels in each volume of the easy check.
    """

    options: tuple[str, ...]
    score: str
    minimum: float | None
    overlap: float | None = None
    vessels: int = 0

    @property
    def minima(self) -> dict[str, float]:
        """The lowest value of each score that passes the check."""
        values = {self.score: self.minimum, "hit_IoU": self.overlap}
        return {name: value for name, value in values.items() if value is not None}

    def __str__(self) -> str:
        return ", ".join(f"{name.removeprefix('hit_')} {value}" for name, value in self.minima.items()) or "no minimum"


_SMALL: Final = ("--model.width", "16", "--optim.learning-rate", "3e-3", "--save-every", "50", "--steps", "200")
_CROPS: Final = (*_SMALL, "--batch-size", "32", "--input.size", "32", "32", "--model.blocks", "1", "1")
_SLICES: Final = (*_SMALL, "--batch-size", "8", "--model.blocks", "1", "1", "1")
_VOLUMES: Final = (*_SMALL, "--batch-size", "8", "--model.blocks", "1", "1", "--watch", "30")
_THIN: Final = (*_VOLUMES, "--input.size", "16", "32", "32", "--input.spacing-mm", "2", "2", "2")
_FINE: Final = (*_THIN, "--model.patch", "2")
_THICK: Final = (*_VOLUMES, "--input.size", "8", "32", "32", "--input.spacing-mm", "5", "2", "2", "--model.patch", "2")
_STACKS: Final = (*_VOLUMES, "--input.size", "16", "32", "32")
_CUBES: Final = ("--input.size", "16", "16", "16", "--input.spacing-mm", "3", "3", "3")
_CANDIDATES: Final = (
    *(*_SMALL, "--batch-size", "16", "--model.blocks", "1", "1", "--watch", "500"),
    *("--input.size", "16", "16", "16", "--input.spacing-mm", "2", "2", "2"),
)
_NODULES: Final = (*_VOLUMES, *_CUBES, "--model.patch", "2")

_HARD: Final = (
    *(*_SMALL, "--steps", "800", "--save-every", "200", "--watch", "0"),
    *("--batch-size", "16", "--input.positives", "0.8", "--model.blocks", "1", "1", "1", "1"),
)
_HARD_PATCH: Final = ("--input.size", "24", "32", "32", "--input.spacing-mm", "2", "1.5", "1.5", "--model.patch", "2")

_HARD_STRONG: Final = (
    *(*_HARD, *_HARD_PATCH, "--steps", "1600", "--model.no-bottleneck", "--model.tower", "1", "--optim.warmup", "50"),
    *("--inference.no-mirrors", "--inference.overlap", "0.25"),
)

EXPECTED_HARD_SCORES: Final = {
    "det3d_1.25mm": ExpectedScore((*_HARD, *_HARD_PATCH), "CPM", 0.55, overlap=0.45),
    "det3d_1.25mm-anchors": ExpectedScore((*_HARD, *_HARD_PATCH), "CPM", 0.5, overlap=0.45),
    "det3d_1.25mm-retinanet3d": ExpectedScore(_HARD_STRONG, "CPM", 0.65, overlap=0.45),
}
"""The score that a small variant of a recipe must reach on the phantoms of the hard benchmark, below the lowest of three seeds."""

EXPECTED_SCORES: Final = {
    "cls_1.25mm": ExpectedScore(_CROPS, "accuracy", 0.8),
    "cls_1.25mm-squeeze": ExpectedScore(_CROPS, "accuracy", 0.8),
    "cls_1.25mm-ordinal": ExpectedScore((*_CROPS, "--steps", "300"), "quadratic_kappa", 0.4),
    "det2d_1.25mm": ExpectedScore(_SLICES, "AP50", 0.8),
    "det2d_1.25mm-anchors": ExpectedScore(_SLICES, "AP50", 0.8),
    "det3d_1.25mm": ExpectedScore(
        (*_FINE, "--steps", "400", "--save-every", "100"), "CPM", 0.6, overlap=0.25, vessels=4
    ),
    "det3d_1.25mm-anchors": ExpectedScore(_FINE, "CPM", 0.4, overlap=0.25),
    "det3d_1.25mm-candidates": ExpectedScore(_CANDIDATES, "AUC", 0.85),
    "det3d_5mm": ExpectedScore(_THICK, "CPM", 0.6, overlap=0.15),
    "det3d_bmp_1.25mm": ExpectedScore(_STACKS, "CPM", 0.7, overlap=0.35),
    "longitudinal": ExpectedScore(_NODULES, "malignant_AUC", 0.8),
    "longitudinal-largest": ExpectedScore(_NODULES, "malignant_AUC", 0.8),
    "longitudinal-single": ExpectedScore(_NODULES, "malignant_AUC", None),
}
"""The expected score of each recipe. ``longitudinal-single`` has no minimum, because it cannot see growth."""
