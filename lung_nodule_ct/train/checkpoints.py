"""Checkpoints by Orbax, written beside the run while it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import jax
import orbax.checkpoint as ocp

from lung_nodule_ct.errors import TrainingError
from lung_nodule_ct.train.step import new_state

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from lung_nodule_ct.train.recipes import Recipe
    from lung_nodule_ct.train.step import State

FOLDER = "checkpoints"


class Checkpoints:
    """The two latest states of a run, ``<run>/checkpoints/<steps done>/``."""

    def __init__(self, run: Path, recipe: Recipe) -> None:
        self._recipe = recipe
        self._run = run
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager((run / FOLDER).absolute(), options=options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._manager.close()  # waits for what is being written

    @property
    def latest(self) -> int | None:
        """How many steps the latest has behind it."""
        return self._manager.latest_step()

    def save(self, state: State, steps: int) -> None:
        """Write a state; returns as soon as it is copied off the device. One that is there stays."""
        if self._manager.latest_step() != steps:
            self._manager.save(steps, args=ocp.args.StandardSave(state))

    def restore(self, sharding: jax.sharding.Sharding) -> State:
        """The latest state.

        Raises:
            TrainingError: There is none, or it is of another model.
        """
        if self.latest is None:
            raise TrainingError(f"{self._run} has no checkpoint", remedy="train it first: lung-nodule-ct train")
        shapes = jax.eval_shape(lambda: new_state(self._recipe))
        wanted = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes)
        try:
            state: Any = self._manager.restore(self.latest, args=ocp.args.StandardRestore(wanted))
        except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
            raise TrainingError(
                f"the checkpoint {self._run / FOLDER / str(self.latest)} is damaged or of another model: {error}".splitlines()[
                    0
                ],
                remedy="train into a new --out",
            ) from error
        return state
