"""Downloads from a faulty HTTP server: a download recovers or fails with an error, and no wrong file is accepted."""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import archive_server as at
import numpy as np
import pytest
from archive_server import ArchiveServer

from lung_nodule_ct.declaration.archives import ARCHIVES, DEFAULT_RELEASE
from lung_nodule_ct.errors import ArchiveNotFoundError, DownloadError, OutputError, SourceError
from lung_nodule_ct.sources.http import USER_AGENT
from lung_nodule_ct.sources.records import TOKEN_VARIABLE, Lock, Record, parse_record
from lung_nodule_ct.sources.retry import Retry, Timeouts, TransientError
from lung_nodule_ct.sources.zenodo import Zenodo
from lung_nodule_ct.system.progress import DownloadProgress, readable_size
from lung_nodule_ct.testing.archives import DET2D

NAME = "class_dataset.zip"
SPEC = next(spec for spec in ARCHIVES if spec.name == NAME)
RECORD = DEFAULT_RELEASE.part_a
BODY = np.random.default_rng(0).bytes(3_000_001)
SHORT_TIMEOUTS = Timeouts(
    connect_s=2,
    read_s=0.4,
    window_s=0.6,
    min_rate=2000,
    attempts=4,
    first_wait_s=0.01,
    max_wait_s=0.05,
    max_requested_wait_s=3,
)


@pytest.fixture
def server():
    with ArchiveServer({RECORD: {NAME: BODY}}) as running:
        yield running


def client(server: ArchiveServer, cache: Path, **options) -> Zenodo:
    return Zenodo(server.url, cache=cache, timeouts=options.pop("timeouts", SHORT_TIMEOUTS), **options)


def fetch(server: ArchiveServer, cache: Path, **options) -> bytes:
    return client(server, cache, **options).download([SPEC])[SPEC].read_bytes()


def names_in(cache: Path) -> set[str]:
    """Return the names of the files that look like archives."""
    return {path.name for path in cache.rglob("*") if path.is_file() and path.suffix == ".zip"}


RECOVERED = {
    "closed before a response": [at.refused],
    "closed at the start": [at.dropped(0)],
    "closed in the body": [at.dropped(1_234_567)],
    "closed at the last byte": [at.dropped(len(BODY) - 1)],
    "closed again and again": [
        at.dropped(1_200_000),
        at.dropped(0),
        at.refused,
        at.dropped(1_100_000),
        at.dropped(5),
        at.refused,
    ],
    "stalled": [at.stalled(1_500_000)],
    "stalled at the start": [at.stalled(0)],
    "a body byte by byte": [at.trickling],
    "a head byte by byte": [at.trickling_head],
    "a head without end": [at.endless_head],
    "a chunk length byte by byte": [at.trickling_chunks],
    "trailers without end": [at.endless_trailer],
    "chunks": [at.chunked],
    "chunks that are invalid": [at.dropped(1_500_000), at.broken_chunks],
    "range ignored": [at.dropped(1_500_000), at.ignoring_range],
    "range ignored twice": [at.dropped(1_500_000), at.dropped(2_000_000), at.ignoring_range],
    "206 from an earlier byte": [at.dropped(1_500_000), at.shifted(-100)],
    "206 from a later byte": [at.dropped(1_500_000), at.shifted(100)],
    "206 without a range": [at.dropped(1_500_000), at.with_headers(Content_Range=None)],
    "206 with a wrong size": [
        at.dropped(1_500_000),
        at.with_headers(Content_Range=f"bytes 1500000-{len(BODY) - 1}/99"),
    ],
    "206 that was not requested": [at.shifted(0)],
    "no length": [at.with_headers(Content_Length=None)],
    "a length that is too short": [at.with_headers(Content_Length="1000")],
    "a length that is too long": [at.with_headers(Content_Length=str(len(BODY) + 10))],
    "a wrong length of a part": [at.dropped(1_500_000), at.with_headers(Content_Length="7")],
    "no length, and closed": [at.dropped(999_999), at.with_headers(Content_Length=None)],
    "encoded once": [at.with_headers(Content_Encoding="gzip")],
    "another version between parts": [at.dropped(1_500_000), at.of_other_content(BODY[::-1])],
    "another version under the same ETag": [
        at.dropped(1_500_000),
        at.of_other_content(BODY[::-1], f'"{hashlib.md5(BODY).hexdigest()}"'),
    ],
    "a page once": [at.status(200, b"<html>maintenance</html>", Content_Type="text/html")],
    "a page without a type once": [at.status(200, b"<html>maintenance</html>")],
    "408": [at.status(408)],
    "429 without a wait": [at.status(429)],
    "429 with seconds": [at.status(429, Retry_After="1")],
    "500": [at.status(500), at.status(500)],
    "503": [at.status(503)],
    "416": [at.dropped(1_500_000), at.status(416)],
}


