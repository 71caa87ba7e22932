"""Calendar dates that would leave the builder with a build: in texts, in pictures' metadata, in the files beside.

Only places and counts are kept: an audit that spelt the dates it found would carry them out itself.
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

from lung_nodule_ct.audit.check import CheckGroup
from lung_nodule_ct.audit.facts import DateFacts
from lung_nodule_ct.audit.output import COMMAND
from lung_nodule_ct.declaration.dates import count_dates, mask_dates
from lung_nodule_ct.read.audit_report import Check, Verdict
from lung_nodule_ct.read.sidecars import SIDECARS, own_sidecars

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lung_nodule_ct.audit.facts import Facts
    from lung_nodule_ct.read.build_folder import BuildFolder

# when a dataset was published is no patient's date: schema.org's own words for it
_OF_THE_DATASET = frozenset({"datePublished", "dateCreated", "dateModified"})
_EMBEDDED = re.compile(r"base64,[0-9A-Za-z+/=]+")
_FRONT_MATTER = re.compile(r"\A---\n(.*?\n)---\n", re.DOTALL)
_TEXT_SUFFIXES = frozenset({".md", ".txt", ".csv", ".html", ".yaml", ".yml", ".xml"})
_SHARDS = frozenset({".parquet", ".arrow"})


class DateSearch:
    """Looks for dates in what it is shown, and counts them by place."""

    def __init__(self) -> None:
        self._dates: Counter[str] = Counter()
        self._possible: Counter[str] = Counter()
        self._texts = self._pictures = 0

    def text(self, place: str, text: str) -> None:
        """A text of a row."""
        self._texts += 1
        if found := count_dates(text, within_words=True):
            self._dates[place] += found
        elif mask_dates(text) != text:
            self._possible[place] += 1

    def picture(self, place: str, data: bytes) -> None:
        """The metadata (comments, EXIF, text chunks) of an encoded picture."""
        self._pictures += 1
        with Image.open(io.BytesIO(data)) as picture:
            notes = list(picture.info.values())  # EXIF as it stands in the file, its nested parts included
        for note in notes:
            text = note.decode("latin-1") if isinstance(note, bytes) else note
            if isinstance(text, str) and (found := count_dates(text)):
                self._dates[f"{place} (metadata)"] += found

    def files(self, build: BuildFolder) -> DateFacts:
        """The files beside the shards, an earlier audit's apart; then all that was found."""
        own = {name for name, command in own_sidecars(build.folder).items() if command == COMMAND} | {SIDECARS}
        read: list[str] = []
        unread: list[str] = []
        for path in sorted(build.folder.rglob("*")):
            name = path.relative_to(build.folder).as_posix()
            if name in own:
                continue
            self._add(f"the name of {_shown(name)}", count_dates(path.name, within_words=True))
            if path.is_file() and path.suffix not in _SHARDS:
                texts = _texts_of(path)
                (unread if texts is None else read).append(_shown(name))
                self._add(_shown(name), sum(map(count_dates, texts or ())))
        return DateFacts(
            dict(self._dates), dict(self._possible), self._texts, self._pictures, tuple(read), tuple(unread)
        )

    def _add(self, place: str, found: int) -> None:
        if found:
            self._dates[place] += found


def _shown(name: str) -> str:
    """A file's name without the dates in it."""
    return mask_dates(name)


def _texts_of(path: Path) -> list[str] | None:
    """The texts of a file; ``None`` where it is none that can be read."""
    try:
        if path.suffix in (".json", ".jsonl"):
            lines = path.read_text("utf-8")
            documents = map(json.loads, lines.splitlines()) if path.suffix == ".jsonl" else [json.loads(lines)]
            return [text for document in documents for text in _strings(document)]
        if path.suffix in _TEXT_SUFFIXES:
            text = _EMBEDDED.sub("", path.read_text("utf-8"))
            front = _FRONT_MATTER.match(text) if path.suffix == ".md" else None
            if front is None:
                return [text]
            return [*_strings(yaml.safe_load(front[1])), text[front.end() :]]
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return None


def _strings(document: Any) -> Iterator[str]:
    """The texts of a JSON document, its numbers apart: a count of bytes has eight digits, too."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield str(key)
            if key not in _OF_THE_DATASET:
                yield from _strings(value)
    elif isinstance(document, list):
        for value in document:
            yield from _strings(value)
    elif isinstance(document, (str, date)):
        yield str(document)


def dates_checks(facts: Facts) -> CheckGroup:
    """Dates that would leave the builder: there must be none."""
    found = facts.dates
    total, possible = sum(found.dates.values()), sum(found.possible.values())
    places = ", ".join(f"{place}: {count:,}" for place, count in (found.dates or found.possible).items())
    looked = (
        f"looked at {found.texts:,} texts of rows, the metadata of {found.pictures:,} pictures and "
        f"{len(found.files):,} files beside the shards; of {len(found.unread):,} files only the name was read"
    )
    if total:
        verdict, measured = Verdict.FAIL, f"{total:,} calendar dates"
    elif possible:
        verdict, measured = Verdict.WARN, f"none; {possible:,} texts could be one"
    else:
        verdict, measured = Verdict.PASS, "none"
    check = Check(
        "dates", "Dates that leave the builder", verdict, measured, "none", "; ".join(filter(None, (places, looked)))
    )
    numbers = {
        "dates": dict(found.dates),
        "possible": dict(found.possible),
        "texts": found.texts,
        "pictures": found.pictures,
        "files_read": list(found.files),
        "files_by_name_only": list(found.unread),
    }
    return CheckGroup("dates", (check,), numbers)
