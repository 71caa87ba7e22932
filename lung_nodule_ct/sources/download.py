"""One file, downloaded whole and proven, or resumable: the downloader that pooch is given.

What came stands in ``<md5>.part`` until its md5 is that of the record; only then is the file given its name. A part
that a killed process left is taken up where it ends, and nothing of an answer is kept that does not say clearly that it
is the range that was asked for, of the same file.

That a file in the cache is the record's: what it was when its hashes were taken stands beside it, ``<name>.proof``.

A file of another size or time than its proof, or without one, is hashed again; so is one whose pinned SHA-256 was never taken.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Self

import pooch
from filelock import FileLock, Timeout

from lung_nodule_ct.errors import DownloadError, LungNoduleCTError, OutputError
from lung_nodule_ct.sources.http import HttpClient, Response, Retry, TransientError
from lung_nodule_ct.system.files import hash_of, require_free_space, write_whole
from lung_nodule_ct.system.progress import DownloadProgress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from lung_nodule_ct.sources.records import RecordFile


_PROGRESS_BYTES: Final = 1 << 20
_HASHES_AHEAD = 32
_FLUSH_BYTES: Final = 64 << 20


def download(
    file: RecordFile, folder: Path, http: HttpClient, progress: DownloadProgress, sha256: str | None = None
) -> Path:
    """A file of a record in ``folder``, under its own name, once its md5 is proven.

    Processes that want the same file at once wait for the first; a file of that name that is not the record's is replaced.

    Args:
        file: What to download.
        folder: Where to.
        http: Asks for it.
        progress: Is told how far it is.
        sha256: What it must have beside the md5.

    Raises:
        DownloadError: It cannot be had, or is not what the record promises.
        OutputError: There is no room for it, or it cannot be written.
    """
    final = folder / file.key
    part = _part_of(file, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / f"{file.md5}.lock", file.key, progress):
            if is_verified(final, file, sha256):
                return final
            fetched = _Fetch(file, part, http, progress, sha256)
            whole = folder / f"{file.md5}.whole"
            whole.unlink(missing_ok=True)  # of a process that was killed before it gave the last name
            with _quiet_pooch():
                registry = pooch.create(
                    path=folder, base_url="", registry={whole.name: None}, urls={whole.name: file.url}
                )
                registry.fetch(whole.name, downloader=fetched)
            whole.replace(final)  # what stood there and is not the record's goes only now
            write_checksums(final, expected_hashes(file, sha256))
            _sync_folder(folder)
            part.unlink(missing_ok=True)
            fetched.tag.unlink(missing_ok=True)
    except LungNoduleCTError:
        raise
    except OSError as error:
        raise OutputError(
            f"{file.key} cannot be written to {folder}: {error}",
            remedy="what came so far is kept; make room, or name another folder with LUNG_NODULE_CT_CACHE, and try again",
        ) from error
    progress.end(file.key)
    return final


def require_space_for(wanted: Mapping[RecordFile, Path]) -> None:
    """See that there is room for all files that are wanted, beside what of them is there, before the first is begun.

    Args:
        wanted: The folder of each.

    Raises:
        OutputError: There is not.
    """
    needs: Counter[Path] = Counter()
    for file, folder in wanted.items():
        part = _part_of(file, folder)
        needs[folder] += file.size - min(file.size, part.stat().st_size if part.exists() else 0)
    require_free_space(", ".join(file.key for file in wanted), sum(needs.values()), needs)


def _part_of(file: RecordFile, folder: Path) -> Path:
    return folder / f"{file.md5}.part"


class _Fetch:
    """Fills a part, proves it, and hands it to pooch: ``downloader(url, output_file, pooch)``."""

    def __init__(
        self, file: RecordFile, part: Path, http: HttpClient, progress: DownloadProgress, sha256: str | None
    ) -> None:
        self._file, self._part, self._http, self._listener = file, part, http, progress
        self._pinned = expected_hashes(file, sha256)
        self.tag = part.with_suffix(".etag")
        self._ranges = True  # whether the server's word on ranges can be trusted
        self._afresh = False  # whether the next request is for the whole file

    def __call__(self, _url: str, output_file: str, _pooch: Any) -> None:
        self._listener.begin(self._file.key, self._file.size)
        for last in (False, True):
            wrong = self._fill()
            if wrong is None:
                break
            self._part.unlink()
            self.tag.unlink(missing_ok=True)
            if not last:  # parts of two versions, or damage on the way: once more, from its first byte
                continue
            kind, got = wrong
            raise DownloadError(
                f"came whole, but its {kind} is wrong",
                archive=self._file.key,
                expected=self._pinned[kind],
                got=got,
                remedy="it was thrown away; try again, and if it stays so the server's copy is damaged or was changed",
            )
        _hand_over(self._part, Path(output_file))

    def _fill(self) -> tuple[str, str] | None:
        """Bring the part to its full size. What is wrong with its hashes then, if anything is."""
        with self._part.open("a+b", buffering=0) as part, _Digests(self._pinned) as digests, _Flusher(part) as flusher:
            if part.tell() > self._file.size:
                part.truncate(0)
            require_space_for({self._file: self._part.parent})
            part.seek(0)
            while piece := part.read(_PROGRESS_BYTES):
                digests.update(piece)
            self._bring(part, digests, flusher)
            flusher.finish()
            os.fsync(part.fileno())
            got = digests.results()
        return next(((kind, got[kind]) for kind, pinned in self._pinned.items() if got[kind] != pinned), None)

    def _bring(self, part: IO[bytes], digests: _Digests, flusher: _Flusher) -> None:
        patience = self._http.patience
        tries = Retry(patience, lambda reason, seconds: self._listener.wait(self._file.key, reason, seconds))
        done = farthest = part.tell()
        self._listener.reach(self._file.key, done)
        while done < self._file.size:
            try:
                with self._http.get(
                    self._file.url, self._file.key, self._range_from(done), accept=(200, 206, 416)
                ) as answer:
                    if self._begins_at(answer, done) != done:
                        part.truncate(0)
                        digests.restart()
                        done = 0
                    for piece in answer.pieces():
                        if done + len(piece) > self._file.size:
                            raise TransientError(self._wrong_length(f"more than {self._file.size:,}"))
                        _write_whole(part, piece)
                        flusher.wrote(len(piece))
                        digests.update(piece)
                        done += len(piece)
                        self._listener.reach(self._file.key, done)
                        # measured from the farthest: a server that only ever sends the beginning is given up
                        if done - farthest >= _PROGRESS_BYTES:
                            tries.progressed()
                            farthest = done
                if done < self._file.size:
                    raise TransientError(self._wrong_length(f"{done:,}"))
            except TransientError as fault:
                tries.after(fault)

    def _range_from(self, done: int) -> dict[str, str]:
        if not done or self._afresh or not self._ranges:
            return {}
        tag = self._known_tag()
        # a weak tag must not stand there (RFC 9110, 13.1.5)
        return {"Range": f"bytes={done}-", **({"If-Range": tag} if tag.startswith('"') else {})}

    def _begins_at(self, answer: Response, done: int) -> int:
        """Where the body of an answer begins in the file, once all that its head says is true of the file.

        Raises:
            TransientError: It is not.
        """
        encoding = answer.headers.get("Content-Encoding", "identity").lower()
        if encoding != "identity":
            raise TransientError(self._wrong("is sent encoded", "the file as it is", f"Content-Encoding: {encoding}"))
        if answer.headers.get("Content-Type", "").lower().startswith("text/html"):
            raise TransientError(self._wrong("is not what the server gives", "a zip archive", "an HTML page"))
        tag, length = answer.headers.get("ETag", ""), answer.headers.get("Content-Length")
        if answer.status == 416:
            self._afresh = True
            raise TransientError(
                self._wrong("cannot be resumed", f"bytes from {done:,}", "416 Range Not Satisfiable"), 0
            )
        if answer.status == 200:
            if length is not None and length != str(self._file.size):
                raise TransientError(self._wrong_length(length))
            self.tag.write_text(tag, encoding="utf-8")
            self._afresh = False
            return 0
        said, asked = answer.headers.get("Content-Range", "none").strip(), f"bytes {done}-{self._file.size - 1}"
        expected = f"{asked}/{self._file.size}"
        if not done or said not in (expected, f"{asked}/*"):
            self._ranges = False  # this server is not asked for a range again
            raise TransientError(self._wrong("is sent from another place", f"Content-Range: {expected}", said), 0)
        if length is not None and length != str(self._file.size - done):
            raise TransientError(self._wrong_length(length))
        if (known := self._known_tag()) and tag and tag != known:
            self._afresh = True
            raise TransientError(self._wrong("was changed while it came", f"ETag {known}", tag), 0)
        return done

    def _known_tag(self) -> str:
        with suppress(OSError, UnicodeDecodeError):
            return self.tag.read_text(encoding="utf-8").strip()
        return ""

    def _wrong(self, problem: str, expected: str, got: str) -> DownloadError:
        remedy = (
            "try later; or download it with a browser and name its folder with --manual-dir. What came so far is kept"
        )
        return DownloadError(problem, archive=self._file.key, expected=expected, got=got, remedy=remedy)

    def _wrong_length(self, got: str) -> DownloadError:
        return self._wrong("has not the length of the record's file", f"{self._file.size:,} bytes", got)


def _write_whole(file: IO[bytes], piece: bytes) -> None:
    """An unbuffered write may stop halfway where the disk is full; the next one then says so."""
    left = memoryview(piece)
    while left:
        left = left[file.write(left) :]


class _Flusher:
    """Has a file flushed to the disk now and then while more of it comes, so that little is left to flush at its end."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._waiting = file, 0
        self._pool = ThreadPoolExecutor(1)
        self._flush: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def wrote(self, length: int) -> None:
        self._waiting += length
        if self._waiting >= _FLUSH_BYTES and (self._flush is None or self._flush.done()):
            self.finish()
            self._flush, self._waiting = self._pool.submit(os.fsync, self._file.fileno()), 0

    def finish(self) -> None:
        """Wait for the last flush, and raise what went wrong in it: the system tells of that only once."""
        if self._flush is not None:
            self._flush.result()


