"""What a run writes down: ``metrics.csv`` in full precision, TensorBoard, a line on the terminal. It stops at the first NaN."""

from __future__ import annotations

import csv
import io
import math
import time
from typing import TYPE_CHECKING, Any, Self

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lung_nodule_ct.errors import TrainingError
from lung_nodule_ct.system.files import write_atomically

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    import numpy as np

    from lung_nodule_ct.train.data import DataSource
    from lung_nodule_ct.train.recipes import Recipe

METRICS = "metrics.csv"
TENSORBOARD = "tensorboard"


class Journal:
    """Takes down each step's losses, one step late, so that the device is never waited for.

    Args:
        run: The run's folder.
        recipe: What is trained.
        source: Names the examples of a batch that went wrong.
        start: Steps that are done; what the files say of later ones is forgotten.
    """

    def __init__(self, run: Path, recipe: Recipe, source: DataSource, start: int) -> None:
        self._recipe, self._source, self._start = recipe, source, start
        self._pending: tuple[int, np.ndarray, dict[str, Any]] | None = None
        self._began = time.perf_counter()
        self._file: io.TextIOBase | None = None
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._bar = self._progress.add_task("compiling", total=recipe.steps, completed=start)
        if jax.process_index() == 0:
            from tensorboardX import SummaryWriter  # noqa: PLC0415 -- other processes write nothing

            path = run / METRICS
            write_atomically(path, _rows_before(path, start))
            self._file = path.open("a", encoding="utf-8")
            self._board = SummaryWriter(str(run / TENSORBOARD), purge_step=start)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        if self._file is not None:
            self._file.close()
            self._board.close()

    def note(self, step: int, numbers: np.ndarray, told: dict[str, Any]) -> None:
        """A step is under way: write down the one before it."""
        self.flush()
        self._pending = step, numbers, told

    def flush(self) -> None:
        """Write down what is pending.

        Raises:
            TrainingError: A loss is not finite; it names the step and the examples.
        """
        if self._pending is None:
            return
        step, numbers, arrays = self._pending
        self._pending = None
        told = {name: float(value) for name, value in jax.device_get(arrays).items()}
        if not all(map(math.isfinite, told.values())):
            raise TrainingError(
                f"the loss at step {step} is {told['loss']}",
                got=f"examples {', '.join(self._source.ids[number] for number in numbers)}",
                remedy="look at these, or lower --optim.learning-rate; the last checkpoint is from before",
            )
        done = step + 1
        if done - self._start == 1:
            self._began = time.perf_counter()  # compiling counts for nothing
        rate = (done - self._start - 1) * self._recipe.batch_size / max(time.perf_counter() - self._began, 1e-9)
        self._progress.update(self._bar, completed=done, description=f"loss {told['loss']:.4f}, {rate:,.1f} examples/s")
        if self._file is None:
            return
        if self._file.tell() == 0:
            self._file.write(f"step,{','.join(told)},loss_hex\n")
        self._file.write(f"{step},{','.join(map(repr, told.values()))},{told['loss'].hex()}\n")
        self._file.flush()
        for name, value in told.items():
            self._board.add_scalar(name, value, step)


def _rows_before(path: Path, start: int) -> str:
    """The header and the rows of the steps before ``start``; a row that was cut off in writing is none of them."""
    if not path.is_file() or start == 0:
        return ""
    lines = [line for line in path.read_text("utf-8").splitlines(keepends=True) if line.endswith("\n")]
    return "".join(lines[:1] + [line for line in lines[1:] if int(next(csv.reader([line]))[0]) < start])
