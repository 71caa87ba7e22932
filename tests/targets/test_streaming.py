"""Streams from a server: the number of requests, shards of neighbours, and streams that go on where they stopped."""

from __future__ import annotations

import gc
import pickle
import random
import time
import tracemalloc
import zipfile
from contextlib import closing
from itertools import islice
from pathlib import Path

import datasets
import pytest
from archive_server import ArchiveServer, dropped, ignoring_range, serve, status

import lung_nodule_ct
from lung_nodule_ct.errors import ArchiveError, DownloadError, OptionError
from lung_nodule_ct.sources.byte_sources import RemoteLocation
from lung_nodule_ct.sources.remote_archive import RemoteFile
from lung_nodule_ct.testing.archives import DET2D, noise_picture, split_files, voc_annotation
from lung_nodule_ct.testing.synthetic_archives import TinyArchives

COUNT = 200
SIZE = (160, 160)
"""Of the pictures, in pixels. They take 24 kB each."""


@pytest.fixture(scope="module")
def slices(tmp_path_factory) -> Path:
    """Archives with many slices, whose XML files are behind all pictures."""
    stems = [f"{1 + number // 10}_20180102_{number:03}" for number in range(COUNT)]
    archives = TinyArchives()
    archives[DET2D] = {
        **{f"JPEGImages/{stem}.jpg": noise_picture(number, SIZE, "JPEG") for number, stem in enumerate(stems)},
        **{f"Annotations/{stem}.xml": voc_annotation((2, 3, 9, 11), filename=stem, size=SIZE) for stem in stems},
        **split_files(stems, [], "ImageSets/Main/"),
    }
    return archives.write(tmp_path_factory.mktemp("slices") / "in", method=zipfile.ZIP_STORED)


def stream_of(source: Path | None, cache: Path) -> datasets.IterableDataset:
    stream = lung_nodule_ct.load("det2d_1.25mm", source=source, split="train", streaming=True, cache_dir=cache)
    return stream.cast_column("image", datasets.Image(decode=False))


@pytest.mark.parametrize(("shuffled", "requests"), [(False, 16), (True, 80)])
def test_neighbours_are_read_in_few_requests_and_once(slices, tmp_path, monkeypatch, shuffled, requests) -> None:
    expected = list(stream_of(slices, tmp_path / "local"))
    archive_bytes = (slices / DET2D).stat().st_size
    monkeypatch.setenv("LUNG_NODULE_CT_CACHE", str(tmp_path / "downloads"))
    with serve(slices) as server:
        monkeypatch.setenv("LUNG_NODULE_CT_ZENODO_URL", server.url)
        stream = stream_of(None, tmp_path / "cache")
        if shuffled:
            stream = stream.shuffle(seed=1, buffer_size=1)
        before, sent = len(server.content_requests), server.sent
        rows = list(stream)
        assert sorted(rows, key=lambda row: row["image_id"]) == sorted(expected, key=lambda row: row["image_id"])
        assert (rows == expected) is not shuffled
        assert len(server.content_requests) - before <= requests
        assert server.sent - sent < 1.1 * archive_bytes


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("taken", [0, 1, 5, 6, 7, 100, COUNT])
def test_a_stream_goes_on_exactly_where_it_stopped(slices, tmp_path, shuffled, taken) -> None:
    def stream() -> datasets.IterableDataset:
        opened = stream_of(slices, tmp_path)
        return opened.shuffle(seed=3, buffer_size=1) if shuffled else opened

    first = stream()
    rows = list(islice(first, taken))
    state = first.state_dict()
    again = stream()
    again.load_state_dict(state)
    rows += again
    assert [row["image_id"] for row in rows] == [row["image_id"] for row in stream()]


def test_shards_are_neighbours_and_workers_get_all_of_them(slices, dummy, tmp_path) -> None:
    stream = stream_of(slices, tmp_path)
    ids = [row["image_id"] for row in stream]
    assert 32 <= stream.num_shards <= 64
    parts = [[row["image_id"] for row in stream.shard(4, index)] for index in range(4)]
    assert sorted(name for part in parts for name in part) == sorted(ids)
    copy = pickle.loads(pickle.dumps(stream))  # as a process that loads data gets it, after archives were opened
    assert [row["image_id"] for row in copy] == ids


