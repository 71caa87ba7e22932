"""A record of Zenodo, or of another InvenioRDM: its files with size and md5, its licence and DOI.

Format: https://developers.zenodo.org/#records, and https://inveniordm.docs.cern.ch/reference/rest_api_drafts_records/.

``archives.lock``: what the records held when a maintainer looked, so that a record that changes is noticed.

JSON: for each record its licence, DOI and files with size, md5 and, where the file was downloaded, our own SHA-256.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lung_nodule_ct.errors import DownloadError, SourceError

_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class RecordFile:
    """One file of a record.

    Attributes:
        key: Its name.
        size: In bytes.
        md5: In lower-case hex.
        url: Where its content is.
    """

    key: str
    size: int
    md5: str
    url: str

    def __post_init__(self) -> None:
        if not self.key or "/" in self.key or "\\" in self.key or self.key.startswith("."):
            raise ValueError(f"a file's name: expected a plain name, got {self.key!r}")
        if self.size < 0:
            raise ValueError(f"the size of {self.key}: expected bytes, got {self.size}")
        if not _MD5.fullmatch(self.md5):
            raise ValueError(f"the checksum of {self.key}: expected an md5, got {self.md5!r}")


@dataclass(frozen=True, slots=True)
class Record:
    """One record.

    Attributes:
        number: Its number.
        doi: Its DOI, ``None`` where it names none.
        licence: The identifier of its licence, as it names it (``cc-by-4.0``), ``None`` where it names none.
        title: As published.
        files: Its files.
    """

    number: int
    doi: str | None
    licence: str | None
    title: str
    files: tuple[RecordFile, ...]

    def to_json(self) -> str:
        """As :func:`stored_record` reads it."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)


def stored_record(text: str) -> Record:
    """What :meth:`Record.to_json` wrote.

    Raises:
        ValueError: It did not.
    """
    try:
        fields = json.loads(text)
        files = tuple(RecordFile(**entry) for entry in fields.pop("files"))
        return Record(**fields, files=files)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"no stored record: {error}") from error


def parse_record(body: bytes, base_url: str, number: int) -> Record:
    """The record in an answer of ``GET /api/records/<number>``.

    The addresses of the files are made from ``base_url``, and not taken from the answer: a mirror's answer may still
    name the server that it mirrors.

    Raises:
        DownloadError: It is no record, or one of its files has no name, size or md5.
    """
    name = f"record {number}"
    try:
        document = json.loads(body)
        metadata: Mapping[str, Any] = document.get("metadata") or {}
        files = tuple(_file(entry, base_url, number) for entry in _entries(document.get("files")))
        if str(document.get("id", number)) != str(number):
            raise ValueError(f"it is record {document['id']}")
        return Record(number, _doi(document, metadata), _licence(metadata), str(metadata.get("title") or ""), files)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise DownloadError(
            "is no record that can be read",
            archive=name,
            expected="JSON with files, each with key, size and checksum",
            got=repr(body[:80]) if not body.lstrip().startswith(b"{") else error,
            remedy=f"see whether {base_url} is a Zenodo or another InvenioRDM",
        ) from error


def _entries(files: Any) -> Iterable[Mapping[str, Any]]:
    """Zenodo lists its files; InvenioRDM has them under ``entries``, by name."""
    if isinstance(files, dict):
        files = files.get("entries")
    return files.values() if isinstance(files, dict) else list(files)


def _file(entry: Mapping[str, Any], base_url: str, number: int) -> RecordFile:
    kind, _, digest = str(entry["checksum"]).rpartition(":")
    if kind not in ("", "md5"):
        raise ValueError(f"the checksum of {entry['key']}: expected an md5, got {kind}")
    key = str(entry["key"])
    url = f"{base_url}/api/records/{number}/files/{quote(key)}/content"
    return RecordFile(key, int(entry["size"]), digest.lower(), url)


