"""The download of one file of a record, which can be resumed and is verified.

The file grows as ``<md5>.part`` until its hashes are those of the record; only then it gets its name. The part that a killed
process left is continued where it ends. A response is only used if its head says that it is the requested range of the same
file.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lung_nodule_ct.errors import DownloadError, LungNoduleCTError, OutputError
from lung_nodule_ct.sources.http import HttpClient, Response
from lung_nodule_ct.sources.retry import Retry, TransientError
from lung_nodule_ct.system.disk_writes import HashingWriter
from lung_nodule_ct.system.files import (
    cache_hashes,
    cached_hashes,
    hash_cache_of,
    remove_partial_files,
    require_free_space,
)
from lung_nodule_ct.system.processes import locked
from lung_nodule_ct.system.progress import DownloadProgress

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lung_nodule_ct.sources.records import RecordFile

_PROGRESS_BYTES: Final = 1 << 20
"""How many new bytes count as progress, so that earlier failures are forgotten."""


def download(
    file: RecordFile, folder: Path, http: HttpClient, progress: DownloadProgress, sha256: str | None = None
) -> Path:
    """Download a file of a record, unless it is in the folder already.

    Processes that need the same file at the same time wait for the first one. A file of the same name that is not the
    record's is replaced.

    Args:
        file: What to download.
        folder: Where to store it, under the name that it has in the record. The folder is created if needed.
        http: Sends the requests.
        progress: Is called while the download makes progress.
        sha256: A SHA-256 that the file must have in addition to the MD5 of the record.

    Returns:
        The path of the verified file.

    Raises:
        DownloadError: The server does not send the file, or not the file of the record.
        OutputError: There is not enough free space, or the file cannot be written.
    """
    final, part = folder / file.key, _part_of(file, folder)
    try:
        with locked_file(file, folder, progress):
            if is_verified(final, file, sha256):
                return final
            transfer = _Transfer(file, part, http, progress, sha256)
            transfer.run()
            part.replace(final)
            cache_hashes(final, expected_hashes(file, sha256))
            _sync_folder(folder)
            transfer.etag_file.unlink(missing_ok=True)
    except LungNoduleCTError:
        raise
    except OSError as error:
        raise OutputError(
            f"{file.key} cannot be written to {folder}: {error}",
            remedy="what was downloaded is kept; free some space, or name another folder with LUNG_NODULE_CT_CACHE, and try "
            "again",
        ) from error
    progress.end(file.key)
    return final


def expected_hashes(file: RecordFile, sha256: str | None) -> dict[str, str]:
    """Return the hashes that a file must have: the MD5 of the record, and the SHA-256 if one is pinned."""
    return {"md5": file.md5, **({"sha256": sha256} if sha256 else {})}


def is_verified(path: Path, file: RecordFile, sha256: str | None, *, rehash: bool = False) -> bool:
    """Whether a path holds a file of a record: whether its size and hashes are those of the record.

    Args:
        path: Where the file may be. It is not hashed again while its checksum cache is valid.
        file: The file of the record.
        sha256: A SHA-256 that the file must have in addition to the MD5 of the record.
        rehash: Hash the file again, whatever its checksum cache holds.
    """
    expected = expected_hashes(file, sha256)
    try:
        if path.stat().st_size != file.size:
            return False
        hashes = cached_hashes(path, expected, rehash=rehash)
    except OSError:
        return False
    return all(hashes[algorithm] == value for algorithm, value in expected.items())


def require_space_for(folders: Mapping[RecordFile, Path]) -> int:
    """Check that there is enough free space for some downloads, less what they have downloaded already.

    Args:
        folders: The folder of each file.

    Returns:
        The number of bytes to download.

    Raises:
        OutputError: There is not.
    """
    needs: Counter[Path] = Counter()
    for file, folder in folders.items():
        part = _part_of(file, folder)
        needs[folder] += file.size - min(file.size, part.stat().st_size if part.exists() else 0)
    total = sum(needs.values())
    require_free_space(", ".join(file.key for file in folders), total, needs)
    return total


class _Transfer:
    """Fills the part of a file until it is complete and verified."""

    def __init__(
        self, file: RecordFile, part: Path, http: HttpClient, progress: DownloadProgress, sha256: str | None
    ) -> None:
        self._file, self._part, self._http, self._progress = file, part, http, progress
        self._expected = expected_hashes(file, sha256)
        self.etag_file = part.with_suffix(".etag")
        self._ranges_work = True  # until the server sends a wrong range
        self._restart = False  # whether the next request is for the complete file

    def run(self) -> None:
        """Download the file.

        Raises:
            DownloadError: The server does not send it, or sends other content.
            OutputError: There is not enough free space.
            OSError: The part cannot be written.
        """
        self._progress.begin(self._file.key, self._file.size)
        for last in (False, True):
            hashes = self._fill()
            wrong = [name for name, value in self._expected.items() if hashes[name] != value]
            if not wrong:
                return
            self._part.unlink()
            self.etag_file.unlink(missing_ok=True)
            if last:  # the first time it could have been a mixture of two versions, or damaged in transit
                raise DownloadError(
                    f"is complete, but its {wrong[0]} is wrong",
                    archive=self._file.key,
                    expected=self._expected[wrong[0]],
                    got=hashes[wrong[0]],
                    remedy="it was deleted; try again. If the error remains, the server's copy is damaged or was changed",
                )

    def _fill(self) -> dict[str, str]:
        """Bring the part to its full size, and return its hashes."""
        with self._part.open("a+b", buffering=0) as part, HashingWriter(part, self._expected) as writer:
            if part.tell() > self._file.size:
                part.truncate(0)
            require_space_for({self._file: self._part.parent})
            self._receive(writer)
            return writer.finish()

    def _receive(self, writer: HashingWriter) -> None:
        """Request the bytes that are missing, again and again while that makes progress."""
        name, size = self._file.key, self._file.size
        retry = Retry(self._http.timeouts, lambda reason, seconds: self._progress.wait(name, reason, seconds))
        done = farthest = writer.hash_existing()
        self._progress.reach(name, done)
        while done < size:
            try:
                with self._http.get(self._file.url, name, self._range_from(done), accept=(200, 206, 416)) as response:
                    if self._start_of(response, done) != done:
                        writer.restart()
                        done = 0
                    for piece in response.pieces():
                        if done + len(piece) > size:
                            raise TransientError(self._wrong_length(f"more than {size:,}"))
                        writer.write(piece)
                        done += len(piece)
                        self._progress.reach(name, done)
                        # from the farthest byte, so that a server that repeats the beginning makes no progress
                        if done - farthest >= _PROGRESS_BYTES:
                            retry.progressed()
                            farthest = done
                if done < size:
                    raise TransientError(self._wrong_length(f"{done:,}"))
            except TransientError as failure:
                retry.wait(failure)

    def _range_from(self, done: int) -> dict[str, str]:
        """Return the headers that request the file from the byte ``done`` on."""
        if not done or self._restart or not self._ranges_work:
            return {}
        etag = self._known_etag()
        # If-Range takes no weak ETag (RFC 9110, 13.1.5)
        return {"Range": f"bytes={done}-", **({"If-Range": etag} if etag.startswith('"') else {})}

    def _start_of(self, response: Response, done: int) -> int:
        """Return the position in the file at which the body of a response starts: ``done`` or 0.

        Raises:
            TransientError: The head of the response does not fit the file or the request.
        """
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        if encoding != "identity":
            raise TransientError(
                self._wrong("was encoded by the server", "the unencoded file", f"Content-Encoding: {encoding}")
            )
        if response.headers.get("Content-Type", "").lower().startswith("text/html"):
            raise TransientError(self._wrong("was replaced by the server", "a zip archive", "an HTML page"))
        if response.status == 416:
            self._restart = True
            failure = self._wrong("cannot be resumed", f"bytes from {done:,}", "416 Range Not Satisfiable")
            raise TransientError(failure, 0)
        length, etag = response.headers.get("Content-Length"), response.headers.get("ETag", "")
        if response.status == 200:
            if length is not None and length != str(self._file.size):
                raise TransientError(self._wrong_length(length))
            self.etag_file.write_text(etag, encoding="utf-8")
            self._restart = False
            return 0
        self._check_range(response.headers.get("Content-Range", "none").strip(), done)
        if length is not None and length != str(self._file.size - done):
            raise TransientError(self._wrong_length(length))
        if (known := self._known_etag()) and etag and etag != known:
            self._restart = True
            raise TransientError(self._wrong("changed during the download", f"ETag {known}", etag), 0)
        return done

    def _check_range(self, content_range: str, done: int) -> None:
        requested = f"bytes {done}-{self._file.size - 1}"
        expected = f"{requested}/{self._file.size}"
        if not done or content_range not in (expected, f"{requested}/*"):
            self._ranges_work = False
            failure = self._wrong(
                "was sent from a wrong position or length", f"Content-Range: {expected}", content_range
            )
            raise TransientError(failure, 0)

    def _known_etag(self) -> str:
        with suppress(OSError, UnicodeDecodeError):
            return self.etag_file.read_text(encoding="utf-8").strip()
        return ""

    def _wrong_length(self, got: str) -> DownloadError:
        return self._wrong("does not have the length of the record's file", f"{self._file.size:,} bytes", got)

    def _wrong(self, problem: str, expected: str, got: str) -> DownloadError:
        remedy = "try later; or download it with a browser and name its folder with --manual-dir. What was downloaded is kept"
        return DownloadError(problem, archive=self._file.key, expected=expected, got=got, remedy=remedy)


def _part_of(file: RecordFile, folder: Path) -> Path:
    return folder / f"{file.md5}.part"


@contextmanager
def locked_file(file: RecordFile, folder: Path, progress: DownloadProgress) -> Iterator[None]:
    """Run the block, which writes a file of a record, in one process at a time. A process that has to wait reports so.

    What killed processes left behind is removed, except for the part that can be resumed.

    Args:
        file: The file of the record.
        folder: Where it is written. The folder is created if needed.
        progress: Is called if another process runs the block.

    Raises:
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock, final = folder / f"{file.md5}.lock", folder / file.key
    with locked(lock, lambda: progress.wait(file.key, "another process downloads it", 0)):
        for path in (final, hash_cache_of(final)):
            remove_partial_files(path)
        for left in folder.glob("tmp" + "[a-z0-9_]" * 8):  # as earlier versions named what they downloaded
            if left.is_file():
                left.unlink(missing_ok=True)
        yield


def _sync_folder(folder: Path) -> None:
    """Have the disk store the names of the files in a folder, where the system can do that."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
