"""What every recipe is expected to reach, in a small variant, on made-up patients: ``lung-nodule-ct train RECIPE --check``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_WIDE: Final = ("--model.width", "16", "--optim.learning-rate", "3e-3", "--save-every", "50")
_CROPS: Final = (*_WIDE, "--steps", "200", "--batch-size", "32", "--input.size", "32", "32", "--model.blocks", "1", "1")
_SLICES: Final = (*_WIDE, "--steps", "200", "--batch-size", "8", "--model.blocks", "1", "1", "1")
_CUBE: Final = (*_WIDE, "--steps", "200", "--batch-size", "8", "--model.blocks", "1", "1", "--watch", "30")
_THIN: Final = (*_CUBE, "--input.size", "16", "32", "32", "--input.spacing-mm", "2", "2", "2")
_THICK: Final = (*_CUBE, "--input.size", "8", "32", "32", "--input.spacing-mm", "5", "2", "2", "--model.patch", "2")
_STACK: Final = (*_CUBE, "--input.size", "16", "32", "32")
_NODULES: Final = (*_CUBE, "--model.patch", "2", "--input.size", "16", "16", "16", "--input.spacing-mm", "3", "3", "3")


@dataclass(frozen=True)
class ExpectedScore:
    """What a recipe's small variant reaches on made-up patients that it was not trained on.

    Attributes:
        options: What makes the variant, as on the command line.
        score: The score that counts; the higher, the better.
        least: What it must reach; ``None`` where none can be expected.
    """

    options: tuple[str, ...]
    score: str
    least: float | None

    def __str__(self) -> str:
        return "no aim" if self.least is None else f"{self.score} {self.least}"

    def reached_by(self, value: float | None) -> bool:
        """Whether a score is what was expected; one that is not known is not."""
        return self.least is None or (value is not None and value >= self.least)


EXPECTED_SCORES: Final = {
    "cls_1.25mm": ExpectedScore(_CROPS, "accuracy", 0.8),
    "cls_1.25mm-se": ExpectedScore(_CROPS, "accuracy", 0.8),
    "cls_1.25mm-ordinal": ExpectedScore((*_CROPS, "--steps", "300"), "quadratic_kappa", 0.4),
    "det2d_1.25mm": ExpectedScore(_SLICES, "AP50", 0.8),
    "det2d_1.25mm-retina": ExpectedScore(_SLICES, "AP50", 0.8),
    "det3d_1.25mm": ExpectedScore(_THIN, "CPM", 0.6),
    "det3d_1.25mm-retina": ExpectedScore((*_THIN, "--model.patch", "2"), "CPM", 0.4),
    "det3d_5mm": ExpectedScore(_THICK, "CPM", 0.6),
    "det3d_bmp_1.25mm": ExpectedScore(_STACK, "CPM", 0.7),
    "longitudinal": ExpectedScore(_NODULES, "malignant_AUC", 0.8),
    "longitudinal-single": ExpectedScore(_NODULES, "malignant_AUC", None),
}
"""By the recipe's name. Growth is half of what tells malignant lesions, so the single-timepoint twin has no aim."""
