"""The folder of a job on a cluster, which the submitting machine and the workers share: a manifest of the shards, and a record of each finished one.

The graph of the job holds numbers of shards, and nothing else. A worker reads its shard in the manifest, writes it to a folder of its own, and
then publishes it in one step, so that a shard is complete even if two workers write it at the same time. If the job ends early, its folder
stays: the next job with the same plan keeps the shards whose files still have the recorded size and SHA-256.
"""

from __future__ import annotations

import hashlib
import pickle
import platform
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from lung_nodule_ct.errors import LungNoduleCTError, OutputError
from lung_nodule_ct.system.object_store import ObjectFolder
from lung_nodule_ct.system.progress import notice
from lung_nodule_ct.targets.job_files import SharedFiles, StoredFiles
from lung_nodule_ct.targets.prepared_cache import code_hash
from lung_nodule_ct.targets.shards import Shard, WrittenShard, unpublished, write_shard

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lung_nodule_ct.targets.job_files import JobFiles
    from lung_nodule_ct.targets.shards import ShardLayout

_MANIFEST: Final = "manifest"
_OFFSETS: Final = "offsets"
_OFFSET: Final = struct.Struct("<Q")
_ATTEMPTS: Final = 3
_QUESTIONS: Final = 8
_SHARD: Final = ".shard"
_RECORD: Final = ".record"
_REMEDY: Final = "give the output on a file system that all workers share under the same path, or at a URL that all of them can write"


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
    """The shards of one config, in a folder that all machines can write, or at a URL.

    Files and records are named by the plan of their shard: the SHA-256 of its entry in the manifest, which includes the members that it is
    made from with their checksums, the options, and the version of the code. What another plan left in the folder is therefore never used.

    Attributes:
        folder: The folder, under the same path or URL on every machine.
    """

    folder: Path | ObjectFolder

    @property
    def _files(self) -> JobFiles:
        return StoredFiles(self.folder) if isinstance(self.folder, ObjectFolder) else SharedFiles(self.folder)

    def submit(self, layout: ShardLayout, shards: Sequence[Shard]) -> list[str]:
        """Write the manifest, one shard after the other, and return the plan of each shard.

        Raises:
            OSError: The folder cannot be written.
        """
        shared = pickle.dumps((_versions(), pickle.dumps((layout, replace(shards[0], units=())))))
        plans = []
        with self._files.workplace() as place:
            with (place / _MANIFEST).open("wb") as manifest, (place / _OFFSETS).open("wb") as offsets:
                offsets.write(_OFFSET.pack(manifest.write(shared)))
                for shard in shards:
                    entry = pickle.dumps((shard.split, shard.index, shard.count, shard.units))
                    manifest.write(entry)
                    offsets.write(_OFFSET.pack(manifest.tell()))
                    plans.append(_plan(shared, entry))
            for name in (_MANIFEST, _OFFSETS):
                self._files.publish(place / name, name)
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
            if self.finished(plan) is not None:
                return
            retried: tuple[str, ...] = ()
            while (failed := self._attempt(plan, shared, entry, retried)) is not None:
                retried = (*retried, failed)
                time.sleep(len(retried))
        except OSError as error:
            raise OutputError(
                f"the worker {platform.node()} cannot use the folder of the job, {self.folder}: {error}",
                remedy=_REMEDY,
            ) from error

    def record(self, plan: str) -> ShardRecord | None:
        """Return the record of a shard, ``None`` if there is none that can be read."""
        try:
            record = pickle.loads(self._files.read(plan + _RECORD))  # noqa: S301 -- written by a worker of this build
        except (OSError, EOFError, pickle.UnpicklingError):
            return None
        return record if isinstance(record, ShardRecord) else None

    def finished(self, plan: str) -> WrittenShard | None:
        """Return what an earlier job wrote of a shard, without its units; ``None`` if its file is missing or was changed.

        Raises:
            OSError: The file cannot be read.
        """
        record, file = self.record(plan), plan + _SHARD
        result = None if record is None else record.result
        if not isinstance(result, WrittenShard) or self._files.size(file) != result.file_bytes:
            return None
        return result if self._files.sha256(file) == result.sha256 else None

    def add(self, plan: str, written: WrittenShard, stage: Path) -> WrittenShard:
        """Move a shard that this machine wrote from a stage to a job at a URL, add its record, and state its place.

        Raises:
            OSError: The folder of the job cannot be written.
        """
        path = unpublished(stage / written.path)
        self._files.publish(path, plan + _SHARD)
        with self._files.workplace() as place:
            self._add_record(plan, ShardRecord(replace(written, shard=replace(written.shard, units=()))), place)
        url = self._files.collect(plan + _SHARD, path)
        path.unlink()
        return replace(written, url=url)

    def collect(self, plan: str, shard: Shard, stage: Path) -> WrittenShard:
        """Add a finished shard to the folder of a build. One at a URL stays there, and its place is stated.

        Raises:
            LungNoduleCTError: The worker met it.
            OutputError: The shard was not written, or its file does not have the recorded size.
        """
        record = self.record(plan)
        result = None if record is None else record.result
        if isinstance(result, LungNoduleCTError):
            raise result
        size = self._files.size(plan + _SHARD)
        if record is None or result is None or size != result.file_bytes:
            raise OutputError(
                f"shard {shard.number} of {shard.config.name}, {shard.split}, is not in the folder of the job, {self.folder}",
                expected="the record of a worker" if result is None else f"a file of {result.file_bytes:,} bytes",
                got="none" if size is None else f"{size:,} bytes",
                remedy=f"{_REMEDY}; then run the command again",
            )
        if record.retried:
            notice(f"{result.path}: written at attempt {len(record.retried) + 1}; {record.retried[-1]}")
        target = unpublished(stage / result.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        return replace(result, shard=shard, url=self._files.collect(plan + _SHARD, target))

    def collect_all(self, plans: Sequence[str], shards: Sequence[Shard], stage: Path) -> Iterator[WrittenShard]:
        """Collect all shards, in order. At a URL every question takes a while, so several are asked at a time.

        Raises:
            LungNoduleCTError: A worker met it; that of the first shard in the order.
            OutputError: A shard was not written, or its file does not have the recorded size.
        """
        if not isinstance(self.folder, ObjectFolder):
            yield from map(self.collect, plans, shards, repeat(stage))
            return
        with ThreadPoolExecutor(_QUESTIONS) as pool:
            yield from pool.map(self.collect, plans, shards, repeat(stage))

    def keep_finished(self) -> bool:
        """Remove the folder if no shard is finished, and return whether one is."""
        return self._files.remove_unless(_SHARD)

    def _read(self, number: int) -> tuple[bytes, bytes]:
        """What all entries of the manifest share, and the entry of a shard."""
        (end_of_shared,) = _OFFSET.unpack(self._files.read(_OFFSETS, 0, _OFFSET.size))
        start, end = struct.unpack(
            "<2Q", self._files.read(_OFFSETS, number * _OFFSET.size, (number + 2) * _OFFSET.size)
        )
        return self._files.read(_MANIFEST, 0, end_of_shared), self._files.read(_MANIFEST, start, end)

    def _attempt(self, plan: str, shared: bytes, entry: bytes, retried: tuple[str, ...]) -> str | None:
        """Write a shard and its record, under final names at the end; or return the error, if another attempt may succeed."""
        result: WrittenShard | LungNoduleCTError
        with self._files.workplace() as place:
            try:
                result = _write(shared, entry, place)
                self._files.publish(unpublished(place / result.path), plan + _SHARD)
            except LungNoduleCTError as error:
                if isinstance(error, OSError) and len(retried) + 1 < _ATTEMPTS:
                    return str(error)
                result = error
            self._add_record(plan, ShardRecord(result, retried), place)
        return None

    def _add_record(self, plan: str, record: ShardRecord, place: Path) -> None:
        path = place / "record"
        path.write_bytes(pickle.dumps(record))
        self._files.publish(path, plan + _RECORD)


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
