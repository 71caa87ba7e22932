"""Options of detectors of volumes: how patches are changed at random, and how a volume is predicted. Without JAX."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from lung_nodule_ct.errors import TrainingError

_MAX_ELASTIC: Final = 0.4


@dataclass(frozen=True)
class AugmentOptions:
    """Random changes of volume patches with boxes, after flips and right angles (``input.augment``). None by default.

    Attributes:
        zoom: Lowest and highest factor of the size.
        rotate: Largest rotation within the slice in degrees.
        tilt: Largest rotation out of the slice in degrees, about each of its two axes. With ``rotate``, patches turn freely.
        elastic: Largest displacement of the control points of a smooth random field, as a fraction of their distance, a third
            of the patch. At most 0.4, because space could fold above it (Choi and Lee 2000).
        noise: Largest standard deviation of added noise, of grey values 0 to 1.
        blur: Largest standard deviation of a blur, in voxels.
        contrast: Lowest and highest factor of the difference from the mean grey value.
        gamma: Lowest and highest exponent of the grey values.
        low_resolution: Largest factor by which the resolution is lowered.
    """

    zoom: tuple[float, float] = (1.0, 1.0)
    rotate: float = 0.0
    tilt: float = 0.0
    elastic: float = 0.0
    noise: float = 0.0
    blur: float = 0.0
    contrast: tuple[float, float] = (1.0, 1.0)
    gamma: tuple[float, float] = (1.0, 1.0)
    low_resolution: float = 1.0

    def __post_init__(self) -> None:
        for name, (low, high) in (("zoom", self.zoom), ("contrast", self.contrast), ("gamma", self.gamma)):
            if not 0 < low <= high < float("inf"):
                raise TrainingError(
                    f"augment.{name} is not a range of factors", expected="0 < low <= high", got=(low, high)
                )
        for name, value in (
            ("rotate", self.rotate),
            ("tilt", self.tilt),
            ("noise", self.noise),
            ("blur", self.blur),
        ):
            if not 0 <= value < float("inf"):
                raise TrainingError(f"augment.{name} must be 0 or more", got=value)
        if not 0 <= self.elastic <= _MAX_ELASTIC:
            raise TrainingError(
                "augment.elastic is not a displacement that cannot fold",
                expected=f"0 to {_MAX_ELASTIC}",
                got=self.elastic,
            )
        if not 1 <= self.low_resolution < float("inf"):
            raise TrainingError("augment.low_resolution is not a factor", expected="1 or more", got=self.low_resolution)


@dataclass(frozen=True)
class InferenceOptions:
    """How boxes of a volume are predicted from overlapping patches.

    Attributes:
        overlap: The fraction by which neighbouring patches overlap, at least.
        fusion: ``suppress`` keeps the box with the highest score of those that overlap; ``weighted`` averages them by their
            scores (weighted box fusion, Solovyev et al. 2021).
        lungs: Predict only the patches that touch the lung mask of the build, and leave out boxes whose centre is outside of the
            mask, after gaps of a few millimetres are closed. Scans without a mask are predicted whole.
        calibrate: Make probabilities of the scores, by Platt scaling that is fitted to the split validation. ``evaluate`` saves it in
            ``calibration.json``, and adds the expected calibration error before and after to the scores.
        mirrors: Predict each patch in all eight mirrored views as well. Boxes that few views agree on have lower scores.
    """

    overlap: float = 0.25
    fusion: Literal["suppress", "weighted"] = "suppress"
    mirrors: bool = False
    lungs: bool = False
    calibrate: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < 1:
            raise TrainingError(
                "inference.overlap is not a fraction", expected="0 or more, less than 1", got=self.overlap
            )
        if self.mirrors and self.fusion != "weighted":
            raise TrainingError(
                "mirrored views are averaged by weighted fusion only", remedy="add --inference.fusion weighted"
            )
