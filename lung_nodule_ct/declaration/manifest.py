"""The files of a build by name, the version of their format, and the JSON of ``build.json``.

Version 3 stores with each config what readers need of its declaration: kind, texts, archives and columns. Version 2, which lacks them,
is read with the declaration of this package.

The manifest records size and SHA-256 of every file of the build: those of the shards with their configs, all others in ``files``. A file
cannot contain its own hash, so the last entry, ``sha256``, is the hash of the text of the manifest without this entry
(:func:`manifest_text`). Version 2 and earlier builds of version 3 have neither ``files`` nor ``sha256``.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import version
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from lung_nodule_ct.declaration import schema
from lung_nodule_ct.declaration.archives import Role
from lung_nodule_ct.declaration.configs import Config
from lung_nodule_ct.declaration.schema import Schema

if TYPE_CHECKING:
    from collections.abc import Mapping

DATASET_VERSION: Final = "2.0.0"
"""The version of the dataset, the same in every target. Examples of builds whose first number differs must not be joined."""
RELEASE_NOTES: Final = {
    "1.0.0": "First release.",
    "2.0.0": "Ids are sequence numbers (80-1 is the first scan of patient 80) instead of hashes of patient and date, so scan_id, "
    "image_id, case_id and nodule_id differ from those of 1.0.0. Names of unknown shape give no patient.",
}
FORMAT_VERSION: Final = 3
READABLE_VERSIONS: Final = (2, 3)
MANIFEST: Final = "build.json"
FINDINGS: Final = "findings.json"
GENERATOR: Final = f"lung_nodule_ct {version('lung_nodule_ct')}"
_OWN_HASH: Final = "sha256"
_SINCE_2: Final = ("files", _OWN_HASH, "dataset_version", "scan_numbers")
"""Entries that no build before release 2.0.0 has."""


class Format(StrEnum):
    """The file format of a build."""

    PARQUET = "parquet"
    ARROW = "arrow"
    TFRECORD = "tfrecord"
    ARRAY_RECORD = "array_record"

    @property
    def is_tfds(self) -> bool:
        """Whether TensorFlow Datasets reads it."""
        return self in (Format.TFRECORD, Format.ARRAY_RECORD)


class VolumeCodec(StrEnum):
    """How voxels are stored in Parquet and Arrow: as they are, or as blosc2 b2nd frames."""

    RAW = "raw"
    B2ND = "b2nd"


def to_json(document: Mapping[str, Any]) -> str:
    """Return a document as indented JSON with a newline at its end."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What a manifest records of a file.

    Attributes:
        size: Its length in bytes.
        sha256: Its SHA-256 in hexadecimal, ``None`` in the manifest of an earlier version.

    Raises:
        ValueError: The size is not a length, or the hash is not a SHA-256.
    """

    size: int
    sha256: str | None

    def __post_init__(self) -> None:
        if type(self.size) is not int or self.size < 0:
            raise ValueError(f"expected a length in bytes, got {self.size!r}")
        if self.sha256 is not None and not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(f"expected a SHA-256 of 64 hexadecimal digits, got {self.sha256!r}")

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON values."""
        return {"bytes": self.size, "sha256": self.sha256}


def manifest_text(document: Mapping[str, Any]) -> str:
    """Return the text of a manifest, with the hash of its content as the last entry.

    Args:
        document: The content. An earlier hash in it is ignored.

    Example:
        >>> text = manifest_text({"format_version": 3})
        >>> is_intact(text), is_intact(text.replace("3", "2", 1)), is_intact(text + " ")
        (True, False, False)
    """
    content = {key: value for key, value in document.items() if key != _OWN_HASH}
    return to_json({**content, _OWN_HASH: hashlib.sha256(to_json(content).encode()).hexdigest()})


def is_intact(text: str) -> bool:
    """Return whether the text of a manifest is, byte for byte, as :func:`manifest_text` returned it."""
    try:
        document = json.loads(text)
        return isinstance(document, dict) and manifest_text(document) == text
    except (ValueError, RecursionError):
        return False


def records_all_files(manifest: Mapping[str, Any]) -> bool:
    """Return whether a manifest is of the versions that record every file of the build and their own hash.

    Every entry that only these versions have shows it, so that no manifest passes as an earlier one because some were removed. One of
    format 2 that stores a declaration was not written as such.
    """
    if any(name in manifest for name in _SINCE_2):
        return True
    configs = manifest.get("configs")
    entries = configs.values() if isinstance(configs, dict) else ()
    return manifest.get("format_version") == 2 and any("columns" in entry for entry in entries)


def with_files(manifest: Mapping[str, Any], files: Mapping[str, FileRecord]) -> dict[str, Any]:
    """Return a manifest that records some files, by name, as those that are not shards."""
    return {**manifest, "files": {name: files[name].to_dict() for name in sorted(files)}}


def other_files(manifest: Mapping[str, Any]) -> dict[str, FileRecord]:
    """Return the records of the files that are not shards, by name; none in the manifest of an earlier version.

    Raises:
        ValueError: An entry is not a record.
        KeyError: Likewise.
        TypeError: Likewise.
    """
    return {name: FileRecord(entry["bytes"], entry["sha256"]) for name, entry in manifest.get("files", {}).items()}


def shard_files(manifest: Mapping[str, Any]) -> dict[str, FileRecord]:
    """Return the records of the shards, by name.

    Raises:
        ValueError: An entry is not a record.
        KeyError: Likewise.
        TypeError: Likewise.
    """
    entries = [entry for config in manifest["configs"].values() for entry in config["files"]]
    return {str(entry["path"]): FileRecord(entry["bytes"], entry.get("sha256")) for entry in entries}


def without_other_files(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a manifest states about the data themselves; commands that add files later do not change it."""
    return {key: value for key, value in manifest.items() if key not in ("files", _OWN_HASH)}


def stays_inside(name: str) -> bool:
    """Return whether a name is a relative path that does not lead out of its folder, in its plain spelling."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and path.as_posix() == name and "\0" not in name


def config_to_json(config: Config) -> dict[str, Any]:
    """Return what a manifest stores of a config; its splits are listed with their rows."""
    return {
        "kind": str(config.kind),
        "longitudinal": config.longitudinal,
        "summary": config.summary,
        "example": config.example,
        "task": config.task,
        "reads": [str(role) for role in config.reads],
        "context": [str(role) for role in config.context],
        "columns": schema.columns_to_json(config.schema.columns),
    }


def config_from_json(name: str, entry: Mapping[str, Any]) -> Config:
    """Return the config that a manifest describes.

    Args:
        name: Its name.
        entry: Its entry in a manifest of version 3: what :func:`config_to_json` wrote, and ``rows`` by split.

    Raises:
        ValueError: The entry does not describe a config.
        KeyError: Likewise.
        TypeError: Likewise.
    """
    return Config(
        name=name,
        kind=entry["kind"],
        summary=entry["summary"],
        example=entry["example"],
        reads=tuple(map(Role, entry["reads"])),
        context=tuple(map(Role, entry["context"])),
        schema=Schema(schema.columns_from_json(entry["columns"])),
        splits=tuple(entry["rows"]),
        task=entry["task"],
        longitudinal=bool(entry["longitudinal"]),
    )
