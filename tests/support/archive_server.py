"""A small InvenioRDM server on the loopback interface: records, files with ranges, and faults for tests.

``with ArchiveServer({12: {"a.zip": data}}) as server: server.faults += [dropped(1000), status(503)]``. Each fault is the
response to one request for a file; the requests after them get normal responses.
"""

from __future__ import annotations

import contextlib
import email.utils
import functools
import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

from lung_nodule_ct.declaration.archives import ARCHIVES, DEFAULT_RELEASE

Fault = Callable[["Handler", bytes], None]


class Handler(BaseHTTPRequestHandler):
    """Handles the requests of one connection."""

    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, *_: Any) -> None:
        """Log nothing."""

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(20)
        with self.server.owner.lock:
            self.server.owner.connections += 1

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()
        with self.server.owner.lock:
            self.server.owner.connections -= 1

    def do_GET(self) -> None:
        with contextlib.suppress(OSError):
            self._respond()

    def _respond(self) -> None:
        owner: ArchiveServer = self.server.owner
        parts = [unquote(part) for part in self.path.split("/") if part]
        owner.requests.append((self.path, dict(self.headers.items())))
        time.sleep(owner.delay_s)
        if len(parts) == 3 and parts[:2] == ["api", "records"]:
            if owner.record_faults:
                owner.record_faults.pop(0)(self, b"{}")
                return
            self.send(200, json.dumps(owner.record(int(parts[2]))).encode(), {"Content-Type": "application/json"})
            return
        if len(parts) == 6 and parts[3] == "files":
            body = owner.files[int(parts[2])][parts[4]]
            if owner.faults:
                owner.faults.pop(0)(self, body)
            else:
                self.content(body)
            return
        self.send(404, b"not found", {})

    def requested_range(self, size: int) -> tuple[int, int] | None:
        """Return the requested range as start and stop, or ``None``."""
        header = self.headers.get("Range", "")
        if not header.startswith("bytes="):
            return None
        first, _, last = header[6:].partition("-")
        return int(first), min(size, int(last) + 1) if last else size

    def content(
        self,
        body: bytes,
        *,
        ranges: bool = True,
        tag: str | None = None,
        headers: Mapping[str, str | None] | None = None,
    ) -> None:
        """Send a file as a normal server does. ``headers`` replace its headers; ``None`` removes one."""
        tag = tag if tag is not None else self.server.owner.tag_of(body)
        requested_range = self.requested_range(len(body)) if ranges else None
        if requested_range and self.headers.get("If-Range", tag) != tag:
            requested_range = None
        if requested_range and requested_range[0] >= len(body):
            self.send(416, b"", {"Content-Range": f"bytes */{len(body)}"})
            return
        normal: dict[str, str | None] = {"Content-Type": "application/octet-stream", **({"ETag": tag} if tag else {})}
        if requested_range:
            normal["Content-Range"] = f"bytes {requested_range[0]}-{requested_range[1] - 1}/{len(body)}"
            body = body[requested_range[0] : requested_range[1]]
        self.send(206 if requested_range else 200, body, {**normal, **(headers or {})})

    def send(self, status: int, body: bytes, headers: Mapping[str, str | None]) -> None:
        """Send a complete response."""
        self.head(status, {"Content-Length": str(len(body)), **headers})
        self.push(body)

    def head(self, status: int, headers: Mapping[str, str | None]) -> None:
        """Send a status line and the given headers."""
        self.send_response_only(status)
        if "Date" not in headers:
            self.send_header("Date", self.date_time_string())
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        if headers.get("Content-Length") is None:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()

    def push(self, body: bytes) -> None:
        """Send a part of a body."""
        owner: ArchiveServer = self.server.owner
        for start in range(0, len(body), 1 << 18):
            piece = body[start : start + (1 << 18)]
            if self.path.endswith("/content"):  # counted first: a client may look as soon as it has the last byte
                with owner.lock:
                    owner.sent += len(piece)
            self.wfile.write(piece)
            if owner.rate:
                time.sleep(len(piece) / owner.rate)

    def disconnect(self) -> None:
        """Close the connection."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


class ArchiveServer:
    """Serves records and their files on a free port of the loopback interface.

    Args:
        files: The content of each file by record and name.
        rate: The maximum rate of a connection in bytes per second.
        delay_s: Seconds before each response, as of a server that is far away.
    """

    def __init__(
        self, files: Mapping[int, Mapping[str, bytes]], rate: float | None = None, delay_s: float = 0.0
    ) -> None:
        self.files = {number: dict(named) for number, named in files.items()}
        self.rate, self.delay_s = rate, delay_s
        self.faults: list[Fault] = []
        self.record_faults: list[Fault] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.changes: dict[str, Any] = {}
        self.tags = True
        self.sent = 0  # bytes of the content of files
        self.connections = 0  # that are open
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that close the connection are expected
        self._server.owner = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def content_requests(self) -> list[dict[str, str]]:
        """The headers of the requests for the content of files."""
        return [headers for path, headers in self.requests if path.endswith("/content")]

    def tag_of(self, body: bytes) -> str:
        """Return the ETag of a file."""
        return f'"{_md5(body)}"' if self.tags else ""

    def record(self, number: int) -> dict[str, Any]:
        """Return a record in the format of Zenodo."""
        files = [
            {
                "id": f"id-{key}",
                "key": key,
                "size": len(body),
                "checksum": f"md5:{_md5(body)}",
                "links": {"self": f"https://zenodo.invalid/api/records/{number}/files/{key}/content"},
            }
            for key, body in self.files[number].items()
        ]
        return {
            "id": number,
            "doi": f"10.5281/zenodo.{number}",
            "metadata": {"title": "Lung nodules", "license": {"id": "cc-by-4.0"}, "publication_date": "2024-06-28"},
            "files": files,
            **self.changes,
        }

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@functools.cache
def _md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def dropped(after: int) -> Fault:
    """Close the connection after some bytes of the body."""

    def fault(handler: Handler, body: bytes) -> None:
        start, stop = handler.requested_range(len(body)) or (0, len(body))
        partial = start > 0
        headers = {"Content-Length": str(stop - start), "ETag": handler.server.owner.tag_of(body)}
        if partial or handler.headers.get("Range"):
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(body)}"
        handler.head(206 if "Content-Range" in headers else 200, headers)
        handler.push(body[start : min(stop, start + after)])
        handler.disconnect()

    return fault


def beginning(length: int) -> Fault:
    """Ignore the range, and close the connection after some bytes of the body."""

    def fault(handler: Handler, body: bytes) -> None:
        handler.head(200, {"Content-Length": str(len(body))})
        handler.push(body[:length])
        handler.disconnect()

    return fault


def refused(handler: Handler, _body: bytes) -> None:
    """Close the connection before a response."""
    handler.disconnect()


def status(code: int, body: bytes = b"no", **headers: str) -> Fault:
    """Send a status. ``_`` in the name of a header is replaced by a hyphen."""

    def fault(handler: Handler, _: bytes) -> None:
        handler.send(code, body, {name.replace("_", "-"): value for name, value in headers.items()})

    return fault


def stalled(after: int) -> Fault:
    """Send nothing more after some bytes."""

    def fault(handler: Handler, body: bytes) -> None:
        handler.head(200, {"Content-Length": str(len(body)), "ETag": handler.server.owner.tag_of(body)})
        handler.push(body[:after])
        time.sleep(5)
        handler.disconnect()

    return fault


def trickling(handler: Handler, body: bytes) -> None:
    """Send the body byte by byte."""
    handler.head(200, {"Content-Length": str(len(body)), "ETag": handler.server.owner.tag_of(body)})
    for position in range(200):
        handler.push(body[position : position + 1])
        time.sleep(0.05)
    handler.disconnect()


def trickling_head(handler: Handler, _body: bytes) -> None:
    """Send a head byte by byte."""
    for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"z" * 200:
        handler.wfile.write(bytes([byte]))
        time.sleep(0.05)
    handler.disconnect()


def endless_head(handler: Handler, _body: bytes) -> None:
    """Send interim responses as fast as possible, and never the final one."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)
    handler.disconnect()


