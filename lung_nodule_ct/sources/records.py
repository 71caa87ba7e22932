"""Records of Zenodo or another InvenioRDM server: their files, licence and DOI; and the lock file that pins them.

The response of the server has the format of https://developers.zenodo.org/#records or that of
https://inveniordm.docs.cern.ch/reference/rest_api_drafts_records/.

The lock file ``archives.lock`` holds what the records contained when a maintainer looked, so that a changed record is
noticed. It is JSON: for each record its licence, DOI and files with size, MD5 and, for files that were downloaded, SHA-256.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

from lung_nodule_ct.errors import DownloadError, SourceError

LOCK_NAME: Final = "archives.lock"
TOKEN_VARIABLE: Final = "LUNG_NODULE_CT_ZENODO_TOKEN"  # noqa: S105 -- the name of a variable

_LOCK_FORMAT = 1
_MD5 = re.compile(r"[0-9a-f]{32}")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


@dataclass(frozen=True, slots=True)
class RecordFile:
    """One file of a record.

    Attributes:
        key: Its name.
        size: Its size in bytes.
        md5: Its MD5 in lower-case hexadecimal.
        url: The address of its content.
    """

    key: str
    size: int
    md5: str
    url: str

    def __post_init__(self) -> None:
        if not self.key or "/" in self.key or "\\" in self.key or self.key.startswith("."):
            raise ValueError(f"the name of a file: expected a plain name, got {self.key!r}")
        if self.size < 0:
            raise ValueError(f"the size of {self.key}: expected a number of bytes, got {self.size}")
        if not _MD5.fullmatch(self.md5):
            raise ValueError(f"the checksum of {self.key}: expected an MD5, got {self.md5!r}")


@dataclass(frozen=True, slots=True)
class Record:
    """One record.

    Attributes:
        number: Its number on the server.
        doi: Its DOI, ``None`` if it has none.
        licence: The identifier of its licence as published (``cc-by-4.0``), ``None`` if it has none.
        title: Its title as published.
        files: Its files.
        published: The day on which it was published (``2024-06-28``), ``None`` if the server gives no complete date.
    """

    number: int
    doi: str | None
    licence: str | None
    title: str
    files: tuple[RecordFile, ...]
    published: str | None = None

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what :meth:`to_json` returned.

        Raises:
            ValueError: The text is something else.
        """
        try:
            document = json.loads(text)
            record_files = tuple(RecordFile(**entry) for entry in document.pop("files"))
            return cls(**document, files=record_files)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not a stored record: {error}") from error

    def to_json(self) -> str:
        """Return the record as JSON."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)


def parse_record(body: bytes, base_url: str, number: int) -> Record:
    """Parse the response to ``GET /api/records/<number>``.

    The addresses of the files are built from ``base_url``, not taken from the response: the response of a mirror may still
    name the original server.

    Args:
        body: The body of the response.
        base_url: The address of the server.
        number: The number of the record.

    Raises:
        DownloadError: The response is not that record, or one of its files lacks a name, size or MD5.
    """
    try:
        document = json.loads(body)
        metadata: Mapping[str, Any] = document.get("metadata") or {}
        record_files = tuple(_parse_file(entry, base_url, number) for entry in _file_entries(document.get("files")))
        if str(document.get("id", number)) != str(number):
            raise ValueError(f"it is record {document['id']}")
        closed = None if record_files else _closed_access(document, metadata)
        title = _storable(str(metadata.get("title") or ""))
        record = Record(number, _doi(document, metadata), _licence(metadata), title, record_files, _published(metadata))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise DownloadError(
            "cannot be read",
            archive=f"record {number}",
            expected="JSON with files, each with key, size and checksum",
            got=repr(body[:80]) if not body.lstrip().startswith(b"{") else error,
            remedy=f"check whether {base_url} is a Zenodo or another InvenioRDM server",
        ) from error
    if closed is not None:
        problem, remedy = closed
        raise DownloadError(
            f"has no public files: it is {problem}",
            archive=f"record {number}",
            remedy=f"{remedy}, see {base_url}/records/{number}. With an account that has access, set the variable {TOKEN_VARIABLE} "
            "to an access token of it; or name a folder of archives (--source)",
        )
    return record


def _closed_access(document: Mapping[str, Any], metadata: Mapping[str, Any]) -> tuple[str, str] | None:
    """Why a record without files shows none, and what can be done about it; ``None`` if it is open, so that it has none.

    Zenodo has ``access_right`` and ``embargo_date`` in its metadata, InvenioRDM an object ``access``.
    """
    access = document.get("access") or {}
    embargo = access.get("embargo") or {}
    right = metadata.get("access_right") or access.get("status")
    if right == "embargoed" or embargo.get("active"):
        day = metadata.get("embargo_date") or embargo.get("until")
        return f"embargoed until {_storable(str(day))}" if day else "embargoed", "wait until then"
    if right == "closed":
        return "closed", "ask its authors"
    if right == "restricted" or access.get("files") == "restricted":
        return "restricted", "ask its authors for access"
    return None


def _storable(text: str) -> str:
    """A text without lone surrogates, which JSON may contain and no file can."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _file_entries(entries: Any) -> Iterable[Mapping[str, Any]]:
    """Return the files of a record: Zenodo has a list, InvenioRDM an object by name under ``entries``."""
    if isinstance(entries, dict):
        entries = entries.get("entries")
    return entries.values() if isinstance(entries, dict) else list(entries or ())


