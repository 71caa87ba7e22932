"""What a run writes while it trains: the losses of each step, and scores of validation examples at each checkpoint.

Losses go to ``metrics.csv`` in full precision, to TensorBoard, and to a line on the terminal. Scores go to
``scores.csv``. They have no influence on training.
"""

from __future__ import annotations

import csv
import io
import math
import time
from typing import TYPE_CHECKING, Any, Final, Self

import jax
import numpy as np
from jax.experimental import multihost_utils
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lung_nodule_ct.declaration.labels import VALIDATION
from lung_nodule_ct.errors import TrainingError
from lung_nodule_ct.system.files import write_atomically
from lung_nodule_ct.system.progress import notice
from lung_nodule_ct.train.batches import open_data_source
from lung_nodule_ct.train.placement import gather
from lung_nodule_ct.train.step import GRADIENT_NORM, Predictor
from lung_nodule_ct.train.tasks import get_task

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from lung_nodule_ct.read.build_folder import BuildFolder
    from lung_nodule_ct.train.data import DataSource
    from lung_nodule_ct.train.recipes import Recipe
    from lung_nodule_ct.train.runs import Run
    from lung_nodule_ct.train.step import State

METRICS: Final = "metrics.csv"
SCORES_OVER_TIME: Final = "scores.csv"
_TENSORBOARD: Final = "tensorboard"


class TrainingLog:
    """Write the losses of each step. They are written one step late, so that the host does not wait for the device.

    Args:
        folder: The run's folder.
        recipe: The recipe that is trained.
        source: Names the examples of a batch with a loss, gradient or weight that is not finite.
        start: The number of finished steps. Rows of later steps are removed.
    """

    def __init__(self, folder: Path, recipe: Recipe, source: DataSource, start: int) -> None:
        self._recipe, self._source, self._start = recipe, source, start
        self._pending: tuple[int, np.ndarray, dict[str, Any]] | None = None
        self._started = time.perf_counter()
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
            from tensorboardX import SummaryWriter  # noqa: PLC0415 -- the other processes write nothing

            path = folder / METRICS
            kept = _rows_before(path, start)
            write_atomically(path, kept)
            self._file, self._needs_header = path.open("a", encoding="utf-8"), not kept
            self._board = SummaryWriter(str(folder / _TENSORBOARD), purge_step=start)

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

    def add(self, step: int, indices: np.ndarray, losses: dict[str, Any]) -> None:
        """Add a step that the device is working on, and write the step before it."""
        self.flush()
        self._pending = step, indices, losses

    def flush(self) -> None:
        """Write the last step that was added.

        Raises:
            TrainingError: A loss, a gradient or a weight is not finite. The message has the step and the examples.
        """
        if self._pending is None:
            return
        step, indices, arrays = self._pending
        self._pending = None
        losses = {name: float(value) for name, value in jax.device_get(arrays).items()}
        if not all(map(math.isfinite, losses.values())):
            raise TrainingError(
                _not_finite(step, losses),
                got=f"examples {', '.join(self._source.ids[index] for index in indices)}",
                remedy="check these examples, or lower --optim.learning-rate; the last checkpoint is older than this",
            )
        self._show_progress(step + 1, losses["loss"])
        if self._file is None:
            return
        if self._needs_header:
            self._file.write(f"step,{','.join(losses)},loss_hex\n")
            self._needs_header = False
        self._file.write(f"{step},{','.join(map(repr, losses.values()))},{losses['loss'].hex()}\n")
        self._file.flush()
        for name, value in losses.items():
            self._board.add_scalar(name, value, step)

    def _show_progress(self, steps: int, loss: float) -> None:
        timed = steps - self._start - 1
        if timed == 0:
            self._started = time.perf_counter()  # the rate leaves out the first step, which compiles
        rate = timed * self._recipe.batch_size / max(time.perf_counter() - self._started, 1e-9)
        self._progress.update(self._bar, completed=steps, description=f"loss {loss:.4f}, {rate:,.1f} examples/s")


def _not_finite(step: int, losses: dict[str, float]) -> str:
    """What is not finite. A weight may be so after a finite gradient, and a gradient with a finite loss."""
    if not math.isfinite(losses["loss"]):
        return f"the loss at step {step} is {losses['loss']}"
    what = "its gradient is" if not math.isfinite(losses[GRADIENT_NORM]) else "the weights after it are"
    return f"the loss at step {step} is {losses['loss']:.6g}, but {what} not finite"


def _rows_before(path: Path, start: int) -> str:
    """The header and the rows of the steps before ``start``, without a last row that was not completely written."""
    if not path.is_file() or start == 0:
        return ""
    lines = [line for line in path.read_text("utf-8").splitlines(keepends=True) if line.endswith("\n")]
    return "".join(lines[:1] + [line for line in lines[1:] if int(next(csv.reader([line]))[0]) < start])


class ValidationCurve:
    """Score the first examples of the validation split at each checkpoint, on one device of one process.

    If the split has no examples that can be scored, a notice is printed and nothing is written.

    Args:
        run: The run. Its recipe has the number of examples.
        build: A build that holds its config.
        start: The number of finished steps. Rows of later steps are removed.

    Raises:
        TrainingError: The split has no examples that can be scored, and the recipe selects the best weights by them.
    """

    def __init__(self, run: Run, build: BuildFolder, start: int) -> None:
        self._recipe, self._path = run.recipe, run.folder / SCORES_OVER_TIME
        self._predictor: Predictor | None = None
        if not run.recipe.watch or jax.process_index() != 0:
            return
        try:
            self._predictor = Predictor(open_data_source(build, run.recipe, VALIDATION, run.folder), run.recipe)
        except TrainingError as error:
            if run.recipe.select == "best":
                raise
            notice(f"no scores over time: {error}")
        self._rows = [row for row in read_scores_over_time(self._path) if row["steps"] <= start]

    def add(self, state: State, steps: int) -> bool:
        """Score the state after a number of steps, and replace the file. Returns whether its first score is the best so far."""
        average = gather(state["average"]) if self._recipe.watch else None
        best = self._predictor is not None and self._add(self._predictor, average, steps)
        if jax.process_count() == 1 or self._recipe.select != "best":
            return best
        return bool(multihost_utils.broadcast_one_to_all(best))

    def _add(self, predictor: Predictor, average: Any, steps: int) -> bool:
        weights = jax.tree.map(lambda leaf: leaf.addressable_data(0), average)
        predictions = predictor.predict(weights, self._recipe.watch)
        scores = get_task(self._recipe).scorer(predictions)(np.arange(len(predictions)))
        self._rows.append({"steps": steps, **scores})
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self._rows[-1]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_atomically(self._path, text.getvalue())
        first = next(iter(scores))
        return all(scores[first] > row[first] or math.isnan(row[first]) for row in self._rows[:-1]) and not math.isnan(
            scores[first]
        )


def read_scores_over_time(path: Path) -> list[dict[str, float]]:
    """Read ``steps`` and the scores by name, one dict per checkpoint; none if the file does not exist."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: (int if name == "steps" else float)(value) for name, value in row.items()} for row in rows]