class _Digests:
    """Hashes of what comes, made beside it by a thread; what waits for it is bounded."""

    def __init__(self, kinds: Iterable[str]) -> None:
        self._kinds = tuple(kinds)
        self._pool = ThreadPoolExecutor(1)
        self._pending: deque[Future[None]] = deque()
        self.restart()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def restart(self) -> None:
        self._settle(0)
        self._digests = [hashlib.new(kind, usedforsecurity=False) for kind in self._kinds]

    def update(self, piece: bytes) -> None:
        self._settle(_HASHES_AHEAD)
        self._pending.append(self._pool.submit(self._feed, piece))

    def results(self) -> dict[str, str]:
        self._settle(0)
        return {kind: digest.hexdigest() for kind, digest in zip(self._kinds, self._digests, strict=True)}

    def _feed(self, piece: bytes) -> None:
        for digest in self._digests:
            digest.update(piece)

    def _settle(self, most: int) -> None:
        while len(self._pending) > most:
            self._pending.popleft().result()


class _locked:  # noqa: N801 -- read as a verb
    """Only one process downloads a file; the others say that they wait."""

    def __init__(self, path: Path, name: str, progress: DownloadProgress) -> None:
        self._lock, self._name, self._listener = FileLock(path), name, progress

    def __enter__(self) -> None:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            self._listener.wait(self._name, "another process downloads it", 0)
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


