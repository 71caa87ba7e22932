"""Scores over time: held-out examples judged at every checkpoint, ``<run>/scores.csv``. Nothing of it reaches what is learned."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Final

import jax
import numpy as np

from lung_nodule_ct.declaration.labels import VALIDATION
from lung_nodule_ct.errors import TrainingError
from lung_nodule_ct.system.files import write_atomically
from lung_nodule_ct.system.progress import notice
from lung_nodule_ct.train.data import open_data_source
from lung_nodule_ct.train.predictions import Predictions
from lung_nodule_ct.train.tasks import task_of

if TYPE_CHECKING:
    from pathlib import Path

    from lung_nodule_ct.read.build_folder import BuildFolder
    from lung_nodule_ct.train.runs import Run
    from lung_nodule_ct.train.step import State

SCORES_OVER_TIME: Final = "scores.csv"


class ValidationCurve:
    """Judges the first examples of the validation split, on one device of one process.

    Where the split has none that can be judged, that is said once and nothing is written.

    Args:
        run: What is trained; its recipe says how many examples.
        build: A build that holds its config.
        start: Steps that are done; what the file says of later ones is forgotten.
    """

    def __init__(self, run: Run, build: BuildFolder, start: int) -> None:
        self._recipe, self._path = run.recipe, run.folder / SCORES_OVER_TIME
        self._answers: Predictions | None = None
        if not run.recipe.watch or jax.process_index() != 0:
            return
        try:
            self._answers = Predictions(open_data_source(build, run.recipe, VALIDATION), run.recipe)
        except TrainingError as error:
            notice(f"no scores over time: {error}")
        self._rows = [row for row in read_scores_over_time(self._path) if row["steps"] <= start]

    def note(self, state: State, steps: int) -> None:
        """Judge a state with so many steps behind it and write the file anew, whole or not at all."""
        if self._answers is None:
            return
        own = jax.tree.map(lambda leaf: leaf.addressable_data(0), state["average"])
        rows = self._answers.rows(own, self._recipe.watch)
        scores = task_of(self._recipe).scorer(rows)(np.arange(len(rows)))
        self._rows.append({"steps": steps, **scores})
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self._rows[-1]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_atomically(self._path, text.getvalue())


def read_scores_over_time(path: Path) -> list[dict[str, float]]:
    """``steps`` and scores by name, a dict a checkpoint; none where nothing was written."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: (int if name == "steps" else float)(value) for name, value in row.items()} for row in rows]