@pytest.mark.parametrize("faults", RECOVERED.values(), ids=RECOVERED)
@pytest.mark.slow
def test_a_download_recovers_from_a_fault(server, tmp_path, faults) -> None:
    server.faults += faults
    began = time.monotonic()
    assert fetch(server, tmp_path) == BODY
    assert time.monotonic() - began < 4  # the slow faults last at least 5 seconds
    assert names_in(tmp_path) == {NAME}
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.slow
def test_any_mixture_of_faults_gives_the_file_or_an_error(server, tmp_path, seed) -> None:
    draw = random.Random(seed)
    quick = [
        faults
        for name, faults in RECOVERED.items()
        if not any(slow in name for slow in ("stalled", "byte by byte", "without end", "429"))
    ]
    server.faults += [fault for _ in range(4) for fault in draw.choice(quick)]
    for _ in range(6):
        try:
            content = fetch(server, tmp_path)
        except DownloadError:
            assert not names_in(tmp_path)
        else:
            assert content == BODY
            return
    pytest.fail("the file was never downloaded")


REFUSED = {
    "403": ([at.status(403)], "403", 1),
    "404": ([at.status(404)], "404", 1),
    "503 again and again": ([at.status(503)] * 9, "503", 4),
    "encoded": ([at.with_headers(Content_Encoding="gzip")] * 9, "Content-Encoding: gzip", 4),
    "a page": (
        [at.status(200, b"<html>log in</html>", Content_Type="text/html; charset=utf-8")] * 9,
        "an HTML page",
        4,
    ),
    "a length that is too short": ([at.with_headers(Content_Length="1000")] * 9, "1000", 4),
    "cut short under the right name": (
        [at.of_other_content(BODY[:-1])] * 9,
        f"{len(BODY):,} bytes, got {len(BODY) - 1}",
        4,
    ),
    "right size, wrong bytes": ([at.of_other_content(BODY[::-1])] * 9, hashlib.md5(BODY).hexdigest(), 2),
    "no server": ([at.refused] * 9, "does not respond", 4),
    "only the beginning": ([at.beginning(1_500_000)] * 40, "broke off", None),
    "a circle of redirects": ([at.redirect("?again")] * 9, "redirects in a circle", None),
    "to http elsewhere": ([at.redirect("http://example.org/a.zip")], "not safe", 1),
    "to a file": ([at.redirect("file:///etc/passwd")], "not safe", 1),
    "too long a wait": ([at.status(429, Retry_After="3600")], "3,600 seconds", 1),
}


@pytest.mark.parametrize(("faults", "message", "requests"), REFUSED.values(), ids=REFUSED)
def test_a_download_that_fails_names_the_file(server, tmp_path, faults, message, requests) -> None:
    server.faults += faults
    with pytest.raises(DownloadError, match=NAME) as caught:
        fetch(server, tmp_path)
    assert message in str(caught.value)
    assert not names_in(tmp_path)
    if requests is not None:
        assert len(server.content_requests) == requests


def test_a_download_resumes_with_a_range_and_the_etag(server, tmp_path) -> None:
    server.faults += [at.dropped(2_000_000), *[at.refused] * 3]
    with pytest.raises(DownloadError):
        fetch(server, tmp_path)
    assert fetch(server, tmp_path) == BODY
    last = server.content_requests[-1]
    assert last["Range"] == "bytes=2000000-"
    assert last["If-Range"] == server.tag_of(BODY)
    assert server.sent <= len(BODY)
    assert all(headers["User-Agent"] == USER_AGENT and "http" in USER_AGENT for _, headers in server.requests)