def test_a_version_of_datasets_that_merges_shards_is_refused(slices, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(datasets, "__version__", "5.0.1")
    with pytest.raises(OptionError, match=r"datasets>=5\.1") as refused:
        stream_of(slices, tmp_path)
    assert "5.0.1" in str(refused.value)


def remote(server: ArchiveServer, content: bytes) -> RemoteFile:
    return RemoteFile(RemoteLocation(f"{server.url}/api/records/1/files/a.zip/content", "a.zip", len(content)))


def test_prefetched_ranges_are_joined_and_not_requested_again() -> None:
    content = bytes(range(256)) * 8192
    with ArchiveServer({1: {"a.zip": content}}) as server, closing(remote(server, content)) as file:
        file.prefetch([(900_000, 900_100), (0, 1000), (2000, 3000), (len(content) - 10, len(content) + 5)])
        ranges = [headers["Range"] for headers in server.content_requests]
        assert sorted(ranges) == ["bytes=0-2999", "bytes=2097142-2097151", "bytes=900000-900099"]
        file.prefetch([(0, 1000), (2500, 3000)])
        assert file.read_at(500, 2000) == content[500:2500]
        assert file.read_at(900_010, 50) == content[900_010:900_060]
        assert len(server.content_requests) == 3


def test_what_follows_sequential_reads_is_fetched_ahead_in_bounded_memory() -> None:
    step, content = 1 << 20, random.Random(0).randbytes(1 << 20) * 80
    with ArchiveServer({1: {"a.zip": content}}) as server, closing(remote(server, content)) as file:
        tracemalloc.start()
        for start in range(0, len(content), step):
            file.prefetch([(start, start + step)])
            assert file.read_at(start, step) == content[start : start + step]
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(server.content_requests) < 30
        assert server.sent == len(content)
        assert peak < 60 << 20


def test_more_than_the_cache_holds_is_not_fetched_twice() -> None:
    step, content = 1 << 18, random.Random(0).randbytes(1 << 18) * 200
    members = [(start, start + step) for start in range(0, len(content), step)]
    with ArchiveServer({1: {"a.zip": content}}) as server, closing(remote(server, content)) as file:
        file.prefetch(members)  # as of a stack with many slices
        assert server.sent <= 20 << 20
        for start, _ in members:
            assert file.read_at(start, step) == content[start : start + step]
        assert server.sent == len(content)
        assert len(server.content_requests) < 30


def test_a_large_member_is_streamed_from_everything_that_was_fetched() -> None:
    content = random.Random(0).randbytes(9 << 20)
    with ArchiveServer({1: {"a.zip": content}}) as server, closing(remote(server, content)) as file:
        file.prefetch([(0, 100)])
        file.prefetch([(100, 1 << 20)])  # and twice as much ahead, which the stream waits for
        assert b"".join(file.stream(50, 8 << 20)) == content[50 : (8 << 20) + 50]
        assert server.sent == (8 << 20) + 50


def test_a_server_that_fails_is_asked_again_and_then_reported(monkeypatch) -> None:
    content = bytes(range(256)) * 8192
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    with ArchiveServer({1: {"a.zip": content}}) as server, closing(remote(server, content)) as file:
        server.faults += [dropped(1000), status(503)]
        file.prefetch([(0, 5000)])
        assert file.read_at(0, 5000) == content[:5000]
        assert [headers["Range"] for headers in server.content_requests] == [
            "bytes=0-4999",
            "bytes=1000-4999",
            "bytes=1000-4999",
        ]
        server.faults += [status(503)] * 4
        with pytest.raises(DownloadError, match="503"):
            file.prefetch([(900_000, 900_100)])
        server.faults += [ignoring_range]
        with pytest.raises(ArchiveError, match="does not support range requests"):
            file.prefetch([(900_000, 900_100)])
        file.prefetch([(900_000, 900_100)])
        assert file.read_at(900_000, 100) == content[900_000:900_100]


def test_a_stream_closes_its_connections(slices, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LUNG_NODULE_CT_CACHE", str(tmp_path / "downloads"))
    with serve(slices) as server:
        monkeypatch.setenv("LUNG_NODULE_CT_ZENODO_URL", server.url)
        stream = stream_of(None, tmp_path / "cache")
        assert len(list(islice(stream, 30))) == 30
        assert 1 <= server.connections <= 8
        del stream
        end = time.monotonic() + 10
        while server.connections and time.monotonic() < end:
            gc.collect()
            time.sleep(0.05)
        assert server.connections == 0
