"""Builds by Apache Beam on a Dask cluster of two workers, which are processes of this machine, and jobs that go on after a failure."""

from __future__ import annotations

import dataclasses
import os
import pickle
import shutil
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from dask_cluster import beam_in_a_process, dask_cluster
from faulty_slices import made_by, use_faulty_slices

from lung_nodule_ct.declaration.configs import CONFIGS, get_config
from lung_nodule_ct.errors import MemberError, OutputError
from lung_nodule_ct.examples.plan import FAMILIES, make_plan
from lung_nodule_ct.publish.card import write_first_card
from lung_nodule_ct.sources.resolve import open_folder
from lung_nodule_ct.targets import job as jobs
from lung_nodule_ct.targets.build import build_folder
from lung_nodule_ct.targets.job import Job
from lung_nodule_ct.targets.options import BuildOptions
from lung_nodule_ct.targets.parquet import ParquetLayout
from lung_nodule_ct.targets.shards import plan_shards, unpublished, write_shard

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        find_spec("apache_beam") is None or find_spec("distributed") is None, reason="needs the extra cluster"
    ),
]

DET2D = "det2d_1.25mm"


@pytest.fixture(scope="module")
def faults(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def scheduler(faults, tmp_path_factory) -> Iterator[Path]:
    """Yields the file with the address of a cluster."""
    with dask_cluster(tmp_path_factory.mktemp("cluster"), faults) as file:
        yield file


@pytest.fixture
def slices(monkeypatch, faults) -> Path:
    """Let examples of slices go wrong where a file in the folder says so, and write one shard per slice."""
    for path in faults.iterdir():
        path.unlink()
    use_faulty_slices(monkeypatch, faults)
    return faults


def build_on_dask(scheduler: Path, source: Path, out: Path, more: str = "") -> str:
    """Build on the cluster, and return what the command said."""
    done = beam_in_a_process(source, out, f"--runner=DaskRunner --dask_scheduler_file={scheduler} {more}")
    assert done.returncode == 0, done.stderr
    return done.stderr


def build(source: Path, out: Path, options: BuildOptions | None = None) -> Path:
    build_folder([get_config(DET2D)], open_folder(source), out, options, add_files=write_first_card)
    return out


def names(source: Path) -> list[str]:
    """The source names of the slices, in the order in which they are written."""
    plan = make_plan(get_config(DET2D), open_folder(source))
    return [unit.source_name for units in plan.splits.values() for unit in units]


def assert_equal(folder: Path, expected: Path) -> None:
    files = [{path.relative_to(root) for path in root.rglob("*") if path.is_file()} for root in (folder, expected)]
    assert files[0] == files[1]
    for name in files[0]:
        assert (folder / name).read_bytes() == (expected / name).read_bytes(), name
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(f".{folder.name}.")] == []


@pytest.mark.slow
def test_a_dask_cluster_writes_the_same_builds(scheduler, dummy, cli_process, dummy_build, tmp_path) -> None:
    """The command of docs/howto/cluster.md."""
    beam_options = f"--runner=DaskRunner --dask_scheduler_file={scheduler}"
    command = ["build", "--all", "--source", dummy, "--engine", "beam", "--beam-options", beam_options]
    done = cli_process(*command, "--out", tmp_path / "hub")
    assert done.returncode == 0, done.stderr
    assert_equal(tmp_path / "hub", dummy_build())


def test_every_shard_is_a_partition(scheduler, slices, dummy, tmp_path) -> None:
    """Two workers take the shards one by one: 18 shards in the default partition of Dask would be the work of one."""
    build_on_dask(scheduler, dummy, tmp_path / "hub")
    processes = Counter(process for process, _ in made_by(slices))
    assert sum(processes.values()) == len(names(dummy)) == 18
    assert len(processes) == 2
    assert os.getpid() not in processes
    (slices / "made").unlink()
    build_on_dask(scheduler, dummy, tmp_path / "one", "--dask_npartitions=1")
    assert len({process for process, _ in made_by(slices)}) == 1


