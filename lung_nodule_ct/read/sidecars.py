"""What commands add to a finished build (a card, a preview, an audit), and how a later build knows it for ours.

A build lists its shards in ``build.json``; whoever adds files afterwards lists them here, in ``beside.json``, by name and
SHA-256. So a rebuild into the same folder may replace what we wrote, and is refused where a stranger put a file of theirs or
changed one of ours.

How a command uses it::

    with add_sidecars(folder, by="audit") as stage:
        (stage / "audit.json").write_text(...)
        (stage / "pictures").mkdir()
        (stage / "pictures" / "audit-sizes.png").write_bytes(...)

``stage`` is an empty folder near the build. When the block ends well, each file in it takes its place in the build under the
same relative name, and what the same command wrote an earlier time and did not write again is taken away. When the block
fails, nothing changes. ``by`` is the command's name; two commands never write the same file.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.declaration.manifest import GENERATOR, MANIFEST, to_json
from lung_nodule_ct.errors import OutputError
from lung_nodule_ct.system.files import file_hash, write_atomically
from lung_nodule_ct.system.staging import locked, temporary_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

SIDECARS = "beside.json"

_FORMAT_VERSION = 1


@contextlib.contextmanager
def add_sidecars(folder: str | Path, *, by: str) -> Iterator[Path]:
    """An empty folder; what a block writes into it stands in a build when the block ends well.

    Args:
        folder: A finished build.
        by: The command that writes, by which its next run replaces what it wrote.

    Yields:
        Where to write, under the names relative to ``folder``.

    Raises:
        OutputError: A file that is not ours, or was changed since, stands where one shall be written; the build was replaced
            in the meantime; or ``folder`` cannot be written.
    """
    target = Path(folder).absolute()
    built = _build_of(target)
    with temporary_folder(target) as stage:
        yield stage
        names = sorted(path.relative_to(stage).as_posix() for path in stage.rglob("*") if path.is_file())
        try:
            with locked(target.with_name(f".{target.name}.beside.lock")):
                if built is None or _build_of(target) != built:
                    raise OutputError(f"the build in {target} was replaced or removed while something was added to it")
                _move_in(stage, target, names, by)
        except OutputError:
            raise
        except OSError as error:
            raise OutputError(f"{target} cannot be written: {error}") from error


def record_sidecar(folder: Path, name: str, *, by: str) -> None:
    """Take a file that stands in a build, and that nobody else can have written, for one of ``by``."""
    _write(folder, {**_recorded(folder), name: {"by": by, "sha256": file_hash(folder / name, "sha256")}})


def own_sidecars(folder: Path) -> dict[str, str]:
    """The files that commands added to a build and that are still as they wrote them: the command by the file's name."""
    return {name: str(entry["by"]) for name, entry in _recorded(folder).items() if _unchanged(folder, name, entry)}


def _move_in(stage: Path, target: Path, names: list[str], by: str) -> None:
    recorded, ours = _recorded(target), own_sidecars(target)
    for name in names:
        if (target / name).exists() and ours.get(name) != by:
            raise OutputError(
                f"{target / name} is not what `{by}` wrote: somebody made or changed it",
                remedy="rename or remove it, then run the command again",
            )
    dropped = [name for name, owner in ours.items() if owner == by and name not in names]
    kept = {name: entry for name, entry in recorded.items() if name in ours and name not in dropped}
    added = {name: {"by": by, "sha256": file_hash(stage / name, "sha256")} for name in names}
    _write(target, {**kept, **added})
    for name in dropped:
        (target / name).unlink()
        with contextlib.suppress(OSError):
            (target / name).parent.rmdir()  # an empty one
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (stage / name).replace(target / name)


def _recorded(folder: Path) -> dict[str, dict[str, Any]]:
    """What ``beside.json`` lists; nothing where there is none of ours."""
    try:
        document = json.loads((folder / SIDECARS).read_text("utf-8"))
        if not document["generator"].startswith("lung_nodule_ct ") or document["format_version"] != _FORMAT_VERSION:
            return {}
        return {
            name: {"by": str(entry["by"]), "sha256": str(entry["sha256"])}
            for name, entry in document["files"].items()
            if _stays_inside(name)
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and path.as_posix() == name


def _unchanged(folder: Path, name: str, entry: dict[str, Any]) -> bool:
    path = folder / name
    return path.is_file() and not path.is_symlink() and file_hash(path, "sha256") == entry["sha256"]


def _write(folder: Path, files: dict[str, dict[str, Any]]) -> None:
    document = {"format_version": _FORMAT_VERSION, "generator": GENERATOR, "files": dict(sorted(files.items()))}
    write_atomically(folder / SIDECARS, to_json(document))


def _build_of(folder: Path) -> str | None:
    manifest = folder / MANIFEST
    return file_hash(manifest, "sha256") if manifest.is_file() else None
