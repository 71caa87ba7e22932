"""Archives from a server, downloaded or streamed by ranges, give the same rows as a folder of the same archives."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import archive_server as at
import datasets
import numpy as np
import pytest
from archive_server import ArchiveServer, serve

import lung_nodule_ct
from lung_nodule_ct.declaration.archives import DEFAULT_RELEASE
from lung_nodule_ct.declaration.configs import CONFIGS, get_config
from lung_nodule_ct.errors import ArchiveError, DownloadError, SourceError
from lung_nodule_ct.sources.byte_sources import RemoteLocation
from lung_nodule_ct.sources.http import HttpClient
from lung_nodule_ct.sources.remote_archive import RemoteFile
from lung_nodule_ct.sources.resolve import open_zenodo
from lung_nodule_ct.sources.retry import Timeouts
from lung_nodule_ct.sources.zenodo import Zenodo
from lung_nodule_ct.testing.archives import BMP0, CLS, CT0, CT1, DET2D, MASKS, NODULES, metaimage, noise_volume
from lung_nodule_ct.testing.synthetic_archives import TinyArchives

SHORT_TIMEOUTS = Timeouts(connect_s=2, read_s=0.5, window_s=0.6, attempts=4, first_wait_s=0.01, max_wait_s=0.05)


def use_server(server: ArchiveServer, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the variables that name the server and the cache, and hide what other tests prepared with ``datasets``."""
    monkeypatch.setenv("LUNG_NODULE_CT_ZENODO_URL", server.url)
    monkeypatch.setenv("LUNG_NODULE_CT_CACHE", str(cache))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache / "datasets")


@pytest.fixture
def zenodo(dummy, tmp_path, monkeypatch):
    """A server with the embedded archives, set by environment variables, and an empty cache."""
    with serve(dummy) as server:
        use_server(server, tmp_path / "cache", monkeypatch)
        yield server


@pytest.fixture
def no_network(monkeypatch):
    """Fail the test if anything tries to connect."""

    def refuse(*_args: object, **_options: object) -> None:
        pytest.fail("something tried to connect")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


def undecoded(rows) -> list[dict]:
    rows = rows.cast_column("image", datasets.Image(decode=False)) if "image" in rows.features else rows
    return list(rows)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.slow
def test_every_config_has_the_same_rows_from_a_server(zenodo, dummy, tmp_path, config, streaming) -> None:
    options = {"streaming": streaming, "cache_dir": tmp_path / "hf"}
    remote_rows = datasets.load_dataset("lung_nodule_ct", config, streaming=streaming, cache_dir=str(tmp_path / "hf"))
    local_rows = lung_nodule_ct.load(config, source=dummy, **options)
    assert list(remote_rows) == list(local_rows)
    for split in local_rows:
        assert undecoded(remote_rows[split]) == undecoded(local_rows[split])