@pytest.mark.slow
def test_a_killed_worker_and_a_shard_that_fails_once_change_nothing(scheduler, slices, dummy, tmp_path, capsys) -> None:
    expected = build(dummy, tmp_path / "local")
    (slices / "made").unlink()
    killed, failed = names(dummy)[4], names(dummy)[9]
    (slices / f"kill-{killed}").touch()
    (slices / f"fail-{failed}").touch()
    said = build_on_dask(scheduler, dummy, tmp_path / "hub")
    assert_equal(tmp_path / "hub", expected)
    assert [path.name for path in slices.iterdir()] == ["made"]  # each fault occurred
    made = made_by(slices)
    assert len({process for process, name in made if name == killed}) == 2
    assert [name for _, name in made].count(failed) == 2
    assert "written at attempt 2; " in said


def test_the_shards_of_a_slow_worker_go_to_the_other(scheduler, slices, dummy, tmp_path) -> None:
    """One worker is busy with the first shard until 15 of 18 shards were begun."""
    expected = build(dummy, tmp_path / "local")
    (slices / "made").unlink()
    (slices / "slow").touch()
    build_on_dask(scheduler, dummy, tmp_path / "hub")
    assert_equal(tmp_path / "hub", expected)
    made = made_by(slices)
    assert len(made) == 18
    assert sorted(Counter(process for process, _ in made[:15]).values()) == [1, 14]


def test_a_shard_that_always_fails_ends_the_job_with_its_error(slices, dummy, tmp_path, capsys) -> None:
    name = names(dummy)[3]
    (slices / f"damage-{name}").touch()
    with pytest.raises(MemberError, match="its bytes are not those that were packed") as caught:
        build(dummy, tmp_path / "hub", BuildOptions(engine="beam"))
    assert caught.value.member.endswith(f"{name}.jpg")
    assert not (tmp_path / "hub").exists()
    assert "the same command goes on from there" in capsys.readouterr().err


def test_a_job_goes_on_with_what_is_finished_and_intact(slices, dummy, tmp_path) -> None:
    expected = build(dummy, tmp_path / "local")
    damaged = names(dummy)[3]
    (slices / f"damage-{damaged}").touch()
    with pytest.raises(MemberError):
        build(dummy, tmp_path / "hub", BuildOptions(engine="beam"))
    (folder,) = (tmp_path / ".hub.jobs").iterdir()
    files = sorted(folder.glob("*.shard"))
    assert len(files) == 17
    content = files[0].read_bytes()
    files[0].write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # of the same size
    files[1].unlink()
    (slices / "made").unlink()
    assert_equal(build(dummy, tmp_path / "hub", BuildOptions(engine="beam")), expected)
    made = [name for _, name in made_by(slices)]
    assert len(made) == 3
    assert damaged in made


def test_another_plan_keeps_nothing_of_an_unfinished_job(slices, dummy, tmp_path) -> None:
    (slices / f"damage-{names(dummy)[3]}").touch()
    with pytest.raises(MemberError):
        build(dummy, tmp_path / "hub", BuildOptions(engine="beam"))
    (slices / "made").unlink()
    build(dummy, tmp_path / "hub", BuildOptions(engine="beam", keep_source_names=True))
    assert sorted(name for _, name in made_by(slices)) == sorted(names(dummy))


@pytest.mark.slow
def test_a_job_goes_on_after_the_submitting_process_was_killed(slices, dummy, tmp_path) -> None:
    """The plans of two processes are equal, also with another seed of the hashes of strings."""
    expected = build(dummy, tmp_path / "local")
    (slices / "made").unlink()
    (slices / f"kill-{names(dummy)[11]}").touch()
    runs = [beam_in_a_process(dummy, tmp_path / "hub", PYTHONHASHSEED=seed) for seed in ("1", "2")]
    assert [run.returncode for run in runs] == [-9, 0], runs[1].stderr
    assert_equal(tmp_path / "hub", expected)
    made = [name for _, name in made_by(slices)]
    assert len(made) == 19  # only the one that was interrupted is made again
    assert Counter(made)[names(dummy)[11]] == 2


