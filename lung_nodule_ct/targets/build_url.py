"""A build at a URL, as ``s3://bucket/folder``: shards are uploaded as they are written, and get their names when all of them are there.

An object store cannot exchange two folders in one step. What holds instead: ``build.json`` is written last, when every other file has its name
and its size, and without it nothing is a build. Until then, a new build is in the folder ``.jobs`` alone, and an earlier build stays as it is;
then the earlier ``build.json`` is removed first. A build that ended at any moment goes on from what is in ``.jobs``.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from lung_nodule_ct.declaration.manifest import MANIFEST, other_files, shard_files, to_json
from lung_nodule_ct.errors import OutputError
from lung_nodule_ct.examples.plan import make_plan
from lung_nodule_ct.read.verification import files_in
from lung_nodule_ct.system.files import cache_folder
from lung_nodule_ct.system.progress import BuildProgress, notice
from lung_nodule_ct.system.staging import exclusive, temporary_folder
from lung_nodule_ct.targets.build import BuildParts, in_order, one_sentence
from lung_nodule_ct.targets.documents import manifest_header
from lung_nodule_ct.targets.options import BuildOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from lung_nodule_ct.declaration.configs import Config
    from lung_nodule_ct.sources.source import Source
    from lung_nodule_ct.system.object_store import ObjectFolder
    from lung_nodule_ct.targets.shards import Build

JOBS: Final = ".jobs"
"""The folder at the URL that keeps what jobs finished, until the build is complete."""
_PROBE: Final = f"{JOBS}/probe"
_PUBLISHING: Final = f"{JOBS}/publishing.json"
"""The files that a build began to write or remove under their final names: what a later one may replace."""


def build_at_url(
    configs: Sequence[Config],
    source: Source,
    target: ObjectFolder,
    options: BuildOptions | None = None,
    progress: BuildProgress | None = None,
    add_files: Callable[[Path], None] | None = None,
    *,
    overwrite: bool = False,
) -> Build:
    """Build configs at a URL. Its files are, byte for byte, those of :func:`.build_folder`.

    Configs cannot be added to a build at a URL. Two machines must not write the same URL at the same time: nothing locks it. Files of others
    are kept.

    Args:
        configs: The configs.
        source: The archives.
        target: The folder at the URL.
        options: How to build. Workers of a cluster write to the URL themselves.
        progress: Receives the progress.
        add_files: Adds files to the build before it is complete, as the card of a build for the Hub.
        overwrite: Replace a build at the URL.

    Raises:
        ArchiveNotFoundError: An archive that a config reads is missing.
        ArchiveError: A file is not a zip archive, or exceeds a limit.
        MemberError: A member is damaged.
        StrictError: A strict build met a finding of error grade. Nothing but the folder ``.jobs`` was written.
        SourceError: None of the configs has an example.
        OutputError: The URL cannot be written, or holds a build, or files that this build would replace.
        OptionError: None of the configs has what an option computes.
        MissingExtraError: The format, the engine, or what is computed needs an extra.
    """
    options, progress = options or BuildOptions(), progress or BuildProgress()
    options.check(configs)
    configs = in_order(configs)
    stages = cache_folder() / "uploads"
    with one_sentence(target), exclusive(stages / hashlib.sha256(target.url.encode()).hexdigest()[:16]) as folder:
        found = _Found.at(target)
        found.require_free(target, overwrite=overwrite)
        target.write(_PROBE, b"")  # a URL that cannot be written is better known before hours of work than after
        target.remove([_PROBE])
        layout = options.layout(len(configs))
        with temporary_folder(folder) as stage, options.open_engine(target / JOBS) as engine:
            plans = [make_plan(config, source, options.split_by, limit=options.limit) for config in configs]
            parts = BuildParts(source, options, layout, manifest_header(layout, options))
            build, _ = parts.write(plans, stage, engine, progress, add_files)
            by_user = _publish(stage, target, build, found)
    return replace(build, by_user=by_user)


@dataclass(frozen=True)
class _Found:
    """What is at the URL.

    Attributes:
        names: The files, without those of jobs.
        manifest: The content of ``build.json``, if there is one.
        ours: Files of this build, or of one that did not end. They need not exist.
    """

    names: frozenset[str]
    manifest: bytes | None
    ours: frozenset[str]

    @classmethod
    def at(cls, target: ObjectFolder) -> _Found:
        """Look at a URL.

        Raises:
            OutputError: It cannot be read, or its ``build.json`` is not of this package.
        """
        present = target.files()
        jobs = frozenset(name for name in present if name.startswith(f"{JOBS}/"))
        manifest = target.read(MANIFEST) if MANIFEST in present else None
        ours = set() if manifest is None else {MANIFEST, *_recorded(manifest, target)}
        if _PUBLISHING in present:
            ours |= set(json.loads(target.read(_PUBLISHING))["files"])
        return cls(frozenset(present) - jobs, manifest, frozenset(ours))

    @property
    def foreign(self) -> frozenset[str]:
        """The files that no build of this package wrote."""
        return self.names - self.ours

    def require_free(self, target: ObjectFolder, *, overwrite: bool) -> None:
        """Check that a new build may be written.

        Raises:
            OutputError: It may not.
        """
        if self.manifest is not None and not overwrite:
            raise OutputError(
                f"the output {target} holds a build, and configs cannot be added to a build at a URL",
                expected="a URL that holds nothing, or a build that did not end",
                got=MANIFEST,
                remedy="build all configs in one command into another --out; or add --overwrite to give up the build that is there",
            )
        if self.manifest is None and self.foreign:
            raise _not_a_build(target, min(self.foreign))


def _recorded(manifest: bytes, target: ObjectFolder) -> set[str]:
    """The names of the files that a manifest records.

    Raises:
        OutputError: This package did not write it.
    """
    try:
        document = json.loads(manifest)
        if not document["generator"].startswith("lung_nodule_ct "):
            raise _not_a_build(target, MANIFEST)
        return {*shard_files(document), *other_files(document)}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _not_a_build(target, MANIFEST) from error


def _not_a_build(target: ObjectFolder, name: str) -> OutputError:
    return OutputError(
        f"the output {target} exists and is not the result of a previous build",
        expected=f"a URL that holds nothing, or a build with its {MANIFEST}",
        got=name,
        remedy="choose another --out",
    )


def _publish(stage: Path, target: ObjectFolder, build: Build, before: _Found) -> tuple[str, ...]:
    """Give all files their names, ``build.json`` at the end, and return the names of files of others.

    Raises:
        OutputError: The URL cannot be written, or was written by others meanwhile, or a file of others has the name of a new one.
    """
    shards = {written.path: written for config in build.configs.values() for written in config.files}
    others = files_in(stage) - {MANIFEST}
    new = {*shards, *others, MANIFEST}
    now = _Found.at(target)
    if now.manifest != before.manifest:
        raise OutputError(
            f"another process wrote a build to {target} meanwhile",
            remedy="write a URL from one machine at a time; see whether the build that is there is the one that you need",
        )
    if conflicts := sorted(now.foreign & new):
        more = f" (and {len(conflicts) - 1} more)" if len(conflicts) > 1 else ""
        raise OutputError(
            f"the output {target} holds files that this build would replace, and that are not as a build wrote them",
            got=conflicts[0] + more,
            remedy="move them elsewhere, or choose another --out; the same command goes on from what is finished",
        )
    target.write(_PUBLISHING, to_json({"files": sorted(new | now.ours)}).encode())
    if now.manifest is not None:
        target.remove([MANIFEST])
    target.copy({str(written.url).removeprefix(f"{target}/"): name for name, written in shards.items()})
    for name in sorted(others):
        target.upload(stage / name, name)
    target.remove((now.ours & now.names) - new - {MANIFEST})
    sizes = {name: written.file_bytes for name, written in shards.items()}
    sizes |= {name: (stage / name).stat().st_size for name in others}
    present = target.files()
    if wrong := [name for name, size in sizes.items() if present.get(name) != size]:
        raise OutputError(
            f"{wrong[0]} at {target} is not as it was written",
            expected=f"{sizes[wrong[0]]:,} bytes",
            got=f"{present[wrong[0]]:,} bytes" if wrong[0] in present else "no file",
            remedy="run the same command again; it goes on from what is finished",
        )
    target.upload(stage / MANIFEST, MANIFEST)
    try:
        target.remove([name for name in present if name.startswith(f"{JOBS}/")])
    except OutputError as error:
        notice(f"the build is complete, but {target / JOBS} cannot be removed: {error}")
    return tuple(sorted(now.foreign))
