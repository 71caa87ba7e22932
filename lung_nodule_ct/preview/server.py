"""The page with full volumes, from a server that only this machine can reach.

The server knows the page and the slices of its scans, and opens no file by a name from a request. It answers requests to
127.0.0.1 and localhost only, so that no website can read from it under another name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lung_nodule_ct.errors import OutputError
from lung_nodule_ct.preview.page import render_page
from lung_nodule_ct.preview.samples import ShownColumns
from lung_nodule_ct.preview.scans import displayed_volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lung_nodule_ct.preview.page import Document
    from lung_nodule_ct.preview.samples import SampledRow
    from lung_nodule_ct.read.build_folder import BuildFolder

_LOOPBACK: Final = "127.0.0.1"
_SLICE = re.compile(r"/(volume|mask)/(scan-\d{1,9})/(\d{1,9})")
_KEPT_SCANS = 3  # in memory: two that are compared, and the next one
_HTML, _RAW = "text/html; charset=utf-8", "application/octet-stream"


@dataclass(frozen=True)
class _Scan:
    """A volume and its mask in display order, axes (z, y, x)."""

    volume: NDArray[Any]
    mask: NDArray[np.uint8] | None


class PreviewServer:
    """A server of a page and of the slices of its scans.

    Args:
        build: The build.
        document: The content of the page, collected without slices.
        port: Port of the server; 0 for any that is free.

    Attributes:
        url: Address of the page.

    Raises:
        OutputError: The port is in use.
    """

    def __init__(self, build: BuildFolder, document: Document, port: int = 0) -> None:
        page = render_page(document).encode()
        volumes, lock = document.volumes, Lock()
        cached = lru_cache(maxsize=_KEPT_SCANS)(lambda key: _read_scan(build, volumes[key]))

        def load(key: str) -> _Scan | None:
            if key not in volumes:
                return None
            with lock:  # several threads ask for slices of the same scan
                return cached(key)

        try:
            self._server = ThreadingHTTPServer((_LOOPBACK, port), _handler(page, load))
        except OSError as error:
            raise OutputError(
                f"port {port} cannot be used: {error}", expected="a free port", remedy="name another one with --port"
            ) from error
        self.url = f"http://{_LOOPBACK}:{self._server.server_port}/"

    def serve_forever(self) -> None:
        """Answer requests until :meth:`close` is called in another thread, or the process is interrupted."""
        self._server.serve_forever()

    def close(self) -> None:
        """Stop to answer requests."""
        self._server.shutdown()
        self._server.server_close()


def _read_scan(build: BuildFolder, sampled: SampledRow) -> _Scan:
    shown = ShownColumns.of(build.config(sampled.config).schema)
    columns = [name for name in (shown.volume, shown.mask) if name is not None]
    (content,) = build.rows(sampled.config, sampled.split, columns, [sampled.index])
    orientation, volume, _ = displayed_volume(sampled.row, content[columns[0]])
    mask = content[shown.mask] if shown.mask else None
    return _Scan(volume, None if mask is None else orientation.volume(mask))


def _handler(page: bytes, load: Callable[[str], _Scan | None]) -> type[BaseHTTPRequestHandler]:
    """The class that answers the requests of one server."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _, port, *_ = self.connection.getsockname()
            if self.headers.get("Host") not in (f"{_LOOPBACK}:{port}", f"localhost:{port}"):
                self._answer(HTTPStatus.MISDIRECTED_REQUEST)
            elif self.path == "/":
                self._answer(HTTPStatus.OK, page, _HTML)
            else:
                content = self._slice()
                self._answer(HTTPStatus.NOT_FOUND) if content is None else self._answer(HTTPStatus.OK, content, _RAW)

        def do_HEAD(self) -> None:
            self.do_GET()

        def _slice(self) -> bytes | None:
            match = _SLICE.fullmatch(self.path)
            scan = load(match[2]) if match else None
            if match is None or scan is None:
                return None
            voxels = scan.volume if match[1] == "volume" else scan.mask
            if voxels is None or int(match[3]) >= len(voxels):
                return None
            plane = np.ascontiguousarray(voxels[int(match[3])])
            return plane.astype(plane.dtype.newbyteorder("<"), copy=False).tobytes()

        def _answer(self, status: HTTPStatus, content: bytes = b"", kind: str = "text/plain") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Cross-Origin-Resource-Policy", "same-origin")
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Requests are not logged."""

    return Handler
