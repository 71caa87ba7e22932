"""The complete card of a build: ``README.md``, ``croissant.json``, pictures, and the config ``preview``."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public by its documentation

from lung_nodule_ct.declaration.labels import PATHOLOGY_NAMES
from lung_nodule_ct.declaration.manifest import Format
from lung_nodule_ct.declaration.schema import Category
from lung_nodule_ct.errors import BuildFolderError
from lung_nodule_ct.preview.samples import samples, spread
from lung_nodule_ct.publish.card import CARD, CARD_COMMAND, PLACEHOLDER, CardPicture, card_text, with_repository
from lung_nodule_ct.publish.card_pictures import config_picture
from lung_nodule_ct.publish.croissant import CROISSANT, croissant_text
from lung_nodule_ct.publish.preview_config import write_preview_shard
from lung_nodule_ct.read.audit_report import AUDIT_COMMAND, read_audit
from lung_nodule_ct.read.sidecars import add_sidecars, own_sidecars
from lung_nodule_ct.system.imports import is_installed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lung_nodule_ct.preview.samples import Sample
    from lung_nodule_ct.read.build_folder import BuildFolder

_PICTURES = "pictures"


@dataclass(frozen=True)
class CardOptions:
    """What a card contains.

    Attributes:
        examples: Largest number of pictures of each config in the config ``preview``.
        croissant: Whether to write ``croissant.json``; ``None``: if mlcroissant is installed.
        repository: The repository on the Hub, ``USER/REPO``, that the code of the card loads.

    Raises:
        ValueError: ``examples`` is less than 1, or ``repository`` is not a valid name.
    """

    examples: int = 32
    croissant: bool | None = None
    repository: str = PLACEHOLDER

    def __post_init__(self) -> None:
        if self.examples < 1:
            raise ValueError(f"examples: expected at least 1, got {self.examples}")
        validate_repo_id(self.repository)


def add_card(
    build: BuildFolder, options: CardOptions | None = None, on_sample: Callable[[], None] = lambda: None
) -> dict[str, int]:
    """Add a card to a build. An earlier card is replaced.

    Args:
        build: A finished Parquet build.
        options: What the card contains.
        on_sample: Called after each picture of the config ``preview``.

    Returns:
        The size in bytes of each file that was written, by name.

    Raises:
        BuildFolderError: The build is not Parquet, or a shard or ``audit.json`` is damaged.
        MissingExtraError: ``croissant.json`` was requested and mlcroissant is not installed.
        OutputError: A file that this command did not write has the name of a new file.
    """
    options = options or CardOptions()
    if build.format is not Format.PARQUET:
        raise BuildFolderError(
            f"{build.folder} is a build of {build.format}",
            expected="a build of Parquet, which the Hub can show",
            remedy="build it with --format parquet",
        )
    audit = read_audit(build.folder)
    with add_sidecars(build.folder, by=CARD_COMMAND) as stage:
        chosen = _preview_samples(build, options.examples, on_sample)
        preview = write_preview_shard(stage, chosen, _pathology_columns(build))
        pictures = list(_write_pictures(build, stage))
        if options.croissant or (options.croissant is None and is_installed("mlcroissant")):
            (stage / CROISSANT).write_text(croissant_text(build, preview), encoding="utf-8")
        text = card_text(build, preview, pictures, audit, _audit_plots(build.folder), options.repository)
        (stage / CARD).write_text(text, encoding="utf-8")
        return {
            path.relative_to(stage).as_posix(): path.stat().st_size
            for path in sorted(stage.rglob("*"))
            if path.is_file()
        }


def name_repository(folder: Path, repository: str) -> bool:
    """Make the code of the card load a repository. A card that was edited stays as it is.

    Args:
        folder: A finished build with a card.
        repository: ``USER/REPO``.

    Returns:
        Whether the card was changed.

    Raises:
        OutputError: The folder cannot be written.
    """
    ours = [name for name, command in own_sidecars(folder).items() if command == CARD_COMMAND]
    if CARD not in ours:
        return False
    text = (folder / CARD).read_text(encoding="utf-8")
    named = with_repository(text, repository)
    if named == text:
        return False
    with add_sidecars(folder, by=CARD_COMMAND) as stage:
        for name in ours:  # those that are not written again would be removed
            (stage / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, stage / name)
        (stage / CARD).write_text(named, encoding="utf-8")
    return True


def _preview_samples(build: BuildFolder, limit: int, on_sample: Callable[[], None]) -> Iterator[Sample]:
    for config in build.configs:
        for sample in samples(build, config, spread(build, config, limit)):
            yield sample
            on_sample()


def _pathology_columns(build: BuildFolder) -> dict[str, str]:
    """The column with the pathology class of an example, by config."""
    return {
        name: column.name
        for name in build.configs
        for column in build.columns(name)
        if column.type == Category(PATHOLOGY_NAMES)
    }


def _write_pictures(build: BuildFolder, stage: Path) -> Iterator[CardPicture]:
    (stage / _PICTURES).mkdir()
    for config in build.configs:
        drawn = config_picture(build, config)
        if drawn is not None:
            name = f"{_PICTURES}/{config}.png"
            drawn.image.save(stage / name, "PNG")
            yield CardPicture(name, drawn.caption)


def _audit_plots(folder: Path) -> Iterator[CardPicture]:
    for name, command in sorted(own_sidecars(folder).items()):
        if command == AUDIT_COMMAND and name.startswith(f"{_PICTURES}/") and name.endswith(".png"):
            title = name.removeprefix(f"{_PICTURES}/").removeprefix("audit-").removesuffix(".png").replace("-", " ")
            yield CardPicture(name, f"Audit: {title}")
