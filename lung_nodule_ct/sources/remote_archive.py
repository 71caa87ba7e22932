"""An archive on an HTTP server, read by ranges: its directory and the members that are needed, and little else.

Small reads are served from a bounded cache of segments. A segment is fetched with some bytes ahead, and their number doubles
while reads are sequential. A large member is one request, whose body is passed on as it arrives.

Reads that are announced (:meth:`RemoteFile.prefetch`) are fetched over a few connections. While they are sequential, threads fetch what
follows, so that a reader of all members waits for the server only at the beginning.
"""

from __future__ import annotations

import re
import threading
from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from lung_nodule_ct.errors import ArchiveError, DownloadError
from lung_nodule_ct.sources.byte_sources import ByteSource, RemoteLocation
from lung_nodule_ct.sources.http import BLOCK_BYTES, HttpClient, Response
from lung_nodule_ct.sources.retry import Retry, TransientError

_MIN_AHEAD_BYTES: Final = 32 << 10
_MAX_AHEAD_BYTES: Final = 4 << 20
_CACHE_BYTES: Final = 32 << 20
_PROGRESS_BYTES: Final = 1 << 20
_CONNECTIONS: Final = 4
_MAX_GAP_BYTES: Final = 64 << 10
"""Ranges that are closer are fetched as one: a request takes longer than so many bytes."""
_MAX_SEQUENCES: Final = 8
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class RemoteFile(ByteSource):
    """An archive on an HTTP server that supports range requests.

    Args:
        location: Where the archive is.
        http: Sends the requests.
    """

    def __init__(self, location: RemoteLocation, http: HttpClient | None = None) -> None:
        self._location = location
        self._http = http or HttpClient(token_host=urlsplit(location.url).netloc)
        self._segments = _Segments()
        self._pending: dict[int, _Fetch] = {}  # by their first byte
        self._sequences: OrderedDict[int, int] = OrderedDict()  # end of what was announced: number of bytes ahead
        self._lock = threading.Lock()
        self._connections = threading.Semaphore(_CONNECTIONS)
        self._is_closed = False
        self._etag: str | None = None
        self.size = location.size

    def read_at(self, offset: int, length: int) -> bytes:
        end = min(offset + length, self.size)
        parts: list[bytes] = []
        with self._lock:
            while offset < end:
                part = self._held(offset, end) or self._fetch(offset, end)
                parts.append(part)
                offset += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def stream(self, offset: int, length: int) -> Generator[bytes, None, None]:
        length = min(length, self.size - offset)
        if length <= BLOCK_BYTES:
            yield self.read_at(offset, length)
            return
        end = offset + length
        while offset < end:
            with self._lock:
                held = self._held(offset, end)
            if not held:
                yield from self._request(offset, end)
                return
            yield held
            offset += len(held)

    def prefetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        needed = _first([(start, min(stop, self.size)) for start, stop in _joined(ranges) if start < self.size])
        with self._lock:
            self._collect()
            for start, stop in needed:
                if stop - start <= _MAX_AHEAD_BYTES:  # a large member is read as it arrives
                    for gap in self._gaps(start, stop):
                        self._start(*gap)
            awaited = [fetch for fetch in self._pending.values() if any(map(fetch.overlaps, needed))]
            for start, stop in needed:
                self._start_ahead(start, stop)
        for fetch in awaited:
            fetch.content.result()
        with self._lock:
            self._collect()

    def close(self) -> None:
        self._is_closed = True  # so that no thread requests more
        self._http.close()

    def _held(self, offset: int, end: int) -> bytes:
        """Return the bytes from ``offset`` on, at most to ``end``, that a segment holds or a thread fetches; empty if none does."""
        if awaited := [fetch.content for fetch in self._pending.values() if fetch.start <= offset < fetch.stop]:
            wait(awaited)
            self._collect()
        return self._segments.read(offset, end)

    def _collect(self) -> None:
        """Hold what the threads fetched. What one could not fetch is requested again where it is needed."""
        for fetch in [fetch for fetch in self._pending.values() if fetch.content.done()]:
            del self._pending[fetch.start]
            if fetch.content.exception() is None:
                self._segments.add(fetch.start, fetch.content.result())

    def _gaps(self, start: int, stop: int) -> list[tuple[int, int]]:
        """The parts of a range that are neither held nor being fetched."""
        gaps: list[tuple[int, int]] = []
        for first, last in self._spans(start, stop):
            if first > start:
                gaps.append((start, first))
            start = max(start, last)
        return [*gaps, (start, stop)] if start < stop else gaps

    def _spans(self, start: int, stop: int) -> list[tuple[int, int]]:
        """What is held or being fetched of a range, in order."""
        fetched = [(fetch.start, fetch.stop) for fetch in self._pending.values() if fetch.overlaps((start, stop))]
        return sorted([*self._segments.spans(start, stop), *fetched])

    def _start_ahead(self, start: int, stop: int) -> None:
        """Fetch what follows a range, if the range continues what was announced before. Twice as much each time."""
        previous = next((end for end in self._sequences if end <= start <= end + _MAX_GAP_BYTES), None)
        ahead = 0
        if previous is not None:
            ahead = min(2 * max(self._sequences.pop(previous), stop - start), _MAX_AHEAD_BYTES)
        self._sequences[stop] = ahead
        if len(self._sequences) > _MAX_SEQUENCES:
            self._sequences.popitem(last=False)
        gaps = self._gaps(stop, min(stop + ahead, self.size))
        if gaps and gaps[0][0] - stop < ahead // 2:
            first = gaps[0][0]
            self._start(*self._gaps(first, min(first + ahead, self.size))[0])

    def _start(self, start: int, stop: int) -> None:
        """Fetch a range in another thread."""
        fetch = self._pending[start] = _Fetch(start, stop, Future())

        def work() -> None:
            with self._connections:
                try:
                    fetch.content.set_result(b"".join(self._request(start, stop)))
                except BaseException as error:  # is raised where the content is needed
                    fetch.content.set_exception(error)

        threading.Thread(target=work, name="lung-nodule-ct-fetch", daemon=True).start()

    def _fetch(self, offset: int, end: int) -> bytes:
        """Fetch a segment that holds ``offset``, with bytes ahead, and return its bytes from ``offset`` to ``end``."""
        previous, previous_end, following = self._segments.around(offset)
        length = previous_end - previous if previous_end == offset else 0
        ahead = min(2 * length, _MAX_AHEAD_BYTES) if length else _MIN_AHEAD_BYTES
        limits = [following or self.size, *(fetch.start for fetch in self._pending.values() if fetch.start > offset)]
        start, stop = offset, min(max(end, offset + ahead), *limits)
        if stop == self.size and stop - start < _MIN_AHEAD_BYTES:  # the end of an archive is read backwards
            start = max(min(previous_end, start), stop - _MIN_AHEAD_BYTES)
        segment = b"".join(self._request(start, stop))
        self._segments.add(start, segment)
        return segment[offset - start : end - start]

    def _request(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes of a range as they arrive. A range that breaks off is requested again from there."""
        retry, counted = Retry(self._http.timeouts), start
        while start < stop:
            if self._is_closed:
                raise ArchiveError("is closed", archive=self._location.name)
            headers = {"Range": f"bytes={start}-{stop - 1}"}
            try:
                with self._http.get(self._location.url, self._location.name, headers, accept=(200, 206)) as response:
                    self._check(response, start, stop)
                    for piece in response.pieces():
                        start += len(piece)
                        if start > stop:
                            raise self._changed(f"{start - stop:,} bytes more")
                        yield piece
                        if start - counted >= _PROGRESS_BYTES:
                            retry.progressed()
                            counted = start
                if start < stop:
                    raise TransientError(
                        DownloadError("the connection broke off", archive=self._location.name, got="a part of a range")
                    )
            except TransientError as failure:
                retry.wait(failure)

    def _check(self, response: Response, start: int, stop: int) -> None:
        """Check that the head of a response describes the requested range of the same file."""
        name = self._location.name
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        if response.status != 206 or encoding != "identity":
            raise ArchiveError(
                "cannot be streamed: the server does not support range requests",
                archive=name,
                expected="206 Partial Content",
                got=f"{response.status}" + (f", Content-Encoding: {encoding}" if encoding != "identity" else ""),
                remedy="download it first, with `lung-nodule-ct download CONFIG`",
            )
        content_range = response.headers.get("Content-Range", "none").strip()
        match = _CONTENT_RANGE.fullmatch(content_range)
        if match is None or (int(match[1]), int(match[2])) != (start, stop - 1):
            error = DownloadError(
                "the server sends another range", archive=name, expected=f"bytes {start}-{stop - 1}", got=content_range
            )
            raise TransientError(error)
        if match[3] not in ("*", str(self.size)):
            raise self._changed(f"{int(match[3]):,} bytes")
        etag = response.headers.get("ETag")
        if self._etag and etag and etag != self._etag:
            raise self._changed(f"ETag {etag}")
        self._etag = self._etag or etag

    def _changed(self, got: str) -> ArchiveError:
        return ArchiveError(
            "was changed on the server while it was read",
            archive=self._location.name,
            expected=f"{self.size:,} bytes" + (f", ETag {self._etag}" if self._etag else ""),
            got=got,
            remedy="start again",
        )


@dataclass(frozen=True, slots=True)
class _Fetch:
    """A range that a thread fetches."""

    start: int
    stop: int
    content: Future[bytes]

    def overlaps(self, span: tuple[int, int]) -> bool:
        return self.start < span[1] and span[0] < self.stop


class _Segments:
    """Parts of a file in memory. Those that were not used for the longest time are removed when they take more than 32 MiB."""

    def __init__(self) -> None:
        self._by_start: OrderedDict[int, bytes] = OrderedDict()  # the least recently used first
        self._starts: list[int] = []  # in order
        self._bytes = 0

    def read(self, offset: int, end: int) -> bytes:
        """Return the bytes from ``offset`` on, at most to ``end``, that a segment holds; empty if no segment does."""
        index = bisect_right(self._starts, offset) - 1
        if index < 0:
            return b""
        start = self._starts[index]
        piece = self._by_start[start][offset - start : end - start]
        if piece:
            self._by_start.move_to_end(start)
        return piece

    def around(self, offset: int) -> tuple[int, int, int | None]:
        """Return start and end of the last segment that starts before ``offset`` (0 if there is none), and the start of the next one."""
        index = bisect_left(self._starts, offset)
        start = self._starts[index - 1] if index else 0
        end = start + len(self._by_start[start]) if index else 0
        return start, end, self._starts[index] if index < len(self._starts) else None

    def spans(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Start and end of the segments that overlap a range, in order."""
        first = max(0, bisect_right(self._starts, start) - 1)
        spans = [(at, at + len(self._by_start[at])) for at in self._starts[first : bisect_left(self._starts, stop)]]
        return [span for span in spans if span[1] > start]

    def add(self, start: int, segment: bytes) -> None:
        """Add a segment. One that starts at the same byte is replaced."""
        if start in self._by_start:
            self._remove(start)
        self._by_start[start] = segment
        insort(self._starts, start)
        self._bytes += len(segment)
        while self._bytes > _CACHE_BYTES and len(self._by_start) > 1:
            self._remove(next(iter(self._by_start)))

    def _remove(self, start: int) -> None:
        self._bytes -= len(self._by_start.pop(start))
        del self._starts[bisect_left(self._starts, start)]


def _joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges in order, joined where they are close, but not to more than is fetched at once."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if joined and start <= joined[-1][1] + _MAX_GAP_BYTES and stop - joined[-1][0] <= _MAX_AHEAD_BYTES:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return joined


def _first(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The first of some ranges, as many as are fetched before they are read: later ones would displace them in the cache."""
    kept: list[tuple[int, int]] = []
    size = 0
    for start, stop in ranges:
        size += min(stop - start, _MAX_AHEAD_BYTES)
        if size > _CACHE_BYTES // 2:
            break
        kept.append((start, stop))
    return kept
