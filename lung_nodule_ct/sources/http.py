"""HTTP as public archives need it: who asks is named, limits are kept, and a silent server is not waited for.

Only https is spoken, and http to this machine itself (a mirror, a test). Redirects are followed one by one, at most five,
never from https to http; a token goes to the host it was meant for and to no other. One request is one attempt here: what
may be better next time is a :class:`TransientError`, and :class:`Tries` says how often and when to ask again.
"""

from __future__ import annotations

import ipaddress
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from lung_nodule_ct.declaration.published import HOMEPAGE
from lung_nodule_ct.errors import DownloadError

TOKEN_VARIABLE: Final = "LUNG_NODULE_CT_ZENODO_TOKEN"  # noqa: S105 -- a variable's name
USER_AGENT: Final = f"lung_nodule_ct/{version('lung_nodule_ct')} (+{HOMEPAGE})"
BLOCK_BYTES: Final = 1 << 18

_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 5
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_ADVICE = {
    401: "if the record is restricted, give a token of yours in " + TOKEN_VARIABLE,
    403: "the server may refuse your address or network for a while; try later, or download the file with a browser and "
    "name its folder with --manual-dir",
    404: "see whether the record still stands, or is named by another number",
    410: "the record was taken down; see its page for a newer version",
}


@dataclass(frozen=True)
class Timeouts:
    """How long a server is waited for.

    Attributes:
        connect_s: For a connection.
        silence_s: For the head of an answer, and between two pieces of its body.
        window_s: Over which the rate is watched.
        least_rate: Bytes a second over a window, below which a connection is given up.
        tries: How many attempts in a row may bring nothing.
        first_wait_s: Before the second attempt; doubled before each further one.
        longest_wait_s: What the doubling ends at.
        longest_asked_s: The longest wait that a server may ask for.
    """

    connect_s: float = 20.0
    silence_s: float = 30.0
    window_s: float = 30.0
    least_rate: float = 1024.0
    tries: int = 6
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    longest_asked_s: float = 900.0


class TransientError(Exception):
    """An attempt failed in a way that another may not.

    Args:
        error: What to raise when it was the last.
        wait_s: How long the server asks to wait, ``None`` where it does not say.
    """

    def __init__(self, error: DownloadError, wait_s: float | None = None) -> None:
        super().__init__(str(error))
        self.error, self.wait_s = error, wait_s


class Retry:
    """Attempts in a row. ``told`` hears of every wait.

    Args:
        patience: How many, and how far apart.
        told: Called with the reason and the seconds before each wait.
    """

    def __init__(self, patience: Timeouts, told: Callable[[str, float], None] = lambda _reason, _seconds: None) -> None:
        self._patience, self._told, self._failed = patience, told, 0

    def progressed(self) -> None:
        """Something came: begin to count anew."""
        self._failed = 0

    def after(self, fault: TransientError) -> None:
        """Wait for the next attempt.

        Raises:
            DownloadError: There were too many, or the server asks for too long a wait.
        """
        self._failed += 1
        patience = self._patience
        if self._failed >= patience.tries:
            raise fault.error
        wait = fault.wait_s
        if wait is None:
            longest = min(patience.longest_wait_s, patience.first_wait_s * 2 ** (self._failed - 1))
            wait = longest * random.uniform(0.5, 1.0)  # noqa: S311 -- so that many clients do not come back together
        elif wait > patience.longest_asked_s:
            raise DownloadError(
                f"{fault.error}. It asks to wait {wait:,.0f} seconds",
                expected=f"at most {patience.longest_asked_s:,.0f}",
                remedy="come back then: what was downloaded stays",
            )
        if wait > 0:
            self._told(str(fault), wait)
            time.sleep(wait)