def test_without_etags_a_changed_file_is_detected_by_its_md5(server, tmp_path) -> None:
    server.tags = False
    server.faults += [at.dropped(1_500_000), *[at.refused] * 3]
    with pytest.raises(DownloadError):
        fetch(server, tmp_path)
    (part,) = tmp_path.rglob("*.part")
    part.write_bytes(bytes(1_500_000))
    assert fetch(server, tmp_path) == BODY
    assert "If-Range" not in server.content_requests[-1]


def test_a_file_in_the_cache_is_not_requested_again(server, tmp_path) -> None:
    fetch(server, tmp_path)
    server.requests.clear()
    assert fetch(server, tmp_path) == BODY
    assert fetch(server, tmp_path, offline=True) == BODY
    assert not server.requests


def test_a_truncated_file_in_the_cache_is_downloaded_again(server, tmp_path) -> None:
    path = client(server, tmp_path).download([SPEC])[SPEC]
    path.write_bytes(BODY[:-1])
    with pytest.raises(SourceError, match=NAME):
        fetch(server, tmp_path, offline=True)
    assert fetch(server, tmp_path) == BODY


def test_a_cache_that_cannot_be_written_can_be_read(server, tmp_path) -> None:
    path = client(server, tmp_path).download([SPEC])[SPEC]
    files = {entry: (entry.stat().st_mtime_ns, entry.stat().st_size) for entry in tmp_path.rglob("*")}
    for folder in {path.parent, path.parent.parent, tmp_path}:
        folder.chmod(0o555)
    try:
        assert fetch(server, tmp_path) == BODY
        assert fetch(server, tmp_path, offline=True) == BODY
    finally:
        for folder in {path.parent, path.parent.parent, tmp_path}:
            folder.chmod(0o755)
    assert {entry: (entry.stat().st_mtime_ns, entry.stat().st_size) for entry in tmp_path.rglob("*")} == files


@pytest.mark.slow
def test_waits_are_measured_by_the_servers_clock(tmp_path) -> None:
    cases = [(how, skew) for how in ("date", "reset", "seconds to reset") for skew in (-90_000, 0, 90_000)]
    with ThreadPoolExecutor(len(cases)) as pool:
        waiting = [pool.submit(check_wait, tmp_path / str(number), *case) for number, case in enumerate(cases)]
    for case, each in zip(cases, waiting, strict=True):
        assert each.exception() is None, case


def check_wait(folder: Path, how: str, skew: float) -> None:
    """Download from a server whose clock is wrong and that requests a wait of one or two seconds."""
    with ArchiveServer({RECORD: {NAME: BODY}}) as server:
        check_wait_for(server, folder, how, time.time() + skew)


def check_wait_for(server: ArchiveServer, folder: Path, how: str, now: float) -> None:
    headers = {"Date": at.http_date(now)}
    if how == "date":
        headers["Retry-After"] = at.http_date(now + 2)
    else:
        headers["X-RateLimit-Reset"] = str(int(now) + 2 if how == "reset" else 1)
    server.faults.append(lambda handler, _body: handler.send(429, b"", headers))
    waits: list[float] = []

    class Recorder(DownloadProgress):
        def wait(self, name: str, reason: str, seconds: float) -> None:
            waits.append(seconds)
            assert "429" in reason

    began = time.monotonic()
    assert fetch(server, folder, progress=Recorder()) == BODY
    assert 0.5 <= waits[0] <= 3
    assert time.monotonic() - began >= waits[0]


def test_waits_grow_up_to_a_limit_and_progress_resets_them(monkeypatch) -> None:
    slept: list[float] = []
    reported: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    retry = Retry(Timeouts(attempts=8), lambda _reason, seconds: reported.append(seconds))
    failure = TransientError(DownloadError("failed"))
    for _ in range(7):
        retry.wait(failure)
    for seconds, shortest in zip(slept, (1, 2, 4, 8, 16, 32, 60), strict=True):
        assert shortest <= seconds <= min(60, shortest + 1)
    assert reported == slept
    retry.progressed()
    retry.wait(failure)
    assert slept[-1] == 1
    for _ in range(6):
        retry.wait(failure)
    with pytest.raises(DownloadError, match="failed"):
        retry.wait(failure)


