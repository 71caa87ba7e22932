"""The whole card of a finished build: README.md, croissant.json, pictures, and the ``preview`` config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public by its documentation

from lung_nodule_ct.errors import BuildFolderError
from lung_nodule_ct.preview.samples import samples, spread
from lung_nodule_ct.read.audit_report import read_audit
from lung_nodule_ct.read.sidecars import files_beside, ours_beside
from lung_nodule_ct.system.imports import is_installed
from lung_nodule_ct.targets.card import CARD, PLACEHOLDER, Shown, card_text
from lung_nodule_ct.targets.card_pictures import config_picture
from lung_nodule_ct.targets.croissant import CROISSANT, croissant_text
from lung_nodule_ct.targets.preview_shard import write_preview

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lung_nodule_ct.preview.samples import Sample
    from lung_nodule_ct.read.build_folder import BuiltFolder

_PICTURES = "pictures"


@dataclass(frozen=True)
class CardOptions:
    """What a card holds.

    Attributes:
        examples: Pictures of each config in the ``preview`` config, at most.
        croissant: Whether to write ``croissant.json``; ``None`` for where mlcroissant is installed.
        repository: Where it shall stand on the Hub, ``USER/REPO``; the card's code names it.
    """

    examples: int = 32
    croissant: bool | None = None
    repository: str = PLACEHOLDER

    def __post_init__(self) -> None:
        if self.examples < 1:
            raise ValueError(f"examples: expected at least 1, got {self.examples}")
        validate_repo_id(self.repository)


def add_card(
    build: BuiltFolder, options: CardOptions | None = None, on_sample: Callable[[], None] = lambda: None
) -> dict[str, int]:
    """Write the card into a build, in place of an earlier one of ours.

    Args:
        build: A finished build of Parquet.
        options: What it holds.
        on_sample: Called after each picture of the ``preview`` config.

    Returns:
        The files that were written, with their bytes.

    Raises:
        BuildFolderError: It is no build of Parquet, or a shard or ``audit.json`` is damaged.
        MissingExtraError: ``croissant.json`` was asked for and mlcroissant is not installed.
        OutputError: A file that is not ours stands where one shall be written.
    """
    options = options or CardOptions()
    if build.form != "parquet":
        raise BuildFolderError(
            f"{build.folder} is a build of {build.form}",
            expected="one of Parquet, which the Hub shows",
            remedy="build with --format parquet",
        )
    audit = read_audit(build.folder)
    with files_beside(build.folder, by="card") as stage:
        preview = write_preview(stage, _all_samples(build, options.examples, on_sample))
        shown = list(_write_pictures(build, stage))
        if options.croissant or (options.croissant is None and is_installed("mlcroissant")):
            (stage / CROISSANT).write_text(croissant_text(build, preview), encoding="utf-8")
        text = card_text(build, preview, shown, audit, _audit_plots(build.folder), options.repository)
        (stage / CARD).write_text(text, encoding="utf-8")
        return {
            path.relative_to(stage).as_posix(): path.stat().st_size
            for path in sorted(stage.rglob("*"))
            if path.is_file()
        }


def _all_samples(build: BuiltFolder, limit: int, on_sample: Callable[[], None]) -> Iterator[Sample]:
    for config in build.configs:
        for sample in samples(build, config, spread(build, config, limit)):
            yield sample
            on_sample()


def _write_pictures(build: BuiltFolder, stage: Path) -> Iterator[Shown]:
    (stage / _PICTURES).mkdir()
    for config in build.configs:
        picture = config_picture(build, config)
        if picture is not None:
            name = f"{_PICTURES}/{config}.png"
            picture[0].save(stage / name, "PNG", optimize=True)
            yield Shown(name, picture[1])


def _audit_plots(folder: Path) -> Iterator[Shown]:
    for name, command in sorted(ours_beside(folder).items()):
        if command == "audit" and name.startswith(f"{_PICTURES}/") and name.endswith(".png"):
            title = name.removeprefix(f"{_PICTURES}/").removeprefix("audit-").removesuffix(".png").replace("-", " ")
            yield Shown(name, f"Audit: {title}")
