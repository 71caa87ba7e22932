"""The folder of a job on a cluster, which the submitting machine and the workers share: a manifest of the shards, and a record of each finished one.

The graph of the job holds numbers of shards, and nothing else. A worker reads its shard in the manifest, writes it to a folder of its own, and
renames it, so that a shard is complete even if two workers write it at the same time. If the job ends early, its folder stays: the next
job with the same plan keeps the shards whose files still have the recorded size and SHA-256.
"""

from __future__ import annotations

import hashlib
import pickle
import platform
import shutil
import struct
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import pyarrow as pa

from lung_nodule_ct.errors import LungNoduleCTError, OutputError
from lung_nodule_ct.system.files import file_hash
from lung_nodule_ct.system.progress import notice
from lung_nodule_ct.targets.prepared_cache import code_hash
from lung_nodule_ct.targets.shards import Shard, WrittenShard, unpublished, write_shard

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lung_nodule_ct.targets.shards import ShardLayout

_MANIFEST: Final = "manifest"
_OFFSETS: Final = "offsets"
_OFFSET: Final = struct.Struct("<Q")
_ATTEMPTS: Final = 3


@dataclass(frozen=True)
class ShardRecord:
    """What a worker states about a shard.

    Attributes:
        result: The file that was written, its shard without units; or the error why there is none.
        retried: The errors of the attempts before, in words.
    """

    result: WrittenShard | LungNoduleCTError
    retried: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """The shards of one config, in a folder that all machines can write.

    Files and records are named by the plan of their shard: the SHA-256 of its entry in the manifest, which includes the members that it is
    made from with their checksums, the options, and the version of the code. What another plan left in the folder is therefore never used.

    Attributes:
        folder: The folder, under the same path on every machine.
    """

    folder: Path

    def submit(self, layout: ShardLayout, shards: Sequence[Shard]) -> list[str]:
        """Write the manifest, one shard after the other, and return the plan of each shard.

        Raises:
            OSError: The folder cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        shared = pickle.dumps((_versions(), pickle.dumps((layout, replace(shards[0], units=())))))
        plans = []
        new = {name: self.folder / f"{name}-{uuid4().hex}" for name in (_MANIFEST, _OFFSETS)}
        with new[_MANIFEST].open("wb") as manifest, new[_OFFSETS].open("wb") as offsets:
            offsets.write(_OFFSET.pack(manifest.write(shared)))
            for shard in shards:
                entry = pickle.dumps((shard.split, shard.index, shard.count, shard.units))
                manifest.write(entry)
                offsets.write(_OFFSET.pack(manifest.tell()))
                plans.append(_plan(shared, entry))
        for name, path in new.items():
            path.replace(self.folder / name)
        return plans

    def write(self, number: int) -> None:
        """Write a shard, unless its file is as an earlier job recorded it. This is what a worker does.

        An error of this package becomes the record, since a runner would repeat it without need and wrap it. What may pass, as an error of the file
        system or of a server, is tried again first.

        Raises:
            OutputError: The folder cannot be read or written on this machine.
        """
        try:
            shared, entry = self._read(number)
            plan = _plan(shared, entry)
            if self._is_finished(plan):
                return
            retried: tuple[str, ...] = ()
            while (failed := self._attempt(plan, shared, entry, retried)) is not None:
                retried = (*retried, failed)
                time.sleep(len(retried))
        except OSError as error:
            raise OutputError(
                f"the worker {platform.node()} cannot use the folder of the job, {self.folder}: {error}",
                remedy="give the output on a file system that all workers share under the same path",
            ) from error

    def record(self, plan: str) -> ShardRecord | None:
        """Return the record of a shard, ``None`` if there is none that can be read."""
        try:
            record = pickle.loads(self._record_of(plan).read_bytes())  # noqa: S301 -- written by a worker of this build
        except (OSError, EOFError, pickle.UnpicklingError):
            return None
        return record if isinstance(record, ShardRecord) else None

    def collect(self, plan: str, shard: Shard, stage: Path) -> WrittenShard:
        """Add a finished shard to the folder of a build. It also stays in this one, where the file system has hard links.

        Raises:
            LungNoduleCTError: The worker met it.
            OutputError: The shard was not written, or its file does not have the recorded size.
        """
        record = self.record(plan)
        result = None if record is None else record.result
        if isinstance(result, LungNoduleCTError):
            raise result
        file = self._file_of(plan)
        size = _size(file)
        if record is None or result is None or size != result.file_bytes:
            raise OutputError(
                f"shard {shard.number} of {shard.config.name}, {shard.split}, is not in the folder of the job, {self.folder}",
                expected="the record of a worker" if result is None else f"a file of {result.file_bytes:,} bytes",
                got="none" if size is None else f"{size:,} bytes",
                remedy="give an output on a file system that all workers share under the same path, and run the command again",
            )
        if record.retried:
            notice(f"{result.path}: written at attempt {len(record.retried) + 1}; {record.retried[-1]}")
        target = unpublished(stage / result.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            target.hardlink_to(file)
        except OSError:
            file.replace(target)
        return replace(result, shard=shard)

    def keep_finished(self) -> bool:
        """Remove the folder if no shard is finished, and return whether one is. A folder of jobs without any is removed as well."""
        if any(self.folder.glob("*.shard")):
            return True
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):
            self.folder.parent.rmdir()  # only if it is empty
        return False

    def _read(self, number: int) -> tuple[bytes, bytes]:
        """What all entries of the manifest share, and the entry of a shard."""
        with (self.folder / _OFFSETS).open("rb") as offsets:
            (end_of_shared,) = _OFFSET.unpack(offsets.read(_OFFSET.size))
            offsets.seek(number * _OFFSET.size)
            start, end = (_OFFSET.unpack(offsets.read(_OFFSET.size))[0] for _ in range(2))
        with (self.folder / _MANIFEST).open("rb") as manifest:
            shared = manifest.read(end_of_shared)
            manifest.seek(start)
            return shared, manifest.read(end - start)

    def _is_finished(self, plan: str) -> bool:
        """Whether an earlier job wrote the file of a shard, and it is as it was."""
        record, file = self.record(plan), self._file_of(plan)
        return (
            record is not None
            and isinstance(record.result, WrittenShard)
            and _size(file) == record.result.file_bytes
            and file_hash(file, "sha256") == record.result.sha256
        )

    def _attempt(self, plan: str, shared: bytes, entry: bytes, retried: tuple[str, ...]) -> str | None:
        """Write a shard and its record, under final names at the end; or return the error, if another attempt may succeed."""
        folder = self.folder / f"attempt-{uuid4().hex}"
        folder.mkdir()
        result: WrittenShard | LungNoduleCTError
        try:
            try:
                result = _write(shared, entry, folder)
                unpublished(folder / result.path).replace(self._file_of(plan))
            except LungNoduleCTError as error:
                if isinstance(error, OSError) and len(retried) + 1 < _ATTEMPTS:
                    return str(error)
                result = error
            record = folder / "record"
            record.write_bytes(pickle.dumps(ShardRecord(result, retried)))
            record.replace(self._record_of(plan))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return None

    def _file_of(self, plan: str) -> Path:
        return self.folder / f"{plan}.shard"

    def _record_of(self, plan: str) -> Path:
        return self.folder / f"{plan}.record"


def _write(shared: bytes, entry: bytes, folder: Path) -> WrittenShard:
    """Write the shard of an entry of the manifest.

    Raises:
        OutputError: This worker has another version of the code than the submitting machine.
    """
    versions, content = pickle.loads(shared)  # noqa: S301 -- written by the submitting machine
    if versions != _versions():
        raise OutputError(
            f"the worker {platform.node()} has other packages than the submitting machine",
            expected=versions,
            got=_versions(),
            remedy="install the same version of this package and of pyarrow on all workers",
        )
    layout, template = pickle.loads(content)  # noqa: S301
    split, index, count, units = pickle.loads(entry)  # noqa: S301
    shard = replace(template, split=split, index=index, count=count, units=units)
    return replace(write_shard(layout, shard, folder, prefetch=0), shard=template)


def _versions() -> str:
    return f"lung_nodule_ct {code_hash()}, pyarrow {pa.__version__}"


def _plan(shared: bytes, entry: bytes) -> str:
    return hashlib.sha256(hashlib.sha256(shared).digest() + entry).hexdigest()


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
