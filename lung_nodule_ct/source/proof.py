"""That a file in the cache is the record's: what it was when its hashes were taken stands beside it, ``<name>.proof``.

A file of another size or time than its proof, or without one, is hashed again; so is one whose pinned SHA-256 was never taken.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.system.files import hash_of, write_whole

if TYPE_CHECKING:
    from lung_nodule_ct.source.record import RecordFile


def wanted_hashes(file: RecordFile, sha256: str | None) -> dict[str, str]:
    """What a file must have: the md5 of its record, and the SHA-256 where one is pinned."""
    return {"md5": file.md5, **({"sha256": sha256} if sha256 else {})}


def is_proven(path: Path, file: RecordFile, sha256: str | None) -> bool:
    """Whether what stands at ``path`` is the record's file.

    Args:
        path: Where it is.
        file: What it should be.
        sha256: What it must have beside the md5.
    """
    try:
        if path.stat().st_size != file.size:
            return False
        wanted = wanted_hashes(file, sha256)
        known = _read(path)
        missing = [kind for kind in wanted if kind not in known]
        taken = {**known, **{kind: hash_of(path, kind) for kind in missing}}
    except OSError:
        return False
    if missing:
        write_proof(path, taken)
    return all(taken[kind] == value for kind, value in wanted.items())


def write_proof(path: Path, hashes: dict[str, str]) -> None:
    """Note the hashes of a file as it is; a cache that cannot be written goes without."""
    with suppress(OSError):
        write_whole(_beside(path), json.dumps({**_state(path), "hashes": hashes}))


def _read(path: Path) -> dict[str, str]:
    """The hashes that were taken of a file, as far as it is still what it was."""
    with suppress(OSError, ValueError, TypeError, AttributeError):
        proof = json.loads(_beside(path).read_text(encoding="utf-8"))
        if {key: proof.get(key) for key in ("size", "mtime_ns")} == _state(path):
            return dict(proof["hashes"])
    return {}


def _state(path: Path) -> dict[str, Any]:
    stat = path.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.proof")
