"""The two records on Zenodo as a source: which file is which archive, what of it is in the cache, what must be had.

The cache is a folder a record, ``<cache>/<host>/<record>/``, with the archives under their own names and ``record.json``. A
file only has its name there once its md5 was that of the record, and a note beside it says so (see :mod:`.proof`); a cache
that cannot be written serves as well. Which server: ``LUNG_NODULE_CT_ZENODO_URL``. Where the cache is: ``LUNG_NODULE_CT_CACHE``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from lung_nodule_ct.declaration.archives import DEFAULT_RELEASE, ArchiveSpec, Release
from lung_nodule_ct.errors import ArchiveNotFoundError, DownloadError, OutputError, SourceError
from lung_nodule_ct.sources.download import download, expected_hashes, is_verified, require_space_for, write_checksums
from lung_nodule_ct.sources.http import HttpClient, Retry, Timeouts, TransientError
from lung_nodule_ct.sources.records import Lock, Record, RecordFile, parse_record, stored_record
from lung_nodule_ct.sources.remote_archive import RemoteLocation
from lung_nodule_ct.system.files import cache_folder, hash_of, write_whole
from lung_nodule_ct.system.progress import DownloadProgress

URL_VARIABLE: Final = "LUNG_NODULE_CT_ZENODO_URL"
OFFLINE_VARIABLE: Final = "LUNG_NODULE_CT_OFFLINE"

_ZENODO = "https://zenodo.org"
_RECORD = "record.json"
_MAX_RECORD_BYTES = 8 << 20


class Zenodo:
    """A release of the dataset on a server, and the cache of it on this machine.

    Args:
        url: The server; else the variable ``LUNG_NODULE_CT_ZENODO_URL``, else zenodo.org.
        cache: The cache; else the variable ``LUNG_NODULE_CT_CACHE``, else the user's cache folder.
        release: Which two records.
        offline: Never ask the server; also where the variable ``LUNG_NODULE_CT_OFFLINE`` is set.
        patience: How long the server is waited for.
        progress: Is told how far downloads are.
        lock: What the records must hold; else the lock that is part of this package, if it has one.

    Raises:
        DownloadError: The address of the server is not safe.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        cache: str | os.PathLike[str] | None = None,
        release: Release = DEFAULT_RELEASE,
        offline: bool = False,
        patience: Timeouts | None = None,
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
        self._http = HttpClient(patience, token_host=host)
        self._listener = progress or DownloadProgress()
        self._lock = lock if lock is not None else Lock.packaged()
        self._records: dict[str, Record] = {}

    def __str__(self) -> str:
        numbers = " and ".join(str(self.release.record(part)) for part in "AB")
        return f"records {numbers} of {urlsplit(self.url).netloc}" + (" (offline)" if self.offline else "")

    def folder(self, part: str) -> Path:
        """Where the archives of a part are kept."""
        return self._folder / str(self.release.record(part))

    def record(self, part: str) -> Record:
        """The record of part ``A`` or ``B``, asked for once; offline as it was when it was last asked for.

        Raises:
            SourceError: Offline, and it was never asked for.
            DownloadError: The server does not give it, or it differs from the lock.
        """
        if part not in self._records:
            record = self._stored(part) if self.offline else self._asked(part)
            self._lock.check(record)
            self._records[part] = record
        return self._records[part]

    def claims(self, specs: Iterable[ArchiveSpec]) -> dict[ArchiveSpec, tuple[RecordFile, ...]]:
        """The files that claim to be each archive.

        Raises:
            SourceError: As of :meth:`record`.
            DownloadError: Likewise.
        """
        return {spec: tuple(file for file in self.record(spec.part).files if spec.matches(file.key)) for spec in specs}

    def files(self, specs: Iterable[ArchiveSpec]) -> dict[ArchiveSpec, RecordFile]:
        """The file of each archive.

        Raises:
            ArchiveNotFoundError: A record has none for an archive, or more than one; all such are named.
            SourceError: As of :meth:`record`.
            DownloadError: Likewise.
        """
        found: dict[ArchiveSpec, RecordFile] = {}
        wrong: list[str] = []
        for spec, claims in self.claims(specs).items():
            if len(claims) == 1:
                found[spec] = claims[0]
            else:
                several = ", ".join(file.key for file in claims)
                number = self.release.record(spec.part)
                wrong.append(f"{spec.name} in record {number}: " + (f"{several} all match" if several else "none"))
        if wrong:
            numbers = [self.release.record(part) for part in "AB"]
            raise ArchiveNotFoundError(
                f"{self} have not exactly one file for each archive",
                expected="one file each",
                got="; ".join(wrong),
                remedy=f"look at {' and '.join(f'{self.url}/records/{number}' for number in numbers)}",
            )
        return found

    def cached(self, specs: Iterable[ArchiveSpec]) -> dict[ArchiveSpec, Path]:
        """Those archives that are in the cache whole, without asking the server."""
        there: dict[ArchiveSpec, Path] = {}
        specs = tuple(specs)
        for part, record in self._known(specs).items():
            with suppress(DownloadError):
                self._lock.check(record)
                for spec in (spec for spec in specs if spec.part == part):
                    for file in record.files:
                        path = self.folder(part) / file.key
                        if spec.matches(file.key) and is_verified(path, file, self._pinned(spec, file)):
                            there[spec] = path
        return there

    def download(self, specs: Iterable[ArchiveSpec], manual: Path | None = None) -> dict[ArchiveSpec, Path]:
        """All these archives on this machine, each proven by its md5; what is in the cache is not asked for again.

        Args:
            specs: Which.
            manual: A folder with archives that were downloaded by hand: those that are the record's are taken from there.

        Raises:
            SourceError: Offline, and one of them is not in the cache.
            ArchiveNotFoundError: A record has none for one of them, or more than one.
            DownloadError: One cannot be had, or is not what the record promises.
            OutputError: There is no room for it.
        """
        specs = tuple(specs)
        paths = self.cached(specs)
        absent = [spec for spec in specs if spec not in paths]
        if not absent:
            return {spec: paths[spec] for spec in specs}
        if self.offline and manual is None:
            raise SourceError(
                f"archives are not in the cache {self._folder}: {', '.join(spec.name for spec in absent)}",
                remedy="download them while online, with `lung-nodule-ct download`, or name a folder that has them",
            )
        wanted = {}
        for spec, file in self.files(absent).items():
            taken = self._by_hand(spec, file, manual)
            if taken is not None:
                paths[spec] = taken
            else:
                wanted[spec] = file
        if wanted and not self.offline:
            require_space_for({file: self.folder(spec.part) for spec, file in wanted.items()})
        for spec, file in wanted.items():
            paths[spec] = self._have(spec, file)
        return {spec: paths[spec] for spec in specs}

    def known_records(self, specs: Iterable[ArchiveSpec]) -> tuple[Record, ...]:
        """The records of some archives, as far as they are known without asking the server."""
        return tuple(self._known(specs).values())

    def _known(self, specs: Iterable[ArchiveSpec]) -> dict[str, Record]:
        """The same, by part."""
        records = {}
        for part in sorted({spec.part for spec in specs}):
            with suppress(SourceError):
                records[part] = self._records.get(part) or self._stored(part)
        return records

    def _have(self, spec: ArchiveSpec, file: RecordFile) -> Path:
        if self.offline:
            raise SourceError(f"{file.key} is in neither the cache nor the folder that was named, and this is offline")
        return download(file, self.folder(spec.part), self._http, self._listener, self._pinned(spec, file))

    def _pinned(self, spec: ArchiveSpec, file: RecordFile) -> str | None:
        return self._lock.sha256_of(self.release.record(spec.part), file.key)

    def _by_hand(self, spec: ArchiveSpec, file: RecordFile, manual: Path | None) -> Path | None:
        """A file that was downloaded by hand, taken into the cache once it is proven."""
        if manual is None:
            return None
        if not manual.is_dir():
            raise SourceError(f"the folder {manual} does not exist", expected="a folder with downloaded archives")
        claims = sorted(path for path in manual.rglob("*") if path.is_file() and spec.matches(path.name))
        if not claims:
            return None
        for path in claims:
            got = f"{path.stat().st_size:,} bytes"
            if path.stat().st_size == file.size and (got := hash_of(path, "md5")) == file.md5:
                return _taken(path, self.folder(spec.part) / file.key, file, self._pinned(spec, file))
        raise DownloadError(
            f"{claims[-1]} is not the record's file",
            archive=file.key,
            expected=f"{file.size:,} bytes, md5 {file.md5}",
            got=got,
            remedy="download it again, or remove it from that folder",
        )

    def _stored(self, part: str) -> Record:
        path = self.folder(part) / _RECORD
        try:
            return stored_record(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SourceError(
                f"record {self.release.record(part)} is not in the cache {self._folder}",
                remedy="go online once, with `lung-nodule-ct download`; or name a folder of archives",
            ) from error

    def _asked(self, part: str) -> Record:
        number = self.release.record(part)
        name, tries = f"record {number}", self._tries(f"record {number}")
        while True:
            try:
                headers = {"Accept": "application/json"}
                with self._http.get(f"{self.url}/api/records/{number}", name, headers) as answer:
                    body = answer.whole(_MAX_RECORD_BYTES)
                record = parse_record(body, self.url, number)
                break
            except TransientError as fault:
                tries.after(fault)
        with suppress(OSError):  # a cache that cannot be written is a cache all the same
            write_whole(self.folder(part) / _RECORD, record.to_json())
        return record

    def _tries(self, name: str) -> Retry:
        return Retry(self._http.patience, lambda reason, seconds: self._listener.wait(name, reason, seconds))


def _taken(path: Path, final: Path, file: RecordFile, sha256: str | None) -> Path:
    """A copy in the cache of a file that was downloaded by hand: a link would change with the user's own file."""
    partial = final.with_name(f".{final.name}.{os.getpid()}.taken")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(path, partial)
            if not is_verified(partial, file, sha256):
                raise DownloadError(
                    f"{path} is not the record's file",
                    archive=file.key,
                    expected=f"{file.size:,} bytes, md5 {file.md5}" + (f", sha256 {sha256}" if sha256 else ""),
                    got="other hashes",
                    remedy="download it again",
                )
            partial.replace(final)
        finally:
            partial.unlink(missing_ok=True)
            partial.with_name(f"{partial.name}.proof").unlink(missing_ok=True)
    except DownloadError:
        raise
    except OSError as error:
        raise OutputError(f"{path} cannot be taken into the cache {final.parent}: {error}") from error
    write_checksums(final, expected_hashes(file, sha256))
    return final


def pin(releases: Iterable[Release], url: str | None = None, *, cache: str | os.PathLike[str] | None = None) -> Lock:
    """What the records of some releases hold now, with the SHA-256 of those files that are in the cache.

    Raises:
        SourceError: Offline: what is pinned must be asked for.
        DownloadError: The server does not give a record.
    """
    records: list[Record] = []
    sha256: dict[str, str] = {}
    for release in releases:
        zenodo = Zenodo(url, cache=cache, release=release, lock=Lock())  # what is pinned now must not hinder
        if zenodo.offline:
            raise SourceError("records cannot be pinned offline", remedy=f"go online, without {OFFLINE_VARIABLE}")
        for part in "AB":
            record = zenodo.record(part)
            records.append(record)
            for file in record.files:
                path = zenodo.folder(part) / file.key
                # hashed anew, not by its proof: what is pinned here is what others will trust
                if path.is_file() and hash_of(path, "md5") == file.md5:
                    sha256[f"{record.number}/{file.key}"] = hash_of(path, "sha256")
    return Lock.of(records, sha256)


@dataclass(frozen=True)
class Locations:
    """Where archives are.

    Attributes:
        single: The place of each; one that is nowhere is left out.
        several: The names of the files that claim to be an archive, where they are more than one.
    """

    single: dict[ArchiveSpec, str]
    several: dict[ArchiveSpec, tuple[str, ...]]


def locate(zenodo: Zenodo, specs: Iterable[ArchiveSpec]) -> Locations:
    """Where archives are: in the cache, else on the server, if that is not offline.

    Raises:
        DownloadError: The server does not give a record.
    """
    specs = tuple(specs)
    single = {spec: str(path) for spec, path in zenodo.cached(specs).items()}
    several = {}
    for spec, claims in zenodo.claims(() if zenodo.offline else [spec for spec in specs if spec not in single]).items():
        if len(claims) == 1:
            single[spec] = str(RemoteLocation(claims[0].url, claims[0].key, claims[0].size))
        elif claims:
            several[spec] = tuple(file.key for file in claims)
    return Locations(single, several)