def test_a_timeout_of_zero_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"read_s: expected a number above 0, got 0"):
        Timeouts(read_s=0)


def test_a_token_is_only_sent_to_its_host(server, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "secret")
    with ArchiveServer({RECORD: {NAME: BODY}}) as other:
        server.faults.append(at.redirect(f"{other.url}/api/records/{RECORD}/files/{NAME}/content"))
        assert fetch(server, tmp_path) == BODY
        assert {headers.get("Authorization") for _, headers in server.requests} == {"Bearer secret"}
        assert [headers.get("Authorization") for _, headers in other.requests] == [None]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": []}, "none"),
        (
            {
                "files": [
                    {"key": f"class_dataset{n}.zip", "size": 1, "checksum": "md5:" + "0" * 32} for n in (" (1)", " (2)")
                ]
            },
            "all match",
        ),
    ],
)
def test_missing_and_ambiguous_archives_of_a_record_are_listed(server, tmp_path, change, message) -> None:
    server.changes = change
    with pytest.raises(ArchiveNotFoundError, match=NAME) as caught:
        fetch(server, tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "fault",
    [
        at.status(200, b"<html>maintenance</html>"),
        at.status(200, b"[]"),
        at.status(
            200,
            b'{"files": [{"key": "../../evil.zip", "size": 1, "checksum": "md5:00000000000000000000000000000000"}]}',
        ),
        at.status(200, b'{"files": [{"key": "a.zip", "size": 1, "checksum": "sha1:00"}]}'),
        at.status(200, b'{"files": [{"key": "a.zip"}]}'),
        at.status(200, b'{"files": [{"key": "a.zip", "size": Infinity, "checksum": "md5:0"}]}'),
        at.status(200, b"[" * 100_000),
        at.status(200, b'{"id": 7, "files": []}'),
        at.redirect("http://[bad"),
        at.status(404),
        at.status(403),
    ],
)
def test_a_response_that_is_not_the_record_is_an_error(server, tmp_path, fault) -> None:
    server.record_faults.append(fault)
    with pytest.raises(DownloadError, match=f"record {RECORD}"):
        fetch(server, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_another_file_of_the_same_size_is_not_accepted(server, tmp_path) -> None:
    path = client(server, tmp_path).download([SPEC])[SPEC]
    server.files[RECORD][NAME] = BODY[::-1]
    assert client(server, tmp_path).record("A")  # the record in the cache is now the new one
    assert fetch(server, tmp_path) == BODY[::-1]
    path.write_bytes(bytes(len(BODY)))  # damage that keeps the size
    with pytest.raises(SourceError, match=NAME):
        fetch(server, tmp_path, offline=True)
    assert fetch(server, tmp_path) == BODY[::-1]
    path.with_name(f"{NAME}.proof").unlink()
    server.requests.clear()
    assert fetch(server, tmp_path) == BODY[::-1]
    assert not server.requests


def test_the_old_file_is_kept_until_the_new_one_is_complete(server, tmp_path) -> None:
    path = client(server, tmp_path).download([SPEC])[SPEC]
    server.files[RECORD][NAME] = BODY[::-1]
    client(server, tmp_path).record("A")
    server.faults += [at.status(404)]
    with pytest.raises(DownloadError):
        fetch(server, tmp_path)
    assert path.read_bytes() == BODY
    with pytest.raises(SourceError):
        fetch(server, tmp_path, offline=True)


def test_files_in_the_cache_can_be_read_by_others(server, tmp_path) -> None:
    umask = os.umask(0o022)
    try:
        fetch(server, tmp_path)
    finally:
        os.umask(umask)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert len(files) == 3
    assert {path.stat().st_mode & 0o777 for path in files} == {0o644}


@pytest.mark.parametrize("token", ["two\nlines", "pässword"])
def test_an_invalid_token_is_not_shown(server, tmp_path, monkeypatch, token) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, token)
    with pytest.raises(DownloadError, match=TOKEN_VARIABLE) as caught:
        fetch(server, tmp_path)
    assert token[:3] not in str(caught.value)


