"""A record of Zenodo, or of another InvenioRDM: its files with size and md5, its licence and DOI.

Format: https://developers.zenodo.org/#records, and https://inveniordm.docs.cern.ch/reference/rest_api_drafts_records/.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from lung_nodule_ct.errors import DownloadError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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
