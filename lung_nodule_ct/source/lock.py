"""``archives.lock``: what the records held when a maintainer looked, so that a record that changes is noticed.

JSON: for each record its licence, DOI and files with size, md5 and, where the file was downloaded, our own SHA-256.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.errors import DownloadError, SourceError

if TYPE_CHECKING:
    from lung_nodule_ct.source.record import Record

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
