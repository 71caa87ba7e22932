"""The build that a folder holds before another build is written into it: whether the two fit, and what is kept of the earlier one.

Configs that are not built again are kept, and so is every file that no build and no command of this package wrote. They are linked into the
temporary folder of the new build. A file that would have to be replaced, but was changed after it was built, stops the build.
"""

from __future__ import annotations

import filecmp
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Self

from lung_nodule_ct.declaration.archives import Role, archives_of
from lung_nodule_ct.declaration.findings import Code, Finding
from lung_nodule_ct.declaration.manifest import FINDINGS, MANIFEST, Format, is_intact, records_all_files
from lung_nodule_ct.errors import OutputError
from lung_nodule_ct.read.sidecars import SIDECARS, own_sidecars, recorded_sidecars
from lung_nodule_ct.system.files import file_hash, is_partial

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from lung_nodule_ct.declaration.configs import Config
    from lung_nodule_ct.sources.source import Source

_OTHER_OUT = "choose another --out; or add --overwrite to give up the build that is there"


@dataclass(frozen=True)
class KeptFiles:
    """What happens to the files of an existing build when another one takes its place.

    Attributes:
        names: The new name of every file or link that is kept, by its name now.
        folders: Empty folders, which are kept.
        removed: Sidecars that no longer describe the build, and the command that writes each.
        by_user: Those of ``names`` that this package did not write.
        conflicts: Files that would be replaced, although this package did not write them or they were changed.
    """

    names: Mapping[str, str]
    folders: tuple[str, ...]
    removed: Mapping[str, str]
    by_user: tuple[str, ...]
    conflicts: tuple[str, ...]

    def refuse_conflicts(self, target: Path) -> None:
        """Stop a build that would replace what it must not.

        Raises:
            OutputError: There is a conflict.
        """
        if self.conflicts:
            more = f" (and {len(self.conflicts) - 1} more)" if len(self.conflicts) > 1 else ""
            raise OutputError(
                f"the output {target} holds files that this build would replace, and that are not as a build wrote them",
                got=self.conflicts[0] + more,
                remedy="move them to another folder, or choose another --out",
            )

    def link_into(self, folder: Path, stage: Path) -> None:
        """Add the files to another folder, as hard links; as copies where the file system has none.

        Raises:
            OSError: A file cannot be linked or copied.
        """
        for name in self.folders:
            (stage / name).mkdir(parents=True, exist_ok=True)
        for name, new in self.names.items():
            source, target = folder / name, stage / new
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_symlink():
                target.symlink_to(source.readlink())
                continue
            try:
                target.hardlink_to(source)
            except OSError:
                shutil.copy2(source, target)
        for parent, _, _ in os.walk(folder):  # a folder that only its owner may read stays so
            kept = stage / Path(parent).relative_to(folder)
            if kept.is_dir():
                shutil.copymode(parent, kept)


