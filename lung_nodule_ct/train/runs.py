"""The folder of a run: ``run.json``, which says what is trained on which data, and checkpoints.

A run is continued by the same command. A command that differs in anything that matters is refused.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import jax
import orbax.checkpoint as ocp

from lung_nodule_ct.declaration.labels import SplitBy
from lung_nodule_ct.declaration.manifest import to_json
from lung_nodule_ct.errors import TrainingError
from lung_nodule_ct.system.files import is_partial, require_free_space, write_atomically
from lung_nodule_ct.system.processes import LockFile, remembered_interrupts
from lung_nodule_ct.system.progress import notice
from lung_nodule_ct.train.detection_options import AugmentOptions, InferenceOptions
from lung_nodule_ct.train.orbax_messages import drop_write_errors
from lung_nodule_ct.train.recipes import InputOptions, LossOptions, ModelOptions, OptimOptions, Recipe
from lung_nodule_ct.train.step import initial_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from lung_nodule_ct.read.build_folder import BuildFolder
    from lung_nodule_ct.train.step import State

BENCHMARK: Final = "benchmark"
"""The entry of a run's ``data`` that says what the hard benchmark inserted nodules into."""
_RUN: Final = "run.json"
_CHECKPOINTS: Final = "checkpoints"
_BEST: Final = "best"
_COMMITTED: Final = "commit_success.txt"
_COMMITTED_TEXT: Final = "complete\n"
_LOCK: Final = ".train.lock"
_FORMAT_VERSION: Final = 2
"""Since version 2, checkpoints hold the statistics of batch normalisation."""
_CONTINUES: Final = "the same command continues from the last checkpoint"
_NO_INFLUENCE: Final = (
    *("workers", "threads", "save_every", "watch", "device"),
    *("model.remat", "optim.shard_parameters"),
)
"""Options of a recipe that do not change the trained weights, except for rounding."""


@dataclass(frozen=True)
class Run:
    """A training run: the content of ``run.json``.

    Attributes:
        folder: The run's folder.
        name: The recipe's name.
        recipe: The recipe, including changes from the command line.
        data: Identifies the training data; see :func:`data_identity`.
        pretrained: SHA-256 of the file of weights that it starts with; ``None`` for random weights.
    """

    folder: Path
    name: str
    recipe: Recipe
    data: dict[str, Any]
    pretrained: str | None = None

    def save(self) -> None:
        """Write ``run.json``, or check that the existing one has the same content.

        Raises:
            TrainingError: The folder holds another run.
        """
        self.require_unchanged()
        path = self.folder / _RUN
        if not path.exists():
            write_atomically(path, to_json(self._document()))

    def require_unchanged(self) -> None:
        """Check that the folder holds this run, or none.

        Raises:
            TrainingError: It holds another run.
        """
        if not (self.folder / _RUN).exists():
            return
        for key, (value, saved) in self.differences(open_run(self.folder)).items():
            raise TrainingError(
                f"{self.folder} holds another run: its {key} differs",
                expected=json.dumps(saved),
                got=json.dumps(value),
                remedy="use the same command to continue it, or another --out",
            )

    @property
    def digest(self) -> str:
        """The SHA-256 of what is trained on which data."""
        return hashlib.sha256(json.dumps(self._document(), sort_keys=True).encode()).hexdigest()

    def differences(self, other: Run) -> dict[str, tuple[Any, Any]]:
        """The values that differ between two runs and change the trained weights, by their path in ``run.json``."""
        values, others = (_flatten(run._document()) for run in (self, other))
        return {
            key: (values.get(key), others.get(key))
            for key in sorted(values.keys() | others.keys())
            if values.get(key) != others.get(key) and key.removeprefix("recipe.") not in _NO_INFLUENCE
        }

    def _document(self) -> dict[str, Any]:
        document = {
            "format_version": _FORMAT_VERSION,
            "name": self.name,
            "recipe": asdict(self.recipe),
            "data": self.data,
            "pretrained": self.pretrained,
        }
        return json.loads(json.dumps(document))