def _parse_file(entry: Mapping[str, Any], base_url: str, number: int) -> RecordFile:
    algorithm, _, digest = str(entry["checksum"]).rpartition(":")
    if algorithm not in ("", "md5"):
        raise ValueError(f"the checksum of {entry['key']}: expected an MD5, got {algorithm}")
    key = str(entry["key"])
    return RecordFile(key, int(entry["size"]), digest.lower(), _content_url(base_url, number, key))


def _content_url(base_url: str, number: int, key: str) -> str:
    return f"{base_url}/api/records/{number}/files/{quote(key)}/content"


def _doi(document: Mapping[str, Any], metadata: Mapping[str, Any]) -> str | None:
    pids = (document.get("pids") or {}).get("doi") or {}
    doi = document.get("doi") or metadata.get("doi") or pids.get("identifier")
    return _storable(str(doi)) if doi else None


def _licence(metadata: Mapping[str, Any]) -> str | None:
    licence = metadata.get("license")
    if isinstance(licence, dict):
        licence = licence.get("id")
    rights = [entry["id"] for entry in metadata.get("rights") or () if isinstance(entry.get("id"), str)]
    return _storable(licence if isinstance(licence, str) and licence else " AND ".join(rights)) or None


def _published(metadata: Mapping[str, Any]) -> str | None:
    """The date of publication. InvenioRDM allows years, months and ranges as well, which are not a day."""
    text = metadata.get("publication_date")
    if not isinstance(text, str) or not _DAY.fullmatch(text):
        return None
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        return None


@dataclass(frozen=True)
class Lock:
    """What the records are expected to contain. A record that the lock does not list is not checked.

    Attributes:
        records: By the number of the record: ``{"doi", "licence", "published", "files": {name: {"size", "md5", "sha256"}}}``.
    """

    records: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Iterable[Record], sha256: Mapping[str, str]) -> Self:
        """Pin some records as they are.

        Args:
            records: The records.
            sha256: The SHA-256 of those files that were downloaded, by ``<record>/<name>``.
        """
        return cls(
            {
                record.number: {
                    "doi": record.doi,
                    "licence": record.licence,
                    "published": record.published,
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
    def read(cls, path: Path) -> Self:
        """Read a lock file.

        Raises:
            SourceError: The file does not exist, or is not a lock file.
        """
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["format_version"] != _LOCK_FORMAT:
                raise ValueError(f"format_version {document['format_version']}")
            records = {int(number): entry for number, entry in document["records"].items()}
            for entry in records.values():
                for file in entry["files"].values():
                    int(file["size"]), str(file["md5"])
            return cls(records)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SourceError(f"the lock file {path} cannot be read: {error}") from error

    @classmethod
    def packaged(cls) -> Self:
        """Read the lock file of this package; return a lock that pins nothing if the package has none."""
        path = files("lung_nodule_ct") / "declaration" / LOCK_NAME
        return cls.read(Path(str(path))) if path.is_file() else cls()

    def to_json(self) -> str:
        """Return the content of a lock file."""
        records = {str(number): dict(entry) for number, entry in sorted(self.records.items())}
        return json.dumps({"format_version": _LOCK_FORMAT, "records": records}, indent=2, ensure_ascii=False) + "\n"

    def check(self, record: Record) -> None:
        """Compare a record with what is pinned.

        Raises:
            DownloadError: A file changed or is gone, or the licence or the DOI changed.
        """
        pinned = self.records.get(record.number)
        if pinned is None:
            return
        for attribute, value in (("licence", record.licence), ("doi", record.doi)):
            if pinned.get(attribute) != value:
                raise _changed(record, None, f"the {attribute} {pinned.get(attribute)}", str(value))
        actual = {file.key: (file.size, file.md5) for file in record.files}
        for name, entry in pinned["files"].items():
            expected, got = (entry["size"], entry["md5"]), actual.get(name)
            if got != expected:
                shown = f"{got[0]:,} bytes, md5 {got[1]}" if got else "no such file"
                raise _changed(record, name, f"{expected[0]:,} bytes, md5 {expected[1]}", shown)

    def record(self, number: int, base_url: str) -> Record | None:
        """Return a record as it is pinned, without its title; ``None`` if it is not pinned.

        Args:
            number: The number of the record.
            base_url: The address of the server.
        """
        pinned = self.records.get(number)
        if pinned is None:
            return None
        record_files = tuple(
            RecordFile(name, entry["size"], entry["md5"], _content_url(base_url, number, name))
            for name, entry in pinned["files"].items()
        )
        return Record(number, pinned.get("doi"), pinned.get("licence"), "", record_files, pinned.get("published"))

    def sha256_of(self, number: int, name: str) -> str | None:
        """Return the pinned SHA-256 of a file of a record, ``None`` if none is pinned."""
        entry = self.records.get(number, {}).get("files", {}).get(name, {})
        value: str | None = entry.get("sha256")
        return value


def _changed(record: Record, file: str | None, expected: str, got: str) -> DownloadError:
    return DownloadError(
        f"record {record.number} has changed since it was pinned",
        archive=file,
        expected=expected,
        got=got,
        remedy=f"if the authors published a correction, a maintainer creates a new {LOCK_NAME} with `lung-nodule-ct lock`",
    )
