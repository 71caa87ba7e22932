"""An archive on a server, read by ranges: the directory and the members that are wanted, and little else.

Small reads are answered from a bounded cache of segments, each fetched with a read-ahead that doubles while reading goes
on in order; a large member is one request, whose body is passed on as it comes.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, urldefrag, urlencode, urlsplit

from lung_nodule_ct.errors import ArchiveError, DownloadError
from lung_nodule_ct.sources.http import BLOCK_BYTES, HttpClient, Response, Retry, TransientError

_FIRST_AHEAD: Final = 32 << 10
_LONGEST_AHEAD: Final = 4 << 20
_CACHE_BYTES: Final = 32 << 20
_PROGRESS_BYTES: Final = 1 << 20
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


@dataclass(frozen=True, slots=True)
class RemoteLocation:
    """Where a remote archive is, as one string that worker processes can be given.

    Attributes:
        url: Of its content.
        name: Its file name.
        size: Its length in bytes, as the record says.
    """

    url: str
    name: str
    size: int

    def __str__(self) -> str:
        return f"{self.url}#{urlencode({'name': self.name, 'size': self.size})}"

    @classmethod
    def parse(cls, location: str) -> RemoteLocation:
        """What ``str`` made of one.

        Raises:
            ValueError: It did not.
        """
        url, fragment = urldefrag(location)
        fields = parse_qs(fragment)
        try:
            return cls(url, fields["name"][0], int(fields["size"][0]))
        except (KeyError, IndexError) as error:
            raise ValueError(f"{location!r} is no location of a remote archive") from error


class RemoteFile:
    """The bytes of an archive on a server. A :class:`~lung_nodule_ct.sources.byte_sources.ByteSource`.

    Args:
        location: Where it is.
        http: Asks for it.
    """

    def __init__(self, location: RemoteLocation, http: HttpClient | None = None) -> None:
        self._location = location
        self._http = http or HttpClient(token_host=urlsplit(location.url).netloc)
        self._segments: OrderedDict[int, bytes] = OrderedDict()  # by their first byte, the least recently used first
        self._lock = threading.Lock()
        self._tag: str | None = None
        self.size = location.size

    def read_at(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``offset``, fewer only where the archive ends.

        Raises:
            DownloadError: The server does not give them.
            ArchiveError: It gives no ranges, or the archive was changed.
        """
        end = min(offset + length, self.size)
        parts: list[bytes] = []
        with self._lock:
            while offset < end:
                part = self._cached(offset, end) or self._fetched(offset, end)
                parts.append(part)
                offset += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def stream(self, offset: int, length: int) -> Generator[bytes, None, None]:
        """The same bytes as they come, in one request where they are many.

        Raises:
            DownloadError: The server does not give them.
            ArchiveError: It gives no ranges, or the archive was changed.
        """
        length = min(length, self.size - offset)
        if length <= BLOCK_BYTES:
            yield self.read_at(offset, length)
            return
        end = offset + length
        with self._lock:
            read_ahead = self._cached(offset, end)
        if read_ahead:
            yield read_ahead
        yield from self._ranged(offset + len(read_ahead), end)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _cached(self, offset: int, end: int) -> bytes:
        for start, segment in self._segments.items():
            if start <= offset < start + len(segment):
                self._segments.move_to_end(start)
                return segment[offset - start : end - start]
        return b""

    def _fetched(self, offset: int, end: int) -> bytes:
        """Fetch a segment from ``offset`` on, and what may be wanted next; what of it is before ``end``."""
        before = next((len(own) for start, own in self._segments.items() if start + len(own) == offset), 0)
        ahead = min(2 * before, _LONGEST_AHEAD) if before else _FIRST_AHEAD
        following = min((start for start in self._segments if start > offset), default=self.size)
        start, stop = offset, min(max(end, offset + ahead), following)
        if stop == self.size and stop - start < _FIRST_AHEAD:  # the end of an archive is read backwards
            held = max((first + len(own) for first, own in self._segments.items() if first < start), default=0)
            start = max(min(held, start), stop - _FIRST_AHEAD)
        segment = b"".join(self._ranged(start, stop))
        self._segments[start] = segment
        while sum(map(len, self._segments.values())) > _CACHE_BYTES and len(self._segments) > 1:
            self._segments.popitem(last=False)
        return segment[offset - start : end - start]

    def _ranged(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes of a range, asked for again from where they broke off."""
        tries, counted = Retry(self._http.patience), start
        while start < stop:
            headers = {"Range": f"bytes={start}-{stop - 1}"}
            try:
                with self._http.get(self._location.url, self._location.name, headers, accept=(200, 206)) as answer:
                    self._check(answer, start, stop)
                    for piece in answer.pieces():
                        start += len(piece)
                        if start > stop:
                            raise self._changed(f"{stop - start:,} bytes more")
                        yield piece
                        if start - counted >= _PROGRESS_BYTES:
                            tries.progressed()
                            counted = start
                if start < stop:
                    raise TransientError(
                        DownloadError("the connection broke off", archive=self._location.name, got="a part of a range")
                    )
            except TransientError as fault:
                tries.after(fault)

    def _check(self, answer: Response, start: int, stop: int) -> None:
        name = self._location.name
        encoding = answer.headers.get("Content-Encoding", "identity").lower()
        if answer.status != 206 or encoding != "identity":
            raise ArchiveError(
                "cannot be streamed: the server gives no ranges of files",
                archive=name,
                expected="206 Partial Content",
                got=f"{answer.status}" + (f", Content-Encoding: {encoding}" if encoding != "identity" else ""),
                remedy="download it first, with `lung-nodule-ct download CONFIG`",
            )
        said = answer.headers.get("Content-Range", "none").strip()
        found = _RANGE.fullmatch(said)
        if found is None or (int(found[1]), int(found[2])) != (start, stop - 1):
            error = DownloadError(
                "the server sends another range", archive=name, expected=f"bytes {start}-{stop - 1}", got=said
            )
            raise TransientError(error)
        if found[3] not in ("*", str(self.size)):
            raise self._changed(f"{int(found[3]):,} bytes")
        tag = answer.headers.get("ETag")
        if self._tag and tag and tag != self._tag:
            raise self._changed(f"ETag {tag}")
        self._tag = self._tag or tag

    def _changed(self, got: str) -> ArchiveError:
        return ArchiveError(
            "was changed on the server while it was read",
            archive=self._location.name,
            expected=f"{self.size:,} bytes" + (f", ETag {self._tag}" if self._tag else ""),
            got=got,
            remedy="begin again",
        )
