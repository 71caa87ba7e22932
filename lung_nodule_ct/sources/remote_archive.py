"""An archive on an HTTP server, read by ranges: its directory and the members that are needed, and little else.

Small reads are served from a bounded cache of segments. A segment is fetched with some bytes ahead, and their number doubles
while reads are sequential. A large member is one request, whose body is passed on as it arrives.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict, deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
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
        self._segments: OrderedDict[int, bytes] = OrderedDict()  # by their first byte, the least recently used first
        self._lock = threading.Lock()
        self._ends: deque[int] = deque(maxlen=_CONNECTIONS)  # of the ranges that were prefetched last
        self._etag: str | None = None
        self.size = location.size

    def read_at(self, offset: int, length: int) -> bytes:
        end = min(offset + length, self.size)
        parts: list[bytes] = []
        with self._lock:
            while offset < end:
                part = self._cached(offset, end) or self._fetch(offset, end)
                parts.append(part)
                offset += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def stream(self, offset: int, length: int) -> Generator[bytes, None, None]:
        length = min(length, self.size - offset)
        if length <= BLOCK_BYTES:
            yield self.read_at(offset, length)
            return
        end = offset + length
        with self._lock:
            cached = self._cached(offset, end)
        if cached:
            yield cached
        yield from self._request(offset + len(cached), end)

    def prefetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        with self._lock:
            missing = [part for part in map(self._missing, _joined(ranges)) if part is not None]
            if not missing:
                return
            self._ends.extend(stop for _, stop in missing)
        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            fetched = list(pool.map(lambda part: b"".join(self._request(*part)), missing))
        with self._lock:
            for (start, _), segment in zip(missing, fetched, strict=True):
                self._keep(start, segment)

    def close(self) -> None:
        self._http.close()

    def _missing(self, part: tuple[int, int]) -> tuple[int, int] | None:
        """The part of a range that no segment holds, with bytes ahead if it continues what was prefetched last."""
        start, stop = part
        ahead = 0
        for first in sorted(self._segments):
            length = len(self._segments[first])
            if first <= start <= first + length:
                start = first + length
                ahead = min(2 * length, _MAX_AHEAD_BYTES) if start in self._ends else 0
        if start >= min(stop, self.size) or stop - start > _MAX_AHEAD_BYTES:  # a large member is read as it arrives
            return None
        following = min((first for first in self._segments if first > start), default=self.size)
        return start, min(max(stop, start + ahead), following)

    def _cached(self, offset: int, end: int) -> bytes:
        """Return the bytes from ``offset`` on, at most to ``end``, that a segment holds; empty if no segment does."""
        for start, segment in self._segments.items():
            if start <= offset < start + len(segment):
                self._segments.move_to_end(start)
                return segment[offset - start : end - start]
        return b""

    def _fetch(self, offset: int, end: int) -> bytes:
        """Fetch a segment that holds ``offset``, with bytes ahead, and return its bytes from ``offset`` to ``end``."""
        previous = next((len(data) for start, data in self._segments.items() if start + len(data) == offset), 0)
        ahead = min(2 * previous, _MAX_AHEAD_BYTES) if previous else _MIN_AHEAD_BYTES
        following = min((start for start in self._segments if start > offset), default=self.size)
        start, stop = offset, min(max(end, offset + ahead), following)
        if stop == self.size and stop - start < _MIN_AHEAD_BYTES:  # the end of an archive is read backwards
            held = max((first + len(data) for first, data in self._segments.items() if first < start), default=0)
            start = max(min(held, start), stop - _MIN_AHEAD_BYTES)
        segment = b"".join(self._request(start, stop))
        self._keep(start, segment)
        return segment[offset - start : end - start]

    def _keep(self, start: int, segment: bytes) -> None:
        """Add a segment to the cache, and remove those that were not used for the longest time."""
        self._segments[start] = segment
        while sum(map(len, self._segments.values())) > _CACHE_BYTES and len(self._segments) > 1:
            self._segments.popitem(last=False)

    def _request(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes of a range as they arrive. A range that breaks off is requested again from there."""
        retry, counted = Retry(self._http.timeouts), start
        while start < stop:
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


def _joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges in order, joined where they are close, but not to more than is fetched at once."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if joined and start <= joined[-1][1] + _MAX_GAP_BYTES and stop - joined[-1][0] <= _MAX_AHEAD_BYTES:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return joined
