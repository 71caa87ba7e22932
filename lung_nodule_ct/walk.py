"""Walking through the rows of a build, once, while somebody is told how far it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.errors import BuildFolderError
from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.system.progress import BuildListener

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lung_nodule_ct.built import BuiltFolder


@dataclass(frozen=True)
class Placed:
    """A row and where it stands.

    Attributes:
        config: Its config.
        split: Its split.
        number: Its place in the split, from 0.
        row: Its values, as :meth:`.BuiltFolder.rows` gives them; empty when the next row is taken.
    """

    config: str
    split: str
    number: int
    row: dict[str, Any]

    @property
    def frame(self) -> Frame:
        """The frame of a scan.

        Raises:
            BuildFolderError: Origin, spacing or direction are none.
        """
        try:
            return Frame(*(tuple(self.row[name]) for name in ("origin", "spacing", "direction")))
        except ValueError as error:
            raise BuildFolderError(f"{self} has no frame: {error}") from error

    def __str__(self) -> str:
        return f"{self.config}, {self.split}, row {self.number:,}"


def walk(build: BuiltFolder, configs: Sequence[str], listener: BuildListener | None = None) -> Iterator[Placed]:
    """Every row of some configs, in the order of the build; at most a row group is in memory.

    Args:
        build: The build.
        configs: Names of configs that it holds.
        listener: Is told how far it is, in bytes of the shards.

    Raises:
        BuildFolderError: The build does not hold a config, or a shard is damaged.
    """
    listener = listener or BuildListener()
    for config in configs:
        rows = {split: build.configs[config][split] for split in build.splits(config)}
        files = build.manifest["configs"][config]["files"]
        size = {split: sum(file["bytes"] for file in files if file["split"] == split) for split in rows}
        listener.begin(config, sum(size.values()), sum(rows.values()))
        for split, count in rows.items():
            for number, row in enumerate(build.rows(config, split)):
                yield Placed(config, split, number, row)
                row.clear()  # whoever still holds it must not hold its volumes while the next are read
                listener.advance(config, size[split] // count)
        listener.end(config)
