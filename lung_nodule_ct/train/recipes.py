"""What is trained: one frozen recipe a row, run by ``lung-nodule-ct train NAME``. No JAX in here.

What a small variant of each reaches on made-up patients: :mod:`.aims`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

from lung_nodule_ct.declaration.configs import (
    CLS_1_25MM,
    DET2D_1_25MM,
    DET3D_1_25MM,
    DET3D_5MM,
    DET3D_BMP_1_25MM,
    LONGITUDINAL,
    get_config,
)
from lung_nodule_ct.declaration.labels import SplitBy
from lung_nodule_ct.errors import TrainingError
from lung_nodule_ct.geometry.display import LUNG


@dataclass(frozen=True)
class ModelOptions:
    """The network.

    Attributes:
        head: ``classes`` for crops; ``center`` (centre heatmap, sides, GIoU) or ``retina`` (anchors, focal loss) for boxes;
            ``sequence`` for a patient's scans.
        width: Channels of the first stage; each further stage has twice as many.
        blocks: Residual blocks by stage; 3, 4, 6, 3 is ResNet-34.
        squeeze: Squeeze and excitation in every block (SE-ResNet).
        ordinal: Classes as a chain of thresholds (CORAL) in place of softmax.
        patch: Pixels a side that the first layer takes together.
        bf16: Compute in bfloat16; weights, optimiser and losses stay float32.
        native_conv: Convolutions as XLA has them, or by Winograd or as products of our own, whichever is quicker on CPU; by the
            device where ``None`` (native but on CPU). They give the same but for rounding.
        last_only: Of a patient's scans only the last is seen: the single-timepoint twin.
    """

    head: Literal["classes", "center", "retina", "sequence"]
    width: int = 32
    blocks: tuple[int, ...] = (2, 2, 2)
    squeeze: bool = False
    ordinal: bool = False
    patch: int = 4
    bf16: bool = False
    native_conv: bool | None = None
    last_only: bool = False

    def __post_init__(self) -> None:
        _positive(width=self.width, patch=self.patch, **{f"blocks[{i}]": n for i, n in enumerate(self.blocks)})
        if not self.blocks:
            raise TrainingError("model.blocks: expected at least one stage, got none")


@dataclass(frozen=True)
class InputOptions:
    """What the network sees.

    Attributes:
        size: Pixels or voxels along (y, x) or (z, y, x); of whole slices empty: what holds the largest.
        spacing_mm: To what distance of voxels patches are resampled, z, y, x; as stored where ``None``.
        window: Centre and width in HU; 8-bit data are taken as they are.
        positives: Share of the training patches with a nodule in them.
        boxes: Room for so many boxes an image or patch.
        scans: Room for so many scans of a patient; the latest count.
        augment: Random flips and right-angle turns.
    """

    size: tuple[int, ...] = ()
    spacing_mm: tuple[float, float, float] | None = None
    window: tuple[float, float] = (LUNG.center, LUNG.width)
    positives: float = 0.7
    boxes: int = 8
    scans: int = 3
    augment: bool = True

    def __post_init__(self) -> None:
        _positive(
            boxes=self.boxes,
            scans=self.scans,
            window=self.window[1],
            **{f"size[{i}]": n for i, n in enumerate(self.size)},
        )
        if not 0 <= self.positives <= 1:
            raise TrainingError("input.positives is a share", expected="0 to 1", got=self.positives)


@dataclass(frozen=True)
class OptimOptions:
    """AdamW with a linear warm-up and a cosine.

    Attributes:
        learning_rate: At the top.
        warmup: Steps up to there.
        weight_decay: Of the kernels only.
        clip: Largest norm of the gradient.
        ema: Decay of the average of the weights, which is what is evaluated; 0 for none.
        accumulate: In how many parts a batch goes through the device.
    """

    learning_rate: float = 1e-3
    warmup: int = 50
    weight_decay: float = 1e-4
    clip: float = 1.0
    ema: float = 0.99
    accumulate: int = 1

    def __post_init__(self) -> None:
        _positive(learning_rate=self.learning_rate, clip=self.clip, accumulate=self.accumulate)
        if not 0 <= self.ema < 1:
            raise TrainingError("optim.ema is a decay", expected="0 up to but not 1", got=self.ema)


@dataclass(frozen=True)
class Recipe:
    """One training run.

    Attributes:
        config: The config that it reads.
        task: Which of ``lung_nodule_ct.train.tasks``.
        model: The network.
        input: What it sees.
        optim: How it learns.
        steps: Batches.
        batch_size: Examples a batch, over all devices and parts.
        split_by: The published splits, or splits by patient from the column ``fold``.
        seed: Of weights, order, patches and augmentation.
        workers: Processes that load; 0 for threads. The batches are the same.
        save_every: Steps between checkpoints.
        watch: How many examples of the validation split, from its first on, are scored at each checkpoint; 0 for none.
        device: What it must run on.
    """

    config: str
    task: Literal["classification", "detection", "longitudinal"]
    model: ModelOptions
    input: InputOptions = field(default_factory=InputOptions)
    optim: OptimOptions = field(default_factory=OptimOptions)
    steps: int = 10_000
    batch_size: int = 16
    split_by: SplitBy = SplitBy.PUBLISHED
    seed: int = 0
    workers: int = 0
    save_every: int = 500
    watch: int = 1_000
    device: Literal["any", "cpu", "gpu", "tpu"] = "any"

    def __post_init__(self) -> None:
        get_config(self.config)
        _positive(steps=self.steps, batch_size=self.batch_size, save_every=self.save_every)
        for name, value in (("workers", self.workers), ("watch", self.watch)):
            if value < 0:
                raise TrainingError(f"{name} cannot be fewer than none", got=value)
        if self.batch_size % self.optim.accumulate:
            raise TrainingError(
                "a batch does not divide into equal parts",
                expected=f"batch_size to be a multiple of optim.accumulate, {self.optim.accumulate}",
                got=self.batch_size,
            )


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise TrainingError(f"{name} must be above 0", got=value)


_RESNET = ModelOptions("classes", width=64, blocks=(3, 4, 6, 3), patch=2)
_PYRAMID = ModelOptions("center", width=48, blocks=(2, 2, 2, 2))
_CUBE = ModelOptions("center", width=32, blocks=(1, 2, 2))
_CROP = InputOptions(size=(64, 64))
_PATCH = InputOptions(size=(64, 96, 96), spacing_mm=(1.0, 1.0, 1.0), boxes=8)
_THICK = InputOptions(size=(32, 96, 96), spacing_mm=(2.5, 1.0, 1.0), boxes=8)
_STACK = InputOptions(size=(64, 96, 96), boxes=8)
_NODULE = InputOptions(size=(32, 32, 32), spacing_mm=(1.5, 1.5, 1.5))
_BY_PATIENT = SplitBy.PATIENT


def _variant(model: ModelOptions, **changes: Any) -> ModelOptions:
    return ModelOptions(**{**vars(model), **changes})


def _det3d(config: str, patch: InputOptions, head: Literal["center", "retina"] = "center") -> Recipe:
    split = SplitBy.PUBLISHED if config == DET3D_BMP_1_25MM.name else _BY_PATIENT
    return Recipe(config, "detection", _variant(_CUBE, head=head), patch, batch_size=8, split_by=split, watch=8)


def _sequence(**model: Any) -> Recipe:
    network = _variant(ModelOptions("sequence", width=24, blocks=(1, 1), patch=4), **model)
    return Recipe(LONGITUDINAL.name, "longitudinal", network, _NODULE, steps=3_000, split_by=_BY_PATIENT)


def _crops(**model: Any) -> Recipe:
    return Recipe(CLS_1_25MM.name, "classification", _variant(_RESNET, **model), _CROP, batch_size=64)


RECIPES: Final = {
    "cls_1.25mm": _crops(),
    "cls_1.25mm-se": _crops(squeeze=True),
    "cls_1.25mm-ordinal": _crops(ordinal=True),
    "det2d_1.25mm": Recipe(DET2D_1_25MM.name, "detection", _PYRAMID),
    "det2d_1.25mm-retina": Recipe(DET2D_1_25MM.name, "detection", _variant(_PYRAMID, head="retina")),
    "det3d_1.25mm": _det3d(DET3D_1_25MM.name, _PATCH),
    "det3d_1.25mm-retina": _det3d(DET3D_1_25MM.name, _PATCH, "retina"),
    "det3d_5mm": _det3d(DET3D_5MM.name, _THICK),
    "det3d_bmp_1.25mm": _det3d(DET3D_BMP_1_25MM.name, _STACK),
    "longitudinal": _sequence(),
    "longitudinal-single": _sequence(last_only=True),
}
"""By the name that ``lung-nodule-ct train`` takes. Those of 3D and of time have no published validation split but the BMP stacks."""


def get_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        TrainingError: There is none.
    """
    try:
        return RECIPES[name]
    except KeyError:
        raise TrainingError(f"no recipe is named {name!r}", expected=f"one of {', '.join(RECIPES)}") from None
