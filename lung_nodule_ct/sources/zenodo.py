"""The two records on Zenodo as a source: which file is which archive, what is in the cache, and what has to be downloaded.

The cache has one folder per record, ``<cache>/<host>/<record>/``, with the archives under their names and ``record.json``. An
archive only gets its name after its MD5 was that of the record, and its checksum cache confirms that later (see
:func:`.cached_hashes`). A cache that cannot be written can still be read.

The variable ``LUNG_NODULE_CT_ZENODO_URL`` names another server, ``LUNG_NODULE_CT_CACHE`` another cache.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from lung_nodule_ct.declaration.archives import DEFAULT_RELEASE, ArchiveSpec, Release
from lung_nodule_ct.errors import ArchiveNotFoundError, DownloadError, OutputError, SourceError
from lung_nodule_ct.sources.byte_sources import RemoteLocation
from lung_nodule_ct.sources.download import download, expected_hashes, is_verified, locked_file, require_space_for
from lung_nodule_ct.sources.http import HttpClient
from lung_nodule_ct.sources.records import Lock, Record, RecordFile, parse_record
from lung_nodule_ct.sources.retry import Retry, Timeouts, TransientError
from lung_nodule_ct.sources.source import Locations
from lung_nodule_ct.system.files import (
    cache_folder,
    cache_hashes,
    file_hash,
    hash_cache_of,
    partial_of,
    remove_partial_files,
    write_atomically,
)
from lung_nodule_ct.system.processes import locked
from lung_nodule_ct.system.progress import LONG_BYTES, DownloadProgress, readable_size, readable_time

URL_VARIABLE: Final = "LUNG_NODULE_CT_ZENODO_URL"
OFFLINE_VARIABLE: Final = "LUNG_NODULE_CT_OFFLINE"

_ZENODO = "https://zenodo.org"
_RECORD_NAME = "record.json"
_MAX_RECORD_BYTES = 8 << 20


class Zenodo:
    """A release of the dataset on a server, and its cache on this machine.

    Args:
        url: The address of the server. The default is the variable ``LUNG_NODULE_CT_ZENODO_URL``, then zenodo.org.
        cache: The cache folder. The default is the variable ``LUNG_NODULE_CT_CACHE``, then the user's cache folder.
        release: Which release, that is, which two records.
        offline: Send no requests. Also set by the variable ``LUNG_NODULE_CT_OFFLINE``.
        timeouts: How long to wait for the server.
        progress: Is called while downloads make progress.
        lock: What the records must contain. The default is the lock file of this package, if it has one.

    Raises:
        DownloadError: The address of the server cannot be parsed.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        cache: str | os.PathLike[str] | None = None,
        release: Release = DEFAULT_RELEASE,
        offline: bool = False,
        timeouts: Timeouts | None = None,
        progress: DownloadProgress | None = None,
        lock: Lock | None = None,
    ) -> None:
        self.url = (url or os.environ.get(URL_VARIABLE) or _ZENODO).rstrip("/")
        self.release = release
        self.offline = offline or os.environ.get(OFFLINE_VARIABLE, "0").lower() not in ("", "0", "false", "no")
        try:
            host = urlsplit(self.url).netloc
        except ValueError as error:
            raise DownloadError(f"the address of the server cannot be read: {error}", got=self.url) from error
        self._folder = cache_folder(cache) / (host.replace(":", "_") or "unknown")
        self._http = HttpClient(timeouts, token_host=host)
        self._progress = progress or DownloadProgress()
        self._lock = lock if lock is not None else Lock.packaged()
        self._records: dict[str, Record] = {}

    def __str__(self) -> str:
        numbers = " and ".join(str(self.release.record(part)) for part in "AB")
        return f"records {numbers} of {urlsplit(self.url).netloc}" + (" (offline)" if self.offline else "")

    def folder(self, part: str) -> Path:
        """Return the folder of the cache for the archives of a part."""
        return self._folder / str(self.release.record(part))

    def record(self, part: str) -> Record:
        """Return the record of part ``A`` or ``B``, which is requested once; offline, the one in the cache.

        Raises:
            SourceError: The record is not in the cache in offline mode.
            DownloadError: The server does not send the record, or the record differs from the lock.
        """
        if part not in self._records:
            record = self._cached_record(part) if self.offline else self._request_record(part)
            self._lock.check(record)
            self._records[part] = record
        return self._records[part]

    def known_records(self, specs: Iterable[ArchiveSpec]) -> tuple[Record, ...]:
        """Return those records of some archives that are in memory or in the cache."""
        return tuple(self._known_records(specs).values())

    def candidates(self, specs: Iterable[ArchiveSpec]) -> dict[ArchiveSpec, tuple[RecordFile, ...]]:
        """Return the files of the records that match each archive by name.

        Raises:
            SourceError: A record is not in the cache in offline mode.
            DownloadError: The server does not send a record, or a record differs from the lock.
        """
        return {spec: tuple(file for file in self.record(spec.part).files if spec.matches(file.key)) for spec in specs}

    def files(self, specs: Iterable[ArchiveSpec]) -> dict[ArchiveSpec, RecordFile]:
        """Return the file of each archive.

        Raises:
            ArchiveNotFoundError: A record has no file for an archive, or more than one. The message names all of these.
            SourceError: A record is not in the cache in offline mode.
            DownloadError: The server does not send a record, or a record differs from the lock.
        """
        single: dict[ArchiveSpec, RecordFile] = {}
        wrong: list[str] = []
        for spec, files in self.candidates(specs).items():
            if len(files) == 1:
                single[spec] = files[0]
            else:
                names = ", ".join(file.key for file in files)
                number = self.release.record(spec.part)
                none = "none" if self.record(spec.part).files else "none, since the record has no files at all"
                wrong.append(f"{spec.name} in record {number}: " + (f"{names} all match" if names else none))
        if wrong:
            numbers = [self.release.record(part) for part in "AB"]
            raise ArchiveNotFoundError(
                f"{self} do not have exactly one file for each archive",
                expected="one file each",
                got="; ".join(wrong),
                remedy=f"look at {' and '.join(f'{self.url}/records/{number}' for number in numbers)}",
            )
        return single

    def cached(self, specs: Iterable[ArchiveSpec], *, rehash: bool = False) -> dict[ArchiveSpec, Path]:
        """Return those archives that are complete in the cache, without a request to the server.

        Args:
            specs: Which archives.
            rehash: Hash them again. By default a file that has not changed its size and modification time is not hashed again.
        """
        paths: dict[ArchiveSpec, Path] = {}
        specs = tuple(specs)
        for part, record in self._known_records(specs).items():
            with suppress(DownloadError):
                self._lock.check(record)
                for spec in (spec for spec in specs if spec.part == part):
                    for file in record.files:
                        path = self.folder(part) / file.key
                        sha256 = self._pinned_sha256(spec, file)
                        if spec.matches(file.key) and is_verified(path, file, sha256, rehash=rehash):
                            paths[spec] = path
        return paths

    def locate(self, specs: Iterable[ArchiveSpec]) -> Locations:
        """Return where some archives are: in the cache; if not, and not offline, on the server.

        Raises:
            DownloadError: The server does not send a record, or a record differs from the lock.
        """
        specs = tuple(specs)
        single = {spec: str(path) for spec, path in self.cached(specs).items()}
        several = {}
        missing = () if self.offline else [spec for spec in specs if spec not in single]
        for spec, files in self.candidates(missing).items():
            if len(files) == 1:
                single[spec] = str(RemoteLocation(files[0].url, files[0].key, files[0].size))
            elif files:
                several[spec] = tuple(file.key for file in files)
        return Locations(single, several)

    def download(
        self, specs: Iterable[ArchiveSpec], manual: Path | None = None, *, rehash: bool = False
    ) -> dict[ArchiveSpec, Path]:
        """Download some archives into the cache, unless they are there already. Each is verified by its MD5.

        Args:
            specs: Which archives.
            manual: A folder with archives that were downloaded by hand. If they are those of the records, they are copied
                into the cache instead. This needs no network if the lock pins the records, or the cache has them.
            rehash: Hash the archives in the cache again, and download those again that are not those of the records.

        Returns:
            The path of each archive.

        Raises:
            SourceError: An archive is not in the cache in offline mode, the folder ``manual`` does not exist, or nothing says
                which files its archives must be.
            ArchiveNotFoundError: A record has no file for an archive, or more than one.
            DownloadError: The server does not send a file, or a file is not that of the record.
            OutputError: There is not enough free space, or the cache cannot be written.
        """
        specs = tuple(specs)
        paths = self.cached(specs, rehash=rehash)
        if rehash:
            self._report_damaged([spec for spec in specs if spec not in paths])
        if manual is not None:
            paths |= self._copy_manual([spec for spec in specs if spec not in paths], manual)
        missing = [spec for spec in specs if spec not in paths]
        if missing and self.offline:
            raise SourceError(
                f"archives are not in the cache {self._folder}"
                + (f" and not in the folder {manual}" if manual is not None else "")
                + f": {', '.join(spec.name for spec in missing)}",
                remedy="download them while online, with `lung-nodule-ct download`, or name a folder that has them",
            )
        needed = self.files(missing) if missing else {}
        if needed:
            size = require_space_for({file: self.folder(spec.part) for spec, file in needed.items()})
            if size >= LONG_BYTES:
                at_10 = f"{readable_time(size / 1e7)} at 10 MB/s, {readable_time(size / 1e8)} at 100 MB/s"
                self._progress.announce(f"{readable_size(size)} to download ({len(needed)} archives): {at_10}")
        for spec, file in needed.items():
            sha256 = self._pinned_sha256(spec, file)
            paths[spec] = download(file, self.folder(spec.part), self._http, self._progress, sha256)
        return {spec: paths[spec] for spec in specs}

    def _report_damaged(self, specs: Sequence[ArchiveSpec]) -> None:
        """Report those archives that are in the cache, but are not as the records have them."""
        for part, record in self._known_records(specs).items():
            for file in record.files:
                is_meant = any(spec.part == part and spec.matches(file.key) for spec in specs)
                if is_meant and (self.folder(part) / file.key).is_file():
                    self._progress.wait(
                        file.key, f"the file in the cache does not have the md5 of the record, {file.md5}", 0
                    )

    def _copy_manual(self, specs: Iterable[ArchiveSpec], manual: Path) -> dict[ArchiveSpec, Path]:
        """Copy those archives into the cache that were downloaded by hand."""
        if not manual.is_dir():
            raise SourceError(f"the folder {manual} does not exist", expected="a folder with downloaded archives")
        names = sorted(path for path in manual.rglob("*") if path.is_file())
        found = {
            spec: candidates for spec in specs if (candidates := [path for path in names if spec.matches(path.name)])
        }
        for part in sorted({spec.part for spec in found}):
            self._records.setdefault(part, self._proving_record(part, manual))
        return {
            spec: self._copy_first(spec, file, found[spec])
            for spec, file in (self.files(found) if found else {}).items()
        }

    def _proving_record(self, part: str, manual: Path) -> Record:
        """The record as the lock pins it, as the server sends it or, without a network, as it is in the cache."""
        if part in self._records:
            return self._records[part]
        number = self.release.record(part)
        if (pinned := self._lock.record(number, self.url)) is not None:
            return pinned
        failure: DownloadError | None = None
        if not self.offline:
            try:
                return self.record(part)
            except DownloadError as error:
                failure = error
        try:
            return self._cached_record(part)
        except SourceError as error:
            raise SourceError(
                f"nothing proves the archives in {manual}: record {number} is neither pinned by a lock nor in the cache"
                + (", and downloads are off (offline)" if failure is None else f", and {failure.problem}"),
                remedy="go online; or name a lock file (--lock), which `lung-nodule-ct lock` writes where there is a network; or build "
                "from that folder without a proof (--source)",
            ) from (failure or error)

    def _copy_first(self, spec: ArchiveSpec, file: RecordFile, candidates: Sequence[Path]) -> Path:
        """Copy the file of a record that is among some candidates."""
        for path in candidates:
            got = f"{path.stat().st_size:,} bytes"
            if path.stat().st_size == file.size and (got := file_hash(path, "md5")) == file.md5:
                return self._copy_verified(path, self.folder(spec.part), file, self._pinned_sha256(spec, file))
        raise DownloadError(
            f"{candidates[-1]} is not the file of the record",
            archive=file.key,
            expected=f"{file.size:,} bytes, md5 {file.md5}",
            got=got,
            remedy="download it again, or remove it from that folder",
        )

    def _copy_verified(self, path: Path, folder: Path, file: RecordFile, sha256: str | None) -> Path:
        """Copy a file into the cache and verify the copy. A link would change together with the user's file."""
        final = folder / file.key
        partial = partial_of(final)
        try:
            with locked_file(file, folder, self._progress):
                try:
                    shutil.copyfile(path, partial)
                    if not is_verified(partial, file, sha256):
                        raise DownloadError(
                            f"{path} is not the file of the record",
                            archive=file.key,
                            expected=f"{file.size:,} bytes, md5 {file.md5}" + (f", sha256 {sha256}" if sha256 else ""),
                            got="other hashes",
                            remedy="download it again",
                        )
                    partial.replace(final)
                finally:
                    partial.unlink(missing_ok=True)
                    hash_cache_of(partial).unlink(missing_ok=True)
                cache_hashes(final, expected_hashes(file, sha256))
        except DownloadError:
            raise
        except OSError as error:
            raise OutputError(f"{path} cannot be copied into the cache {folder}: {error}") from error
        return final

    def _pinned_sha256(self, spec: ArchiveSpec, file: RecordFile) -> str | None:
        return self._lock.sha256_of(self.release.record(spec.part), file.key)

    def _known_records(self, specs: Iterable[ArchiveSpec]) -> dict[str, Record]:
        records = {}
        for part in sorted({spec.part for spec in specs}):
            with suppress(SourceError):
                records[part] = self._records.get(part) or self._cached_record(part)
        return records

    def _cached_record(self, part: str) -> Record:
        path = self.folder(part) / _RECORD_NAME
        try:
            return Record.from_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            if (pinned := self._lock.record(self.release.record(part), self.url)) is not None:
                return pinned
            raise SourceError(
                f"record {self.release.record(part)} is not in the cache {self._folder}",
                remedy="go online once, with `lung-nodule-ct download`; or name a folder of archives",
            ) from error

    def _request_record(self, part: str) -> Record:
        number = self.release.record(part)
        name = f"record {number}"
        retry = Retry(self._http.timeouts, lambda reason, seconds: self._progress.wait(name, reason, seconds))
        while True:
            try:
                headers = {"Accept": "application/json"}
                with self._http.get(f"{self.url}/api/records/{number}", name, headers) as response:
                    body = response.read(_MAX_RECORD_BYTES)
                break
            except TransientError as failure:
                retry.wait(failure)
        record = parse_record(body, self.url, number)
        path = self.folder(part) / _RECORD_NAME
        with suppress(OSError):  # a cache that cannot be written can still be read
            path.parent.mkdir(parents=True, exist_ok=True)
            with locked(path.with_suffix(".lock")):
                remove_partial_files(path)
                write_atomically(path, record.to_json())
        return record


def pin(releases: Iterable[Release], url: str | None = None, *, cache: str | os.PathLike[str] | None = None) -> Lock:
    """Pin what the records of some releases contain now, with the SHA-256 of those files that are in the cache.

    Args:
        releases: Which releases.
        url: The address of the server. The default is that of :class:`Zenodo`.
        cache: The cache folder. The default is that of :class:`Zenodo`.

    Raises:
        SourceError: Offline mode is on.
        DownloadError: The server does not send a record.
    """
    records: list[Record] = []
    sha256: dict[str, str] = {}
    for release in releases:
        zenodo = Zenodo(url, cache=cache, release=release, lock=Lock())  # an older lock must not refuse a new record
        if zenodo.offline:
            raise SourceError("records cannot be pinned offline", remedy=f"go online, without {OFFLINE_VARIABLE}")
        for part in "AB":
            record = zenodo.record(part)
            records.append(record)
            for file in record.files:
                path = zenodo.folder(part) / file.key
                # hashed again, whatever the checksum cache states: other people will rely on what is pinned here
                if path.is_file() and file_hash(path, "md5") == file.md5:
                    sha256[f"{record.number}/{file.key}"] = file_hash(path, "sha256")
    return Lock.of(records, sha256)
