"""The files of a build, compared with the sizes and hashes in its manifest: in any format, without reading the data themselves.

Every file of the build is either as it was written, or a fault. A file that the manifest does not record belongs to the user and is only
listed, unless it is among the shards, where a reader would load it.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from lung_nodule_ct.declaration.manifest import MANIFEST, FileRecord
from lung_nodule_ct.errors import BuildFolderError
from lung_nodule_ct.read.recorded_files import CARD, MAX_HEAD_BYTES, NOT_A_MANIFEST, RecordedFiles
from lung_nodule_ct.read.sidecars import record_file, recorded_sidecars
from lung_nodule_ct.read.url_verification import verify_url
from lung_nodule_ct.read.verification_result import (
    Fault,
    FaultKind,
    Verification,
    added_file,
    edited_manifest,
    how_to_restore,
    record_text,
    without_manifest,
)
from lung_nodule_ct.system.files import file_hash
from lung_nodule_ct.system.object_store import ObjectFolder, is_url
from lung_nodule_ct.system.progress import BuildProgress

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

_TASK = "verifying"
_MAX_NAMES = 5
_THREADS = 4


def verify(folder: str | os.PathLike[str], progress: BuildProgress | None = None) -> Verification:
    """Compare every file of a build, of any format, with the manifest of the build.

    Args:
        folder: The folder of the build, or its URL as fsspec takes it. At a URL, every file is read completely.
        progress: Receives the progress, in bytes.

    Raises:
        BuildFolderError: There is no folder, or no manifest in it, or the folder cannot be listed.
        OutputError: The filesystem of a URL does not answer.

    Example:
        >>> import lung_nodule_ct
        >>> from tempfile import mkdtemp
        >>> folder = lung_nodule_ct.prepare("cls_1.25mm", source="dummy_data", cache_dir=mkdtemp())
        >>> lung_nodule_ct.verify(folder).is_sound
        True
    """
    if is_url(folder):
        return verify_url(ObjectFolder(str(folder)), progress or BuildProgress())
    path = Path(folder)
    try:
        content = (path / MANIFEST).read_bytes()
        own_hash = hashlib.sha256(content).hexdigest()
        try:
            manifest = RecordedFiles.parse(content)
        except NOT_A_MANIFEST as error:
            return without_manifest(path, error, own_hash)
        folders = {str(parent) for name in manifest.records for parent in PurePosixPath(name).parents}
        present = files_in(path, linked=folders) - {MANIFEST}
        return _verify(path, manifest, present, progress or BuildProgress(), FileRecord(len(content), own_hash))
    except OSError as error:
        raise BuildFolderError(
            f"{path} cannot be verified: {error}",
            expected=f"the folder of a build, with its {MANIFEST}",
            remedy=how_to_restore(MANIFEST),
        ) from error


def _verify(
    folder: Path, manifest: RecordedFiles, present: set[str], progress: BuildProgress, own: FileRecord
) -> Verification:
    earlier = {} if manifest.is_complete else _sidecar_records(folder, present)
    comparison = _Comparison(folder, {**earlier, **manifest.records}, present, progress)
    faults = comparison.faults()
    wrong = {fault.path for fault in faults}
    sound = [record for name, record in comparison.recorded.items() if name not in wrong]
    left = present - set(comparison.recorded) - comparison.renamed
    loaded, foreign = manifest.sort_unrecorded(left, lambda: _head(folder / CARD))
    faults += map(added_file, loaded)
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


def _head(card: Path) -> bytes:
    """The beginning of a card, nothing of what is not a file."""
    if not card.is_file():
        return b""
    with card.open("rb") as file:
        return file.read(MAX_HEAD_BYTES)


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
