"""A folder of archives by URL, on whatever filesystem fsspec opens: what the workers of a cluster can read."""

from __future__ import annotations

import fsspec

from lung_nodule_ct.declaration.archives import ARCHIVES, ArchiveSpec
from lung_nodule_ct.errors import SourceError
from lung_nodule_ct.source.source import Source


def open_url_folder(url: str) -> Source:
    """The archives below a URL, at any depth.

    Args:
        url: As fsspec takes it: ``s3://bucket/folder``. Credentials are found as its implementation finds them.

    Raises:
        SourceError: There is nothing, the filesystem's package is not installed, or it cannot be reached.
    """
    try:
        files, root = fsspec.core.url_to_fs(url)
        paths = sorted(files.find(root))
    except ImportError as error:
        raise SourceError(f"{url} cannot be opened: {error}", remedy="install that package") from error
    except (OSError, ValueError) as error:
        raise SourceError(f"{url} cannot be read: {error}") from error
    if not paths:
        raise SourceError(
            f"the source {url!r} does not exist", expected="a folder that holds the dataset's zip archives"
        )
    found: dict[ArchiveSpec, tuple[str, ...]] = {}
    for path in paths:
        for spec in ARCHIVES:
            if spec.matches(path.rpartition("/")[2]):
                found[spec] = (*found.get(spec, ()), files.unstrip_protocol(path))
    single = {spec: places[0] for spec, places in found.items() if len(places) == 1}
    return Source(single, url, {spec: places for spec, places in found.items() if len(places) > 1})
