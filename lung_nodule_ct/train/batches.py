"""From a build to batches: the data source of a recipe, batches for training, and batches for evaluation.

The batches of training are a function of the step number: an example depends only on the recipe's seed and on its
position in the shuffled order. They are the same with any number of workers, hosts and restarts, so a checkpoint needs
no state of the loader.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, SupportsIndex, TypeVar

import grain
import jax
import numpy as np
from absl import flags

from lung_nodule_ct.declaration.configs import Kind
from lung_nodule_ct.errors import TrainingError
from lung_nodule_ct.read.rows import split_rows
from lung_nodule_ct.system.processes import start_worker
from lung_nodule_ct.train.data.candidates import Candidates
from lung_nodule_ct.train.data.images import Crops, Slices
from lung_nodule_ct.train.data.volumes import Patches, Sequences

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from lung_nodule_ct.read.build_folder import BuildFolder
    from lung_nodule_ct.read.rows import Rows
    from lung_nodule_ct.train.data import Arrays, DataSource
    from lung_nodule_ct.train.recipes import Recipe

_Item = TypeVar("_Item")
_Loaded = TypeVar("_Loaded")
_Open = Callable[["Rows", "Recipe", str, "Path | None"], "DataSource"]
_SOURCES: Final[dict[tuple[str, str], _Open]] = {
    ("classification", Kind.CROP): Crops.open,
    ("detection", Kind.SLICE): Slices.open,
    ("detection", Kind.SCAN): Patches.open,
    ("detection", Kind.STACK): Patches.open,
    ("candidates", Kind.SCAN): Candidates.open,
    ("candidates", Kind.STACK): Candidates.open,
    ("longitudinal", Kind.SCAN): Sequences.open,
}
"""How data sources are opened, by task and kind of config."""


def open_data_source(build: BuildFolder, recipe: Recipe, split: str, folder: Path | None = None) -> DataSource:
    """Return the examples of a split for a recipe.

    Args:
        build: A build that holds the config.
        recipe: The recipe.
        split: ``train``, ``validation`` or ``test``.
        folder: The folder of the run. It holds the candidates, if the task is to classify them.

    Raises:
        BuildFolderError: The build does not hold the config.
        TrainingError: The task cannot be trained on configs of this kind, or the split has no rows, only one class, or
            no nodule, or its images do not fit the recipe.
    """
    open_source = find_source(build, recipe)
    return open_source(split_rows(build, recipe.config, split, recipe.split_by), recipe, split, folder)


def find_source(build: BuildFolder, recipe: Recipe) -> _Open:
    """What opens the data source of a recipe, before any row is read.

    Raises:
        BuildFolderError: The build does not hold the config.
        TrainingError: The task cannot be trained on configs of this kind.
    """
    kind = build.config(recipe.config).kind
    open_source = _SOURCES.get((recipe.task, kind))
    if open_source is None:
        kinds = [known for task, known in _SOURCES if task == recipe.task]
        raise TrainingError(
            f"the task {recipe.task} cannot be trained on {recipe.config}",
            expected=f"a config of kind {' or '.join(kinds)}",
            got=f"kind {kind}",
            remedy="choose another --config or --task",
        )
    return open_source


@dataclass(frozen=True)
class _LoadExample:
    """Load an example and add its ``index``, so that messages can name it."""

    source: DataSource

    def __call__(self, index: int, random: np.random.Generator) -> Arrays:
        return self.source.load(int(index), random) | {"index": np.array(index, np.int32)}


@dataclass(frozen=True)
class _PatientOrder:
    """The examples of all epochs, each of a patient drawn at random. A row of an unknown patient counts as a patient."""

    patients: tuple[str | None, ...]
    seed: int
    epochs: int

    @cached_property
    def _members(self) -> list[np.ndarray]:
        members: dict[object, list[int]] = {}
        for index, patient in enumerate(self.patients):
            members.setdefault(index if patient is None else patient, []).append(index)
        return [np.array(indices) for indices in members.values()]

    def __len__(self) -> int:
        return len(self.patients) * self.epochs

    def __getitem__(self, position: SupportsIndex) -> int:
        random = np.random.default_rng((self.seed, int(position)))
        members = self._members[random.integers(len(self._members))]
        return int(members[random.integers(len(members))])


def host_batches(source: DataSource, recipe: Recipe, start: int = 0) -> Iterator[Arrays]:
    """Yield this process's part of the batches, from step ``start`` to the recipe's last step."""
    if recipe.workers and not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain's workers read flags
    epochs = -(-recipe.steps * recipe.batch_size // len(source))
    if recipe.input.sample == "patients":
        order = grain.MapDataset.source(_PatientOrder(source.patients, recipe.seed, epochs)).seed(recipe.seed)
    else:
        order = grain.MapDataset.range(len(source)).seed(recipe.seed).shuffle().repeat(epochs)
    parts = order.random_map(_LoadExample(source)).batch(recipe.batch_size // jax.process_count())
    batches = parts[jax.process_index() :: jax.process_count()][start : recipe.steps]  # lazy: only these are loaded
    if not recipe.workers:
        return iter(
            batches.to_iter_dataset(
                grain.ReadOptions(num_threads=recipe.threads, prefetch_buffer_size=2 * recipe.threads)
            )
        )
    options = grain.MultiprocessingOptions(num_workers=recipe.workers, per_worker_buffer_size=2)
    return iter(
        batches.to_iter_dataset(grain.ReadOptions(num_threads=recipe.threads, prefetch_buffer_size=2)).mp_prefetch(
            options, _start_worker
        )
    )


def _start_worker(_index: int, _count: int) -> None:
    """As grain calls it in each worker process."""
    start_worker()


def global_batches(
    source: DataSource, recipe: Recipe, sharding: jax.sharding.Sharding, start: int = 0
) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
    """Yield the indices of this process's examples, and the batch on all devices of all processes.

    The transfer of the next batch starts before a batch is used.
    """
    transferred: list[tuple[np.ndarray, dict[str, Any]]] = []
    for batch in host_batches(source, recipe, start):
        indices = batch.pop("index")
        arrays = {name: jax.make_array_from_process_local_data(sharding, x) for name, x in batch.items()}
        transferred.append((indices, arrays))
        if len(transferred) > 1:
            yield transferred.pop(0)
    yield from transferred


def evaluation_batches(source: DataSource, recipe: Recipe) -> Iterator[tuple[range, Arrays]]:
    """Yield all examples of a source in order, as their indices and a batch.

    The last batch may have fewer indices than examples: it is filled with copies of its last example.
    """
    size = recipe.batch_size
    groups = [range(start, min(start + size, len(source))) for start in range(0, len(source), size)]

    def load(indices: range) -> Arrays:
        return stack_examples((source.load(index, np.random.default_rng(0)) for index in indices), size)

    yield from zip(groups, load_ahead(load, groups, recipe.threads), strict=True)


def load_ahead(load: Callable[[_Item], _Loaded], items: Iterable[_Item], threads: int) -> Iterator[_Loaded]:
    """Yield what ``load`` returns for each item, in order. Threads load the next ones while one is used."""
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[_Loaded]] = deque()
        for item in items:
            pending.append(pool.submit(load, item))
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def stack_examples(examples: Iterable[Arrays], size: int) -> Arrays:
    """Stack examples to a batch of ``size``. The last example is repeated if there are fewer."""
    stacked = list(examples)
    stacked += stacked[-1:] * (size - len(stacked))
    return {name: np.stack([example[name] for example in stacked]) for name in stacked[0]}
