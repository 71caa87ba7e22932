"""Where the archives are taken from, in one order for Python, the command line, ``datasets`` and TFDS alike.

The argument; ``LUNG_NODULE_CT_SOURCE``; the cache of downloads; Zenodo.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from lung_nodule_ct.declaration.archives import archives_of
from lung_nodule_ct.source.folder import open_folder

if TYPE_CHECKING:
    from lung_nodule_ct.declaration.configs import Config
    from lung_nodule_ct.source.source import Source
    from lung_nodule_ct.source.zenodo import Zenodo
    from lung_nodule_ct.system.progress import DownloadListener

SOURCE_VARIABLE: Final = "LUNG_NODULE_CT_SOURCE"
RECORDS: Final = "records "
"""What the name of a source begins with that is no folder."""


def named_folder(source: str | os.PathLike[str] | None) -> str | None:
    """The folder of archives that the argument or the environment names, if one does."""
    chosen = source if source is not None else os.environ.get(SOURCE_VARIABLE)
    return os.fspath(chosen) if chosen else None


def open_source(
    source: str | os.PathLike[str] | None,
    configs: Sequence[Config],
    *,
    remote: bool = False,
    offline: bool = False,
    listener: DownloadListener | None = None,
) -> Source:
    """The archives of some configs.

    Args:
        source: A folder of archives, or the URL of one as fsspec takes it. Without it ``LUNG_NODULE_CT_SOURCE`` names one; without that they come from the cache
            of downloads and from Zenodo.
        configs: What they are for: only what these read is downloaded. Archives that only give context (timepoints,
            pathology) and are not in the cache are read by ranges of their directories; offline they are missing.
        remote: Download nothing: read by ranges what is not in the cache.
        offline: Never ask a server.
        listener: Is told how far downloads are.

    Raises:
        SourceError: The folder does not exist, or cannot be opened; or offline, and something is not in the cache.
        ArchiveNotFoundError: A record has no file for an archive, or more than one.
        DownloadError: A server does not give what the record promises.
        OutputError: There is no room for a download.
    """
    folder = named_folder(source)
    if folder is not None and "://" in folder:
        from lung_nodule_ct.source.url_folder import open_url_folder  # noqa: PLC0415 -- a folder here needs no fsspec

        return open_url_folder(folder)
    if folder is not None:
        return open_folder(folder)
    from lung_nodule_ct.source.zenodo import Zenodo  # noqa: PLC0415 -- who has a folder needs no HTTP

    return open_zenodo(Zenodo(offline=offline, listener=listener), configs, remote=remote)


def open_zenodo(zenodo: Zenodo, configs: Sequence[Config], *, remote: bool) -> Source:
    """The archives of some configs from the cache and from Zenodo. See :func:`open_source`."""
    from lung_nodule_ct.source.source import Source  # noqa: PLC0415 -- as above
    from lung_nodule_ct.source.zenodo import locate  # noqa: PLC0415

    reads = archives_of(*{role for config in configs for role in config.reads})
    context = [
        spec for spec in archives_of(*{role for config in configs for role in config.context}) if spec not in reads
    ]
    downloaded = {} if remote else {spec: str(path) for spec, path in zenodo.download(reads).items()}
    found = locate(zenodo, [spec for spec in (*reads, *context) if spec not in downloaded])
    return Source({**downloaded, **found.single}, str(zenodo), found.several, records=zenodo.known_records(reads))
