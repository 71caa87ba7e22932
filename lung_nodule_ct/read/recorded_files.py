"""What the manifest of a build records of its files, and which other files a reader would load."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from lung_nodule_ct.declaration.manifest import (
    FileRecord,
    is_intact,
    other_files,
    records_all_files,
    shard_files,
    stays_inside,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

CARD: Final = "README.md"
MAX_HEAD_BYTES: Final = 1 << 16
"""How much of a card is needed to see whether it has metadata."""
NOT_A_MANIFEST: Final = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""What :meth:`RecordedFiles.parse` raises for a text that is not a manifest."""
_SHARD = re.compile(r".+\.(parquet|arrow|(tfrecord|array_record)(-.*)?)", re.IGNORECASE)
_CACHE = re.compile(r"cache-.+\.arrow")
"""What ``datasets`` writes next to the Arrow files of a user who maps or filters them."""
_INTERPRETED = frozenset(
    {".huggingface.yaml", "dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json", "features.json"}
)
"""Files by which ``datasets`` and TFDS find and describe the shards."""
_FRONT_MATTER = re.compile(rb"(?:\xef\xbb\xbf)?\s*---[ \t]*[\r\n]")
"""The beginning of a card whose metadata ``datasets`` reads: which files are the shards of which config and split."""


@dataclass(frozen=True)
class RecordedFiles:
    """What verification uses of a manifest.

    Attributes:
        version: Its version.
        is_complete: Whether it records every file and its own hash.
        is_intact: Whether its text is as it was written.
        shards: The recorded shards, by name.
        others: The other recorded files, by name.
    """

    version: Any
    is_complete: bool
    is_intact: bool
    shards: Mapping[str, FileRecord]
    others: Mapping[str, FileRecord]

    @classmethod
    def parse(cls, content: bytes) -> RecordedFiles:
        """Read the text of a manifest.

        Raises:
            ValueError: It is not a manifest, or contradicts itself.
            TypeError: Likewise.
            KeyError: Likewise.
            AttributeError: Likewise.
            RecursionError: Likewise.
        """
        text = content.decode()
        document = json.loads(text)
        is_complete = records_all_files(document)
        if is_complete:
            _require_consistent(document)
        manifest = cls(
            document.get("format_version"),
            is_complete,
            is_intact(text),
            shard_files(document),
            other_files(document),
        )
        if outside := [name for name in manifest.records if not stays_inside(name)]:
            raise ValueError(f"{outside[0]!r} is not a path inside the build")
        return manifest

    @property
    def records(self) -> dict[str, FileRecord]:
        """All recorded files, by name."""
        return {**self.shards, **self.others}

    def sort_unrecorded(
        self, names: Collection[str], card_head: Callable[[], bytes]
    ) -> tuple[list[str], tuple[str, ...]]:
        """Sort the files that the manifest does not record.

        Args:
            names: Their names.
            card_head: Reads the beginning of the card, if it is one of them.

        Returns:
            Those that a reader would load, and those of others.
        """
        tops = {name.partition("/")[0] for name in self.shards}
        interpreted = _INTERPRETED if self.is_complete else frozenset[str]()
        loaded = {name for name in names if _is_loaded(name, tops, interpreted)}
        if self.is_complete and CARD in names and _FRONT_MATTER.match(card_head()):
            loaded.add(CARD)
        return sorted(loaded), tuple(sorted(set(names) - loaded))


def _require_consistent(document: Mapping[str, Any]) -> None:
    """Check that a manifest of release 2.0.0 or later records the hash of every file, and does not contradict itself.

    Raises:
        ValueError: It does not, or contradicts itself.
        KeyError: An entry is missing.
    """
    shards, others = shard_files(document), other_files(document)
    if "files" not in document:
        raise ValueError("the entry 'files' is missing")
    if without := [name for name, record in {**shards, **others}.items() if record.sha256 is None]:
        raise ValueError(f"no hash of {without[0]} is recorded")
    names = [file["path"] for config in document["configs"].values() for file in config["files"]]
    if twice := [name for name, count in Counter([*names, *others]).items() if count > 1]:
        raise ValueError(f"{twice[0]} is recorded twice")
    for config, entry in document["configs"].items():
        rows: Counter[str] = Counter()
        for file in entry["files"]:
            rows[file["split"]] += file["rows"]
            if not re.search(rf"(?:^|[/-]){re.escape(file['split'])}(?=[-./])", file["path"]):
                raise ValueError(f"{file['path']} is recorded as a file of the split {file['split']}")
        if dict(rows) != dict(entry["rows"]):
            raise ValueError(f"{config} has {dict(entry['rows'])} rows, and its files have {dict(rows)}")


def _is_loaded(name: str, tops: set[str], interpreted: Collection[str]) -> bool:
    """Whether a reader would use a file that the manifest does not record: a shard, or a file that says what the shards are."""
    folder, _, file_name = name.rpartition("/")
    if file_name in interpreted and (not folder or folder.partition("/")[0] in tops):
        return True
    if not _SHARD.fullmatch(file_name) or _CACHE.fullmatch(file_name):
        return False
    return folder.partition("/")[0] in tops
