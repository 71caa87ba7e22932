"""``lung-nodule-ct download`` and ``lock``."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lung_nodule_ct.cli.options import Json, Offline, chosen_configs, complete_config
from lung_nodule_ct.cli.terminal import new_table, print_json, terminal
from lung_nodule_ct.errors import OutputError

if TYPE_CHECKING:
    from lung_nodule_ct.declaration.archives import Release


class ReleaseName(StrEnum):
    """The versions of the dataset."""

    PUBLISHED = "published"
    PREPRINT = "preprint"


_Url = Annotated[
    str | None,
    typer.Option(
        "--zenodo-url",
        help="Another InvenioRDM server or a mirror. Default: $LUNG_NODULE_CT_ZENODO_URL, otherwise zenodo.org.",
    ),
]
_Release = Annotated[
    ReleaseName, typer.Option("--release", help="The published version, or the version of the preprint.")
]


def download(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CONFIG...", help="The configs whose archives are needed.", autocompletion=complete_config
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All archives.")] = False,
    manual_dir: Annotated[
        Path | None,
        typer.Option("--manual-dir", help="Folder of manually downloaded archives, which are verified and used."),
    ] = None,
    url: _Url = None,
    release: _Release = ReleaseName.PUBLISHED,
    cache_dir: Annotated[
        Path | None,
        typer.Option(
            "--cache-dir",
            help="Folder for the downloads. Default: $LUNG_NODULE_CT_CACHE, otherwise the cache folder of the user.",
        ),
    ] = None,
    lock_file: Annotated[
        Path | None,
        typer.Option(
            "--lock",
            help="Lock file with the expected content of the records, written by `lock`. Default: the lock of the package.",
        ),
    ] = None,
    rehash: Annotated[
        bool,
        typer.Option(
            "--rehash",
            help="Hash the archives in the cache again; download those again that are damaged. Default: files that have not "
            "changed their size and time are not hashed again.",
        ),
    ] = False,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Download the archives that configs read. Downloads are resumed, verified by md5, and kept in a cache."""
    chosen = chosen_configs(names, every)
    from lung_nodule_ct.declaration.archives import archives_of
    from lung_nodule_ct.sources.records import Lock
    from lung_nodule_ct.sources.zenodo import Zenodo
    from lung_nodule_ct.system.progress import DownloadProgressBar

    lock = Lock.read(lock_file) if lock_file else None
    with DownloadProgressBar() as progress:
        zenodo = Zenodo(url, cache=cache_dir, release=_release(release), offline=offline, progress=progress, lock=lock)
        specs = archives_of(*{role for config in chosen for role in config.reads})
        paths = zenodo.download(specs, manual_dir, rehash=rehash)
    if as_json:
        print_json({spec.name: str(path) for spec, path in paths.items()})
        return
    console = terminal()
    for folder in dict.fromkeys(path.parent for path in paths.values()):
        table = new_table("archive", bytes=True)
        for path in paths.values():
            if path.parent == folder:
                table.add_row(path.name, f"{path.stat().st_size:,}")
        console.print(table)
        console.print(f"in {folder}", highlight=False, soft_wrap=True)


def lock(
    out: Annotated[Path, typer.Option("--out", help="The file to write.")] = Path("archives.lock"),
    url: _Url = None,
    release: Annotated[
        ReleaseName | None, typer.Option("--release", help="One of the versions. Default: both.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a lock file with the content of the records: names, sizes, md5, licence, and SHA-256 of downloaded files."""
    from lung_nodule_ct.sources.zenodo import pin

    pinned = pin([_release(name) for name in ReleaseName if release in (None, name)], url)
    try:
        out.write_text(pinned.to_json(), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"the lock cannot be written: {error}") from error
    if as_json:
        print_json(json.loads(pinned.to_json()))
        return
    console = terminal()
    for number, record in pinned.records.items():
        hashed = sum(entry["sha256"] is not None for entry in record["files"].values())
        console.print(
            f"[bold]{number}[/]: {len(record['files'])} files, {hashed} with SHA-256, licence {record['licence']}, "
            f"doi {record['doi']}",
            highlight=False,
        )
    console.print(f"written to {out}", highlight=False, soft_wrap=True)


def _release(name: ReleaseName) -> Release:
    from lung_nodule_ct.declaration.archives import RELEASES

    return next(release for release in RELEASES if release.name == name)
