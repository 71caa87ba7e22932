"""The files of a build by name, the version of their format, and the JSON of ``build.json``.

Version 3 stores with each config what readers need of its declaration: kind, texts, archives and columns. Version 2, which lacks them,
is read with the declaration of this package.
"""

from __future__ import annotations

import json
from enum import StrEnum
from importlib.metadata import version
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
    """How voxels are stored in Parquet: as they are, or as blosc2 b2nd frames."""

    RAW = "raw"
    B2ND = "b2nd"


def to_json(document: Mapping[str, Any]) -> str:
    """Return a document as indented JSON with a newline at its end."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


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