class Response:
    """The head of an answer, and its body in pieces.

    Attributes:
        status: The HTTP status.
        headers: Names in any case.
    """

    def __init__(self, response: requests.Response, name: str, patience: Timeouts) -> None:
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._raw, self._name, self._patience = response.raw, name, patience
        self._since, self._came = time.monotonic(), 0
        self._chunked = "Transfer-Encoding" in response.headers

    def read(self, most: int = BLOCK_BYTES) -> bytes:
        """Some bytes as they come, at most ``most``; none at the end.

        Raises:
            TransientError: The connection broke, went silent, or is too slow.
        """
        try:
            # of a chunked body lines are read, too, which may come byte by byte and never run into the socket's timeout
            with _cut_after(self._patience.silence_s, self._raw) if self._chunked else nullcontext():
                piece: bytes = self._raw.read1(most, decode_content=False)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise TransientError(
                DownloadError(f"the connection broke off ({_said(error)})", archive=self._name)
            ) from error
        self._watch(len(piece))
        return piece

    def pieces(self) -> Iterator[bytes]:
        """The whole body."""
        while piece := self.read():
            yield piece

    def whole(self, limit: int) -> bytes:
        """The body in one, of at most ``limit`` bytes.

        Raises:
            TransientError: As of :meth:`read`.
            DownloadError: It is longer.
        """
        body = bytearray()
        for piece in self.pieces():
            body += piece
            if len(body) > limit:
                raise DownloadError("the answer is too long", archive=self._name, expected=f"at most {limit:,} bytes")
        return bytes(body)

    def _watch(self, came: int) -> None:
        self._came += came
        passed = time.monotonic() - self._since
        if passed < self._patience.window_s:
            return
        if came and self._came < passed * self._patience.least_rate:
            raise TransientError(
                DownloadError(
                    "the server is too slow",
                    archive=self._name,
                    expected=f"at least {self._patience.least_rate:,.0f} bytes a second",
                    got=f"{self._came / passed:,.0f} over {passed:,.0f} seconds",
                )
            )
        self._since, self._came = time.monotonic(), 0


class HttpClient:
    """Asks servers, one attempt at a time.

    Args:
        patience: How long to wait for them.
        token_host: The host that the token of the environment (``LUNG_NODULE_CT_ZENODO_TOKEN``) is for.
    """

    def __init__(self, patience: Timeouts | None = None, token_host: str | None = None) -> None:
        self.patience = patience or Timeouts()
        self._token_host = token_host
        self._session = requests.Session()
        self._session.headers.clear()

    @contextmanager
    def get(
        self,
        url: str,
        name: str,
        headers: Mapping[str, str] | None = None,
        accept: tuple[int, ...] = (200,),
    ) -> Iterator[Response]:
        """One attempt to get something; its connection is given back at the end of the block.

        Args:
            url: Of what.
            name: What it is, for messages.
            headers: Beside our own.
            accept: The statuses that the caller can deal with.

        Raises:
            TransientError: It failed, and may not the next time.
            DownloadError: It failed for good.
        """
        response = self._follow(url, name, headers or {})
        try:
            if response.status_code not in accept:
                raise _refusal(response, name)
            yield Response(response, name, self.patience)
        except BaseException:
            response.raw.close()  # a body that was not read to its end must not be waited for
            raise
        finally:
            response.close()

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    def _follow(self, url: str, name: str, headers: Mapping[str, str]) -> requests.Response:
        asked = url
        for _ in range(_MAX_REDIRECTS + 1):
            _refuse_unsafe(url, asked, name)
            response = self._send(url, name, headers)
            if response.status_code not in _REDIRECTS or "Location" not in response.headers:
                return response
            response.close()
            try:
                url = urljoin(url, response.headers["Location"])
            except ValueError:  # what is no address is not safe
                url = response.headers["Location"]
        raise DownloadError(
            "the server redirects in a circle", archive=name, expected=f"at most {_MAX_REDIRECTS} redirects", got=url
        )

    def _send(self, url: str, name: str, headers: Mapping[str, str]) -> requests.Response:
        own = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity", **headers}
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        if not (token.isascii() and token.isprintable()):
            raise DownloadError(f"the token in {TOKEN_VARIABLE} is none", expected="printable ASCII characters")
        if token and self._token_host and urlsplit(url).netloc.lower() == self._token_host.lower():
            own["Authorization"] = f"Bearer {token}"
        timeouts = (self.patience.connect_s, self.patience.silence_s)
        # a proxy of the environment leads to the world, not back to this machine
        proxies = {"http": "", "https": ""} if _is_loopback(urlsplit(url).hostname) else {}
        try:
            # a head that comes byte by byte would never run into the socket's own timeout
            return _within(
                self.patience.connect_s + self.patience.silence_s,
                lambda: self._session.get(
                    url,
                    headers=own,
                    auth=_no_other_auth,
                    stream=True,
                    timeout=timeouts,
                    allow_redirects=False,
                    proxies=proxies,
                ),
            )
        except requests.exceptions.SSLError as error:
            if "CERTIFICATE_VERIFY_FAILED" not in str(error):  # the connection broke in the handshake
                raise TransientError(self._silent(url, name, error)) from error
            raise DownloadError(
                f"the certificate of {urlsplit(url).netloc} cannot be trusted ({_said(error)})",
                archive=name,
                remedy="behind a proxy with a certificate of its own, name that with REQUESTS_CA_BUNDLE",
            ) from error
        except ValueError as error:  # an address that is none, here or in a Location
            raise DownloadError(
                "an address is not safe", archive=name, expected="https://", got=_said(error)
            ) from error
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise TransientError(self._silent(url, name, error)) from error

    @staticmethod
    def _silent(url: str, name: str, error: Exception) -> DownloadError:
        return DownloadError(
            f"{urlsplit(url).netloc} does not answer ({_said(error)})",
            archive=name,
            remedy="see whether this machine is online; what was downloaded stays. Without a network, name a folder of "
            "archives (--source), or go on with what is in the cache (--offline)",
        )


