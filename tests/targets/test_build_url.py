"""Builds at a URL: the files of a local build, ``build.json`` last, and what happens when a build ends early."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from faulty_slices import made_by, use_faulty_slices
from fsspec.implementations.memory import MemoryFileSystem

import lung_nodule_ct
from lung_nodule_ct.declaration.configs import get_config
from lung_nodule_ct.errors import MemberError, OutputError
from lung_nodule_ct.examples.plan import make_plan
from lung_nodule_ct.publish.card import write_first_card
from lung_nodule_ct.sources.resolve import open_folder
from lung_nodule_ct.system.files import cache_folder
from lung_nodule_ct.system.object_store import ObjectFolder
from lung_nodule_ct.targets.build import build_folder
from lung_nodule_ct.targets.build_url import build_at_url
from lung_nodule_ct.targets.options import BuildOptions

URL = "memory://bucket/folder"
DET2D = "det2d_1.25mm"


@pytest.fixture(autouse=True)
def store(monkeypatch) -> Iterator[MemoryFileSystem]:
    """An empty store, and no waiting between attempts."""
    monkeypatch.setattr(time, "sleep", lambda _: None)
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield files
    files.store.clear()


@pytest.fixture
def slices(monkeypatch, tmp_path) -> Path:
    """Let examples of slices go wrong where a file in the folder says so, and write one shard per slice."""
    faults = tmp_path / "faults"
    faults.mkdir()
    use_faulty_slices(monkeypatch, faults)
    return faults


@pytest.fixture
def changes(monkeypatch) -> Changes:
    """The changes of the store, of which one and all later ones can fail."""
    log = Changes()
    for method in ("pipe_file", "put_file", "cp_file", "rm"):
        monkeypatch.setattr(MemoryFileSystem, method, log.of(getattr(MemoryFileSystem, method)))
    return log


class Changes:
    """Counts the changes of a store. ``fail_from`` and ``fail_until`` are the numbers of those that fail."""

    def __init__(self) -> None:
        self.count = 0
        self.fail_from: float = float("inf")
        self.fail_until: float = float("inf")

    def of(self, method):
        def changed(*args, **kwargs):
            self.count += 1
            if self.fail_from <= self.count < self.fail_until:
                raise OSError("the store does not respond")
            return method(*args, **kwargs)

        return changed


def build(source: Path, *configs: str, overwrite: bool = False, **options) -> None:
    card = write_first_card if options.get("format") is None else None
    chosen, there = [get_config(name) for name in configs or (DET2D,)], ObjectFolder(URL)
    build_at_url(chosen, open_folder(source), there, BuildOptions(**options), None, card, overwrite=overwrite)


def local(source: Path, folder: Path, *configs: str, **options) -> Path:
    card = write_first_card if options.get("format") is None else None
    build_folder(
        [get_config(name) for name in configs or (DET2D,)],
        open_folder(source),
        folder,
        BuildOptions(**options),
        None,
        card,
    )
    return folder


def assert_equal(folder: Path, others: tuple[str, ...] = ()) -> None:
    """The files at the URL are those of a folder and some others, and nothing of a job is left."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    there = ObjectFolder(URL)
    assert set(there.files()) == names | set(others)
    for name in names:
        assert there.read(name) == (folder / name).read_bytes(), name


def names(source: Path) -> list[str]:
    """The source names of the slices, in the order in which they are written."""
    plan = make_plan(get_config(DET2D), open_folder(source))
    return [unit.source_name for units in plan.splits.values() for unit in units]


