"""The files of a build, compared with the sizes and hashes in its manifest: in any format, without reading the data themselves.

Every file of the build is either as it was written, or a fault. A file that the manifest does not record belongs to the user and is only
listed, unless it is among the shards, where a reader would load it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
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
from lung_nodule_ct.read.verification_result import (
    Fault,
    FaultKind,
    Verification,
    added_file,
    edited_manifest,
    how_to_restore,
    record_text,
)
from lung_nodule_ct.system.files import file_hash
from lung_nodule_ct.system.progress import BuildProgress

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

_SHARD = re.compile(r".+\.(parquet|arrow|(tfrecord|array_record)(-.*)?)", re.IGNORECASE)
_CACHE = re.compile(r"cache-.+\.arrow")
"""What ``datasets`` writes next to the Arrow files of a user who maps or filters them."""
_INTERPRETED = frozenset(
    {".huggingface.yaml", "dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json", "features.json"}
)
"""Files by which ``datasets`` and TFDS find and describe the shards."""
_CARD = "README.md"
_FRONT_MATTER = re.compile(rb"(?:\xef\xbb\xbf)?\s*---[ \t]*[\r\n]")
"""The beginning of a card whose metadata ``datasets`` reads: which files are the shards of which config and split."""
_TASK = "verifying"
_MAX_NAMES = 5
_MAX_HEAD_BYTES = 1 << 16
_THREADS = 4


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
        own_hash = hashlib.sha256(content).hexdigest()
        try:
            manifest = _Manifest.parse(content)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            fault = Fault(FaultKind.MANIFEST, MANIFEST, "a manifest", repr(error)[:200], how_to_restore(MANIFEST))
            return Verification(path, 0, 0, (fault,), (), (), own_hash)
        folders = {str(parent) for name in manifest.records for parent in PurePosixPath(name).parents}
        present = files_in(path, linked=folders) - {MANIFEST}
        return _verify(path, manifest, present, progress or BuildProgress(), FileRecord(len(content), own_hash))
    except OSError as error:
        raise BuildFolderError(
            f"{path} cannot be verified: {error}",
            expected=f"the folder of a build, with its {MANIFEST}",
            remedy=how_to_restore(MANIFEST),
        ) from error


@dataclass(frozen=True)
class _Manifest:
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
    def parse(cls, content: bytes) -> _Manifest:
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
        return {**self.shards, **self.others}


def _verify(
    folder: Path, manifest: _Manifest, present: set[str], progress: BuildProgress, own: FileRecord
) -> Verification:
    earlier = {} if manifest.is_complete else _sidecar_records(folder, present)
    comparison = _Comparison(folder, {**earlier, **manifest.records}, present, progress)
    faults = comparison.faults()
    wrong = {fault.path for fault in faults}
    sound = [record for name, record in comparison.recorded.items() if name not in wrong]
    tops = {name.partition("/")[0] for name in manifest.shards}
    left = sorted(present - set(comparison.recorded) - comparison.renamed)
    interpreted = _INTERPRETED if manifest.is_complete else frozenset[str]()
    loaded = {name for name in left if _is_loaded(name, tops, interpreted)}
    if manifest.is_complete and _CARD in left and (folder / _CARD).is_file() and _has_front_matter(folder / _CARD):
        loaded.add(_CARD)
    faults += [added_file(name) for name in left if name in loaded]
    foreign = tuple(name for name in left if name not in loaded)
    proven = [record for record in sound if record.sha256 is not None]
    unproven: tuple[str, ...] = ()
    if not manifest.is_complete:
        unproven = tuple(_unproven(manifest.version, len(sound) - len(proven), foreign))
        foreign = ()
    elif manifest.is_intact:
        proven.append(own)
    else:
        faults.insert(0, edited_manifest())
    total = sum(record.size for record in proven)
    return Verification(folder, len(proven), total, tuple(faults), foreign, unproven, str(own.sha256))


def require_unchanged(folder: Path, recorded: Mapping[str, FileRecord]) -> None:
    """Check that some files of a build are as the manifest records them.

    Raises:
        BuildFolderError: A file is missing, cannot be read, or has another size or hash.
    """
    for fault in _Comparison(folder, recorded, set(), BuildProgress()).faults()[:1]:
        raise fault.error()


def files_in(folder: Path, linked: Collection[str] = ()) -> set[str]:
    """Return the names of all files in a folder and below, relative to it.

    Args:
        folder: The folder.
        linked: The names of folders that are followed if they are links; other links to folders are listed like files.

    Raises:
        OSError: A folder cannot be read.
    """
    names: set[str] = set()
    for root, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        inside = Path(root).relative_to(folder)
        links = [name for name in folders if Path(root, name).is_symlink() and (inside / name).as_posix() not in linked]
        folders[:] = [name for name in folders if name not in links]
        names |= {(inside / name).as_posix() for name in (*files, *links)}
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
                faults.append(Fault(FaultKind.UNREADABLE, name, record_text(expected), str(got), self._remedy(name)))
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
        expected = record_text(self.recorded[name])
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
                    FaultKind.SWAPPED,
                    name,
                    record_text(expected),
                    f"the content of {other}",
                    f"exchange it with {other}",
                )
        content = f"the content of {same[0]}" if same else record_text(got)
        return Fault(FaultKind.CHANGED, name, record_text(expected), content, self._remedy(name))

    def _remedy(self, name: str) -> str:
        if name in self._sidecars:
            command = f"lung-nodule-ct {self._sidecars[name]['by']} {self._folder}"
            return f"if the change is not yours, move the file out of the build, then run: {command}"
        return how_to_restore(name)


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


def _has_front_matter(card: Path) -> bool:
    with card.open("rb") as file:
        return _FRONT_MATTER.match(file.read(_MAX_HEAD_BYTES)) is not None


def _sidecar_records(folder: Path, present: set[str]) -> dict[str, FileRecord]:
    """What ``beside.json`` records of the files that are there, for a manifest that does not record them."""
    return {
        name: FileRecord((folder / name).stat().st_size, entry["sha256"])
        for name, entry in recorded_sidecars(folder).items()
        if name in present
    }


def _unproven(version: object, only_size: int, unrecorded: tuple[str, ...]) -> Iterator[str]:
    """What the manifest of an earlier version cannot prove."""
    yield (
        f"an earlier version of the package wrote {MANIFEST} (format {version}) without its own hash: an edit "
        "is not seen. A new build in another folder records every file"
    )
    if only_size:
        yield f"of {only_size:,} files only the size is recorded: changed bytes are not seen"
    if unrecorded:
        more = f" and {len(unrecorded) - _MAX_NAMES:,} more" if len(unrecorded) > _MAX_NAMES else ""
        yield f"nothing is recorded of {', '.join(unrecorded[:_MAX_NAMES])}{more}"