def test_two_workers_write_the_same_shard_at_once(dummy, tmp_path) -> None:
    """As when a scheduler takes a slow worker for dead and gives its shard to another."""
    plan = make_plan(get_config("det3d_1.25mm"), open_folder(dummy))
    (shard,) = plan_shards(plan, keep_source_names=False, shard_bytes=10**9)
    job, layout = Job(tmp_path / "job"), ParquetLayout()
    (key,) = job.submit(layout, [shard])
    workers = [threading.Thread(target=job.write, args=(0,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    written = job.collect(key, shard, tmp_path / "stage")
    alone = write_shard(layout, shard, tmp_path / "alone", prefetch=0)
    assert written == alone
    assert (
        unpublished(tmp_path / "stage" / written.path).read_bytes()
        == unpublished(tmp_path / "alone" / alone.path).read_bytes()
    )
    assert not list((tmp_path / "job").glob("attempt-*"))


def test_a_worker_without_the_folder_or_with_other_code_is_named(slices, dummy, tmp_path, monkeypatch) -> None:
    plan = make_plan(get_config(DET2D), open_folder(dummy))
    shards = plan_shards(plan, keep_source_names=False, shard_bytes=10**9)
    job = Job(tmp_path / "job")
    plans = job.submit(ParquetLayout(), shards)
    with pytest.raises(OutputError, match="is not in the folder of the job"):
        job.collect(plans[0], shards[0], tmp_path / "stage")
    with pytest.raises(OutputError, match="cannot use the folder of the job"):
        Job(tmp_path / "elsewhere").write(0)
    monkeypatch.setattr(jobs, "code_hash", lambda: "0123456789abcdef")
    monkeypatch.setattr(time, "sleep", lambda _: None)
    job.write(0)
    with pytest.raises(OutputError, match="has other packages than the submitting machine; expected lung_nodule_ct"):
        job.collect(plans[0], shards[0], tmp_path / "stage")


def test_the_graph_of_a_job_does_not_grow_with_its_units(dummy, tmp_path, monkeypatch) -> None:
    """The graph holds numbers of shards: Dataflow takes 10 MB."""
    from apache_beam import Pipeline

    sizes = []
    run = Pipeline.run

    def measured(self, *args):
        sizes.append(len(self.to_runner_api().SerializeToString()))
        return run(self, *args)

    monkeypatch.setattr(Pipeline, "run", measured)
    for shard_bytes in (10**9, 1):
        layout = ParquetLayout(shard_bytes=shard_bytes)
        monkeypatch.setattr(BuildOptions, "layout", lambda *_, layout=layout: layout)
        build(dummy, tmp_path / "hub", BuildOptions(engine="beam"))
        shutil.rmtree(tmp_path / "hub")
    assert len(sizes) == 2
    assert sizes[1] - sizes[0] < 15 * 100  # of three shards and of 18
    assert max(sizes) < 20_000


def test_a_job_is_submitted_shard_by_shard(dummy, tmp_path) -> None:
    """Memory does not grow with the number of units, and the size of the manifest grows by the same number of bytes for each."""
    plan = make_plan(get_config(DET2D), open_folder(dummy))
    peaks, sizes = [], []
    for count in (1_000, 4_000, 16_000):
        units = [dataclasses.replace(plan.units[0], source_name=f"{number:06}_1") for number in range(count)]
        layout = ParquetLayout(shard_bytes=100 * units[0].packed_bytes)
        shards = plan_shards(
            dataclasses.replace(plan, units=tuple(units)), keep_source_names=False, shard_bytes=layout.shard_bytes
        )
        folder = tmp_path / str(count)
        Job(folder).submit(layout, shards[:1])  # what is only done once
        tracemalloc.start()
        plans = Job(folder).submit(layout, shards)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        sizes.append((folder / "manifest").stat().st_size)
        assert len(set(plans)) == len(shards) == count // 100
    assert peaks[2] - peaks[0] < 15_000 * 10  # 0.5 kB per unit as pickled
    assert (sizes[2] - sizes[1]) / (sizes[1] - sizes[0]) == pytest.approx(4, rel=0.05)


def test_the_configs_of_the_package_have_picklable_families() -> None:
    """A worker gets the family by the name of its functions."""
    for config in CONFIGS.values():
        family = FAMILIES[config.kind]
        assert pickle.loads(pickle.dumps(family)) == family