def test_records_of_other_invenio_servers_are_read(server, tmp_path) -> None:
    (file,) = server.record(RECORD)["files"]
    server.changes = {
        "files": {"entries": {NAME: {**file, "checksum": file["checksum"]}}},
        "doi": None,
        "pids": {"doi": {"identifier": "10.1234/abc"}},
        "metadata": {"rights": [{"id": "cc-by-nc-4.0"}]},
    }
    zenodo = client(server, tmp_path)
    assert zenodo.download([SPEC])[SPEC].read_bytes() == BODY
    assert (zenodo.record("A").doi, zenodo.record("A").licence) == ("10.1234/abc", "cc-by-nc-4.0")


def test_a_proxy_is_not_used_for_this_machine(server, tmp_path, monkeypatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    assert fetch(server, tmp_path) == BODY


def test_a_netrc_neither_replaces_the_token_nor_follows_a_redirect(server, tmp_path, monkeypatch) -> None:
    (tmp_path / "netrc").write_text("default login somebody password hidden\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    fetch(server, tmp_path / "one")
    monkeypatch.setenv(TOKEN_VARIABLE, "secret")
    fetch(server, tmp_path / "two")
    assert {headers.get("Authorization") for _, headers in server.requests} == {None, "Bearer secret"}


def test_an_unsafe_address_is_refused(tmp_path) -> None:
    for url in ("http://example.org", "ftp://127.0.0.1", "file:///tmp", "http://[bad"):
        with pytest.raises(DownloadError, match=r"not safe|cannot be read"):
            Zenodo(url, cache=tmp_path, timeouts=SHORT_TIMEOUTS).record("A")


def test_offline_no_request_is_sent(server, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LUNG_NODULE_CT_OFFLINE", "1")
    with pytest.raises(SourceError, match=NAME):
        fetch(server, tmp_path)
    assert not server.requests


def test_files_downloaded_by_hand_are_verified_and_copied(server, tmp_path) -> None:
    manual = tmp_path / "by hand"
    (manual / "deep").mkdir(parents=True)
    (manual / "deep" / "class_dataset (1).zip").write_bytes(BODY)
    zenodo = client(server, tmp_path / "cache")
    assert zenodo.download([SPEC], manual)[SPEC].read_bytes() == BODY
    assert zenodo.download([SPEC])[SPEC].name == NAME
    assert not server.content_requests
    original = manual / "deep" / "class_dataset (1).zip"
    original.write_bytes(bytes(9))
    assert fetch(server, tmp_path / "cache", offline=True) == BODY  # the cache has a copy and not a link
    with pytest.raises(SourceError, match="does not exist"):
        client(server, tmp_path / "third").download([SPEC], tmp_path / "nowhere")
    (manual / "deep" / "class_dataset (1).zip").write_bytes(BODY[::-1])
    with pytest.raises(DownloadError, match=hashlib.md5(BODY).hexdigest()):
        client(server, tmp_path / "other").download([SPEC], manual)
    assert not names_in(tmp_path / "other")


@pytest.mark.parametrize(
    ("stated", "day"),
    [
        ("2024-06-28", "2024-06-28"),
        ("2024-06", None),
        ("2024", None),
        ("2024-06-31", None),
        ("2024-01-01/2024-02-01", None),
        (7, None),
    ],
)
def test_the_date_of_publication_is_a_complete_date_or_unknown(stated, day) -> None:
    file = {"key": "a.zip", "size": 1, "checksum": f"md5:{'0' * 32}"}
    body = json.dumps({"id": 12, "metadata": {"publication_date": stated, "access_right": "open"}, "files": [file]})
    record = parse_record(body.encode(), "https://zenodo.org", 12)
    assert record.published == day
    assert Record.from_json(record.to_json()) == record
    assert Lock.of([record], {}).record(12, "https://zenodo.org").published == day


def test_a_lock_detects_a_changed_record(server, tmp_path) -> None:
    zenodo = client(server, tmp_path)
    lock = Lock.of([zenodo.record("A")], {f"{RECORD}/{NAME}": hashlib.sha256(BODY).hexdigest()})
    path = tmp_path / "archives.lock"
    path.write_text(lock.to_json())
    assert fetch(server, tmp_path / "one", lock=Lock.read(path)) == BODY
    wrong = json.loads(lock.to_json())
    wrong["records"][str(RECORD)]["files"][NAME]["sha256"] = "0" * 64
    path.write_text(json.dumps(wrong))
    with pytest.raises(DownloadError, match="sha256"):
        fetch(server, tmp_path / "two", lock=Lock.read(path))
    assert not names_in(tmp_path / "two")
    server.files[RECORD][NAME] = BODY[::-1]
    with pytest.raises(DownloadError, match="since it was pinned"):
        fetch(server, tmp_path / "three", lock=lock)
    server.files[RECORD][NAME] = BODY
    server.changes = {"metadata": {"license": {"id": "cc-by-nc-4.0"}}}
    with pytest.raises(DownloadError, match="cc-by-nc"):
        fetch(server, tmp_path / "four", lock=lock)
    for text in ("{}", '{"format_version": 1, "records": {"1": {}}}'):
        path.write_text(text)
        with pytest.raises(SourceError, match=r"archives\.lock"):
            Lock.read(path)


def test_too_little_free_space_is_an_error_before_the_first_download(server, tmp_path) -> None:
    (file,) = server.record(RECORD)["files"]
    server.changes = {"files": [file, {"key": DET2D, "size": 10**15, "checksum": "md5:" + "0" * 32}]}
    specs = [spec for spec in ARCHIVES if spec.name in (NAME, DET2D)]
    with pytest.raises(OutputError, match=rf"not enough free space for .*{DET2D}.*1,000,000,0"):
        client(server, tmp_path).download(specs)
    assert not server.content_requests


def test_a_long_download_is_announced(server, tmp_path, monkeypatch) -> None:
    announced: list[str] = []

    class Recorder(DownloadProgress):
        def announce(self, text: str) -> None:
            announced.append(text)

    client(server, tmp_path / "short", progress=Recorder()).download([SPEC])
    assert not announced
    monkeypatch.setattr("lung_nodule_ct.sources.zenodo.LONG_BYTES", 10)
    client(server, tmp_path / "long", progress=Recorder()).download([SPEC])
    size = readable_size(len(BODY))
    assert announced == [f"{size} to download (1 archives): 1 minute at 10 MB/s, 1 minute at 100 MB/s"]
    client(server, tmp_path / "long", progress=Recorder()).download([SPEC])  # nothing is left to download
    assert len(announced) == 1


def test_a_file_in_the_cache_can_be_hashed_again(server, tmp_path) -> None:
    path = client(server, tmp_path).download([SPEC])[SPEC]
    before = path.stat()
    damaged = bytearray(BODY)
    damaged[len(BODY) // 2] ^= 1
    path.write_bytes(damaged)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a failing disk leaves it
    assert fetch(server, tmp_path) == damaged  # size and time are unchanged
    reported: list[str] = []

    class Recorder(DownloadProgress):
        def wait(self, name: str, reason: str, seconds: float) -> None:
            reported.append(f"{name}: {reason}")

    with pytest.raises(SourceError, match=NAME):
        client(server, tmp_path, offline=True).download([SPEC], rehash=True)
    path = client(server, tmp_path, progress=Recorder()).download([SPEC], rehash=True)[SPEC]
    assert path.read_bytes() == BODY
    assert [NAME in line and hashlib.md5(BODY).hexdigest() in line for line in reported] == [True]
    server.requests.clear()
    assert client(server, tmp_path).download([SPEC], rehash=True)[SPEC].read_bytes() == BODY
    assert not server.requests


def test_what_killed_processes_left_is_removed_by_the_next(server, tmp_path) -> None:
    path = client(server, tmp_path).download([SPEC])[SPEC]
    path.unlink()
    kept = [path.parent / "notes.txt", path.parent / "tmpfile.txt", path.parent / f".{NAME}.orig"]
    left = [path.parent / name for name in (f".{NAME}.123.partial", f".{NAME}.proof.123.partial", "tmpab_4x9zq")]
    left.append(path.parent / ".record.json.123.partial")
    for each in (*kept, *left):
        each.write_bytes(b"left")
    assert fetch(server, tmp_path) == BODY
    assert not any(each.exists() for each in left)
    assert all(each.exists() for each in kept)
    assert {each.name for each in path.parent.iterdir()} == {
        NAME,
        f"{NAME}.proof",
        "record.json",
        *(each.name for each in kept),
    }


def manual_folder(folder: Path) -> Path:
    folder.mkdir()
    (folder / NAME).write_bytes(BODY)
    return folder


def test_files_downloaded_by_hand_are_verified_by_the_lock_without_a_network(server, tmp_path) -> None:
    lock = Lock.of([client(server, tmp_path / "first").record("A")], {})
    manual = manual_folder(tmp_path / "by hand")
    server.requests.clear()
    for number, options in enumerate(({"offline": True}, {})):
        cache = tmp_path / f"cache {number}"
        zenodo = client(server, cache, lock=lock, **options)
        assert zenodo.download([SPEC], manual)[SPEC].read_bytes() == BODY
        assert fetch(server, cache, lock=lock, offline=True) == BODY
    assert not server.requests
    (manual / NAME).write_bytes(BODY[::-1])
    with pytest.raises(DownloadError, match=rf"by hand/{NAME} is not the file of the record"):
        client(server, tmp_path / "third", lock=lock).download([SPEC], manual)


def test_without_network_and_lock_nothing_proves_files_downloaded_by_hand(server, tmp_path) -> None:
    manual = manual_folder(tmp_path / "by hand")
    nowhere = "http://127.0.0.1:9"
    for url, options in ((nowhere, {}), (server.url, {"offline": True})):
        zenodo = Zenodo(url, cache=tmp_path / "cache", timeouts=SHORT_TIMEOUTS, lock=Lock(), **options)
        with pytest.raises(SourceError, match=r"nothing proves the archives in .*by hand.*--lock.*--source"):
            zenodo.download([SPEC], manual)
    assert not names_in(tmp_path / "cache")
    assert not server.requests
    client(server, tmp_path / "cache").record("A")  # with the record in the cache, it can be proven
    zenodo = client(server, tmp_path / "cache", offline=True)
    assert zenodo.download([SPEC], manual)[SPEC].read_bytes() == BODY


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9", "https://no-such-host.invalid", "https://127.0.0.1:9"], ids=["refused", "name", "tls"]
)
def test_a_server_that_was_never_reached_is_one_message_at_once(tmp_path, cli, url) -> None:
    began = time.monotonic()
    done = cli("download", "cls_1.25mm", "--zenodo-url", url, "--cache-dir", tmp_path)
    assert time.monotonic() - began < 8
    assert done.returncode == 1
    assert done.stderr.count("does not respond") == 1
    assert done.stderr.strip().count("\n") == 0
    assert "Connection(" not in done.stderr
    assert f"record {RECORD}: " in done.stderr


def test_waits_name_the_problem_without_the_advice(server, tmp_path) -> None:
    server.faults += [at.status(503)]
    reasons: list[str] = []

    class Recorder(DownloadProgress):
        def wait(self, name: str, reason: str, seconds: float) -> None:
            reasons.append(reason)

    assert fetch(server, tmp_path, progress=Recorder()) == BODY
    assert reasons == [f"{server.url.removeprefix('http://')} responds with 503 Service Unavailable"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"files": [], "metadata": {"access_right": "restricted"}, "access": {"files": "restricted"}},
            "has no public files: it is restricted. Ask its authors for access",
        ),
        (
            {"files": {"enabled": True, "entries": {}}, "access": {"files": "restricted", "status": "restricted"}},
            "restricted",
        ),
        (
            {"files": [], "metadata": {"access_right": "embargoed", "embargo_date": "2030-01-01"}},
            "has no public files: it is embargoed until 2030-01-01. Wait until then",
        ),
        ({"files": [], "access": {"embargo": {"active": True, "until": "2031-02-03"}}}, "embargoed until 2031-02-03"),
        ({"files": None, "metadata": {"access_right": "closed"}}, "has no public files: it is closed"),
    ],
)
def test_a_record_without_public_files_says_why(server, tmp_path, changes, message) -> None:
    server.changes = changes
    with pytest.raises(DownloadError, match=f"record {RECORD}: has no public files") as caught:
        fetch(server, tmp_path)
    assert message in str(caught.value)
    assert TOKEN_VARIABLE in str(caught.value)
    assert len(server.requests) == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("files", [[], None, {"enabled": False}])
