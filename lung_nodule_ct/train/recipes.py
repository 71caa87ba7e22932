"""Recipes: what is trained. ``lung-nodule-ct train BUILD RECIPE`` runs a recipe. Without JAX."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal

from lung_nodule_ct.declaration.configs import get_config
from lung_nodule_ct.declaration.labels import VALIDATION, SplitBy
from lung_nodule_ct.errors import TrainingError, closest
from lung_nodule_ct.geometry.display import LUNG
from lung_nodule_ct.train.detection_options import AugmentOptions, InferenceOptions
from lung_nodule_ct.train.models import get_network
from lung_nodule_ct.train.option_checks import check_options

_OF_OUR_NETWORKS: Final = (
    *("width", "blocks", "bottleneck", "squeeze", "ordinal", "patch", "native_conv", "last_only"),
    *("tower", "matching", "hard_negatives"),
)
"""Options of the networks that are our own."""


@dataclass(frozen=True)
class ModelOptions:
    """The network.

    Attributes:
        head: ``classes`` for crops; ``center`` (centre heatmap, sides, GIoU) or ``anchors`` (anchors, focal loss) for
            boxes; ``sequence`` for the scans of a patient.
        width: Channels of the first stage. Each further stage has twice as many.
        blocks: Residual blocks per stage.
        squeeze: Squeeze and excitation in every block.
        ordinal: Predict ordered classes by a chain of thresholds (CORAL) instead of softmax.
        patch: Side of the blocks of pixels that the first layer sees as channels.
        bf16: Compute in bfloat16; by default on every device except a CPU. Weights, optimiser and losses stay float32.
        native_conv: Use XLA's convolutions. By default, they are used on every device except a CPU, where other
            algorithms are faster. The results are equal except for rounding.
        last_only: Use only the last scan of each patient.
        bottleneck: Blocks of three convolutions with a narrow one in the middle, as in ResNet-50, and four times the channels.
        tower: Convolutions before the outputs of a detector.
        matching: Which anchors are positive: ``iou``, by fixed overlaps; or ``atss``, by a threshold that each nodule has from its
            nearest anchors (Zhang et al. 2020).
        hard_negatives: With anchors, the number of negatives with the largest loss that count, per positive; 0 for all, by
            the focal loss.
        remat: Compute the activations of each block again for its gradient, instead of keeping them in memory.
        network: Name of the published network; ``None`` for our own. It has no use for the other options, except ``bf16`` and ``remat``.
    """

    head: Literal["classes", "center", "anchors", "sequence"]
    width: int = 32
    blocks: tuple[int, ...] = (2, 2, 2)
    squeeze: bool = False
    ordinal: bool = False
    patch: int = 4
    bf16: bool | None = None
    native_conv: bool | None = None
    last_only: bool = False
    bottleneck: bool = False
    tower: int = 1
    matching: Literal["iou", "atss"] = "iou"
    hard_negatives: int = 0
    remat: bool = False
    network: str | None = None

    def __post_init__(self) -> None:
        _check_positive(width=self.width, patch=self.patch, **{f"blocks[{i}]": n for i, n in enumerate(self.blocks)})
        if not self.blocks:
            raise TrainingError("model.blocks has no stage", expected="at least one number of blocks")
        if self.tower < 0 or self.hard_negatives < 0:
            raise TrainingError("model.tower or model.hard_negatives is negative", expected="0 or more")
        if self.head != "anchors" and (self.matching != "iou" or self.hard_negatives):
            raise TrainingError(
                "model.matching and model.hard_negatives need anchors", remedy="add --model.head anchors"
            )
        if self.squeeze and self.bottleneck:
            raise TrainingError("model.squeeze has no effect on model.bottleneck", remedy="remove one of the two")
        if self.network is None:
            return
        get_network(self.network)
        for field_ in fields(self):
            if field_.name in _OF_OUR_NETWORKS and getattr(self, field_.name) != field_.default:
                raise TrainingError(
                    f"model.{field_.name} has no effect on the published network {self.network}",
                    remedy=f"remove --model.{field_.name.replace('_', '-')}, or --model {self.network}",
                )


@dataclass(frozen=True)
class InputOptions:
    """The input of the network.

    Attributes:
        size: Pixels along (y, x) or voxels along (z, y, x). For slices it may be empty: then it is the size of the
            largest slice.
        spacing_mm: Voxel spacing in mm (z, y, x) that patches are resampled to; not resampled by default.
        window: Centre and width of the CT window in Hounsfield units. 8-bit images are not windowed.
        positives: Fraction of the training patches that contain a nodule.
        boxes: Number of boxes that an image or patch has room for. It is larger where an image or a scan has more.
        scans: Maximum number of scans per patient, counted from the latest.
        follow: What the scans of a patient show: ``tracks``, the same nodule in each, in a build that has tracks; or ``largest``,
            the largest nodule of each, as in a build without tracks.
        augment: Random flips and rotations by right angles.
        mixup: Crops are mixed with another one of the batch, by a share drawn from Beta(mixup, mixup) (Zhang et al. 2018); 0 for
            no mixing.
        sample: What an epoch draws: ``examples``, each of them once; or ``patients``, as many examples, each of a patient
            drawn at random, so that all patients count alike. A row of an unknown patient counts as a patient.
    """

    size: tuple[int, ...] = ()
    spacing_mm: tuple[float, float, float] | None = None
    window: tuple[float, float] = (LUNG.center, LUNG.width)
    positives: float = 0.7
    boxes: int = 8
    scans: int = 3
    follow: Literal["tracks", "largest"] = "tracks"
    augment: bool = True
    mixup: float = 0.0
    sample: Literal["examples", "patients"] = "examples"

    def __post_init__(self) -> None:
        sides = {f"size[{i}]": n for i, n in enumerate(self.size)}
        spacing = {f"spacing_mm[{i}]": mm for i, mm in enumerate(self.spacing_mm or ())}
        _check_positive(boxes=self.boxes, scans=self.scans, window=self.window[1], **sides, **spacing)
        if not 0 <= self.positives <= 1:
            raise TrainingError("input.positives is not a fraction", expected="0 to 1", got=self.positives)
        if not 0 <= self.mixup < float("inf"):
            raise TrainingError(
                "input.mixup is not a parameter of Beta(mixup, mixup)", expected="0 or more", got=self.mixup
            )


@dataclass(frozen=True)
class OptimOptions:
    """AdamW with a linear warm-up and a decay of the learning rate.

    Attributes:
        learning_rate: Learning rate after the warm-up.
        warmup: Number of warm-up steps.
        weight_decay: Weight decay of the kernels; biases and norms do not decay.
        schedule: How the learning rate falls: by half a cosine, or as (1 - progress) to the power of 0.9.
        clip: Maximum norm of the gradient.
        ema: Decay of the moving average of the weights, which is what is evaluated; 0 for no average.
        swa: The last part of the steps, as a fraction, whose weights are averaged with equal shares in place of the moving average
            (stochastic weight averaging, Izmailov et al. 2018); 0 for none.
        swa_rate: The constant rate of that part, as a fraction of ``learning_rate``; 0 to let the rate fall to 0 over all steps.
        accumulate: Number of parts in which a batch passes through the device.
        shard_parameters: Divide weights, averages and moments among the devices, instead of a copy on each.
    """

    learning_rate: float = 1e-3
    warmup: int = 50
    weight_decay: float = 1e-4
    schedule: Literal["cosine", "poly"] = "cosine"
    clip: float = 1.0
    ema: float = 0.99
    swa: float = 0.0
    swa_rate: float = 0.0
    accumulate: int = 1
    shard_parameters: bool = False

    def __post_init__(self) -> None:
        _check_positive(learning_rate=self.learning_rate, clip=self.clip, accumulate=self.accumulate)
        _check_not_negative(warmup=self.warmup, weight_decay=self.weight_decay)
        if not 0 <= self.ema < 1:
            raise TrainingError("optim.ema is not a decay", expected="0 or more, and less than 1", got=self.ema)
        for name, value in (("swa", self.swa), ("swa_rate", self.swa_rate)):
            if not 0 <= value <= 1:
                raise TrainingError(f"optim.{name} is not a fraction", expected="0 to 1", got=value)
        if self.swa_rate and not 0 < self.swa < 1:
            raise TrainingError("optim.swa_rate has no effect", expected="optim.swa between 0 and 1", got=self.swa)


@dataclass(frozen=True)
class LossOptions:
    """The loss of crops.

    Attributes:
        label_smoothing: The share of the label that is spread evenly over all classes.
        class_weights: ``inverse`` to the number of crops of a class; ``effective``, inverse to its effective number (Cui et
            al. 2019, beta 0.999), which favours rare classes less; or ``none``. Their mean over the crops is 1.
    """

    label_smoothing: float = 0.0
    class_weights: Literal["inverse", "effective", "none"] = "inverse"

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise TrainingError(
                "loss.label_smoothing is not a share", expected="0 or more, and less than 1", got=self.label_smoothing
            )


@dataclass(frozen=True)
class Recipe:
    """One training run.

    Attributes:
        config: Name of the config that it reads.
        task: Name of a module of :mod:`lung_nodule_ct.train.tasks`.
        model: The network.
        input: The input of the network.
        optim: The optimiser.
        loss: The loss.
        augment: Random changes of volume patches with boxes.
        inference: How boxes of a volume are predicted.
        steps: Number of batches.
        batch_size: Examples per batch, over all devices and parts.
        split_by: The published splits, or splits by patient from the column ``fold``.
        seed: Seed of the weights, the order of the examples, the patches and the augmentation.
        workers: Number of processes that load data; 0 for threads. It does not change the batches.
        threads: Number of threads that load data in each process.
        save_every: Number of steps between checkpoints.
        watch: Number of validation examples that are scored at each checkpoint; 0 for none.
        select: Which weights are evaluated: the ``last``; or the ``best`` by the first score of the watched validation
            examples (accuracy, AP, CPM or malignant_AUC).
        device: The type of device that it must run on.
    """

    config: str
    task: Literal["classification", "detection", "candidates", "longitudinal"]
    model: ModelOptions
    input: InputOptions = field(default_factory=InputOptions)
    optim: OptimOptions = field(default_factory=OptimOptions)
    loss: LossOptions = field(default_factory=LossOptions)
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    inference: InferenceOptions = field(default_factory=InferenceOptions)
    steps: int = 10_000
    batch_size: int = 16
    split_by: SplitBy = SplitBy.PUBLISHED
    seed: int = 0
    workers: int = 0
    threads: int = 2
    save_every: int = 500
    watch: int = 1_000
    select: Literal["last", "best"] = "last"
    device: Literal["any", "cpu", "gpu", "tpu"] = "any"

    def __post_init__(self) -> None:
        positive = {"steps": self.steps, "batch_size": self.batch_size, "save_every": self.save_every}
        _check_positive(**positive, threads=self.threads)
        _check_not_negative(workers=self.workers, watch=self.watch, seed=self.seed)
        if self.batch_size % self.optim.accumulate:
            raise TrainingError(
                "a batch does not divide into equal parts",
                expected=f"batch_size to be a multiple of optim.accumulate, {self.optim.accumulate}",
                got=self.batch_size,
            )
        if self.select == "best" and not self.watch:
            raise TrainingError("the best weights are selected by watched examples", expected="--watch above 0", got=0)
        check_options(self)


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise TrainingError(f"{name} must be above 0", got=value)


def _check_not_negative(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value < float("inf"):
            raise TrainingError(f"{name} must be 0 or more", got=value)


_RESIDUAL = ModelOptions("classes", width=64, blocks=(3, 4, 6, 3), patch=2)
_PYRAMID_2D = ModelOptions("center", width=48, blocks=(2, 2, 2, 2))
_PYRAMID_3D = ModelOptions("center", width=32, blocks=(1, 2, 2))
_SEQUENCE = ModelOptions("sequence", width=24, blocks=(1, 1), patch=4)
_CROP = InputOptions(size=(64, 64))
_THIN_PATCH = InputOptions(size=(64, 96, 96), spacing_mm=(1.0, 1.0, 1.0), boxes=8)
_THICK_PATCH = InputOptions(size=(32, 96, 96), spacing_mm=(2.5, 1.0, 1.0), boxes=8)
_STACK_PATCH = InputOptions(size=(64, 96, 96), boxes=8)
_CANDIDATE = ModelOptions("classes", width=32, blocks=(1, 1, 1), patch=2)
_CANDIDATE_PATCH = InputOptions(size=(32, 32, 32), spacing_mm=(1.25, 1.25, 1.25), positives=0.5)
_NODULE_PATCH = InputOptions(size=(32, 32, 32), spacing_mm=(1.5, 1.5, 1.5))


def _classification(**model: Any) -> Recipe:
    return Recipe("cls_1.25mm", "classification", replace(_RESIDUAL, **model), _CROP, batch_size=64)


def _detection_3d(config: str, patch: InputOptions, head: Literal["center", "anchors"] = "center") -> Recipe:
    has_validation = VALIDATION in get_config(config).splits
    split = SplitBy.PUBLISHED if has_validation else SplitBy.PATIENT
    return Recipe(config, "detection", replace(_PYRAMID_3D, head=head), patch, batch_size=8, split_by=split, watch=8)


def _longitudinal(follow: Literal["tracks", "largest"] = "tracks", **model: Any) -> Recipe:
    network, patch = replace(_SEQUENCE, **model), replace(_NODULE_PATCH, follow=follow)
    return Recipe("longitudinal", "longitudinal", network, patch, steps=3_000, split_by=SplitBy.PATIENT)


RECIPES: Final = {
    "cls_1.25mm": _classification(),
    "cls_1.25mm-squeeze": _classification(squeeze=True),
    "cls_1.25mm-ordinal": _classification(ordinal=True),
    "det2d_1.25mm": Recipe("det2d_1.25mm", "detection", _PYRAMID_2D),
    "det2d_1.25mm-anchors": Recipe("det2d_1.25mm", "detection", replace(_PYRAMID_2D, head="anchors")),
    "det3d_1.25mm": _detection_3d("det3d_1.25mm", _THIN_PATCH),
    "det3d_1.25mm-anchors": _detection_3d("det3d_1.25mm", _THIN_PATCH, "anchors"),
    "det3d_1.25mm-candidates": Recipe(
        "det3d_1.25mm", "candidates", _CANDIDATE, _CANDIDATE_PATCH, batch_size=32, split_by=SplitBy.PATIENT
    ),
    "det3d_5mm": _detection_3d("det3d_5mm", _THICK_PATCH),
    "det3d_bmp_1.25mm": _detection_3d("det3d_bmp_1.25mm", _STACK_PATCH),
    "longitudinal": _longitudinal(),
    "longitudinal-largest": _longitudinal("largest"),
    "longitudinal-single": _longitudinal(last_only=True),
}
"""Recipes by name. Configs without a published validation split are split by patient."""

_RENAMED: Final = {
    "cls_1.25mm-se": "cls_1.25mm-squeeze",
    "det2d_1.25mm-retina": "det2d_1.25mm-anchors",
    "det3d_1.25mm-retina": "det3d_1.25mm-anchors",
}
"""Recipes that were named after published networks until 2.0.0. Their networks are our own."""


def get_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        TrainingError: The recipe is unknown.
    """
    try:
        return RECIPES[name]
    except KeyError:
        remedy = f"it is called {_RENAMED[name]} now" if name in _RENAMED else closest(name, RECIPES)
        raise TrainingError(
            f"no recipe is named {name!r}", expected=f"one of {', '.join(RECIPES)}", remedy=remedy
        ) from None


