"""The strong recipe of volumes, ``det3d_1.25mm --model retinanet3d``: what wins on LUNA16. Without JAX."""

from __future__ import annotations

from typing import Final

from lung_nodule_ct.declaration.labels import SplitBy
from lung_nodule_ct.errors import TrainingError
from lung_nodule_ct.train.detection_options import AugmentOptions, InferenceOptions
from lung_nodule_ct.train.models import RETINANET3D
from lung_nodule_ct.train.recipes import InputOptions, ModelOptions, OptimOptions, Recipe

STRONG: Final = Recipe(
    "det3d_1.25mm",
    "detection",
    ModelOptions(
        "anchors",
        width=64,
        blocks=(3, 4, 6, 3),
        patch=2,
        bottleneck=True,
        tower=3,
        matching="atss",
        hard_negatives=3,
    ),
    InputOptions(size=(80, 192, 192), spacing_mm=(1.25, 0.70, 0.70), positives=0.5),
    OptimOptions(learning_rate=3e-4, warmup=1_000, weight_decay=0.01, schedule="poly", ema=0.999, swa=0.15),
    augment=AugmentOptions(
        zoom=(0.7, 1.4),
        rotate=30.0,
        tilt=30.0,
        elastic=0.15,
        noise=0.05,
        blur=1.0,
        contrast=(0.75, 1.25),
        gamma=(0.7, 1.5),
        low_resolution=2.0,
    ),
    inference=InferenceOptions(overlap=0.5, fusion="weighted", mirrors=True, lungs=True, calibrate=True),
    steps=40_000,
    batch_size=4,
    split_by=SplitBy.PATIENT,
    save_every=1_000,
    watch=8,
)
"""The recipe ``det3d_1.25mm --model retinanet3d``: what wins on LUNA16, each choice as an option. It was not run on a GPU."""


def strong_recipe(name: str) -> Recipe:
    """The recipe that ``--model retinanet3d`` makes of a recipe.

    Raises:
        TrainingError: It is not for volumes of that config.
    """
    if name != STRONG.config:
        raise TrainingError(
            f"the recipe {name} cannot be trained with the network {RETINANET3D}",
            expected=f"the recipe {STRONG.config}",
        )
    return STRONG
