"""The caches of Hugging Face ``datasets`` that this package prepares: which one is used, how a new one appears, its findings and its manifest.

``datasets`` writes the shards itself, in one process per job, and renames them at the end. They are hashed while they are written, and
found again by their inode number, which a rename does not change.

``datasets`` takes every folder next to a cache for another cache, also the folder ``<hash>.incomplete`` that it fills. A new cache is therefore
filled in a hidden folder, which ``datasets`` does not look at, and renamed when it is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections import defaultdict
from contextlib import contextmanager, suppress
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from fsspec import AbstractFileSystem, register_implementation

from lung_nodule_ct.declaration.findings import Finding, FindingCollector
from lung_nodule_ct.declaration.manifest import (
    FINDINGS,
    FORMAT_VERSION,
    GENERATOR,
    MANIFEST,
    FileRecord,
    manifest_text,
    with_files,
)
from lung_nodule_ct.errors import LungNoduleCTError, OutputError
from lung_nodule_ct.examples.report import Pixels, same_pixels
from lung_nodule_ct.read.verification import files_in
from lung_nodule_ct.system.disk_writes import DirectFile
from lung_nodule_ct.system.files import file_hash
from lung_nodule_ct.system.processes import LockFile
from lung_nodule_ct.system.staging import exclusive, real_path, replace_folder, sweep, temporary_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


_FINDINGS_PART = "findings-{}.part"
_HASHES_PART = "hashes-{}.part"


class ShardHashes:
    """The hashes of the shards of one job."""

    def __init__(self) -> None:
        self._digests: defaultdict[Path, hashlib._Hash] = defaultdict(hashlib.sha256)

    def update(self, path: Path, piece: Any) -> None:
        """Add the next bytes of a shard."""
        self._digests[path].update(piece)

    def save(self, folder: Path) -> None:
        """Save the hashes as a small file in the folder of the shards, which are complete; any process may call it."""
        hashes = {path.stat().st_ino: digest.hexdigest() for path, digest in self._digests.items()}
        if hashes:
            (folder / _HASHES_PART.format(min(hashes))).write_text(json.dumps(hashes), encoding="utf-8")


class DirectFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Local files that are written past the page cache, and hashed meanwhile. ``datasets`` opens its shards with fsspec, by their URLs."""

    protocol = "lung-nodule-ct-direct"
    cachable = False
    _jobs: ClassVar[dict[str, ShardHashes]] = {}

    @classmethod
    @contextmanager
    def job(cls, pattern: str) -> Iterator[tuple[str, ShardHashes]]:
        """Yield the URL under which a job writes its shards, and their hashes.

        Args:
            pattern: The path of a shard, with ``SSSSS`` for its number.
        """
        hashes = cls._jobs[os.path.dirname(pattern)] = ShardHashes()  # noqa: PTH120 -- as the paths that datasets makes of the pattern
        try:
            yield f"{cls.protocol}://{pattern}", hashes
        finally:
            cls._jobs.pop(os.path.dirname(pattern), None)  # noqa: PTH120

    def _open(self, path: str, mode: str = "rb", **_: Any) -> DirectFile:
        del mode  # no file is read
        hashes = self._jobs[os.path.dirname(path)]  # noqa: PTH120
        return DirectFile(Path(path), partial(hashes.update, Path(path)))


register_implementation(DirectFileSystem.protocol, DirectFileSystem, clobber=True)


def collect_hashes(folder: Path) -> dict[int, str]:
    """Return the saved SHA-256 of every shard by its inode number; the files are removed."""
    hashes: dict[int, str] = {}
    for path in folder.glob(_HASHES_PART.format("*")):
        hashes |= {int(inode): sha256 for inode, sha256 in json.loads(path.read_text(encoding="utf-8")).items()}
        path.unlink()
    return hashes


def save_findings(
    folder: Path, position: int, batch: int, findings: Sequence[Finding], pixels: Sequence[Pixels]
) -> None:
    """Save the findings of a piece of work as a small file; any process may call it.

    Args:
        folder: The folder.
        position: Position in the plan, from 1, of the first unit that they belong to; 0 for the plan itself.
        batch: Number of the batch in its process, which distinguishes batches of one unit.
        findings: The findings.
        pixels: The keys of the pixels of the examples.
    """
    part = {"findings": [finding.to_dict() for finding in findings], "pixels": list(pixels)}
    path = folder / _FINDINGS_PART.format(f"{position:09d}-{batch:09d}")
    path.write_text(json.dumps(part), encoding="utf-8")