def test_an_open_record_without_files_says_so(server, tmp_path, files) -> None:
    server.changes = {"files": files}
    with pytest.raises(ArchiveNotFoundError, match="the record has no files at all"):
        fetch(server, tmp_path)


def test_a_record_that_only_an_account_may_see_names_the_token(server, tmp_path) -> None:
    server.record_faults.append(at.status(403))
    with pytest.raises(DownloadError, match=TOKEN_VARIABLE):
        fetch(server, tmp_path)


def test_texts_of_a_record_with_lone_surrogates_are_stored(server, tmp_path) -> None:
    server.changes = {
        "doi": "10.1\ud800",
        "metadata": {"title": "Lung \udcff nodules \U0001f9c1", "license": {"id": "cc\ud83d"}},
    }
    assert fetch(server, tmp_path) == BODY
    record = client(server, tmp_path, offline=True).record("A")
    assert (record.title, record.doi, record.licence) == ("Lung \ufffd nodules \U0001f9c1", "10.1\ufffd", "cc\ufffd")


CODE = """
import sys
from lung_nodule_ct.sources.zenodo import Zenodo
from lung_nodule_ct.declaration.archives import ARCHIVES
spec = next(spec for spec in ARCHIVES if spec.name == {name!r})
Zenodo({url!r}, cache={cache!r}).download([spec])
"""