def test_all_configs_have_the_files_of_a_local_build(cli, dummy, dummy_build) -> None:
    done = cli("build", "--all", "--source", dummy, "--out", URL, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["folder"] == URL
    assert_equal(dummy_build())


def test_arrow_at_a_url_has_the_files_of_a_local_build(dummy, tmp_path) -> None:
    configs = ("cls_1.25mm", "det3d_1.25mm")
    build(dummy, *configs, format="arrow")
    assert_equal(local(dummy, tmp_path / "local", *configs, format="arrow"))


def test_this_machine_holds_one_shard_at_a_time(slices, dummy, monkeypatch) -> None:
    held, put = [], MemoryFileSystem.put_file

    def put_file(self, path, target, **others):
        if target.endswith(".shard"):
            held.append(len(list((cache_folder() / "uploads").rglob("*.parquet.partial"))))
        put(self, path, target, **others)

    monkeypatch.setattr(MemoryFileSystem, "put_file", put_file)
    build(dummy)
    assert held == [1] * len(names(dummy))
    assert [path for path in (cache_folder() / "uploads").rglob("*") if "lock" not in path.name] == []


def test_url_and_folder_do_not_mix(cli, dummy, tmp_path) -> None:
    """A URL was taken for the path of a folder that is called s3: before."""
    done = cli("build", DET2D, "--source", dummy, "--out", "unknown://bucket/folder", cwd=tmp_path)
    assert done.returncode == 1
    assert "unknown://bucket/folder cannot be" in done.stderr
    assert list(tmp_path.iterdir()) == []
    for url, problem in (
        ("memory://bucket/[a]", "pattern"),
        ("memory://", "in the URL"),
        (f"file://{tmp_path}", "path"),
    ):
        done = cli("build", DET2D, "--source", dummy, "--out", url, cwd=tmp_path)
        assert done.returncode == 2
        assert problem in done.stderr
    done = cli("audit", URL)
    assert done.returncode == 1
    assert "is a URL" in done.stderr


def test_a_failure_leaves_no_build_and_the_next_call_writes_the_rest(slices, dummy, tmp_path, capsys) -> None:
    expected = local(dummy, tmp_path / "local")
    damaged = names(dummy)[3]
    (slices / f"damage-{damaged}").touch()
    with pytest.raises(MemberError, match="its bytes are not those that were packed"):
        build(dummy)
    assert {name.partition("/")[0] for name in ObjectFolder(URL).files()} == {".jobs"}
    assert "the same command goes on from there" in capsys.readouterr().err
    (slices / "made").unlink()
    build(dummy)
    assert_equal(expected)
    assert [name for _, name in made_by(slices)] == names(dummy)[3:]


def test_a_finished_shard_that_was_changed_is_written_again(slices, dummy, tmp_path, store) -> None:
    expected = local(dummy, tmp_path / "local")
    (slices / f"damage-{names(dummy)[-1]}").touch()
    with pytest.raises(MemberError):
        build(dummy)
    shards = sorted(path for path in store.find("/bucket/folder/.jobs") if path.endswith(".shard"))
    assert len(shards) == len(names(dummy)) - 1
    content = store.cat_file(shards[0])
    store.pipe_file(shards[0], content[:-1] + bytes([content[-1] ^ 1]))  # of the same size
    store.rm_file(shards[1])
    (slices / "made").unlink()
    build(dummy)
    assert_equal(expected)
    assert len(made_by(slices)) == 3


def test_another_plan_keeps_nothing_of_an_unfinished_build(slices, dummy) -> None:
    (slices / f"damage-{names(dummy)[-1]}").touch()
    with pytest.raises(MemberError):
        build(dummy)
    (slices / "made").unlink()
    build(dummy, keep_source_names=True)
    assert [name for _, name in made_by(slices)] == names(dummy)
    assert not any(name.startswith(".jobs") for name in ObjectFolder(URL).files())


@pytest.mark.slow
def test_a_build_that_ends_at_any_change_of_the_store_is_no_build_or_complete(dummy, tmp_path, store, changes) -> None:
    """``build.json`` is there only with all other files. The same command then completes the build."""
    expected = local(dummy, tmp_path / "local")
    build(dummy)
    total = changes.count
    assert total > 10
    for number in range(1, total + 1):
        store.store.clear()
        changes.count, changes.fail_from = 0, number
        complete = number == total  # only .jobs could not be removed
        if complete:
            build(dummy)
        else:
            with pytest.raises(OutputError, match="the store does not respond"):
                build(dummy)
        changes.fail_from = float("inf")
        assert ("build.json" in ObjectFolder(URL).files()) == complete
        build(dummy, overwrite=complete)
        assert_equal(expected)


@pytest.mark.slow
def test_a_build_is_replaced_as_a_whole_or_not_yet(dummy, tmp_path, store, changes) -> None:
    expected = local(dummy, tmp_path / "local")
    build(dummy, "cls_1.25mm")
    earlier = dict(store.store)
    changes.count = 0
    build(dummy, overwrite=True)
    total = changes.count
    states = set()
    for number in range(1, total):
        store.store.clear()
        store.store.update(earlier)
        changes.count, changes.fail_from = 0, number
        with pytest.raises(OutputError, match="the store does not respond"):
            build(dummy, overwrite=True)
        changes.fail_from = float("inf")
        exists = "build.json" in ObjectFolder(URL).files()
        if exists:  # all files of the earlier build
            assert {name: file.getvalue() for name, file in store.store.items() if "/.jobs/" not in name} == {
                name: file.getvalue() for name, file in earlier.items()
            }
        states.add(exists)
        build(dummy, overwrite=exists)
        assert_equal(expected)
    assert states == {True, False}


def test_a_failure_of_the_store_that_passes_is_tried_again(dummy, tmp_path, changes) -> None:
    build(dummy)
    for number in (2, changes.count // 2, changes.count):
        fsspec.filesystem("memory").store.clear()
        changes.count, changes.fail_from, changes.fail_until = 0, number, number + 2
        build(dummy)
        assert changes.count > number
    assert_equal(local(dummy, tmp_path / "local"))


def test_a_build_is_only_given_up_with_overwrite_and_other_files_are_kept(cli, dummy, tmp_path, store) -> None:
    build(dummy, "cls_1.25mm")
    there = ObjectFolder(URL)
    there.write("notes.txt", b"mine")
    before = there.files()
    with pytest.raises(OutputError, match="configs cannot be added to a build at a URL"):
        build(dummy)
    assert there.files() == before
    done = cli("build", DET2D, "--source", dummy, "--out", URL, "--overwrite")
    assert done.returncode == 0, done.stderr
    assert "notes.txt: kept, although no command wrote it" in done.stdout
    assert_equal(local(dummy, tmp_path / "local"), ("notes.txt",))


@pytest.mark.parametrize("name", ["notes.txt", "build.json"])
def test_a_url_with_other_files_is_refused(dummy, name) -> None:
    there = ObjectFolder(URL)
    there.write(name, b"{}")
    with pytest.raises(OutputError, match=f"is not the result of a previous build; .*got {name}"):
        build(dummy)
    assert there.files() == {name: 2}


def test_a_file_of_others_is_not_replaced(dummy) -> None:
    build(dummy, "cls_1.25mm")
    there = ObjectFolder(URL)
    name = f"data/{DET2D}/train-00000-of-00001.parquet"
    there.write(name, b"mine")
    with pytest.raises(OutputError, match=f"would replace.*got {name}"):
        build(dummy, overwrite=True)
    assert there.read(name) == b"mine"
    assert lung_nodule_ct.verify(URL).foreign  # and the earlier build is complete


def test_a_build_that_another_machine_completed_meanwhile_is_not_replaced(slices, dummy, tmp_path, store) -> None:
    """As seen before the first name is given; nothing locks a URL."""
    expected = local(dummy, tmp_path / "local")

    def by_another(folder: Path) -> None:
        write_first_card(folder)
        for path in expected.rglob("*"):
            if path.is_file():
                ObjectFolder(URL).upload(path, path.relative_to(expected).as_posix())

    with pytest.raises(OutputError, match="another process wrote a build"):
        build_at_url([get_config("cls_1.25mm")], open_folder(dummy), ObjectFolder(URL), None, None, by_another)
    assert lung_nodule_ct.verify(URL).is_sound


def test_verify_compares_every_file_at_a_url(cli, dummy, store) -> None:
    build(dummy)
    result = lung_nodule_ct.verify(URL)
    assert result.is_sound
    assert result.files == len(ObjectFolder(URL).files())
    there = ObjectFolder(URL)
    train, unassigned = (f"data/{DET2D}/{split}-00000-of-00001.parquet" for split in ("train", "unassigned"))
    content = there.read(train)
    there.write(train, content[:-1] + bytes([content[-1] ^ 1]))
    there.remove([unassigned])
    there.write("findings.json", b"{}")
    there.write(f"data/{DET2D}/train-more.parquet", b"")
    there.write("notes.txt", b"mine")
    done = cli("verify", URL, "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert {(fault["kind"], fault["path"]) for fault in found["faults"]} == {
        ("changed", train),
        ("missing", unassigned),
        ("changed", "findings.json"),
        ("added", f"data/{DET2D}/train-more.parquet"),
    }
    assert found["not_of_this_build"] == ["notes.txt"]
    there.write("build.json", there.read("build.json") + b" ")
    assert lung_nodule_ct.verify(URL).faults[0].kind == "manifest"
    done = cli("verify", "memory://bucket/nothing")
    assert done.returncode == 1
    assert "it has no build.json" in done.stderr
