"""Checkpoints by Orbax, written beside the run while it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import jax
import orbax.checkpoint as ocp

from lung_nodule_ct.errors import TrainingError
from lung_nodule_ct.system.progress import notice
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
    def any(self) -> bool:
        """Whether there is one."""
        return self._manager.latest_step() is not None

    def save(self, state: State, steps: int) -> None:
        """Write a state with so many steps behind it; returns as soon as it is copied off the device."""
        self._manager.save(steps, args=ocp.args.StandardSave(state))

    def restore(self, sharding: jax.sharding.Sharding) -> State:
        """The latest state that can be read. That a later one cannot be is said on the terminal.

        Raises:
            TrainingError: There is none, or none that can be read, or they are of another model.
        """
        shapes = jax.eval_shape(lambda: new_state(self._recipe))
        wanted = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes)
        problems = []
        for steps in sorted(self._manager.all_steps(), reverse=True):
            try:
                state: Any = self._manager.restore(steps, args=ocp.args.StandardRestore(wanted))
            except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
                place = self._run / FOLDER / str(steps)
                problems.append(f"the checkpoint {place} is damaged or of another model: {error}".splitlines()[0])
                continue
            for problem in problems:
                notice(f"{problem}; the one of step {steps} is taken")
            return state
        if not problems:
            raise TrainingError(f"{self._run} has no checkpoint", remedy="train it first: lung-nodule-ct train")
        raise TrainingError(
            problems[0], remedy=f"remove {self._run / FOLDER} to train it from the start, or train into a new --out"
        )

    def forget_after(self, steps: int) -> None:
        """Take away those of later steps, which could not be read, so that they can be written again."""
        for later in [own for own in self._manager.all_steps() if own > steps]:
            self._manager.delete(later)