def process(server: ArchiveServer, cache: Path, **options) -> subprocess.Popen[str]:
    code = CODE.format(name=NAME, url=server.url, cache=str(cache))
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, **options)


def test_a_full_disk_leaves_a_part_that_is_resumed(server, tmp_path) -> None:
    limited = process(
        server, tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    )
    _, errors = limited.communicate(timeout=60)
    assert limited.returncode != 0
    assert "OutputError" in errors
    assert NAME in errors
    assert not names_in(tmp_path)
    (part,) = tmp_path.rglob("*.part")
    assert part.read_bytes() == BODY[:1_000_000]
    assert fetch(server, tmp_path) == BODY
    assert server.content_requests[-1]["Range"] == "bytes=1000000-"


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.slow
def test_a_killed_download_resumes_where_it_stopped(tmp_path, signal_number) -> None:
    body = np.random.default_rng(1).bytes(64 << 20)
    with ArchiveServer({RECORD: {NAME: body}}, rate=16 << 20) as server:
        for share in (2 << 20, 8 << 20, 6 << 20):  # not after a time, in which a busy machine could send everything
            before = server.sent
            running = process(server, tmp_path)
            while server.sent < before + share and running.poll() is None:
                time.sleep(0.005)
            running.send_signal(signal_number)
            running.communicate(timeout=30)
            assert not names_in(tmp_path)
            if signal_number is signal.SIGINT:
                assert not [path for path in tmp_path.rglob("tmp*") if path.is_file()]
        parts = list(tmp_path.rglob("*.part"))
        assert [body.startswith(part.read_bytes()) for part in parts] == [True]
        server.rate = None
        assert fetch(server, tmp_path) == body
        # bytes in the socket buffers of both sides when the process was killed
        assert server.sent - len(body) <= 3 * (8 << 20)
        starts = [int(headers["Range"][6:-1]) for headers in server.content_requests if "Range" in headers]
        assert starts == sorted(starts)
    assert names_in(tmp_path) == {NAME}


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.slow
def test_processes_that_need_the_same_file_download_it_once(tmp_path, count) -> None:
    body = np.random.default_rng(1).bytes(8 << 20)
    with ArchiveServer({RECORD: {NAME: body}}, rate=16 << 20) as server:
        running = [process(server, tmp_path) for _ in range(count)]
        for each in running:
            _, errors = each.communicate(timeout=60)
            assert each.returncode == 0, errors
        assert server.sent == len(body)
    (path,) = tmp_path.rglob(NAME)
    assert path.read_bytes() == body


def test_progress_is_reported(server, tmp_path) -> None:
    reported: list[tuple[str, int]] = []

    class Recorder(DownloadProgress):
        def begin(self, name: str, size: int) -> None:
            reported.append((name, -size))

        def reach(self, name: str, done: int) -> None:
            reported.append((name, done))

    fetch(server, tmp_path, progress=Recorder())
    assert reported[0] == (NAME, -len(BODY))
    assert reported[-1] == (NAME, len(BODY))
    assert len(reported) > 10