@contextmanager
def _quiet_pooch() -> Iterator[None]:
    """The listener tells of the download; pooch need not, too."""
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("WARNING")
    try:
        yield
    finally:
        logger.setLevel(level)


def _hand_over(part: Path, output: Path) -> None:
    """Put the part under another name too, so that it is still there if pooch is killed before it gives the last one."""
    output.unlink(missing_ok=True)
    try:
        os.link(part, output)
    except OSError:  # a file system without hard links
        part.replace(output)


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # not every system can
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def expected_hashes(file: RecordFile, sha256: str | None) -> dict[str, str]:
    """What a file must have: the md5 of its record, and the SHA-256 where one is pinned."""
    return {"md5": file.md5, **({"sha256": sha256} if sha256 else {})}


def is_verified(path: Path, file: RecordFile, sha256: str | None) -> bool:
    """Whether what stands at ``path`` is the record's file.

    Args:
        path: Where it is.
        file: What it should be.
        sha256: What it must have beside the md5.
    """
    try:
        if path.stat().st_size != file.size:
            return False
        wanted = expected_hashes(file, sha256)
        known = _read(path)
        missing = [kind for kind in wanted if kind not in known]
        taken = {**known, **{kind: hash_of(path, kind) for kind in missing}}
    except OSError:
        return False
    if missing:
        write_checksums(path, taken)
    return all(taken[kind] == value for kind, value in wanted.items())


def write_checksums(path: Path, hashes: dict[str, str]) -> None:
    """Note the hashes of a file as it is; a cache that cannot be written goes without."""
    with suppress(OSError):
        write_whole(_beside(path), json.dumps({**_state(path), "hashes": hashes}))


def _read(path: Path) -> dict[str, str]:
    """The hashes that were taken of a file, as far as it is still what it was."""
    with suppress(OSError, ValueError, TypeError, AttributeError):
        proof = json.loads(_beside(path).read_text(encoding="utf-8"))
        if {key: proof.get(key) for key in ("size", "mtime_ns")} == _state(path):
            return dict(proof["hashes"])
    return {}


def _state(path: Path) -> dict[str, Any]:
    stat = path.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.proof")