@contextmanager
def training(run: Run) -> Iterator[Callable[[], None]]:
    """Run the block while no other command trains a run, and yield :func:`.remembered_interrupts`.

    Raises:
        TrainingError: Another command trains it, or its folder cannot be written.
    """
    if jax.process_index() != 0:  # the processes of one training share the lock of the first
        with remembered_interrupts() as raise_interrupt:
            yield raise_interrupt
        return
    lock = LockFile(run.folder / _LOCK)
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        free = lock.try_acquire()
    except OSError as error:
        raise TrainingError(f"{run.folder} cannot be written: {error}") from error
    with lock:
        if not free:
            raise TrainingError(
                f"another command is training {run.folder}", remedy="wait until it has ended, or use another --out"
            )
        for path in run.folder.iterdir():
            if is_partial(path.name):  # of a killed training
                path.unlink()
        with remembered_interrupts() as raise_interrupt:
            yield raise_interrupt


def open_run(folder: Path) -> Run:
    """Open the run in a folder.

    Raises:
        TrainingError: There is no run, or another version wrote it.
    """
    path = folder / _RUN
    try:
        document = json.loads(path.read_text("utf-8"))
        version = document["format_version"]
    except FileNotFoundError as error:
        raise TrainingError(
            f"{folder} holds no run" if folder.is_dir() else f"there is no folder {folder}",
            expected=f"the folder of a run, with its {_RUN}",
            remedy=f"train one: lung-nodule-ct train BUILD RECIPE --out {folder}",
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{path} is not a valid run: {error}", remedy="train one: lung-nodule-ct train BUILD RECIPE"
        ) from error
    if version != _FORMAT_VERSION:
        change = ": its checkpoints have no statistics of batch normalisation" if version == 1 else ""
        raise TrainingError(
            f"{path} is of another version{change}",
            expected=_FORMAT_VERSION,
            got=version,
            remedy="train it again with another --out, or use the release that wrote it",
        )
    try:
        recipe = _parse_recipe(document["recipe"])
        return Run(folder, document["name"], recipe, document["data"], document.get("pretrained"))
    except (KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{path} is not a valid run: {error}", remedy="train it again") from error


def data_identity(build: BuildFolder, config: str) -> dict[str, Any]:
    """Return what identifies the rows of a config: the hashes of the archives, the kind of split, and the row counts.

    Raises:
        BuildFolderError: The build does not hold the config.
    """
    build.splits(config)
    return {
        "source": build.manifest["source"],
        "split_by": build.manifest["split_by"],
        "rows": build.manifest["configs"][config]["rows"],
    }


def file_identity(path: Path | None) -> str | None:
    """The SHA-256 of a file, ``None`` if there is none.

    Raises:
        TrainingError: It cannot be read.
    """
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise TrainingError(f"{path} cannot be read: {error}") from error


def _parse_recipe(document: dict[str, Any]) -> Recipe:
    def tuples(entry: dict[str, Any]) -> dict[str, Any]:
        return {name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()}

    parts = {
        "model": ModelOptions(**tuples(document["model"])),
        "input": InputOptions(**tuples(document["input"])),
        "optim": OptimOptions(**document["optim"]),
        "loss": LossOptions(**document.get("loss", {})),
        "augment": AugmentOptions(**tuples(document.get("augment", {}))),
        "inference": InferenceOptions(**document.get("inference", {})),
        "split_by": SplitBy(document["split_by"]),
    }
    return Recipe(**(document | parts))


def _flatten(document: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in document.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


class Checkpoints:
    """The two latest states of a run, in ``<run>/checkpoints/<steps>/``. Orbax writes them in the background.

    Args:
        run: The folder of the run.
        recipe: Its recipe.
        writable: Whether this is the process that trains it. It removes what a killed one has not completed.
        best: Those of the highest validation scores instead, in ``<run>/best/<steps>/``: the averages, without what is needed to continue.
    """

    def __init__(self, run: Path, recipe: Recipe, *, writable: bool = False, best: bool = False) -> None:
        self._recipe, self._writable, self._best = recipe, writable, best
        self._run, self._folder = run, run / (_BEST if best else _CHECKPOINTS)
        if writable:
            drop_write_errors(self._folder.absolute())
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2, enable_async_checkpointing=True, cleanup_tmp_directories=writable
        )
        # With a handler, Orbax does not look into the newest folder, which may be damaged, for the kind of its content.
        self._manager = ocp.CheckpointManager(
            self._folder.absolute(), options=options, item_handlers=ocp.StandardCheckpointHandler()
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._writing():
                self._manager.close()  # waits until everything is written
        except TrainingError:
            if error is None:
                raise
        if self._writable:
            self._forget_location()

    @property
    def latest_step(self) -> int | None:
        """The number of steps of the latest checkpoint, ``None`` if there is no checkpoint."""
        steps: int | None = self._manager.latest_step()
        return steps

    def save(self, state: State, steps: int) -> None:
        """Save the state after a number of steps. Returns as soon as the state is copied from the device.

        Raises:
            OutputError: There is not enough free space.
            TrainingError: This or the checkpoint before cannot be written.
        """
        self.require_free_space(state)
        with self._writing():
            self._manager.save(steps, args=ocp.args.StandardSave(self._part(state)))

    def require_free_space(self, state: State) -> None:
        """Check that a checkpoint of this state fits on the disk. Before training, so that no step is lost.

        Raises:
            OutputError: It does not fit.
        """
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(self._part(state)))
        require_free_space("a checkpoint", size, [self._folder], f"free some space; {_CONTINUES}")

    def _part(self, state: State) -> State:
        return {name: state[name] for name in ("average", "step")} if self._best else state

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            problem = str(error).splitlines()[0]
            raise TrainingError(
                f"a checkpoint cannot be written to {self._folder}: {problem}", remedy=f"check the disk; {_CONTINUES}"
            ) from error

    def restore(self, place: Callable[[jax.ShapeDtypeStruct], jax.sharding.Sharding]) -> State:
        """Return the latest state that can be read. A notice is printed for each later one that cannot.

        Args:
            place: Where each array is placed. It may be another number of devices than when the state was saved.

        Raises:
            TrainingError: There is no checkpoint, or none that can be read, or they are of another model.
        """
        shapes = self._part(jax.eval_shape(lambda: initial_state(self._recipe)))
        target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place(leaf)), shapes)
        problems = []
        for steps in sorted(self._manager.all_steps(), reverse=True):
            try:
                state: Any = self._manager.restore(steps, args=ocp.args.StandardRestore(target))
            except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
                path = self._folder / str(steps)
                problems.append(f"the checkpoint {path} is damaged or of another model: {error}".splitlines()[0])
                continue
            for problem in problems:
                notice(f"{problem}; the one of step {steps} is used")
            return state
        if not problems:
            raise TrainingError(
                f"{self._run} has no checkpoint", remedy="train it first: lung-nodule-ct train BUILD RECIPE"
            )
        raise TrainingError(problems[0], remedy="train from the start with another --out")

    def delete_after(self, steps: int) -> None:
        """Delete the checkpoints of later steps, which are damaged, so that they can be written again."""
        for later in [saved for saved in self._manager.all_steps() if saved > steps]:
            self._manager.delete(later)

    def _forget_location(self) -> None:
        """Replace the text in which Orbax states the absolute path of a checkpoint. Only the name of its file has a meaning."""
        if jax.process_index() == 0:
            for path in self._folder.glob(f"[0-9]*/**/{_COMMITTED}"):
                if path.read_text("utf-8") != _COMMITTED_TEXT:
                    write_atomically(path, _COMMITTED_TEXT)


@dataclass(frozen=True, eq=False)
class EvaluatedWeights:
    """The averaged weights of a run that are evaluated.

    Attributes:
        values: Parameters and statistics, on the first device.
        steps: The number of steps that they were trained for.
        trained_steps: That of the latest checkpoint, which is larger if the recipe selects the best one.
    """

    values: Any
    steps: int
    trained_steps: int


def evaluated_weights(run: Run) -> EvaluatedWeights:
    """The weights of the latest checkpoint, or, if the recipe selects them, those with the best score of watched examples.

    Raises:
        TrainingError: The run has no checkpoint.
    """
    is_best = run.recipe.select == "best"
    with Checkpoints(run.folder, run.recipe, best=is_best) as checkpoints:
        state = checkpoints.restore(lambda _: jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    steps = trained = int(state["step"])
    if is_best:
        with Checkpoints(run.folder, run.recipe) as checkpoints:
            trained = checkpoints.latest_step or steps
    return EvaluatedWeights(state["average"], steps, trained)
