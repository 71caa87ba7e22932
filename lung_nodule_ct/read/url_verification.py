"""The files of a build at a URL, compared with the sizes and hashes in its manifest. Every file is read completely."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from lung_nodule_ct.declaration.manifest import MANIFEST, FileRecord
from lung_nodule_ct.errors import BuildFolderError, OutputError
from lung_nodule_ct.read.recorded_files import CARD, MAX_HEAD_BYTES, NOT_A_MANIFEST, RecordedFiles
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

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lung_nodule_ct.system.object_store import ObjectFolder
    from lung_nodule_ct.system.progress import BuildProgress

_TASK = "verifying"
_THREADS = 4


def verify_url(folder: ObjectFolder, progress: BuildProgress) -> Verification:
    """Compare every file of a build at a URL with the manifest of the build. See :func:`.verify`.

    Raises:
        BuildFolderError: The manifest is missing, or is of a version that did not record every file.
        OutputError: The filesystem does not answer.
    """
    try:
        content = folder.read(MANIFEST)
    except FileNotFoundError as error:
        raise BuildFolderError(
            f"{folder} cannot be verified: it has no {MANIFEST}",
            expected="the URL of a complete build",
            remedy="check the URL; if a build did not end there, run its command again",
        ) from error
    own = FileRecord(len(content), hashlib.sha256(content).hexdigest())
    try:
        manifest = RecordedFiles.parse(content)
    except NOT_A_MANIFEST as error:
        return without_manifest(str(folder), error, str(own.sha256))
    if not manifest.is_complete:
        raise BuildFolderError(
            f"{folder} was built by an earlier version of the package, which did not record every file",
            remedy="copy it to a folder of this machine, and verify that",
        )
    present = {name: size for name, size in folder.files().items() if name != MANIFEST}
    faults = _faults(folder, manifest.records, present, progress)
    sound = manifest.records.keys() - {fault.path for fault in faults}
    proven = [manifest.records[name] for name in sound]
    left = present.keys() - manifest.records.keys()
    loaded, foreign = manifest.sort_unrecorded(left, lambda: folder.read(CARD, 0, MAX_HEAD_BYTES))
    faults += map(added_file, loaded)
    if manifest.is_intact:
        proven.append(own)
    else:
        faults.insert(0, edited_manifest())
    total = sum(record.size for record in proven)
    return Verification(str(folder), len(proven), total, tuple(faults), foreign, (), str(own.sha256))


def _faults(
    folder: ObjectFolder, records: Mapping[str, FileRecord], present: Mapping[str, int], progress: BuildProgress
) -> list[Fault]:
    """The faults of the recorded files, in the order of the manifest."""

    def fault_of(name: str) -> Fault | None:
        expected, size = records[name], present.get(name)
        if size is None:
            return Fault(FaultKind.MISSING, name, record_text(expected), "no file", how_to_restore(name))
        if size != expected.size:
            got = record_text(FileRecord(size, None))
        else:
            try:
                sha256 = folder.sha256(name)
            except (FileNotFoundError, OutputError) as error:
                return Fault(FaultKind.UNREADABLE, name, record_text(expected), str(error), how_to_restore(name))
            if sha256 == expected.sha256:
                return None
            got = record_text(FileRecord(size, sha256))
        return Fault(FaultKind.CHANGED, name, record_text(expected), got, how_to_restore(name))

    progress.begin(_TASK, sum(record.size for record in records.values()), len(records))
    faults = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for name, fault in zip(records, pool.map(fault_of, records), strict=True):
            faults += [] if fault is None else [fault]
            progress.advance(_TASK, records[name].size)
    progress.end(_TASK)
    return faults
