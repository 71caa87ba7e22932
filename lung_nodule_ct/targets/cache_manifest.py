"""The manifest of a cache that Hugging Face ``datasets`` prepared: size and SHA-256 of its files.

``datasets`` writes the shards itself, in one process per job, and renames them at the end. They are hashed while they are written, and
found again by their inode number, which a rename does not change.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from typing import TYPE_CHECKING

from lung_nodule_ct.declaration.manifest import (
    FORMAT_VERSION,
    GENERATOR,
    MANIFEST,
    FileRecord,
    manifest_text,
    with_files,
)
from lung_nodule_ct.read.verification import files_in
from lung_nodule_ct.system.files import file_hash

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_PART = "hashes-{}.part"


class ShardHashes:
    """The hashes of the shards of one job."""

    def __init__(self) -> None:
        self._digests: defaultdict[Path, hashlib._Hash] = defaultdict(hashlib.sha256)

    def update(self, path: Path, piece: bytes) -> None:
        """Add the next bytes of a shard."""
        self._digests[path].update(piece)

    def save(self, folder: Path) -> None:
        """Save the hashes as a small file in the folder of the shards, which are complete; any process may call it."""
        hashes = {path.stat().st_ino: digest.hexdigest() for path, digest in self._digests.items()}
        if hashes:
            (folder / _PART.format(min(hashes))).write_text(json.dumps(hashes), encoding="utf-8")


def collect_hashes(folder: Path) -> dict[int, str]:
    """Return the saved SHA-256 of every shard by its inode number; the files are removed."""
    hashes: dict[int, str] = {}
    for path in folder.glob(_PART.format("*")):
        hashes |= {int(inode): sha256 for inode, sha256 in json.loads(path.read_text(encoding="utf-8")).items()}
        path.unlink()
    return hashes


def write_cache_manifest(folder: Path, hashes: Mapping[int, str]) -> None:
    """Write ``build.json`` with the records of all files of a prepared cache.

    Args:
        folder: The folder, complete except for this file.
        hashes: What :func:`collect_hashes` returned; files that it lacks are hashed now.
    """
    records = {}
    for name in files_in(folder):
        stat = (folder / name).stat()
        records[name] = FileRecord(stat.st_size, hashes.get(stat.st_ino) or file_hash(folder / name, "sha256"))
    document = {"format_version": FORMAT_VERSION, "generator": GENERATOR, "format": "datasets", "configs": {}}
    (folder / MANIFEST).write_bytes(manifest_text(with_files(document, records)).encode())
