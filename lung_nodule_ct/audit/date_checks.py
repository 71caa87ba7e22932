"""The search for calendar dates in a build: in rows, in the metadata of pictures, and in the files next to the shards.

The audit reports the result, and ``publish`` refuses a build with dates. Only locations and counts are kept: a report
that quoted the dates would disclose them itself.
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from datetime import date
from typing import TYPE_CHECKING, Any

import yaml
from PIL import Image

from lung_nodule_ct.audit.facts import DateFacts
from lung_nodule_ct.declaration.dates import count_dates, mask_dates
from lung_nodule_ct.declaration.manifest import FINDINGS
from lung_nodule_ct.declaration.schema import Picture, Records, Text, Voxels
from lung_nodule_ct.errors import BuildFolderError
from lung_nodule_ct.formats.pictures import find_metadata
from lung_nodule_ct.read.audit_report import AUDIT_COMMAND, Check, CheckGroup, Verdict
from lung_nodule_ct.read.sidecars import SIDECARS, own_sidecars

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from lung_nodule_ct.audit.facts import Facts
    from lung_nodule_ct.declaration.schema import Column
    from lung_nodule_ct.read.build_folder import BuildFolder

# The names of schema.org for the dates of a dataset, which are not dates of a patient.
_DATASET_DATES = frozenset({"datePublished", "dateCreated", "dateModified"})
_EMBEDDED = re.compile(r"base64,[0-9A-Za-z+/=]+")
_FRONT_MATTER = re.compile(r"\A---\n(.*?\n)---\n", re.DOTALL)
_TEXT_SUFFIXES = frozenset({".md", ".txt", ".csv", ".html", ".yaml", ".yml", ".xml"})
_SHARD_SUFFIXES = frozenset({".parquet", ".arrow"})


class DateSearch:
    """Counts the dates in rows and files, by location."""

    def __init__(self) -> None:
        self._dates: Counter[str] = Counter()
        self._possible: Counter[str] = Counter()
        self._texts = self._pictures = 0
        self._files: list[str] = []
        self._unread: list[str] = []

    def add_row(self, config: str, row: Mapping[str, Any], columns: Iterable[Column]) -> None:
        """Search the texts of a row, those in records included, and the metadata of its pictures.

        Raises:
            BuildFolderError: A picture cannot be opened.
        """
        for column in columns:
            location, value = f"{config}, {column.name}", row[column.name]
            if value is None:
                continue
            if isinstance(column.type, Text):
                self._add_row_text(location, value)
            elif isinstance(column.type, Picture):
                self._add_picture(location, value)
            elif isinstance(column.type, Records):
                for name in (field.name for field in column.type.fields if isinstance(field.type, Text)):
                    for record in value:
                        self._add_row_text(f"{location}.{name}", record[name])

    def add_files(self, build: BuildFolder, names: Iterable[str] | None = None) -> None:
        """Search the names of files of a build and, except for shards, their texts.

        Args:
            build: The build.
            names: The files, by default all in the folder. Those of an earlier audit are always left out.
        """
        commands = own_sidecars(build.folder)
        left_out = {SIDECARS, *(name for name, command in commands.items() if command == AUDIT_COMMAND)}
        everything = (path.relative_to(build.folder).as_posix() for path in build.folder.rglob("*"))
        for name in sorted(set(everything if names is None else names) - left_out):
            path, shown = build.folder / name, mask_dates(name)
            self._count(f"the name of {shown}", count_dates(path.name, within_words=True))
            if not path.is_file() or path.suffix in _SHARD_SUFFIXES:
                continue
            texts = _texts_of(path)
            (self._unread if texts is None else self._files).append(shown)
            self._count(shown, sum(map(count_dates, texts or ())))
            if name == FINDINGS:  # which quotes the archives, as the texts of rows do
                self._possible[shown] += sum(map(_possibly_dated, texts or ()))

    def facts(self) -> DateFacts:
        """The result of the search."""
        return DateFacts(
            dict(self._dates),
            dict(+self._possible),
            self._texts,
            self._pictures,
            tuple(self._files),
            tuple(self._unread),
        )

    def _add_row_text(self, location: str, text: str | None) -> None:
        if text is None:
            return
        self._texts += 1
        self._count(location, count_dates(text, within_words=True))
        self._possible[location] += _possibly_dated(text, within_words=True)

    def _add_picture(self, location: str, data: bytes) -> None:
        self._pictures += 1
        try:
            self._count(f"{location} (metadata)", _dates_in_metadata(data))
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise BuildFolderError(f"{location}: the metadata of a picture cannot be read: {error}") from error

    def _count(self, location: str, dates: int) -> None:
        if dates:
            self._dates[location] += dates


def search_dates(build: BuildFolder, files: Iterable[str]) -> DateFacts:
    """Search a build for dates, without the other checks of an audit: volumes are not read.

    Args:
        build: The build.
        files: The files that are searched next to the rows.

    Raises:
        BuildFolderError: A shard is damaged, or a picture cannot be opened.
    """
    search = DateSearch()
    for config, splits in build.configs.items():
        columns = [column for column in build.columns(config) if not isinstance(column.type, Voxels)]
        for split in splits:
            for row in build.rows(config, split, [column.name for column in columns]):
                search.add_row(config, row, columns)
    search.add_files(build, files)
    return search.facts()


def dates_checks(facts: Facts) -> CheckGroup:
    """The check for dates in the build."""
    dates = facts.dates
    numbers = {
        "dates": dict(dates.dates),
        "possible": dict(dates.possible),
        "texts": dates.texts,
        "pictures": dates.pictures,
        "files_read": list(dates.files),
        "files_by_name_only": list(dates.unread),
    }
    return CheckGroup("dates", (date_check(dates),), numbers)


def date_check(dates: DateFacts) -> Check:
    """The check for dates, from the result of a search. There must be none."""
    total, possible = sum(dates.dates.values()), sum(dates.possible.values())
    locations = ", ".join(f"{location}: {count:,}" for location, count in (dates.dates or dates.possible).items())
    searched = (
        f"searched {dates.texts:,} texts of rows, the metadata of {dates.pictures:,} pictures and {len(dates.files):,} "
        f"files next to the shards; of {len(dates.unread):,} other files only the name"
    )
    if total:
        verdict, measured = Verdict.FAIL, f"{total:,} calendar dates"
    elif possible:
        verdict, measured = Verdict.WARN, f"none; {possible:,} texts could contain one"
    else:
        verdict, measured = Verdict.PASS, "none"
    detail = "; ".join(filter(None, (locations, searched)))
    return Check("dates", "Calendar dates in the build", verdict, measured, "none", detail)


def _possibly_dated(text: str, *, within_words: bool = False) -> bool:
    """Whether a text has no date, but something that could be one, or part of one."""
    return not count_dates(text, within_words=within_words) and mask_dates(text) != text


def _dates_in_metadata(data: bytes) -> int:
    """The number of dated parts in the metadata of an encoded picture (comments, EXIF, text, data after the picture).

    Raises:
        OSError: The picture cannot be opened.
        SyntaxError: Likewise.
        DecompressionBombError: The picture is too large.
    """
    dated = sum(bool(count_dates(part.content.decode("latin-1"))) for part in find_metadata(data))
    if dated:
        return dated
    with Image.open(io.BytesIO(data)) as picture:  # other metadata, such as a colour profile
        values = list(picture.info.values())
    texts = [value.decode("latin-1") if isinstance(value, bytes) else value for value in values]
    return sum(count_dates(text) for text in texts if isinstance(text, str))


def _texts_of(path: Path) -> list[str] | None:
    """The texts of a file, ``None`` if it is binary or cannot be read."""
    try:
        if path.suffix in (".json", ".jsonl"):
            content = path.read_text("utf-8")
            documents = map(json.loads, content.splitlines()) if path.suffix == ".jsonl" else [json.loads(content)]
            return [text for document in documents for text in _strings(document)]
        if path.suffix in _TEXT_SUFFIXES:
            text = _EMBEDDED.sub("", path.read_text("utf-8"))
            head = _FRONT_MATTER.match(text) if path.suffix == ".md" else None
            if head is None:
                return [text]
            return [*_strings(yaml.safe_load(head[1])), text[head.end() :]]
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return None


def _strings(document: Any) -> Iterator[str]:
    """The texts of a JSON document. Numbers are left out: a number of bytes can have eight digits, too."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield str(key)
            if key not in _DATASET_DATES:
                yield from _strings(value)
    elif isinstance(document, list):
        for value in document:
            yield from _strings(value)
    elif isinstance(document, (str, date)):
        yield str(document)