def chunked(handler: Handler, body: bytes) -> None:
    """Send the body in chunks, without its length."""
    handler.head(200, {"Transfer-Encoding": "chunked", "Content-Length": None})
    for start in range(0, len(body), 100_000):
        piece = body[start : start + 100_000]
        handler.push(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
    handler.push(b"0\r\n\r\n")


def broken_chunks(handler: Handler, _body: bytes) -> None:
    """Send a chunk whose length is not a number."""
    handler.head(200, {"Transfer-Encoding": "chunked", "Content-Length": None})
    handler.push(b"never\r\nPK")
    handler.disconnect()


def trickling_chunks(handler: Handler, _body: bytes) -> None:
    """Send the length of a chunk byte by byte."""
    handler.head(200, {"Transfer-Encoding": "chunked", "Content-Length": None})
    for _ in range(200):
        handler.push(b"0")
        time.sleep(0.05)
    handler.disconnect()


def endless_trailer(handler: Handler, _body: bytes) -> None:
    """Send trailers after the last chunk as fast as possible, without end."""
    handler.head(200, {"Transfer-Encoding": "chunked", "Content-Length": None})
    handler.push(b"1\r\nP\r\n0\r\n")
    end = time.monotonic() + 5
    while time.monotonic() < end:
        handler.wfile.write(b"X-More: yes\r\n" * 1000)
    handler.disconnect()


def with_headers(**headers: str | None) -> Fault:
    """Send a normal response with some other headers."""

    def fault(handler: Handler, body: bytes) -> None:
        handler.content(body, headers={name.replace("_", "-"): value for name, value in headers.items()})

    return fault


def ignoring_range(handler: Handler, body: bytes) -> None:
    """Send the complete file, although a range was requested."""
    handler.content(body, ranges=False)


def shifted(by: int) -> Fault:
    """Send another range than the requested one, and state that range."""

    def fault(handler: Handler, body: bytes) -> None:
        start, stop = handler.requested_range(len(body)) or (0, len(body))
        start = max(0, start + by)
        handler.send(206, body[start:stop], {"Content-Range": f"bytes {start}-{stop - 1}/{len(body)}"})

    return fault


def of_other_content(other: bytes, tag: str | None = None) -> Fault:
    """Send the content of another file."""

    def fault(handler: Handler, _body: bytes) -> None:
        handler.content(other, tag=tag)

    return fault


def redirect(to: str, code: int = 302) -> Fault:
    """Redirect to another address."""

    def fault(handler: Handler, _body: bytes) -> None:
        handler.send(code, b"", {"Location": to})

    return fault


def http_date(seconds: float) -> str:
    """Return a Unix time in the format of HTTP."""
    return email.utils.formatdate(seconds, usegmt=True)


def serve(folder: Path, *, rate: float | None = None, delay_s: float = 0.0) -> ArchiveServer:
    """Return a server of two records with the archives of a folder; see :class:`ArchiveServer`."""
    files: dict[int, dict[str, bytes]] = {DEFAULT_RELEASE.part_a: {}, DEFAULT_RELEASE.part_b: {}}
    for path in sorted(folder.rglob("*.zip")):
        (spec,) = (spec for spec in ARCHIVES if spec.matches(path.name))
        files[DEFAULT_RELEASE.record(spec.part)][spec.name] = path.read_bytes()
    return ArchiveServer(files, rate, delay_s)