def test_a_build_downloads_only_what_its_config_reads(zenodo, cli, dummy, tmp_path) -> None:
    done = cli("build", "det3d_1.25mm", "--out", tmp_path / "hub")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "cache").rglob("*.zip")} == {CT0, CT1, MASKS, NODULES}
    local = cli("build", "det3d_1.25mm", "--source", dummy, "--out", tmp_path / "local")
    assert local.returncode == 0
    for name in ("findings.json", "data/det3d_1.25mm/train-00000-of-00001.parquet"):
        assert (tmp_path / "hub" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()
    card = (tmp_path / "hub" / "README.md").read_text().replace("\\", "")
    assert "license: cc-by-4.0" in card
    assert f"10.5281/zenodo.{DEFAULT_RELEASE.part_a}" in card
    assert "license: unknown" in (tmp_path / "local" / "README.md").read_text()
    zenodo.requests.clear()
    assert cli("build", "det3d_1.25mm", "--out", tmp_path / "hub").returncode == 0
    assert not [path for path, _ in zenodo.requests if any(name in path for name in (CT0, CT1, MASKS, NODULES))]


def test_a_prepared_cache_states_its_records_or_its_folder(zenodo, dummy, tmp_path) -> None:
    from lung_nodule_ct.targets.prepared_cache import source_of_cache

    for source, records, folder in ((None, [DEFAULT_RELEASE.part_a], None), (dummy, [], str(dummy))):
        cache = tmp_path / ("folder" if source else "records")
        lung_nodule_ct.load("cls_1.25mm", source=source, cache_dir=cache)
        (report,) = cache.rglob("findings.json")
        assert json.loads(report.read_text())["records"] == records
        assert source_of_cache(report.parent) == folder


def test_an_offline_build_without_context_archives_has_null_columns(zenodo, cli, tmp_path) -> None:
    assert cli("download", "det3d_1.25mm").returncode == 0
    zenodo.requests.clear()
    done = cli("build", "det3d_1.25mm", "--out", tmp_path / "hub", "--offline", "--json")
    assert done.returncode == 0, done.stderr
    assert (
        json.loads(done.stdout)["findings"]["context-missing"]["count"] == 4 + 5
    )  # the numbers of scans come from all five
    assert not zenodo.requests
    refused = cli("build", "det2d_1.25mm", "--out", tmp_path / "hub", "--offline")
    assert refused.returncode == 1
    assert DET2D in refused.stderr


@pytest.mark.slow
def test_a_complete_cache_needs_no_network(zenodo, cli_process, tmp_path, no_network) -> None:
    assert cli_process("download", "--all").returncode == 0
    for config in CONFIGS:
        plain = lung_nodule_ct.load(config, cache_dir=tmp_path / "hf")
        stream = datasets.load_dataset("lung_nodule_ct", config, streaming=True, cache_dir=str(tmp_path / "hf2"))
        assert {split: len(rows) for split, rows in plain.items()} == {s: len(list(rows)) for s, rows in stream.items()}


def test_download_prints_paths_and_lock_pins_archives(zenodo, cli, tmp_path) -> None:
    done = cli("download", "det2d_1.25mm", "--json")
    paths = json.loads(done.stdout)
    assert list(paths) == [DET2D]
    assert Path(paths[DET2D]).read_bytes() == zenodo.files[DEFAULT_RELEASE.part_a][DET2D]
    zenodo.files |= {8354947: {}, 8357533: {}}
    locked = cli("lock", "--out", tmp_path / "archives.lock")
    assert locked.returncode == 0, locked.stderr
    record = json.loads((tmp_path / "archives.lock").read_text())["records"][str(DEFAULT_RELEASE.part_a)]
    assert record["licence"] == "cc-by-4.0"
    assert record["published"] == "2024-06-28"
    assert [name for name, file in record["files"].items() if file["sha256"]] == [DET2D]
    zenodo.files[DEFAULT_RELEASE.part_a][CLS] = b"another"
    assert cli("lock", "--out", tmp_path / "nowhere" / "archives.lock").returncode == 1
    assert cli("lock", "--out", tmp_path / "archives.lock", LUNG_NODULE_CT_OFFLINE="1").returncode == 1
    refused = cli("download", "cls_1.25mm", "--lock", tmp_path / "archives.lock")
    assert refused.returncode == 1
    assert CLS in refused.stderr
    assert "since it was pinned" in refused.stderr


def test_a_server_that_fails_is_one_message_and_soon_an_error(zenodo, cli, monkeypatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    zenodo.faults += [at.status(500)] * 9
    done = cli("download", "det2d_1.25mm")
    assert done.returncode == 1
    messages = " ".join(done.stderr.split())
    assert messages.count("waiting") == 1
    assert messages.count("500") == 2, "the message, and the error"
    assert sum(slept) <= 12


def test_inspect_reads_only_the_directories_of_archives(zenodo, cli) -> None:
    done = cli("inspect", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert {archive["state"] for archive in document["archives"]} == {"found"}
    assert document["configs"]["det3d_1.25mm"]["scans"] == 7
    assert zenodo.sent < 0.7 * sum(len(data) for files in zenodo.files.values() for data in files.values())


def test_missing_and_ambiguous_archives_of_a_record_are_named(zenodo, cli, tmp_path) -> None:
    del zenodo.files[DEFAULT_RELEASE.part_a][CLS]
    document = json.loads(cli("inspect", "--json").stdout)
    assert {archive["name"] for archive in document["archives"] if archive["state"] == "missing"} == {CLS}
    done = cli("build", "det3d_1.25mm", "--out", tmp_path / "hub", "--json")
    assert json.loads(done.stdout)["findings"]["context-missing"]["count"] == 2  # pathology, and the numbers of scans
    files = zenodo.files[DEFAULT_RELEASE.part_a]
    files["1.25mm 2D detection.zip"] = files[DET2D]
    refused = cli("build", "det2d_1.25mm", "--out", tmp_path / "two")
    assert refused.returncode == 1
    assert "all match" in refused.stderr


def large_source(folder: Path) -> TinyArchives:
    """Large archives: forty volumes of noise, which cannot be compressed."""
    tiny = TinyArchives()
    for number in range(300, 320):
        tiny[CT0] |= metaimage(str(number), noise_volume(number, (10, 256, 256)))
        tiny[CT1] |= metaimage(str(number + 50), noise_volume(number + 50, (10, 256, 256)))
    tiny.write(folder)
    return tiny


@pytest.fixture
def large_zenodo(tmp_path, monkeypatch):
    """A server with large archives, set by environment variables, and an empty cache."""
    large_source(tmp_path / "in")
    with serve(tmp_path / "in") as server:
        use_server(server, tmp_path / "cache", monkeypatch)
        yield server


@pytest.mark.slow
def test_the_first_example_of_a_stream_fetches_little_more_than_its_members(large_zenodo) -> None:
    server = large_zenodo
    stream = datasets.load_dataset("lung_nodule_ct", "det3d_1.25mm", streaming=True, split="train")
    rows = iter(stream)
    first = next(rows)
    archives = sum(len(server.files[DEFAULT_RELEASE.part_a][name]) for name in (CT0, CT1))
    member = 2 * np.prod(first["volume"]["shape"])
    assert server.sent < member + 0.02 * archives
    for _ in range(5):
        next(rows)
    del rows
    requests = len(server.content_requests)
    list(stream)
    sent = server.sent
    assert requests < 60
    assert sent < 3 * archives  # a partial read and then a complete read send most bytes twice


@pytest.mark.slow
def test_a_stream_reads_no_member_twice(large_zenodo) -> None:
    server = large_zenodo
    for config, names in {
        "det3d_1.25mm": (CT0, CT1, MASKS),
        "det2d_1.25mm": (DET2D,),
        "det3d_bmp_1.25mm": (BMP0,),
    }.items():
        server.sent = 0
        rows = datasets.load_dataset("lung_nodule_ct", config, streaming=True)
        assert sum(len(list(split)) for split in rows.values()) > 0
        total = sum(len(files[name]) for files in server.files.values() for name in names if name in files)
        assert server.sent < 1.01 * total + 200_000


def test_a_server_without_ranges_is_an_error(zenodo) -> None:
    zenodo.faults += [at.ignoring_range] * 99
    with pytest.raises(ArchiveError, match="lung-nodule-ct download"):
        next(iter(lung_nodule_ct.load("cls_1.25mm", split="train", streaming=True)))


REMOTE = np.random.default_rng(2).bytes(1_500_000)


@pytest.fixture
def remote():
    with ArchiveServer({1: {"a.zip": REMOTE}}) as server:
        location = RemoteLocation(f"{server.url}/api/records/1/files/a.zip/content", "a.zip", len(REMOTE))
        yield server, RemoteFile(RemoteLocation.parse(str(location)), HttpClient(SHORT_TIMEOUTS))


def test_ranges_have_the_content_of_the_file(remote) -> None:
    server, file = remote
    random = np.random.default_rng(3)
    for _ in range(300):
        offset = int(random.integers(0, len(REMOTE)))
        length = int(random.choice([1, 30, 5_000, 70_000, 400_000]))
        assert file.read_at(offset, length) == REMOTE[offset : offset + length]
    assert server.sent <= len(REMOTE)  # no byte was sent twice
    assert b"".join(file.stream(10, 1_400_000)) == REMOTE[10:1_400_010]


@pytest.mark.parametrize(
    "faults",
    [
        [at.dropped(300_000), at.dropped(100_000), at.refused],
        [at.shifted(5)],
        [at.with_headers(Content_Range=None)],
        [at.status(503), at.status(429, Retry_After="0")],
        [at.dropped(0)],
    ],
)
def test_reading_ranges_recovers_from_faults(remote, faults) -> None:
    server, file = remote
    server.faults += faults
    assert b"".join(file.stream(100, 1_000_000)) == REMOTE[100:1_000_100]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (at.of_other_content(REMOTE[::-1]), ArchiveError),
        (at.of_other_content(REMOTE[:-1]), ArchiveError),
        (at.ignoring_range, ArchiveError),
        (at.with_headers(Content_Encoding="gzip"), ArchiveError),
        (at.status(404), DownloadError),
    ],
)
def test_a_file_that_changes_while_it_is_read_is_an_error(remote, fault, error) -> None:
    server, file = remote
    file.read_at(0, 10)
    server.faults += [fault] * 9
    with pytest.raises(error, match=r"a\.zip"):
        list(file.stream(500_000, 900_000))


def test_the_argument_has_priority_over_the_environment_and_both_over_zenodo(zenodo, cli, dummy, tmp_path) -> None:
    tiny = TinyArchives().write(tmp_path / "tiny")
    out = tmp_path / "hub"

    def count(*arguments: object, **env: str) -> int:
        done = cli("build", "cls_1.25mm", "--out", out, "--json", "--overwrite", *arguments, **env)
        return sum(json.loads(done.stdout)["configs"]["cls_1.25mm"].values())

    both = count("--source", dummy, LUNG_NODULE_CT_SOURCE=str(tiny))
    assert count(LUNG_NODULE_CT_SOURCE=str(tiny)) < both
    assert not zenodo.requests
    assert count() == both
    assert zenodo.requests


def test_worker_processes_can_stream(zenodo, tmp_path) -> None:
    source = open_zenodo(Zenodo(), [get_config("det3d_1.25mm")], remote=True)
    from lung_nodule_ct.targets.build import build_folder
    from lung_nodule_ct.targets.options import BuildOptions

    build = build_folder([get_config("det3d_1.25mm")], source, tmp_path / "hub", BuildOptions(num_proc=2))
    assert build.configs["det3d_1.25mm"].rows["train"] > 0
    assert not list((tmp_path / "cache").rglob("*.zip"))


def test_without_source_and_network_the_error_names_the_remedy(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LUNG_NODULE_CT_OFFLINE", "1")
    monkeypatch.setenv("LUNG_NODULE_CT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(SourceError, match="lung-nodule-ct download"):
        lung_nodule_ct.load("cls_1.25mm", cache_dir=tmp_path)
