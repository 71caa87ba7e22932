"""Files that commands add to a finished build: a card, a preview page, an audit.

A build lists its files in ``build.json``. A command that adds files later lists them in ``beside.json``, with name and
SHA-256, and then records them in ``build.json``. A rebuild into the same folder may therefore renew or remove the files that our commands
wrote, and keeps those that somebody else added or changed.

Example::

    with add_sidecars(folder, by="audit") as stage:
        (stage / "audit.json").write_text(...)
        (stage / "pictures").mkdir()
        (stage / "pictures" / "audit-sizes.png").write_bytes(...)

``stage`` is a new, empty folder. When the block ends without an error, its files move into the build under the same
relative names, and files that the same command wrote earlier but not this time are removed. If the block raises an
error, the build does not change. ``by`` is the name of the command. Two commands never write the same file.

While files move, ``beside.json`` lists the earlier hash of each file as ``replaces``, so that the files of a command that was killed at any
moment are still known as its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.declaration.manifest import (
    GENERATOR,
    MANIFEST,
    FileRecord,
    is_intact,
    manifest_text,
    other_files,
    records_all_files,
    stays_inside,
    to_json,
    with_files,
    without_other_files,
)
from lung_nodule_ct.errors import BuildFolderError, LungNoduleCTError, OutputError
from lung_nodule_ct.system.files import file_hash, is_partial, write_atomically
from lung_nodule_ct.system.staging import changing, real_path, temporary_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

SIDECARS = "beside.json"

_FORMAT_VERSION = 1


@contextlib.contextmanager
def add_sidecars(folder: str | Path, *, by: str) -> Iterator[Path]:
    """Add the files that the block writes into a temporary folder to a build, when the block ends without an error.

    Args:
        folder: A finished build.
        by: The name of the command that writes. Its next run replaces the files of this one.

    Yields:
        The temporary folder. Its files keep their relative names in ``folder``.

    Raises:
        OutputError: A file that this command did not write, or that was changed later, has the name of a new file; the
            build was replaced during the block; or ``folder`` cannot be written.
    """
    target = real_path(Path(folder))
    built = _build_of(target)
    with temporary_folder(target) as stage:
        try:
            yield stage
            names = sorted(path.relative_to(stage).as_posix() for path in stage.rglob("*") if path.is_file())
            with changing(target):
                if built is None or _build_of(target) != built:
                    raise OutputError(f"the build in {target} was replaced or removed while files were added to it")
                _move_in(stage, target, names, by)
        except LungNoduleCTError:
            raise
        except OSError as error:
            raise OutputError(f"files cannot be added to {target}: {error}") from error


def record_sidecar(folder: Path, name: str, *, by: str) -> None:
    """List a file of a build as one that the command ``by`` wrote. For files that the build itself creates."""
    entry = {"by": by, "sha256": file_hash(folder / name, "sha256")}
    _write(folder, {**recorded_sidecars(folder), name: entry})
    _record_in_manifest(folder, {name: entry})


def own_sidecars(folder: Path) -> dict[str, str]:
    """Return the files that commands added to a build, except for files that were changed later.

    Returns:
        The name of the command by the name of the file.
    """
    return {
        name: str(entry["by"]) for name, entry in recorded_sidecars(folder).items() if _unchanged(folder, name, entry)
    }


def remove_sidecars(folder: Path) -> None:
    """Remove the files that commands added to a build, and their list."""
    for name in own_sidecars(folder):
        (folder / name).unlink()
    (folder / SIDECARS).unlink(missing_ok=True)


def recorded_sidecars(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the entries of ``beside.json``, also those of files that were changed or removed later.

    There are none if the file is missing or was not written by this package.
    """
    try:
        document = json.loads((folder / SIDECARS).read_text("utf-8"))
        if not document["generator"].startswith("lung_nodule_ct ") or document["format_version"] != _FORMAT_VERSION:
            return {}
        return {
            name: {key: str(entry[key]) for key in ("by", "sha256", "replaces") if key != "replaces" or key in entry}
            for name, entry in document["files"].items()
            if stays_inside(name)
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _move_in(stage: Path, target: Path, names: list[str], by: str) -> None:
    ours = own_sidecars(target)
    for name in names:
        if (target / name).exists() and ours.get(name) != by:
            raise OutputError(
                f"{target / name} is not the file that `{by}` wrote: somebody created or changed it",
                remedy="rename the file, then run the command again",
            )
    for path in target.iterdir():
        if is_partial(path.name):  # of a killed command, since no other one is moving files
            path.unlink()
    earlier = {name: file_hash(target / name, "sha256") for name in ours}
    added = {name: {"by": by, "sha256": file_hash(stage / name, "sha256")} for name in names}
    dropped = [name for name, owner in ours.items() if owner == by and name not in added]
    moving = {name: entry | ({"replaces": earlier[name]} if name in earlier else {}) for name, entry in added.items()}
    kept = {name: {"by": owner, "sha256": earlier[name]} for name, owner in ours.items()}
    _write(target, {**kept, **moving})
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (stage / name).replace(target / name)
    for name in dropped:
        (target / name).unlink()
        with contextlib.suppress(OSError):
            (target / name).parent.rmdir()  # succeeds only if it is empty
    _write(target, {**{name: entry for name, entry in kept.items() if name not in dropped}, **added})
    _record_in_manifest(target, added, dropped)


def _unchanged(folder: Path, name: str, entry: dict[str, Any]) -> bool:
    path = folder / name
    hashes = (entry["sha256"], entry.get("replaces"))
    return path.is_file() and not path.is_symlink() and file_hash(path, "sha256") in hashes


def _write(folder: Path, files: dict[str, dict[str, Any]]) -> None:
    document = {"format_version": _FORMAT_VERSION, "generator": GENERATOR, "files": dict(sorted(files.items()))}
    write_atomically(folder / SIDECARS, to_json(document))


def _record_in_manifest(folder: Path, added: Mapping[str, dict[str, Any]], dropped: Iterable[str] = ()) -> None:
    """Record files that were added to a build, by their entries of ``beside.json``, and this file in ``build.json``.

    The manifest of an earlier version, which records only shards, is not changed, and neither is one whose records were removed: new
    ones would be incomplete. A manifest that was edited keeps the hash that it had, so that verification still reports the edit.
    """
    path = folder / MANIFEST
    try:
        text = path.read_bytes().decode()  # not read_text, which would hide changed line ends
        manifest = json.loads(text)
        if not records_all_files(manifest) or "files" not in manifest:
            return
        files = {name: record for name, record in other_files(manifest).items() if name not in set(dropped)}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BuildFolderError(
            f"{path} cannot be read: {error!r}", remedy=f"verify the build: lung-nodule-ct verify {folder}"
        ) from error
    files |= {name: FileRecord((folder / name).stat().st_size, entry["sha256"]) for name, entry in added.items()}
    files[SIDECARS] = record_file(folder, SIDECARS)
    changed = with_files(manifest, files)
    write_atomically(path, manifest_text(changed) if is_intact(text) else to_json(changed))


def record_file(folder: Path, name: str) -> FileRecord:
    """Return size and SHA-256 of a file of a build.

    Raises:
        OSError: The file cannot be read.
    """
    path = folder / name
    return FileRecord(path.stat().st_size, file_hash(path, "sha256"))


def _build_of(folder: Path) -> str | None:
    """A hash of what the manifest states about the data, ``None`` if there is no manifest."""
    try:
        content = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        return None
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        content = to_json(without_other_files(json.loads(content))).encode()
    return hashlib.sha256(content).hexdigest()
