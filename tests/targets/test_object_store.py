"""Builds in a bucket of a server that speaks S3, on this machine: by processes, and by two workers of a Dask cluster."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from dask_cluster import beam_in_a_process, dask_cluster
from faulty_slices import FAULTY_SLICES, made_by

from lung_nodule_ct.declaration.configs import get_config
from lung_nodule_ct.examples.plan import FAMILIES, make_plan
from lung_nodule_ct.publish.card import write_first_card
from lung_nodule_ct.sources.resolve import open_folder
from lung_nodule_ct.system.object_store import ObjectFolder
from lung_nodule_ct.targets.build import build_folder

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        any(find_spec(name) is None for name in ("apache_beam", "distributed", "s3fs", "moto", "flask")),
        reason="needs the extras cluster and s3, and moto[server]",
    ),
]

DET2D = "det2d_1.25mm"


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[dict[str, str]]:
    """A server with an empty bucket. Yields the variables by which its clients find it."""
    import s3fs

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    log = (tmp_path_factory.mktemp("moto") / "log").open("w")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=log, stderr=log)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        for _ in range(600):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        s3fs.S3FileSystem().mkdir("bucket")
        yield variables
    process.terminate()
    process.wait(30)


@pytest.fixture(scope="module")
def faults(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def cluster(server, faults, tmp_path_factory) -> Iterator[str]:
    """Yields the options of Beam for a cluster whose workers find the server."""
    with dask_cluster(tmp_path_factory.mktemp("cluster"), faults, **server) as file:
        yield f"--runner=DaskRunner --dask_scheduler_file={file}"


@pytest.fixture
def slices(monkeypatch, faults) -> Path:
    for path in faults.iterdir():
        path.unlink()
    monkeypatch.setenv("FAULTS", str(faults))
    monkeypatch.setitem(FAMILIES, "slice", FAULTY_SLICES)
    return faults


def names(source: Path) -> list[str]:
    plan = make_plan(get_config(DET2D), open_folder(source))
    return [unit.source_name for units in plan.splits.values() for unit in units]


def assert_equal(url: str, folder: Path) -> None:
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    there = ObjectFolder(url)
    assert set(there.files()) == present
    for name in present:
        assert there.read(name) == (folder / name).read_bytes(), name


@pytest.mark.slow
def test_a_dask_cluster_writes_the_same_build_into_a_bucket(
    cluster, dummy, cli_process, cli, dummy_build, tmp_path
) -> None:
    """The commands of docs/howto/cluster.md, with archives in a bucket as well."""
    url, source = "s3://bucket/build/dask", ObjectFolder("s3://bucket/archives")
    for path in dummy.rglob("*.zip"):
        source.upload(path, path.name)
    command = ["build", "--all", "--source", str(source), "--engine", "beam", "--beam-options", cluster, "--out", url]
    done = cli_process(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_equal(url, dummy_build())
    assert list(tmp_path.iterdir()) == []
    done = cli("verify", url)
    assert done.returncode == 0, done.stderr
    assert "no fault" in done.stdout


@pytest.mark.slow
def test_processes_write_the_same_build_into_a_bucket(server, dummy, cli_process, dummy_build) -> None:
    url = "s3://bucket/build/local"
    done = cli_process("build", "--all", "--source", dummy, "--num-proc", "4", "--out", url)
    assert done.returncode == 0, done.stderr
    assert_equal(url, dummy_build())


@pytest.mark.slow
def test_a_job_that_fails_leaves_no_build_in_the_bucket_and_goes_on(cluster, slices, dummy, tmp_path) -> None:
    """One worker is killed while it writes a shard, and a member is damaged: the next call writes that shard alone."""
    url = "s3://bucket/build/failed"
    damaged, killed = names(dummy)[3], names(dummy)[9]
    (slices / f"damage-{damaged}").touch()
    (slices / f"kill-{killed}").touch()
    done = beam_in_a_process(dummy, url, cluster)
    assert done.returncode != 0
    assert "its bytes are not those that were packed" in done.stderr
    assert f"the shards that are finished are in {url}/.jobs" in done.stderr
    assert {name.partition("/")[0] for name in ObjectFolder(url).files()} == {".jobs"}
    made = made_by(slices)
    assert {name for _, name in made} == set(names(dummy))
    assert len({process for process, name in made if name == killed}) == 2
    (slices / "made").unlink()
    done = beam_in_a_process(dummy, url, cluster)
    assert done.returncode == 0, done.stderr
    assert Counter(name for _, name in made_by(slices)) == {damaged: 1}
    assert beam_in_a_process(dummy, tmp_path / "local").returncode == 0
    assert_equal(url, tmp_path / "local")


def test_datasets_loads_a_build_from_a_bucket(server, dummy, tmp_path, cli, monkeypatch) -> None:
    """The code of docs/howto/cluster.md."""
    import datasets

    monkeypatch.setattr(
        datasets.config, "HF_HUB_OFFLINE", False
    )  # which forbids every server; this one is on this machine
    url = "s3://bucket/build/read"
    done = cli("build", DET2D, "--source", dummy, "--out", url)
    assert done.returncode == 0, done.stderr
    files = {"train": f"{url}/data/{DET2D}/train-*.parquet"}
    there = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    build_folder([get_config(DET2D)], open_folder(dummy), tmp_path / "local", add_files=write_first_card)
    here = datasets.load_dataset(str(tmp_path / "local"), DET2D, split="train", cache_dir=str(tmp_path / "cache"))
    assert there.features == here.features
    assert there.to_dict() == here.to_dict()
    streamed = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
    assert sum(1 for _ in streamed) == len(here)


def test_a_bucket_that_cannot_be_written_is_named_before_the_build(server, dummy, cli, monkeypatch) -> None:
    done = cli("build", DET2D, "--source", dummy, "--out", "s3://missing/folder")
    assert done.returncode == 1
    assert "s3://missing/folder cannot be written: The specified bucket does not exist" in done.stderr


@pytest.mark.slow
def test_a_worker_without_access_is_named(cluster, dummy, slices, monkeypatch, tmp_path) -> None:
    """The variables of the submitting process are not those of the workers."""
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    with dask_cluster(tmp_path, slices, AWS_ENDPOINT_URL="http://127.0.0.1:9") as file:
        done = beam_in_a_process(
            dummy, "s3://bucket/build/none", f"--runner=DaskRunner --dask_scheduler_file={file}", **environment
        )
    assert done.returncode != 0
    assert "cannot use the folder of the job, s3://bucket/build/none/.jobs/" in done.stderr
