"""Which options of a recipe have an effect on which task. Others are refused before anything is read. Without JAX."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, Final

from lung_nodule_ct.declaration.configs import CONFIGS, Kind
from lung_nodule_ct.errors import TrainingError
from lung_nodule_ct.train.models import get_network

if TYPE_CHECKING:
    from collections.abc import Iterator

_CROPS, _SLICES, _VOLUMES = "classification", "detection of slices", "detection of volumes"
_CANDIDATES, _LONGITUDINAL = "candidates", "longitudinal"
_EFFECTS: Final = {
    "model.ordinal": (_CROPS,),
    "model.last_only": (_LONGITUDINAL,),
    "model.tower": (_SLICES, _VOLUMES),
    "input.spacing_mm": (_VOLUMES, _CANDIDATES, _LONGITUDINAL),
    "input.window": (_VOLUMES, _CANDIDATES, _LONGITUDINAL),
    "input.positives": (_VOLUMES, _CANDIDATES),
    "input.boxes": (_SLICES, _VOLUMES),
    "input.scans": (_LONGITUDINAL,),
    "input.follow": (_LONGITUDINAL,),
    "input.mixup": (_CROPS,),
    "loss": (_CROPS,),
    "augment": (_VOLUMES,),
    "inference": (_VOLUMES,),
}
"""The tasks of an option, or of all options of a group. Options that are not listed are for all tasks."""
_HEADS: Final = {
    _CROPS: ("classes",),
    _SLICES: ("center", "anchors"),
    _VOLUMES: ("center", "anchors"),
    _CANDIDATES: ("classes",),
    _LONGITUDINAL: ("sequence",),
}


def check_options(recipe: Any) -> None:
    """Check that every option that is not at its default has an effect on the task of a recipe.

    Args:
        recipe: A :class:`~lung_nodule_ct.train.recipes.Recipe`, which calls this when it is made.

    Raises:
        TrainingError: One has none, or the network does not fit the task.
    """
    task: str = recipe.task
    if task == "detection":
        config = CONFIGS.get(recipe.config)
        is_volume = len(recipe.input.size) == 3 if config is None else config.kind in (Kind.SCAN, Kind.STACK)
        task = _VOLUMES if is_volume else _SLICES
    network = recipe.model.network
    if network is not None and get_network(network).task != recipe.task:
        raise TrainingError(
            f"the network {network} is not for the task {recipe.task}",
            expected=f"a network for {recipe.task}; train --models --json has the task of each",
        )
    if network is not None and (few := min(recipe.input.size, default=None)) is not None:
        pixels = get_network(network).pixels
        if few < pixels:
            raise TrainingError(
                f"input.size is too small for the network {network}", expected=f"{pixels} pixels or more", got=few
            )
    heads = _HEADS[task] if network is None else _HEADS[task][-1:]  # published detectors have anchors
    if recipe.model.head not in heads:
        subject = f"the task {task}" if network is None else f"the network {network}"
        raise TrainingError(f"model.head does not fit {subject}", expected=" or ".join(heads), got=recipe.model.head)
    for option in _changed(recipe):
        tasks = _EFFECTS.get(option, _EFFECTS.get(option.partition(".")[0]))
        if tasks is not None and task not in tasks:
            raise TrainingError(
                f"{option} has no effect on the task {task}, only on {' and '.join(tasks)}",
                remedy=f"remove --{option.replace('_', '-')}",
            )
    if recipe.model.ordinal and recipe.loss.label_smoothing:
        raise TrainingError(
            "loss.label_smoothing has no effect on a chain of thresholds", remedy="remove one of the two"
        )


def _changed(recipe: Any) -> Iterator[str]:
    """The options of the groups of a recipe that are not at their default."""
    for group in fields(recipe):
        options: Any = getattr(recipe, group.name)
        if is_dataclass(options):
            for option in fields(options):
                if getattr(options, option.name) != option.default:
                    yield f"{group.name}.{option.name}"