def collect_findings(folder: Path) -> tuple[Finding, ...]:
    """All saved findings in the order of the plan, with those about equal pixels; the files are removed."""
    report = FindingCollector()
    pixels: list[Pixels] = []
    for path in sorted(folder.glob(_FINDINGS_PART.format("*"))):
        part = json.loads(path.read_text(encoding="utf-8"))
        report.extend(map(Finding.from_dict, part["findings"]))
        pixels += [Pixels(*entry) for entry in part["pixels"]]
        path.unlink()
    report.extend(same_pixels(pixels))
    return report.findings


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


_INFO: Final = "dataset_info.json"
_HASH: Final = r"[0-9a-f]{16}-(?:[0-9a-f]{16}|none)"
_INCOMPLETE: Final = ".incomplete"
_NOT_HASHED = frozenset({"cli", "train", "preview", "publish", "torch"})
"""Rooms that do not affect what is built. A change in any other room makes prepared caches stale."""


def latest_cache(folder: Path, code_hash: str) -> Path | None:
    """Return the latest complete cache of some code in the folder of a config; ``None`` if there is none."""
    if not folder.is_dir():
        return None
    complete = [
        path
        for path in folder.iterdir()
        if re.fullmatch(_HASH, path.name) and path.name.startswith(f"{code_hash}-") and (path / _INFO).is_file()
    ]
    return max(complete, key=lambda path: (path / _INFO).stat().st_mtime, default=None)


def source_of_cache(cache: Path) -> str | None:
    """Return the folder of archives that a cache was prepared from, ``None`` if it was prepared from the records."""
    try:
        report = json.loads((cache / FINDINGS).read_text(encoding="utf-8"))
        folder: str | None = None if report.get("records") else report.get("source")
    except (OSError, ValueError):
        return None
    return folder


@contextmanager
def new_cache(target: Path, *, reuse: bool) -> Iterator[Path | None]:
    """Yield the path of a folder to create, which becomes ``target`` if the block ends without an error.

    Args:
        target: The folder of the cache.
        reuse: Yield ``None`` if there is a complete cache, also if another process prepares it meanwhile.

    Raises:
        OutputError: The cache cannot be written.
    """
    if reuse and (target / _INFO).is_file():
        sweep(real_path(target))
        yield None
        return
    with exclusive(target) as folder:
        _remove_incomplete(folder)
        if reuse and (folder / _INFO).is_file():
            yield None
            return
        with temporary_folder(folder) as stage:
            try:
                yield stage / folder.name
            except LungNoduleCTError:
                raise
            except OSError as error:
                raise OutputError(f"the cache {target} cannot be written: {error}") from error
            replace_folder(stage / folder.name, folder)


def _remove_incomplete(folder: Path) -> None:
    """Remove the folders that ``datasets`` did not complete, unless a running process holds their lock."""
    pattern = re.compile(rf"({_HASH}|{re.escape(folder.name)}){re.escape(_INCOMPLETE)}")
    for path in [path for path in folder.parent.iterdir() if pattern.fullmatch(path.name)]:
        lock = path.with_name(f"{path.name.removesuffix(_INCOMPLETE)}_builder.lock")
        with suppress(OSError), LockFile(lock) as held:
            if held.try_acquire():
                shutil.rmtree(path)


@cache
def code_hash() -> str:
    """A hash of the code that decides what is built: 16 hexadecimal digits."""
    return hash_of_code(Path(str(files("lung_nodule_ct"))))


def hash_of_code(package: Path) -> str:
    """A hash of the names and contents of all Python files of a package, sub-folders included, except for ``_NOT_HASHED``.

    Args:
        package: The folder of the package.

    Returns:
        16 hexadecimal digits, the same wherever the package is installed.
    """
    digest = hashlib.sha256()
    names = sorted(path.relative_to(package).as_posix() for path in package.rglob("*.py"))
    for name in names:
        if name.partition("/")[0] not in _NOT_HASHED:
            digest.update(f"{name}\0".encode() + (package / name).read_bytes())
    return digest.hexdigest()[:16]