@dataclass(frozen=True)
class ExistingBuild:
    """A build that is in the output folder.

    Attributes:
        folder: The folder.
        manifest: The content of ``build.json``.
    """

    folder: Path
    manifest: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Read the manifest of the build in a folder; ``None`` if the folder is empty or does not exist.

        Raises:
            OutputError: The folder contains something else, or is a file.
        """
        paths = folder.iterdir() if folder.is_dir() else [folder] if folder.exists() else []
        names = sorted(path.name for path in paths)
        if not names:
            return None
        try:
            manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
            files = [file["path"] for config in manifest["configs"].values() for file in config["files"]]
            ours = manifest["generator"].startswith("lung_nodule_ct ") and all(isinstance(path, str) for path in files)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            ours = False
        if not ours:
            raise OutputError(
                f"the output {folder} exists and is not the result of a previous build",
                expected=f"a new or empty folder, or a build with its {MANIFEST}",
                got=MANIFEST if MANIFEST in names else names[0],
                remedy="choose another --out",
            )
        return cls(folder, manifest)

    @property
    def configs(self) -> Mapping[str, Any]:
        """The entries of the configs in the manifest."""
        entries: Mapping[str, Any] = self.manifest["configs"]
        return entries

    @cached_property
    def report(self) -> Mapping[str, Any]:
        """The content of ``findings.json``.

        Raises:
            OutputError: It cannot be read.
        """
        try:
            report = json.loads((self.folder / FINDINGS).read_text("utf-8"))
            _ = report["figures"], report["shared_patients"], report["account"]
            _ = [(entry["config"], Finding.from_dict(entry)) for entry in report["findings"]]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise OutputError(
                f"{self.folder / FINDINGS} cannot be read: {error!r}",
                remedy=f"build all configs in one command: {', '.join(self.configs)}",
            ) from error
        return dict(report)

    @property
    def is_nested(self) -> bool:
        """Whether each config has a folder in an Arrow build."""
        return self.manifest.get("format") == Format.ARROW and any(path.count("/") > 1 for path in self._shards)

    def relocated(self, name: str) -> str:
        """The name of a kept file once each config of an Arrow build has a folder: the files of the only config move into it."""
        if self.manifest.get("format") != Format.ARROW or self.is_nested:
            return name
        (config,) = self.configs
        folders = {path.partition("/")[0] for path in self._shards}
        return f"{config}/{name}" if name == "dataset_dict.json" or name.partition("/")[0] in folders else name

    def check(
        self, header: Mapping[str, Any], numbers: Mapping[str, Any], source: Source, requested: Sequence[Config]
    ) -> None:
        """Check that configs can be added to the build or renewed: with the same options, from the same archives.

        Args:
            header: What the manifest of the new build states about its options.
            numbers: What it states about the numbers of scans.
            source: The archives of the new build.
            requested: The configs to build.

        Raises:
            OutputError: They cannot.
        """
        for name, value in header.items():
            if self.manifest.get(name) != value:
                raise OutputError(
                    f"the output {self.folder} holds a build with another {name}",
                    expected=_stated(self.manifest.get(name)),
                    got=_stated(value),
                    remedy=_OTHER_OUT,
                )
        self._check_archives(source, requested)
        self._check_scan_numbers(numbers, requested)

    def _check_scan_numbers(self, numbers: Mapping[str, Any], requested: Sequence[Config]) -> None:
        before = self.manifest["scan_numbers"]
        joined = [
            name for name in self.kept(requested) if any(c["name"] == "scan_id" for c in self.configs[name]["columns"])
        ]
        if joined and before != numbers:
            raise OutputError(
                f"the scans of {', '.join(joined)} in {self.folder} were numbered from other archives, so scan_id would not join",
                expected=", ".join(before["archives"]) or "no archive",
                got=", ".join(numbers["archives"]) or "no archive",
                remedy="build all configs together from one source; or choose another --out",
            )

    def _check_archives(self, source: Source, requested: Sequence[Config]) -> None:
        kept = {role for name in self.kept(requested) for role in _roles(self.configs[name])}
        now = source.fingerprints({role for config in requested for role in config.roles} | kept)
        needed = {spec.name for spec in archives_of(*{role for config in requested for role in config.roles})}
        read_by_kept = {spec.name for spec in archives_of(*kept)}
        for name, before in self.manifest["source"].items():
            after = now.get(name)
            if before is None and after is not None and name in read_by_kept:
                raise OutputError(
                    f"the output {self.folder} holds configs that were built without {name}, which {source.name} contains",
                    remedy=f"build them together with the others: {', '.join(self.kept(requested))}",
                )
            if before not in (None, after) and (after is not None or name in needed):
                raise OutputError(
                    f"the output {self.folder} holds a build from other archives",
                    archive=name,
                    expected=f"the archive with the fingerprint {before[:16]}",
                    got="no archive" if after is None else f"{after[:16]} in {source.name}",
                    remedy=_OTHER_OUT,
                )
        if bool(self.manifest["records"]) != bool(source.records):
            origins = ["archives of a record" if known else "a folder of archives" for known in (False, True)]
            raise OutputError(
                f"the output {self.folder} holds a build of another origin",
                expected=origins[bool(self.manifest["records"])],
                got=origins[bool(source.records)],
                remedy=_OTHER_OUT,
            )

    def kept(self, requested: Iterable[Config]) -> tuple[str, ...]:
        """The configs that are not requested."""
        names = {config.name for config in requested}
        return tuple(name for name in self.configs if name not in names)

    def renewed(self, requested: Iterable[Config]) -> tuple[str, ...]:
        """The requested configs that the build holds already."""
        return tuple(config.name for config in requested if config.name in self.configs)

    def archives_of(self, kept: Collection[str]) -> dict[str, str | None]:
        """The fingerprints of the archives of some of its configs."""
        names = {spec.name for spec in archives_of(*{role for name in kept for role in _roles(self.configs[name])})}
        return {name: value for name, value in self.manifest["source"].items() if name in names}

    def findings_of(self, config: str, *, without_figures: bool) -> tuple[Finding, ...]:
        """The findings of a config.

        Args:
            config: The config.
            without_figures: Leave out those about published counts.
        """
        entries = [Finding.from_dict(entry) for entry in self.report["findings"] if entry["config"] == config]
        return tuple(each for each in entries if not (without_figures and each.code is Code.FIGURE_MISMATCH))

    def kept_entry(self, name: str) -> dict[str, Any]:
        """The entry of a config that is kept in the manifest of the new build."""
        entry = self.configs[name]
        return {**entry, "files": [{**file, "path": self.relocated(file["path"])} for file in entry["files"]]}

    def kept_files(
        self,
        kept: Collection[str],
        written: Collection[str],
        stage: Path | None = None,
        *,
        nested: bool,
        still_described: bool = False,
        overwrite: bool = False,
    ) -> KeptFiles:
        """Decide what happens to each file.

        Args:
            kept: The configs that are not built again.
            written: The names of the files of the new build, or of those that are known before it is written.
            stage: The folder with these files, once they are written.
            nested: Whether each config of an Arrow build has a folder in the new build.
            still_described: Whether the build does not change, so that the sidecars of commands still describe it.
            overwrite: Replace changed files, too.
        """
        sidecars, recorded = own_sidecars(self.folder), recorded_sidecars(self.folder)
        parents = {str(parent) for name in written for parent in PurePosixPath(name).parents}
        names: dict[str, str] = {}
        by_user, removed, conflicts = [], {}, []
        if (self.folder / SIDECARS).exists() and not recorded and not overwrite:
            conflicts.append(SIDECARS)
        for name in _files_of(self.folder):
            path, new = self.folder / name, self.relocated(name) if nested else name
            shard = self._shards.get(name)
            if shard is not None and shard[0] in kept:
                names[name] = new
            elif shard is not None:
                if not overwrite and not _is_unchanged(path, shard[1]):
                    conflicts.append(name)
            elif name in sidecars:
                if still_described:
                    names[name] = new
                elif name not in written:
                    removed[name] = sidecars[name]
            elif name == SIDECARS and still_described:
                names[name] = new
            elif name in (MANIFEST, FINDINGS, SIDECARS) or is_partial(path.name):
                if not overwrite and self._is_edited(name):
                    conflicts.append(name)  # the others are written by every build, or by a killed command
            elif (
                new in written or new in parents or any(str(parent) in written for parent in PurePosixPath(new).parents)
            ):
                if not overwrite and not (stage and _is_same(path, stage / new)):
                    conflicts.append(name)
            elif name in recorded and not overwrite:
                conflicts.append(name)
            elif not (self._is_of_layout(name) and overwrite):
                names[name] = new
                by_user += [] if self._is_of_layout(name) else [name]
        folders = tuple(name for name in _empty_folders_of(self.folder) if name not in written and name not in parents)
        return KeptFiles(names, folders, removed, tuple(by_user), tuple(conflicts))

    @cached_property
    def _shards(self) -> dict[str, tuple[str, Mapping[str, Any]]]:
        """The config and the entry of every shard, by its path."""
        return {file["path"]: (name, file) for name, entry in self.configs.items() for file in entry["files"]}

    def _is_edited(self, name: str) -> bool:
        """Whether the manifest or ``findings.json`` is not as a build wrote it, as far as the manifest proves that."""
        if not records_all_files(self.manifest):
            return False
        if name == MANIFEST:
            return not is_intact((self.folder / MANIFEST).read_bytes().decode("utf-8", "replace"))
        entry = self.manifest.get("files", {}).get(name)
        return name == FINDINGS and entry is not None and not _is_unchanged(self.folder / name, entry)

    def _is_of_layout(self, name: str) -> bool:
        """Whether the manifest proves that a layout wrote a file. Names prove nothing: a file of a user can have the same one."""
        return name in self.manifest.get("files", {})


def _roles(entry: Mapping[str, Any]) -> Iterator[Role]:
    """The roles of the archives of a config in a manifest."""
    return map(Role, (*entry["reads"], *entry["context"]))


def _files_of(folder: Path) -> Iterator[str]:
    """The names of all files, and of all links, which are not followed."""
    for parent, folders, files in os.walk(folder):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in sorted((*files, *links)):
            yield Path(parent, name).relative_to(folder).as_posix()


def _empty_folders_of(folder: Path) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        if not folders and not files and Path(parent) != folder:
            yield Path(parent).relative_to(folder).as_posix()


def _is_unchanged(path: Path, entry: Mapping[str, Any]) -> bool:
    """Whether a shard is as the manifest describes it."""
    if path.is_symlink() or not path.is_file():
        return False
    stat = path.stat()
    return stat.st_size == entry["bytes"] and (
        "sha256" not in entry or _sha256(path, stat.st_ino, stat.st_size, stat.st_mtime_ns) == entry["sha256"]
    )


@cache
def _sha256(path: Path, *_state: int) -> str:
    """The hash of a file in some state, computed once: before a build, and again at its end if the file was changed meanwhile."""
    return file_hash(path, "sha256")


def _is_same(path: Path, new: Path) -> bool:
    return path.is_file() and not path.is_symlink() and new.is_file() and filecmp.cmp(path, new, shallow=False)


def _stated(value: Any) -> Any:
    """A value of a manifest for a message, in which ``None`` would be left out."""
    return "none" if value is None else value
