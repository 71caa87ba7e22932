"""A run's folder: ``run.json`` says what was trained on what. The same command again goes on; another one is refused."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lung_nodule_ct.declaration.labels import SplitBy
from lung_nodule_ct.declaration.manifest import to_json
from lung_nodule_ct.errors import TrainingError
from lung_nodule_ct.system.files import write_atomically
from lung_nodule_ct.train.recipes import InputOptions, ModelOptions, OptimOptions, Recipe

if TYPE_CHECKING:
    from lung_nodule_ct.read.build_folder import BuildFolder

RUN: Final = "run.json"
_FORMAT: Final = 1
_FREE: Final = ("workers", "save_every", "watch", "device")  # they change nothing of what is learned


@dataclass(frozen=True)
class Run:
    """What stands in ``run.json``.

    Attributes:
        folder: The run's folder.
        name: The recipe's name.
        recipe: The recipe, with what was changed on the command line.
        data: What the build was made of: archives' hashes and rows.
    """

    folder: Path
    name: str
    recipe: Recipe
    data: dict[str, Any]

    def begin(self) -> None:
        """Write ``run.json``, or find that it says the same.

        Raises:
            TrainingError: Another run is in the folder.
        """
        path = self.folder / RUN
        if not path.exists():
            write_atomically(path, to_json(self._document()))
            return
        for key, (own, other) in self.differences(open_run(self.folder)).items():
            raise TrainingError(
                f"{self.folder} holds another run: its {key} differs",
                expected=json.dumps(other),
                got=json.dumps(own),
                remedy="give the same command to go on, or another --out",
            )

    def differences(self, other: Run) -> dict[str, tuple[Any, Any]]:
        """What of two runs differs and matters to what is learned, by its place in ``run.json``: here and there."""
        here, there = (_flat(run._document()) for run in (self, other))
        return {
            key: (here.get(key), there.get(key))
            for key in sorted(here.keys() | there.keys())
            if here.get(key) != there.get(key) and key.removeprefix("recipe.") not in _FREE
        }

    def _document(self) -> dict[str, Any]:
        document = {"format_version": _FORMAT, "name": self.name, "recipe": asdict(self.recipe), "data": self.data}
        return json.loads(json.dumps(document))


def open_run(folder: Path) -> Run:
    """The run in a folder.

    Raises:
        TrainingError: There is none, or it is of another version.
    """
    path = folder / RUN
    try:
        document = json.loads(path.read_text("utf-8"))
        version = document["format_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{folder} holds no run: {error}", remedy="train one: lung-nodule-ct train") from error
    if version != _FORMAT:
        raise TrainingError(f"{path} is of another version", expected=_FORMAT, got=version, remedy="train it again")
    try:
        return Run(folder, document["name"], _recipe_of(document["recipe"]), document["data"])
    except (KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{path} is not what a run writes: {error}", remedy="train it again") from error


def _recipe_of(document: dict[str, Any]) -> Recipe:
    def tuples(entry: dict[str, Any]) -> dict[str, Any]:
        return {name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()}

    parts = {
        "model": ModelOptions(**tuples(document["model"])),
        "input": InputOptions(**tuples(document["input"])),
        "optim": OptimOptions(**document["optim"]),
        "split_by": SplitBy(document["split_by"]),
    }
    return Recipe(**(document | parts))


def _flat(document: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in document.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def data_of(build: BuildFolder, config: str) -> dict[str, Any]:
    """What tells whether a build holds the same rows of a config: the sources' hashes, how it was split, and its rows.

    Raises:
        BuildFolderError: It does not hold the config.
    """
    build.splits(config)
    return {
        "source": build.manifest["source"],
        "split_by": build.manifest["split_by"],
        "rows": build.manifest["configs"][config]["rows"],
    }
