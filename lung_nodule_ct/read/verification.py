"""The files of a build, compared with the sizes and hashes in its manifest: in any format, without reading the data themselves.

Every file of the build is either as it was written, or a fault. A file that the manifest does not record belongs to the user and is only
listed, unless it is among the shards, where a reader would load it.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.declaration.manifest import (
    MANIFEST,
    FileRecord,
    is_intact,
    other_files,
    records_all_files,
    shard_files,
    stays_inside,
)
from lung_nodule_ct.errors import BuildFolderError
from lung_nodule_ct.read.sidecars import record_file, recorded_sidecars
from lung_nodule_ct.system.files import file_hash
from lung_nodule_ct.system.progress import BuildProgress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_SHARD = re.compile(r".+\.(parquet|arrow|(tfrecord|array_record)(-.*)?)", re.IGNORECASE)
_CACHE = re.compile(r"cache-.+\.arrow")
"""What ``datasets`` writes next to the Arrow files of a user who maps or filters them."""
_TASK = "verifying"
_MAX_NAMES = 5
_THREADS = 4


class FaultKind(StrEnum):
    """What is wrong with a file of a build."""

    MANIFEST = "manifest"
    MISSING = "missing"
    CHANGED = "changed"
    RENAMED = "renamed"
    SWAPPED = "swapped"
    ADDED = "added"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Fault:
    """A difference between a build and its manifest.

    Attributes:
        kind: What is wrong.
        path: The file, relative to the build.
        expected: What the manifest records.
        got: What is there.
        remedy: What to do about it.
    """

    kind: FaultKind
    path: str
    expected: str
    got: str
    remedy: str

    def __str__(self) -> str:
        return str(self.error())

    def error(self) -> BuildFolderError:
        """The fault as an error."""
        return BuildFolderError(f"{self.kind}: {self.path}", expected=self.expected, got=self.got, remedy=self.remedy)

    def to_dict(self) -> dict[str, str]:
        """The fault as JSON values."""
        return {
            "kind": str(self.kind),
            "path": self.path,
            "expected": self.expected,
            "got": self.got,
            "remedy": self.remedy,
        }


@dataclass(frozen=True)
class Verification:
    """The result of :func:`verify`.

    Attributes:
        folder: The build.
        files: Number of files whose size and SHA-256 are those of the manifest, the manifest included if it has its own hash.
        num_bytes: Their size.
        faults: What differs.
        foreign: Files that do not belong to the build and that no reader loads.
        unproven: What the manifest of an earlier version cannot prove, one sentence each.
        manifest_sha256: The SHA-256 of ``build.json``. Two builds with the same value are equal, and a value that was published or noted
            proves that the manifest itself was not replaced.
    """

    folder: Path
    files: int
    num_bytes: int
    faults: tuple[Fault, ...]
    foreign: tuple[str, ...]
    unproven: tuple[str, ...]
    manifest_sha256: str

    @property
    def is_sound(self) -> bool:
        """Whether there is no fault."""
        return not self.faults

    def raise_faults(self) -> None:
        """Raise the first fault, if there is one.

        Raises:
            BuildFolderError: There is a fault.
        """
        if self.faults:
            more = f" (and {len(self.faults) - 1} more files)" if len(self.faults) > 1 else ""
            first = self.faults[0]
            raise BuildFolderError(
                f"{self.folder} is not as it was built: {first.kind}: {first.path}{more}",
                expected=first.expected,
                got=first.got,
                remedy=first.remedy,
            )

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        return {
            "folder": str(self.folder),
            "sound": self.is_sound,
            "files": self.files,
            "bytes": self.num_bytes,
            "faults": [fault.to_dict() for fault in self.faults],
            "not_of_this_build": list(self.foreign),
            "unproven": list(self.unproven),
            "manifest_sha256": self.manifest_sha256,
        }


def verify(folder: str | os.PathLike[str], progress: BuildProgress | None = None) -> Verification:
    """Compare every file of a build, of any format, with the manifest of the build.

    Args:
        folder: The folder of the build.
        progress: Receives the progress, in bytes.

    Raises:
        BuildFolderError: There is no folder, or no manifest in it, or the folder cannot be listed.

    Example:
        >>> import lung_nodule_ct
        >>> from tempfile import mkdtemp
        >>> folder = lung_nodule_ct.prepare("cls_1.25mm", source="dummy_data", cache_dir=mkdtemp())
        >>> lung_nodule_ct.verify(folder).is_sound
        True
    """
    path = Path(folder)
    try:
        content = (path / MANIFEST).read_bytes()
        present = files_in(path) - {MANIFEST}
        hash_of_manifest = file_hash(path / MANIFEST, "sha256")
    except OSError as error:
        raise BuildFolderError(
            f"{path} cannot be verified: {error}",
            expected=f"the folder of a build, with its {MANIFEST}",
            remedy=_restore(MANIFEST),
        ) from error
    try:
        text = content.decode()
        manifest = json.loads(text)
        shards, others = shard_files(manifest), other_files(manifest)
        if outside := [name for name in (*shards, *others) if not stays_inside(name)]:
            raise ValueError(f"{outside[0]!r} is not a path inside the build")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        fault = Fault(FaultKind.MANIFEST, MANIFEST, "a manifest", repr(error)[:200], _restore(MANIFEST))
        return Verification(path, 0, 0, (fault,), (), (), hash_of_manifest)
    is_complete = records_all_files(manifest)
    if not is_complete:
        others = {**_sidecar_records(path, present), **others}
    comparison = _Comparison(path, {**shards, **others}, present, progress or BuildProgress())
    faults = comparison.faults()
    wrong = {fault.path for fault in faults}
    sound = [record for name, record in comparison.recorded.items() if name not in wrong]
    tops = {name.partition("/")[0] for name in shards}
    left = sorted(present - set(comparison.recorded) - comparison.renamed)
    faults += [_added(name) for name in left if _is_loaded(name, tops)]
    foreign = tuple(name for name in left if not _is_loaded(name, tops))
    proven = [record for record in sound if record.sha256 is not None]
    unproven: tuple[str, ...] = ()
    if is_complete and not is_intact(text):
        faults.insert(0, _edited_manifest())
    elif is_complete:
        proven.append(FileRecord(len(content), hash_of_manifest))
    else:
        unproven = tuple(_unproven(manifest, len(sound) - len(proven), foreign))
        foreign = ()
    total = sum(record.size for record in proven)
    return Verification(path, len(proven), total, tuple(faults), foreign, unproven, hash_of_manifest)


def require_unchanged(folder: Path, recorded: Mapping[str, FileRecord]) -> None:
    """Check that some files of a build are as the manifest records them.

    Raises:
        BuildFolderError: A file is missing, cannot be read, or has another size or hash.
    """
    for fault in _Comparison(folder, recorded, set(), BuildProgress()).faults()[:1]:
        raise fault.error()


def files_in(folder: Path) -> set[str]:
    """Return the names of all files in a folder and below, relative to it. Linked folders are followed, each once.

    Raises:
        OSError: A folder cannot be read.
    """
    names: set[str] = set()
    seen = {folder.resolve()}
    for root, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        inner = {name: Path(root, name).resolve() for name in folders}
        folders[:] = [name for name, target in inner.items() if target not in seen]
        seen |= set(inner.values())
        names |= {Path(root, name).relative_to(folder).as_posix() for name in files}
    return names


def _raise(error: OSError) -> None:
    raise error


class _Comparison:
    """The recorded files of a build, compared with those that are present.

    Attributes:
        recorded: What the manifest records, by name.
        renamed: Files that are recorded under another name; known after :meth:`faults`.
    """

    def __init__(
        self, folder: Path, recorded: Mapping[str, FileRecord], present: set[str], progress: BuildProgress
    ) -> None:
        self.recorded, self.renamed = recorded, set[str]()
        self._folder, self._present, self._progress = folder, present, progress
        self._sizes = {record.size for record in recorded.values()}
        self._names = defaultdict(list)
        for name, record in recorded.items():
            self._names[record.sha256].append(name)
        self._sidecars = recorded_sidecars(folder)

    def faults(self) -> list[Fault]:
        """Return the faults of the recorded files, in the order of the manifest."""
        measured = self._measure(self.recorded)
        missing = [name for name, value in measured.items() if value is None]
        new_names = self._find_renamed(missing)
        self.renamed = set(new_names.values())
        faults = []
        for name, got in measured.items():
            expected = self.recorded[name]
            if got is None:
                faults.append(self._missing(name, new_names.get(name)))
            elif isinstance(got, OSError):
                faults.append(Fault(FaultKind.UNREADABLE, name, _text(expected), str(got), self._remedy(name)))
            elif got.size != expected.size or (expected.sha256 is not None and got.sha256 != expected.sha256):
                faults.append(self._changed(name, got, measured))
        return faults

    def _measure(self, names: Iterable[str]) -> dict[str, FileRecord | OSError | None]:
        """Size and hash of some files; the error of a file that cannot be read, and ``None`` for one that is missing."""
        known = {name: record.size for name, record in self.recorded.items()}
        chosen = list(names)
        self._progress.begin(_TASK, sum(known[name] for name in chosen), len(chosen))
        measured: dict[str, FileRecord | OSError | None] = {}
        with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
            for name, result in zip(chosen, pool.map(self._measure_one, chosen), strict=True):
                measured[name] = result
                self._progress.advance(_TASK, known[name])
        self._progress.end(_TASK)
        return measured

    def _measure_one(self, name: str) -> FileRecord | OSError | None:
        path = self._folder / name
        try:
            if not path.is_file():
                return None
            size = path.stat().st_size
            # a size that no file of the build has is fault enough; hashing a file that grew without limit would take long
            return record_file(self._folder, name) if size in self._sizes else FileRecord(size, None)
        except OSError as error:
            return error

    def _find_renamed(self, missing: list[str]) -> dict[str, str]:
        """The present name of each missing file that is there under a name which the manifest does not record."""
        wanted = {self.recorded[name].size for name in missing}
        candidates: dict[str, list[str]] = defaultdict(list)
        for name in sorted(self._present - set(self.recorded)):
            path = self._folder / name
            if path.is_file() and path.stat().st_size in wanted:
                candidates[file_hash(path, "sha256")].append(name)
        found = {}
        for name in missing:
            same = candidates.get(self.recorded[name].sha256 or "")
            if same:
                found[name] = same.pop(0)
        return found

    def _missing(self, name: str, new_name: str | None) -> Fault:
        expected = _text(self.recorded[name])
        if new_name is not None:
            return Fault(
                FaultKind.RENAMED, name, expected, f"this content as {new_name}", f"rename {new_name} to {name}"
            )
        path = self._folder / name
        got = "no regular file" if path.is_dir() or path.is_symlink() else "no file"
        return Fault(FaultKind.MISSING, name, expected, got, self._remedy(name))

    def _changed(self, name: str, got: FileRecord, measured: Mapping[str, FileRecord | OSError | None]) -> Fault:
        expected = self.recorded[name]
        same = self._names.get(got.sha256, []) if got.sha256 else []
        for other in same:
            now = measured[other]
            if isinstance(now, FileRecord) and now.sha256 == expected.sha256:
                return Fault(
                    FaultKind.SWAPPED, name, _text(expected), f"the content of {other}", f"exchange it with {other}"
                )
        content = f"the content of {same[0]}" if same else _text(got)
        return Fault(FaultKind.CHANGED, name, _text(expected), content, self._remedy(name))

    def _remedy(self, name: str) -> str:
        if name in self._sidecars:
            command = f"lung-nodule-ct {self._sidecars[name]['by']} {self._folder}"
            return f"if the change is not yours, move the file out of the build, then run: {command}"
        return _restore(name)


def _text(record: FileRecord) -> str:
    return f"{record.size:,} bytes" + (f", sha256 {record.sha256}" if record.sha256 else "")


def _restore(name: str) -> str:
    return f"restore {name} from a copy of this build, or build again into another folder with: lung-nodule-ct build"


def _edited_manifest() -> Fault:
    return Fault(
        FaultKind.MANIFEST,
        MANIFEST,
        "the text that was written, which contains its own hash",
        "another text: the manifest was edited or damaged, so it proves nothing",
        _restore(MANIFEST),
    )


def _added(name: str) -> Fault:
    return Fault(
        FaultKind.ADDED,
        name,
        "only shards that the manifest records, since a reader loads all that are there",
        "a file that this build did not write",
        "move it to another folder",
    )


def _is_loaded(name: str, tops: set[str]) -> bool:
    """Whether a file that the manifest does not record is in one of the folders of shards, where a reader would load it."""
    folder, _, file_name = name.rpartition("/")
    if not _SHARD.fullmatch(file_name) or _CACHE.fullmatch(file_name):
        return False
    return folder.partition("/")[0] in tops


def _sidecar_records(folder: Path, present: set[str]) -> dict[str, FileRecord]:
    """What ``beside.json`` records of the files that are there, for a manifest that does not record them."""
    return {
        name: FileRecord((folder / name).stat().st_size, entry["sha256"])
        for name, entry in recorded_sidecars(folder).items()
        if name in present
    }


def _unproven(manifest: Mapping[str, Any], only_size: int, unrecorded: tuple[str, ...]) -> Iterator[str]:
    """What the manifest of an earlier version cannot prove."""
    yield (
        f"an earlier version of the package wrote {MANIFEST} (format {manifest.get('format_version')}) without its own hash: an edit "
        "is not seen. A new build in another folder records every file"
    )
    if only_size:
        yield f"of {only_size:,} files only the size is recorded: changed bytes are not seen"
    if unrecorded:
        more = f" and {len(unrecorded) - _MAX_NAMES:,} more" if len(unrecorded) > _MAX_NAMES else ""
        yield f"nothing is recorded of {', '.join(unrecorded[:_MAX_NAMES])}{more}"