_PUBLISHED: Final = {
    "cls_1.25mm": Recipe(
        "cls_1.25mm",
        "classification",
        ModelOptions("classes"),
        InputOptions(size=(224, 224)),
        OptimOptions(learning_rate=3e-4, warmup=200, weight_decay=0.05),
        batch_size=32,
    ),
    "det2d_1.25mm": Recipe(
        "det2d_1.25mm",
        "detection",
        ModelOptions("anchors"),
        optim=OptimOptions(learning_rate=1e-4, warmup=200),
        batch_size=8,
    ),
}
"""How published networks are trained, by the recipe that is named with them. The paper only has the number of epochs."""
EPOCHS: Final = {"classification": 150, "detection": 50}
"""The number of epochs in the paper, by task."""


def published_recipe(name: str, network: str) -> Recipe:
    """The recipe of a published network.

    Args:
        name: The recipe whose own network it replaces.
        network: The network.

    Raises:
        TrainingError: The recipe or the network is unknown, or the recipe is of another task or a variant of our own network.
    """
    task = get_network(network).task
    recipe = _PUBLISHED.get(get_recipe(name).config)
    if recipe is None or recipe.task != task or name not in _PUBLISHED:
        fitting = [key for key, value in _PUBLISHED.items() if value.task == task]
        raise TrainingError(
            f"the recipe {name} cannot be trained with the network {network}",
            expected=f"the recipe {' or '.join(fitting)}",
            remedy="see the task of each network: lung-nodule-ct train --models",
        )
    return replace(recipe, model=replace(recipe.model, network=network))


def published_name(network: str) -> str:
    """The name of the recipe that a published network is trained by.

    Raises:
        TrainingError: The network is unknown.
    """
    task = get_network(network).task
    return next(name for name, recipe in _PUBLISHED.items() if recipe.task == task)


def published_steps(recipe: Recipe, rows: int) -> int:
    """The number of steps of the paper's number of epochs, if an epoch has ``rows`` examples."""
    return -(-EPOCHS[recipe.task] * rows // recipe.batch_size)
