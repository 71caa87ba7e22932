"""HTTP requests to public archives: secure, limited in time, and retried where that can help.

Only https is used, and http to the loopback interface (a mirror, a test). Redirects are followed one by one, at most five,
never from https to http, and a token is only sent to the host that it belongs to. :class:`HttpClient` makes one attempt. An
error that may not occur again is a :class:`.TransientError`, and :class:`.Retry` decides whether and when to try again.

Every wait for a server is limited: a connection by the connect timeout (for each address of the host), the head of a response
and each read of its body by twice the read timeout, and a body by its rate. The name of the host is resolved by the system,
which has its own time limit.
"""

from __future__ import annotations

import functools
import http.client
import io
import ipaddress
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from lung_nodule_ct.declaration.published import HOMEPAGE
from lung_nodule_ct.errors import DownloadError
from lung_nodule_ct.sources.records import TOKEN_VARIABLE
from lung_nodule_ct.sources.retry import Timeouts, TransientError, requested_wait

USER_AGENT: Final = f"lung_nodule_ct/{version('lung_nodule_ct')} (+{HOMEPAGE})"
BLOCK_BYTES: Final = 1 << 18

_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 5
_CONNECTION = re.compile(r"^\w+\(host='[^']*', port=\d+\): ")  # the connection that an error of urllib3 names first
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_CONNECTION = re.compile(r"^\w*Connection\(host=.*?\): ")
_ADVICE = {
    401: "if the record is restricted, set the variable " + TOKEN_VARIABLE + " to an access token of yours",
    403: "if the record is restricted, set the variable "
    + TOKEN_VARIABLE
    + " to an access token of an account that has "
    "access to it. Otherwise the server may block your address or network for a while; try later, or download the file with "
    "a browser and name its folder with --manual-dir",
    404: "check whether the record still exists under this number",
    410: "the record was removed; see its page for a newer version",
}


class Response:
    """The head of a response, and its body in pieces.

    Attributes:
        status: The HTTP status.
        headers: Values by name, whatever the case of the name.
    """

    def __init__(self, response: requests.Response, name: str, timeouts: Timeouts) -> None:
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._raw, self._name, self._timeouts = response.raw, name, timeouts
        self._window_start, self._received = time.monotonic(), 0

    def pieces(self) -> Iterator[bytes]:
        """Yield the body as it arrives, in pieces of at most 256 KiB.

        Raises:
            TransientError: The connection broke, timed out, or is too slow.
        """
        while piece := self._read():
            yield piece

    def read(self, limit: int) -> bytes:
        """Return the complete body, of at most ``limit`` bytes.

        Raises:
            TransientError: The connection broke, timed out, or is too slow.
            DownloadError: The body is longer.
        """
        body = bytearray()
        for piece in self.pieces():
            body += piece
            if len(body) > limit:
                raise DownloadError("the response is too long", archive=self._name, expected=f"at most {limit:,} bytes")
        return bytes(body)

    def _read(self) -> bytes:
        try:
            piece: bytes = self._raw.read1(BLOCK_BYTES, decode_content=False)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise TransientError(
                DownloadError(f"the connection broke off ({_reason(error)})", archive=self._name)
            ) from error
        self._check_rate(len(piece))
        return piece

    def _check_rate(self, received: int) -> None:
        self._received += received
        seconds = time.monotonic() - self._window_start
        if seconds < self._timeouts.window_s:
            return
        if received and self._received < seconds * self._timeouts.min_rate:
            raise TransientError(
                DownloadError(
                    "the server is too slow",
                    archive=self._name,
                    expected=f"at least {self._timeouts.min_rate:,.0f} bytes per second",
                    got=f"{self._received / seconds:,.0f} over {seconds:,.0f} seconds",
                )
            )
        self._window_start, self._received = time.monotonic(), 0


