"""What of a build would be published, and whether it may be: every check that needs no server."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard

from lung_nodule_ct.declaration.dates import mask_dates
from lung_nodule_ct.declaration.manifest import FINDINGS, MANIFEST, Format
from lung_nodule_ct.declaration.schema import Picture
from lung_nodule_ct.errors import BuildFolderError
from lung_nodule_ct.formats.picture_metadata import without_dated_metadata
from lung_nodule_ct.publish.card import CARD, PLACEHOLDER, licences
from lung_nodule_ct.publish.preview_config import PREVIEW
from lung_nodule_ct.read.audit_report import AUDIT, read_audit
from lung_nodule_ct.read.sidecars import SIDECARS, own_sidecars
from lung_nodule_ct.system.files import file_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lung_nodule_ct.read.audit_report import Check as AuditCheck
    from lung_nodule_ct.read.build_folder import BuildFolder

#: The viewer scans 300 MB a request (all columns); far under it is fast.
VIEWER_BYTES: Final = 300_000_000
PREVIEW_BYTES: Final = 30_000_000

#: Checks that a person may overrule by name, and nobody else.
OVERRIDABLE: Final = ("dates", "unknown-licence")

_LINK = re.compile(r"!?\[[^\]]*\]\((?!https?://|#|mailto:)([^)\s]+)\)")


@dataclass(frozen=True)
class Requirement:
    """One check of a publication.

    Attributes:
        name: As ``--allow`` takes it.
        title: What is checked.
        problem: Why it refuses; ``None`` where all is well.
    """

    name: str
    title: str
    problem: str | None

    @property
    def overridable(self) -> bool:
        """Whether a person may publish in spite of it."""
        return self.name in OVERRIDABLE


@dataclass(frozen=True)
class Publication:
    """What would be published.

    Attributes:
        build: The build.
        files: Names relative to its folder, with their bytes.
        checks: What was checked.
        notes: What a careful person wants to know, and refuses nothing.
    """

    build: BuildFolder
    files: dict[str, int]
    checks: tuple[Requirement, ...]
    notes: tuple[str, ...]

    def refused(self, allowed: frozenset[str] = frozenset()) -> tuple[Requirement, ...]:
        """The checks that refuse it, but for those that are allowed by name."""
        return tuple(
            check
            for check in self.checks
            if check.problem is not None and not (check.overridable and check.name in allowed)
        )


def plan_publication(build: BuildFolder) -> Publication:
    """Gather the files of a build and check them, on this machine alone.

    Args:
        build: A finished build of Parquet.

    Raises:
        BuildFolderError: It is no build of Parquet, has no card, or ``audit.json`` is damaged.
    """
    if build.format is not Format.PARQUET:
        raise BuildFolderError(f"{build.folder} is a build of {build.format}", expected="one of Parquet")
    if not (build.folder / CARD).is_file():
        raise BuildFolderError(f"{build.folder} has no {CARD}", remedy=f"write it: lung-nodule-ct card {build.folder}")
    files = _files(build)
    rules: tuple[tuple[str, str, Callable[[BuildFolder, dict[str, int]], str | None]], ...] = (
        ("card", "the card is one that datasets and the Hub read, and is of this build", _card_problem),
        ("files", "every file that the card names is there", _files_problem),
        ("shards", "the shards are as they were built", _shards_problem),
        ("preview", "the preview's row groups are small", _preview_problem),
        ("unknown-licence", "the licence is known", _licence_problem),
        ("dates", _dates_title(build), _dates_problem),
    )
    checks = tuple(Requirement(name, title, rule(build, files)) for name, title, rule in rules)
    return Publication(build, files, checks, tuple(_notes(build, files)))


def _files(build: BuildFolder) -> dict[str, int]:
    shards = [file["path"] for entry in build.manifest["configs"].values() for file in entry["files"]]
    names = [CARD, MANIFEST, FINDINGS, SIDECARS, *own_sidecars(build.folder), *shards]
    paths = {name: build.folder / name for name in dict.fromkeys(names)}
    return {name: path.stat().st_size for name, path in sorted(paths.items()) if path.is_file()}


def _card_problem(build: BuildFolder, files: dict[str, int]) -> str | None:  # noqa: ARG001 -- every rule is given both
    try:
        card = DatasetCard.load(build.folder / CARD)
        configs = MetadataConfigs.from_dataset_card_data(card.data)
        infos = DatasetInfosDict.from_dataset_card_data(card.data)
    except (ValueError, TypeError, KeyError, AttributeError, OSError, yaml.YAMLError) as error:
        return f"its YAML cannot be read: {error}"
    if set(configs) - {PREVIEW} != set(build.configs) or set(infos) != set(configs):
        return f"it has the configs {', '.join(configs)}, the build {', '.join(build.configs)}"
    for name, splits in build.configs.items():
        told = {split: info.num_examples for split, info in (infos[name].splits or {}).items()}
        if told != splits:
            return f"it says {told} of {name}, the build {splits}"
    if configs.get_default_config_name() is None:
        return "no config is the default"
    missing = [name for name in ("license", "pretty_name", "task_categories", "tags") if not card.data.get(name)]
    return f"its YAML lacks {', '.join(missing)}" if missing else None


def _files_problem(build: BuildFolder, files: dict[str, int]) -> str | None:
    text = (build.folder / CARD).read_text("utf-8")
    patterns = [entry["path"] for config in _configs(build) for entry in config.get("data_files", ())]
    unmatched = [pattern for pattern in patterns if not fnmatch.filter(files, pattern)]
    shards = [name for name in files if name.endswith(".parquet")]
    unnamed = [name for name in shards if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]
    broken = [link for link in _LINK.findall(text.split("\n---\n", 1)[-1]) if link not in files]
    for found, says in (
        (unmatched, "no file is"),
        (unnamed, "no config of the card holds"),
        (broken, "the card links to what is not there:"),
    ):
        if found:
            return f"{says} {found[0]}" + (f" (and {len(found) - 1} more)" if len(found) > 1 else "")
    return None


def _configs(build: BuildFolder) -> list[dict[str, Any]]:
    """The configs as the card's YAML has them, none where it cannot be read, which is another check's problem."""
    try:
        head = DatasetCard.load(build.folder / CARD).data.get("configs")
    except (ValueError, OSError, yaml.YAMLError):
        return []
    return [entry for entry in head or () if isinstance(entry, dict)]


def _shards_problem(build: BuildFolder, files: dict[str, int]) -> str | None:  # noqa: ARG001
    for entry in build.manifest["configs"].values():
        for file in entry["files"]:
            if file_hash(build.folder / file["path"], "sha256") != file["sha256"]:
                return f"{file['path']} is not as it was built: build again"
    return None


def _preview_problem(build: BuildFolder, files: dict[str, int]) -> str | None:
    for name in files:
        if name.startswith(f"data/{PREVIEW}/") and (size := _largest_group(build.folder / name)) > PREVIEW_BYTES:
            return f"a row group of {name} has {size:,} bytes, more than {PREVIEW_BYTES:,}: write the card again"
    return None


def _largest_group(path: Path) -> int:
    meta = pq.read_metadata(path)
    return max((meta.row_group(group).total_byte_size for group in range(meta.num_row_groups)), default=0)


def _licence_problem(build: BuildFolder, files: dict[str, int]) -> str | None:  # noqa: ARG001
    if licences(build):
        return None
    return (
        "build.json names no licence for every record of the archives, and none is assumed. Read the licence on the "
        "records; build from Zenodo (without --source) to have it read"
    )


def _dates_title(build: BuildFolder) -> str:
    by = "by the audit" if _audited_dates(build) else "by the texts of rows and findings and the metadata of pictures"
    return f"no patient's dates leave the builder ({by})"


def _audited_dates(build: BuildFolder) -> list[AuditCheck]:
    """What our own audit of this build says of dates."""
    audit = read_audit(build.folder) if AUDIT in own_sidecars(build.folder) else None
    return [check for check in audit.checks if check.name == "dates"] if audit else []


def _dates_problem(build: BuildFolder, files: dict[str, int]) -> str | None:  # noqa: ARG001
    if build.manifest["keep_source_names"]:
        return "the build keeps the source names, which spell dates: build without --keep-source-names"
    verdicts = _audited_dates(build)
    for check in verdicts:
        if check.verdict in ("fail", "unknown"):
            return f"the audit says {check.verdict}: {check.measured}"
    if verdicts:
        return None
    places = sorted({place for place, text in _texts(build) if mask_dates(text) != text})
    if places:
        return f"what could be a date stands in {', '.join(places)}: see what with lung-nodule-ct audit"
    try:
        dated = sorted({place for place, data in _pictures(build) if without_dated_metadata(data)[1]})
    except BuildFolderError as error:
        return f"the metadata of pictures cannot be read: {error}"
    return (
        f"metadata of pictures spell dates in {', '.join(dated)}: build again, which leaves them out" if dated else None
    )


def _texts(build: BuildFolder) -> Iterator[tuple[str, str]]:
    """Every text of the shards, with the config and column that it stands in, and of the findings."""
    for config, entry in build.manifest["configs"].items():
        for file in entry["files"]:
            table = pq.ParquetFile(build.folder / file["path"]).read(list(build.metadata_columns(config)))
            for column in table.column_names:
                for array in table.column(column).chunks:
                    for text in _strings(array):
                        yield f"{config}, {column}", text
    for finding in build.report["findings"]:
        for field in ("archive", "member", "row", "detail", "action"):
            if finding[field]:
                yield FINDINGS, finding[field]


def _pictures(build: BuildFolder) -> Iterator[tuple[str, bytes]]:
    """Every encoded picture of the shards, with the config and column that it stands in."""
    for config, splits in build.configs.items():
        names = [column.name for column in build.columns(config) if isinstance(column.type, Picture)]
        for split in splits if names else ():
            for row in build.rows(config, split, names):
                yield from ((f"{config}, {name}", row[name]) for name in names)


def _strings(array: pa.Array) -> Iterator[str]:
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        yield from (text for text in array.unique().to_pylist() if text is not None)
    elif pa.types.is_list(array.type) or pa.types.is_fixed_size_list(array.type):
        yield from _strings(array.flatten())
    elif pa.types.is_struct(array.type):
        for part in array.flatten():
            yield from _strings(part)


def _notes(build: BuildFolder, files: dict[str, int]) -> Iterator[str]:
    present = {path.relative_to(build.folder).as_posix() for path in build.folder.rglob("*") if not path.is_dir()}
    if left := sorted(present - set(files)):
        yield f"left out, since no command of ours wrote them as they are: {', '.join(left)}"
    card = (build.folder / CARD).read_text("utf-8")
    if PLACEHOLDER in card:
        yield f"the card's code names {PLACEHOLDER}: write it again with --repository"
    if not any(name.startswith(f"data/{PREVIEW}/") for name in files):
        yield "there is no preview config for the Hub's viewer: lung-nodule-ct card writes one"
    if "croissant.json" not in files:
        yield 'there is no croissant.json: pip install "lung_nodule_ct[croissant]", then lung-nodule-ct card'
    audit = read_audit(build.folder)
    if audit is None:
        yield "there is no audit of this build: lung-nodule-ct audit makes one"
    else:
        if "\n## Audit\n" not in card:
            yield "the card does not have the audit: write it again with lung-nodule-ct card"
        failed = [check.title for check in audit.checks if check.verdict == "fail" and check.name != "dates"]
        if failed:
            yield f"the audit fails in: {', '.join(failed)}"
    for config, entry in build.manifest["configs"].items():
        if any(_largest_group(build.folder / file["path"]) > VIEWER_BYTES for file in entry["files"]):
            yield f"the Hub's viewer will not show {config}: a volume of it is larger than it scans; it loads all the same"