@contextmanager
def _cut_after(seconds: float, raw: Any) -> Iterator[None]:
    """Shut the socket of an answer if the block takes longer."""
    timer = threading.Timer(seconds, raw.shutdown)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _within(seconds: float, ask: Callable[[], requests.Response]) -> requests.Response:
    """What ``ask`` gives, or a timeout. An answer that comes later is closed unread."""
    answers: list[requests.Response] = []
    errors: list[BaseException] = []
    given_up = threading.Event()

    def work() -> None:
        try:
            answers.append(ask())
            if given_up.is_set():
                answers[0].close()
        except BaseException as error:
            errors.append(error)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        worker.join(seconds)
    finally:
        given_up.set()
    if errors:
        raise errors[0]
    if not answers:
        raise TimeoutError(f"no answer within {seconds:g} seconds")
    return answers[0]


def _no_other_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Our token or nothing: a .netrc must neither replace it nor follow a redirect."""
    return request


def _refuse_unsafe(url: str, asked: str, name: str) -> None:
    """Only https; http to this machine itself, and only where that was asked for."""
    try:
        target = urlsplit(url)
    except ValueError:
        target = urlsplit("")
    if target.scheme == "https" and target.hostname:
        return
    if target.scheme == "http" and _is_loopback(target.hostname) and urlsplit(asked).scheme == "http":
        return
    raise DownloadError(
        "an address is not safe" if url == asked else "the server redirects to an address that is not safe",
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


def _refusal(response: requests.Response, name: str) -> Exception:
    status = response.status_code
    error = DownloadError(
        f"{urlsplit(response.url).netloc} answers {status} {response.reason or ''}".rstrip(),
        archive=name,
        expected="the file",
        got=response.url,
        remedy=_ADVICE.get(status, "try later; what was downloaded stays"),
    )
    if status in _TRANSIENT:
        return TransientError(error, _asked_wait(response.headers) if status in (429, 503) else None)
    return error


def _asked_wait(headers: Mapping[str, str]) -> float | None:
    """The seconds that a server asks to wait, by its own clock: ours may be wrong (RFC 9110, 10.2.3)."""
    now = _seconds_of(headers.get("Date")) or time.time()
    after = headers.get("Retry-After", "").strip()
    if after.isdecimal():
        return float(after[:9])
    if (moment := _seconds_of(after)) is not None:
        return max(0.0, moment - now)
    reset = headers.get("X-RateLimit-Reset", "").strip()
    if not reset.isdecimal():
        return None
    number = float(reset[:12])
    return max(0.0, number - now) if number > 1e8 else number  # a moment, or a number of seconds


def _seconds_of(date: str | None) -> float | None:
    try:
        return parsedate_to_datetime(date or "").timestamp()
    except (ValueError, OverflowError):
        return None


def _said(error: Any) -> str:
    """The innermost reason of an error of a library, in one line."""
    reason = getattr(error, "reason", None) or (error.args[-1] if getattr(error, "args", ()) else None)
    if isinstance(reason, BaseException) and reason is not error:
        return _said(reason)
    return " ".join(str(reason or error).split())[:200] or type(error).__name__
