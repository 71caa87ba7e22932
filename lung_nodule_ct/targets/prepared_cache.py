"""The caches of ``datasets`` that this package prepares: which one is used, and how a new one appears.

``datasets`` takes every folder next to a cache for another cache, also the folder ``<hash>.incomplete`` that it fills. A new cache is therefore
filled in a hidden folder, which ``datasets`` does not look at, and renamed when it is complete.
"""

from __future__ import annotations

import json
import re
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from lung_nodule_ct.declaration.manifest import FINDINGS
from lung_nodule_ct.errors import LungNoduleCTError, OutputError
from lung_nodule_ct.system.locks import LockFile
from lung_nodule_ct.system.staging import exclusive, real_path, replace_folder, sweep, temporary_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_INFO: Final = "dataset_info.json"
_HASH: Final = r"[0-9a-f]{16}-(?:[0-9a-f]{16}|none)"
_INCOMPLETE: Final = ".incomplete"


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
