"""How long to wait for a server, and how often to try again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from email.utils import parsedate_to_datetime

import urllib3

from lung_nodule_ct.errors import DownloadError


@dataclass(frozen=True)
class Timeouts:
    """Limits for the requests to a server.

    Attributes:
        connect_s: Seconds to wait for a connection.
        read_s: Seconds to wait for the head of a response, and between two parts of its body.
        window_s: Seconds over which the rate of a body is measured.
        min_rate: Bytes per second, measured over a window. A slower connection is closed.
        attempts: How many attempts in a row may fail without any progress.
        first_wait_s: Seconds to wait after the first failed attempt; about doubled after each further one.
        max_wait_s: The longest wait, in seconds, that the doubling leads to.
        max_requested_wait_s: The longest wait, in seconds, that a server may request.
    """

    connect_s: float = 10.0
    read_s: float = 30.0
    window_s: float = 30.0
    min_rate: float = 1024.0
    attempts: int = 4
    first_wait_s: float = 1.0
    max_wait_s: float = 60.0
    max_requested_wait_s: float = 900.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"{field.name}: expected a number above 0, got {getattr(self, field.name)}")


class TransientError(Exception):
    """An attempt failed, and the next one may succeed.

    Args:
        error: What to raise if there is no further attempt.
        wait_s: The seconds that the server requests to wait, ``None`` if it requests nothing.
    """

    def __init__(self, error: DownloadError, wait_s: float | None = None) -> None:
        super().__init__(error.problem)
        self.error, self.wait_s = error, wait_s


class Retry:
    """Counts failed attempts without progress, and waits between attempts.

    The waits grow exponentially with random jitter, unless the server requests a certain wait.

    Args:
        timeouts: How many attempts there are, and how long the waits are.
        on_wait: Is called with the reason and the seconds before each wait.
    """

    def __init__(
        self, timeouts: Timeouts, on_wait: Callable[[str, float], None] = lambda _reason, _seconds: None
    ) -> None:
        self._timeouts, self._on_wait = timeouts, on_wait
        self._unused = self._current = urllib3.Retry(
            total=timeouts.attempts - 1,
            backoff_factor=timeouts.first_wait_s,
            backoff_jitter=timeouts.first_wait_s,
            backoff_max=timeouts.max_wait_s,
        )

    def progressed(self) -> None:
        """Note that an attempt made progress: earlier failures no longer count."""
        self._current = self._unused

    def wait(self, failure: TransientError) -> None:
        """Wait until it is time for the next attempt.

        Raises:
            DownloadError: Too many attempts failed, or the server requests too long a wait.
        """
        try:
            self._current = self._current.increment(error=failure)
        except urllib3.exceptions.MaxRetryError:
            raise failure.error from failure
        seconds = failure.wait_s
        if seconds is None:  # urllib3 would not wait before the first retry
            seconds = max(self._timeouts.first_wait_s, self._current.get_backoff_time())
        elif seconds > self._timeouts.max_requested_wait_s:
            raise DownloadError(
                f"{failure.error}. It requests a wait of {seconds:,.0f} seconds",
                expected=f"at most {self._timeouts.max_requested_wait_s:,.0f}",
                remedy="try again after that time: what was downloaded is kept",
            )
        if seconds > 0:
            self._on_wait(str(failure), seconds)
            time.sleep(seconds)


def requested_wait(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server requests to wait, ``None`` if it requests nothing.

    Dates are compared with the clock of the server, since ours may be wrong (RFC 9110, 10.2.3).
    """
    now = _timestamp(headers.get("Date")) or time.time()
    retry_after = headers.get("Retry-After", "").strip()
    if retry_after.isdecimal():
        return float(retry_after[:9])
    if (moment := _timestamp(retry_after)) is not None:
        return max(0.0, moment - now)
    reset = headers.get("X-RateLimit-Reset", "").strip()
    if not reset.isdecimal():
        return None
    number = float(reset[:12])
    return max(0.0, number - now) if number > 1e8 else number  # a Unix time, or a number of seconds


def _timestamp(date: str | None) -> float | None:
    try:
        return parsedate_to_datetime(date or "").timestamp()
    except (ValueError, OverflowError):
        return None
