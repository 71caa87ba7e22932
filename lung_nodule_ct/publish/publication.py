"""A publication of a build on the Hugging Face Hub: its files, the checks before the upload, and the upload.

Every check runs without a server. The upload is one commit of huggingface_hub, so that a repository never shows a part
of a build. huggingface_hub also finds the token (its login, or ``HF_TOKEN``); this package never reads it.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import pyarrow.parquet as pq
import yaml
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard, HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from lung_nodule_ct.audit.date_checks import date_check, search_dates
from lung_nodule_ct.declaration.manifest import FINDINGS, GENERATOR, MANIFEST, Format
from lung_nodule_ct.errors import BuildFolderError, PublishError
from lung_nodule_ct.publish.card import CARD, PLACEHOLDER, loaded_repositories
from lung_nodule_ct.publish.croissant import CROISSANT
from lung_nodule_ct.publish.preview_config import PREVIEW
from lung_nodule_ct.publish.prose import licences
from lung_nodule_ct.read.audit_report import AUDIT, Verdict, read_audit
from lung_nodule_ct.read.sidecars import SIDECARS, own_sidecars
from lung_nodule_ct.read.verification import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from lung_nodule_ct.read.audit_report import AuditReport
    from lung_nodule_ct.read.audit_report import Check as AuditCheck
    from lung_nodule_ct.read.build_folder import BuildFolder

#: The viewer of the Hub reads at most 300 MB per request, all columns included. Smaller row groups are shown faster.
VIEWER_BYTES: Final = 300_000_000
PREVIEW_BYTES: Final = 30_000_000

#: Checks that a person can override by name.
OVERRIDABLE: Final = ("dates", "unknown-licence")

# The base class of the errors of the HTTP library that huggingface_hub uses.
_HTTP_ERROR: Final = cast("type[Exception]", HfHubHTTPError.__bases__[0])
_REPLACED = ("data/**", "pictures/**", "audit/**", "preview.html", AUDIT, CROISSANT)
_LINK = re.compile(r"!?\[[^\]]*\]\((?!https?://|#|mailto:)([^)\s]+)\)")


@dataclass(frozen=True)
class Requirement:
    """One check before a publication.

    Attributes:
        name: Its name, as ``--allow`` takes it.
        title: What is checked.
        problem: Why the build is refused; ``None`` if the check passes.
    """

    name: str
    title: str
    problem: str | None

    @property
    def overridable(self) -> bool:
        """Whether the build can be published although the check fails."""
        return self.name in OVERRIDABLE


@dataclass(frozen=True)
class Publication:
    """The files of a build that would be published, and the results of the checks.

    Attributes:
        build: The build.
        files: The size in bytes of each file, by its name relative to the folder.
        checks: The checks.
        notes: What a careful person should know; a note never refuses the build.
    """

    build: BuildFolder
    files: Mapping[str, int]
    checks: tuple[Requirement, ...]
    notes: tuple[str, ...]

    def refused(self, allowed: frozenset[str] = frozenset()) -> tuple[Requirement, ...]:
        """Return the checks that refuse the build, without those that are allowed by name."""
        return tuple(
            check
            for check in self.checks
            if check.problem is not None and not (check.overridable and check.name in allowed)
        )


@dataclass(frozen=True)
class _Candidate:
    """What the checks use: the build, its files to publish, and its stored audit.

    Attributes:
        build: The build.
        files: As in :class:`Publication`.
        audit: The stored audit, ``None`` if there is none.
        unchanged: The files that our commands added and that were not changed, with the name of the command.
        repository: The repository that they are for, if it is known.
    """

    build: BuildFolder
    files: Mapping[str, int]
    audit: AuditReport | None
    unchanged: Mapping[str, str]
    repository: str | None

    @property
    def card(self) -> Path:
        """The path of the card."""
        return self.build.folder / CARD


def plan_publication(build: BuildFolder, repository: str | None = None) -> Publication:
    """List the files of a build and check them. No server is contacted.

    Args:
        build: A finished Parquet build.
        repository: The repository that they are for, which a note compares with the code of the card.

    Raises:
        BuildFolderError: The build is not Parquet or has no card, or ``audit.json`` is damaged.
    """
    if build.format is not Format.PARQUET:
        raise BuildFolderError(f"{build.folder} is a build of {build.format}", expected="a build of Parquet")
    if not (build.folder / CARD).is_file():
        raise BuildFolderError(
            f"{build.folder} has no {CARD}", remedy=f"write it with: lung-nodule-ct card {build.folder}"
        )
    sidecars = own_sidecars(build.folder)
    shards = [file["path"] for name in build.configs for file in build.files(name)]
    names = sorted({CARD, MANIFEST, FINDINGS, SIDECARS, *sidecars, *shards})
    files = {name: path.stat().st_size for name in names if (path := build.folder / name).is_file()}
    candidate = _Candidate(build, files, read_audit(build.folder), sidecars, repository)
    checks = tuple(Requirement(name, title, problem(candidate)) for name, (title, problem) in _CHECKS.items())
    return Publication(build, files, (*checks, _dates(candidate)), tuple(_notes(candidate)))


def upload(publication: Publication, repository: str, *, private: bool) -> str:
    """Upload a publication that no check refuses. Files of an earlier publication that it no longer has are deleted.

    Args:
        publication: The publication.
        repository: ``USER/REPO`` of a dataset; created if it does not exist.
        private: Whether only its owner may see it.

    Returns:
        The URL of the commit.

    Raises:
        PublishError: The repository is public although ``private`` was requested, or the Hub refuses the upload.
    """
    api = HfApi(library_name="lung_nodule_ct", library_version=GENERATOR.split()[-1])
    try:
        api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        if private and not api.dataset_info(repository).private:
            raise PublishError(
                f"{repository} exists and is public, so nothing was uploaded",
                remedy="make it private in its settings, choose another name, or omit --private",
            )
        commit = api.upload_folder(
            repo_id=repository,
            repo_type="dataset",
            folder_path=publication.build.folder,
            allow_patterns=list(publication.files),
            delete_patterns=list(_REPLACED),
            commit_message=f"Built with {GENERATOR}",
        )
    except PublishError:
        raise
    except LocalTokenNotFoundError as error:
        raise PublishError(
            "there is no token for the Hub", remedy="log in with `hf auth login`, or set HF_TOKEN"
        ) from error
    except (OSError, ValueError, _HTTP_ERROR) as error:
        raise PublishError(
            f"the Hub did not accept {repository}: {error}",
            remedy="check that you may write to it (`hf auth whoami`), then run it again; nothing was published",
        ) from error
    return str(commit.commit_url)


def _card_problem(candidate: _Candidate) -> str | None:
    build = candidate.build
    try:
        card = DatasetCard.load(candidate.card)
        configs = MetadataConfigs.from_dataset_card_data(card.data)
        infos = DatasetInfosDict.from_dataset_card_data(card.data)
    except (ValueError, TypeError, KeyError, AttributeError, OSError, yaml.YAMLError) as error:
        return f"the YAML of the card cannot be read: {error}"
    if set(configs) - {PREVIEW} != set(build.configs) or set(infos) != set(configs):
        return f"the card has the configs {', '.join(configs)}, the build {', '.join(build.configs)}"
    for name, splits in build.configs.items():
        stated = {split: info.num_examples for split, info in (infos[name].splits or {}).items()}
        if stated != splits:
            return f"the card states {stated} for {name}, the build {splits}"
    if configs.get_default_config_name() is None:
        return "the card has no default config"
    missing = [name for name in ("license", "pretty_name", "task_categories", "tags") if not card.data.get(name)]
    return f"the YAML of the card lacks {', '.join(missing)}" if missing else None


def _files_problem(candidate: _Candidate) -> str | None:
    files = candidate.files
    text = candidate.card.read_text("utf-8")
    patterns = [entry["path"] for config in _card_configs(candidate) for entry in config.get("data_files", ())]
    unmatched = [pattern for pattern in patterns if not fnmatch.filter(files, pattern)]
    shards = [name for name in files if name.startswith("data/") and name.endswith(".parquet")]
    unlisted = [name for name in shards if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]
    broken = [link for link in _LINK.findall(text.split("\n---\n", 1)[-1]) if link not in files]
    for names, problem in (
        (unmatched, "no file matches"),
        (unlisted, "no config of the card contains"),
        (broken, "the card links to a missing file:"),
    ):
        if names:
            return f"{problem} {names[0]}" + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")
    return None


def _card_configs(candidate: _Candidate) -> list[dict[str, Any]]:
    """The configs in the YAML of the card; none if it cannot be read, which the check of the card reports."""
    try:
        configs = DatasetCard.load(candidate.card).data.get("configs")
    except (ValueError, OSError, yaml.YAMLError):
        return []
    return [entry for entry in configs or () if isinstance(entry, dict)]


def _verify_problem(candidate: _Candidate) -> str | None:
    result = verify(candidate.build.folder)
    faults = [fault for fault in result.faults if fault.path != CARD]  # a card may be edited; that is a note
    return f"{faults[0]}" + (f" (and {len(faults) - 1} more)" if len(faults) > 1 else "") if faults else None


def _preview_problem(candidate: _Candidate) -> str | None:
    for name in _preview_shards(candidate):
        if (size := _largest_row_group(candidate.build.folder / name)) > PREVIEW_BYTES:
            return f"a row group of {name} has {size:,} bytes; expected at most {PREVIEW_BYTES:,}. Write the card again"
    return None


def _preview_shards(candidate: _Candidate) -> list[str]:
    return [name for name in candidate.files if name.startswith(f"data/{PREVIEW}/")]


def _largest_row_group(path: Path) -> int:
    meta = pq.read_metadata(path)
    return max((meta.row_group(group).total_byte_size for group in range(meta.num_row_groups)), default=0)


def _licence_problem(candidate: _Candidate) -> str | None:
    if licences(candidate.build):
        return None
    return (
        "build.json does not give a licence for every record of the archives, and none is assumed. Read the licence on "
        "the pages of the records. A build from Zenodo (without --source) stores the licences"
    )


_CHECKS: Mapping[str, tuple[str, Callable[[_Candidate], str | None]]] = {
    "card": ("the card can be read by datasets and the Hub, and describes this build", _card_problem),
    "files": ("every file that the card names exists", _files_problem),
    "verify": ("every file is as our commands wrote it", _verify_problem),
    "preview": ("the row groups of the preview are small", _preview_problem),
    "unknown-licence": ("the licence is known", _licence_problem),
}


def _dates(candidate: _Candidate) -> Requirement:
    """The check for dates: the result of the stored audit if it is unchanged, otherwise of the same search now."""
    audit = candidate.audit if AUDIT in candidate.unchanged else None
    stored = next((check for check in audit.checks if check.name == "dates"), None) if audit else None
    method = "by the audit" if stored else "by a search of rows, metadata of pictures, and files"
    return Requirement("dates", f"no calendar date is published ({method})", _dates_problem(candidate, stored))


def _dates_problem(candidate: _Candidate, stored: AuditCheck | None) -> str | None:
    if candidate.build.manifest["keep_source_names"]:
        return "the build keeps the source names, which contain dates: build it without --keep-source-names"
    if stored is not None:
        # a warning of the audit is for a person to judge
        failed = stored.verdict in (Verdict.FAIL, Verdict.UNKNOWN)
        return f"the audit reports {stored.verdict}: {stored.measured}" if failed else None
    try:
        dates = search_dates(candidate.build, candidate.files)
    except BuildFolderError as error:
        return f"the search for dates failed: {error}"
    if date_check(dates).verdict is Verdict.PASS:
        return None
    counts = dates.dates or dates.possible
    noun = "calendar dates" if dates.dates else "texts that could contain a date"
    locations = ", ".join(f"{location}: {count:,}" for location, count in counts.items())
    return f"there are {noun} ({locations}); expected none. A new build removes those in the metadata of pictures"


def _notes(candidate: _Candidate) -> Iterator[str]:
    build, files, audit = candidate.build, candidate.files, candidate.audit
    present = {path.relative_to(build.folder).as_posix() for path in build.folder.rglob("*") if not path.is_dir()}
    if left_out := sorted(present - set(files)):
        yield f"left out, because our commands did not write them or they were changed: {', '.join(left_out)}"
    if build.limit_note:
        yield build.limit_note
    if CARD not in candidate.unchanged:
        yield f"{CARD} was edited after it was written: `lung-nodule-ct verify` of a copy will name it"
    card = candidate.card.read_text("utf-8")
    loaded, wanted = loaded_repositories(card), candidate.repository
    if others := sorted(loaded & {PLACEHOLDER} if wanted is None else loaded - {wanted}):
        renamed = wanted is not None and CARD in candidate.unchanged
        todo = f"the upload changes that to {wanted}" if renamed else "write the card again with --repository"
        yield f"the code in the card loads {', '.join(others)}: {todo}"
    if not _preview_shards(candidate):
        yield "there is no preview config for the viewer of the Hub: lung-nodule-ct card writes one"
    if CROISSANT not in files:
        yield f'there is no {CROISSANT}: pip install "lung_nodule_ct[croissant]", then lung-nodule-ct card'
    if audit is None:
        yield "there is no audit of this build: lung-nodule-ct audit makes one"
    else:
        if "\n## Audit\n" not in card:
            yield "the card does not contain the audit: write it again with lung-nodule-ct card"
        failed = [check.title for check in audit.checks if check.verdict is Verdict.FAIL and check.name != "dates"]
        if failed:
            yield f"checks of the audit that fail: {', '.join(failed)}"
    for config in build.configs:
        if any(_largest_row_group(build.folder / file["path"]) > VIEWER_BYTES for file in build.files(config)):
            yield f"the viewer of the Hub cannot show {config}, because its volumes are too large; it can be loaded"