def _doi(document: Mapping[str, Any], metadata: Mapping[str, Any]) -> str | None:
    pids = (document.get("pids") or {}).get("doi") or {}
    return document.get("doi") or metadata.get("doi") or pids.get("identifier") or None


def _licence(metadata: Mapping[str, Any]) -> str | None:
    licence = metadata.get("license")
    if isinstance(licence, dict):
        licence = licence.get("id")
    rights = [entry["id"] for entry in metadata.get("rights") or () if isinstance(entry.get("id"), str)]
    return licence if isinstance(licence, str) and licence else " AND ".join(rights) or None


NAME = "archives.lock"
_FORMAT = 1


@dataclass(frozen=True)
class Lock:
    """What is pinned, by the number of the record; a record that is not there is not checked.

    Attributes:
        records: ``{number: {"doi", "licence", "files": {name: {"size", "md5", "sha256"}}}}``.
    """

    records: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Iterable[Record], sha256: Mapping[str, str]) -> Lock:
        """Pin some records as they are.

        Args:
            records: What to pin.
            sha256: Of those files that are here, by ``<record>/<name>``.
        """
        return cls(
            {
                record.number: {
                    "doi": record.doi,
                    "licence": record.licence,
                    "files": {
                        file.key: {
                            "size": file.size,
                            "md5": file.md5,
                            "sha256": sha256.get(f"{record.number}/{file.key}"),
                        }
                        for file in sorted(record.files, key=lambda file: file.key)
                    },
                }
                for record in records
            }
        )

    @classmethod
    def read(cls, path: Path) -> Lock:
        """A lock from a file.

        Raises:
            SourceError: It is not there, or no lock.
        """
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["format_version"] != _FORMAT:
                raise ValueError(f"format_version {document['format_version']}")
            records = {int(number): entry for number, entry in document["records"].items()}
            for entry in records.values():
                for file in entry["files"].values():
                    int(file["size"]), str(file["md5"])
            return cls(records)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SourceError(f"the lock {path} cannot be read: {error}") from error

    @classmethod
    def packaged(cls) -> Lock:
        """The lock that is part of this package; one that pins nothing where it has none."""
        path = files("lung_nodule_ct") / "declaration" / NAME
        return cls.read(Path(str(path))) if path.is_file() else cls()

    def to_json(self) -> str:
        """As :meth:`read` reads it."""
        records = {str(number): dict(entry) for number, entry in sorted(self.records.items())}
        return json.dumps({"format_version": _FORMAT, "records": records}, indent=2, ensure_ascii=False) + "\n"

    def check(self, record: Record) -> None:
        """Hold a record against what is pinned of it.

        Raises:
            DownloadError: A file was changed or is gone, or the licence or DOI is another.
        """
        pinned = self.records.get(record.number)
        if pinned is None:
            return
        for kind, known in (("licence", record.licence), ("doi", record.doi)):
            if pinned.get(kind) != known:
                raise self._changed(record, None, f"the {kind} {pinned.get(kind)}", str(known))
        here = {file.key: (file.size, file.md5) for file in record.files}
        for name, entry in pinned["files"].items():
            expected, got = (entry["size"], entry["md5"]), here.get(name)
            if got != expected:
                found = f"{got[0]:,} bytes, md5 {got[1]}" if got else "no such file"
                raise self._changed(record, name, f"{expected[0]:,} bytes, md5 {expected[1]}", found)

    @staticmethod
    def _changed(record: Record, file: str | None, expected: str, got: str) -> DownloadError:
        return DownloadError(
            f"record {record.number} is not what it was when it was pinned",
            archive=file,
            expected=expected,
            got=got,
            remedy=f"if the authors published a correction, a maintainer makes a new {NAME} with `lung-nodule-ct lock`",
        )

    def sha256_of(self, number: int, name: str) -> str | None:
        """The pinned SHA-256 of a file, ``None`` where none is."""
        entry = self.records.get(number, {}).get("files", {}).get(name, {})
        value: str | None = entry.get("sha256")
        return value