class HttpClient:
    """Sends requests, one attempt at a time.

    Args:
        timeouts: How long to wait for servers.
        token_host: The host that the token in ``LUNG_NODULE_CT_ZENODO_TOKEN`` is for.
    """

    def __init__(self, timeouts: Timeouts | None = None, token_host: str | None = None) -> None:
        self.timeouts = timeouts or Timeouts()
        self._token_host = token_host
        self._has_responded = False
        self._session = requests.Session()
        self._session.headers.clear()
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, _Adapter(self.timeouts.read_s))

    @contextmanager
    def get(
        self,
        url: str,
        name: str,
        headers: Mapping[str, str] | None = None,
        accept: tuple[int, ...] = (200,),
    ) -> Iterator[Response]:
        """Make one attempt to get a resource. The connection is released at the end of the block.

        Args:
            url: The address of the resource.
            name: What it is, for messages.
            headers: Headers in addition to those that every request has.
            accept: The statuses that the caller can handle.

        Raises:
            TransientError: The attempt failed, and the next one may succeed.
            DownloadError: The attempt failed, and so would the next one; or there was no connection, and never was one before.
        """
        response = self._follow(url, name, headers or {})
        try:
            if response.status_code not in accept:
                raise _refusal(response, name)
            yield Response(response, name, self.timeouts)
        except BaseException:
            response.raw.close()  # so that nobody waits for the rest of the body
            raise
        finally:
            response.close()

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    def _follow(self, url: str, name: str, headers: Mapping[str, str]) -> requests.Response:
        first = url
        for _ in range(_MAX_REDIRECTS + 1):
            _refuse_unsafe(url, first, name)
            response = self._send(url, name, headers)
            if response.status_code not in _REDIRECTS or "Location" not in response.headers:
                return response
            response.close()
            try:
                url = urljoin(url, response.headers["Location"])
            except ValueError:  # not an address, which is refused as unsafe
                url = response.headers["Location"]
        raise DownloadError(
            "the server redirects in a circle", archive=name, expected=f"at most {_MAX_REDIRECTS} redirects", got=url
        )

    def _send(self, url: str, name: str, headers: Mapping[str, str]) -> requests.Response:
        all_headers = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity", **headers}
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        if not (token.isascii() and token.isprintable()):
            raise DownloadError(f"the token in {TOKEN_VARIABLE} is not valid", expected="printable ASCII characters")
        if token and self._token_host and urlsplit(url).netloc.lower() == self._token_host.lower():
            all_headers["Authorization"] = f"Bearer {token}"
        try:
            response = self._session.get(
                url,
                headers=all_headers,
                auth=_keep_authorization,
                stream=True,
                timeout=(self.timeouts.connect_s, self.timeouts.read_s),
                allow_redirects=False,
                # a proxy that the environment names does not lead back to this machine
                proxies={"http": "", "https": ""} if _is_loopback(urlsplit(url).hostname) else {},
            )
        except requests.exceptions.SSLError as error:
            if "CERTIFICATE_VERIFY_FAILED" not in str(error):  # the connection broke during the handshake
                raise TransientError(_no_response(url, name, error)) from error
            raise DownloadError(
                f"the certificate of {urlsplit(url).netloc} cannot be verified ({_reason(error)})",
                archive=name,
                remedy="behind a proxy that has another certificate, set REQUESTS_CA_BUNDLE to that certificate",
            ) from error
        except ValueError as error:  # the URL, or one that the server redirects to, is not an address
            raise DownloadError(
                "an address is not safe", archive=name, expected="https://", got=_reason(error)
            ) from error
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            failure = _no_response(url, name, error)
            if (
                _is_unconnected(error) and not self._has_responded
            ):  # no name, no route, no server: seconds do not change that
                raise failure from error
            raise TransientError(failure) from error
        self._has_responded = True
        return response


class _Adapter(requests.adapters.HTTPAdapter):
    """An adapter whose connections read every response with a deadline (see :class:`_DeadlineResponse`)."""

    def __init__(self, read_s: float) -> None:
        super().__init__()
        response_class = functools.partial(_DeadlineResponse, read_s=read_s)
        self._members = {"response_class": staticmethod(response_class)}

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        if "ConnectionCls" not in vars(pool):  # a new pool, which has no connection yet
            pool.ConnectionCls = type("DeadlineConnection", (pool.ConnectionCls,), self._members)
        return pool


class _DeadlineResponse(http.client.HTTPResponse):
    """A response that has a deadline for its head and for each read of its body.

    The timeout of a socket starts again with each byte. A server that sends a head or the length of a chunk byte by byte, or
    headers without end, would never exceed it.
    """

    def __init__(self, *args: Any, read_s: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read_s = read_s
        self._reader = _DeadlineReader(self.fp.detach(), time.monotonic() + read_s)
        self.fp = io.BufferedReader(self._reader)

    def read1(self, n: int = -1) -> bytes:
        self._reader.deadline = time.monotonic() + self._read_s
        return super().read1(n)


class _DeadlineReader(io.RawIOBase):
    def __init__(self, raw: io.RawIOBase, deadline: float) -> None:
        self._raw, self.deadline = raw, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if time.monotonic() > self.deadline:
            raise TimeoutError("timed out")
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _keep_authorization(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Leave the request as it is: credentials of a .netrc file would replace the token and follow redirects."""
    return request


def _refuse_unsafe(url: str, first: str, name: str) -> None:
    """Allow https; and http to the loopback interface, if the first address was such an address, too."""
    try:
        target = urlsplit(url)
    except ValueError:
        target = urlsplit("")
    if target.scheme == "https" and target.hostname:
        return
    if target.scheme == "http" and _is_loopback(target.hostname) and urlsplit(first).scheme == "http":
        return
    raise DownloadError(
        "an address is not safe" if url == first else "the server redirects to an address that is not safe",
        archive=name,
        expected="https://",
        got=url,
    )


def _is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _is_unconnected(error: Any) -> bool:
    """Whether an error of a library is about a connection that was never made."""
    kinds = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
    reason = getattr(error, "reason", None) or (error.args[0] if getattr(error, "args", ()) else None)
    return isinstance(error, kinds) or (
        isinstance(reason, Exception) and reason is not error and _is_unconnected(reason)
    )


def _no_response(url: str, name: str, error: Exception) -> DownloadError:
    return DownloadError(
        f"{urlsplit(url).netloc} does not respond ({_reason(error)})",
        archive=name,
        remedy="check whether this machine is online; what was downloaded is kept. Without a network, name a folder of "
        "archives (--source), or use only what is in the cache (--offline)",
    )


def _refusal(response: requests.Response, name: str) -> Exception:
    """Return the error for a status that the caller cannot handle."""
    status = response.status_code
    error = DownloadError(
        f"{urlsplit(response.url).netloc} responds with {status} {response.reason or ''}".rstrip(),
        archive=name,
        expected="the file",
        got=response.url,
        remedy=_ADVICE.get(status, "try later; what was downloaded is kept"),
    )
    if status in _TRANSIENT:
        return TransientError(error, requested_wait(response.headers) if status in (429, 503) else None)
    return error


def _reason(error: Any) -> str:
    """Return the innermost reason of an error of a library, in one line."""
    reason = getattr(error, "reason", None) or (error.args[-1] if getattr(error, "args", ()) else None)
    if isinstance(reason, BaseException) and reason is not error:
        return _reason(reason)
    text = _CONNECTION.sub("", " ".join(str(reason or error).split()))
    return text[:200] or type(error).__name__
