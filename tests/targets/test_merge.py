"""Builds into a folder that holds a build: configs are added or renewed, nothing that a user has is lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lung_nodule_ct.declaration.configs import get_config
from lung_nodule_ct.errors import OutputError
from lung_nodule_ct.publish.publication import plan_publication
from lung_nodule_ct.read.build_folder import open_build
from lung_nodule_ct.sources.resolve import open_folder
from lung_nodule_ct.system import staging
from lung_nodule_ct.targets.build import build_folder
from lung_nodule_ct.targets.options import BuildOptions

FORMATS = ("parquet", "arrow", "tfrecord", "array_record")
STEPS = (("cls_1.25mm",), ("det3d_5mm", "det2d_1.25mm"), ("det3d_1.25mm",), ("longitudinal", "det3d_bmp_1.25mm"))
"""Configs that one command after the other adds, not in the order of the declaration."""


def files_of(folder: Path) -> dict[str, bytes]:
    """The content of every file, by name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def add(cli, dummy):
    """Build configs into a folder, and return the result of the command."""

    def run(out: Path, *arguments: str, source: Path = dummy):
        return cli("build", *arguments, "--source", source, "--out", out)

    return run


@pytest.fixture
def done(add):
    """Build configs into a folder, which must succeed."""

    def run(out: Path, *arguments: str):
        result = add(out, *arguments)
        assert result.returncode == 0, result.stderr
        return result

    return run


@pytest.mark.parametrize("format_", FORMATS)
def test_configs_that_are_added_one_by_one_equal_a_build_of_all(dummy_build, done, tmp_path, format_) -> None:
    if format_ not in ("parquet", "arrow"):
        pytest.importorskip("tensorflow_datasets")
    out = tmp_path / "added"
    for step in STEPS:
        done(out, *step, "--format", format_)
    assert files_of(out) == files_of(dummy_build(format_))
    done(out, "det3d_1.25mm", "cls_1.25mm", "--format", format_)
    assert files_of(out) == files_of(dummy_build(format_))
    assert names_in(tmp_path) == ["added"]


def test_the_output_lists_what_is_kept_and_removed(cli, done, tmp_path) -> None:
    out = tmp_path / "hub"
    done(out, "cls_1.25mm")
    for command in ("audit", "card"):
        assert cli(command, out).returncode == 0
    (out / "notes.txt").write_text("of the user")
    printed = done(out, "det2d_1.25mm").stdout
    for line in (
        "cls_1.25mm: kept from the earlier build",
        "audit.json: removed, because the build changed",
        "notes.txt: kept, although no command wrote it",
    ):
        assert line in printed
    assert "README.md" not in printed  # renewed
    assert set(json.loads((out / "build.json").read_text())["configs"]) == {"cls_1.25mm", "det2d_1.25mm"}
    assert names_in(out) == ["README.md", "beside.json", "build.json", "data", "findings.json", "notes.txt"]
    assert "det2d_1.25mm" in (out / "README.md").read_text()
    document = json.loads(done(out, "cls_1.25mm", "--json").stdout)
    assert (document["kept"], document["removed"], document["by_user"]) == (["det2d_1.25mm"], [], ["notes.txt"])


def test_the_same_build_again_keeps_card_and_audit(cli, done, tmp_path) -> None:
    out = tmp_path / "hub"
    done(out, "cls_1.25mm")
    for command in ("audit", "card"):
        assert cli(command, out).returncode == 0
    before = files_of(out)
    done(out, "cls_1.25mm")
    assert files_of(out) == before


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--format", "arrow"), "expected parquet, got arrow"),
        (("--split-by", "patient"), "expected published, got patient"),
        (("--keep-source-names",), "keep_source_names"),
        (("--volume-codec", "b2nd"), "expected raw, got b2nd"),
    ],
)
def test_other_options_are_refused_and_overwrite_replaces(done, add, tmp_path, options, named) -> None:
    out = tmp_path / "hub"
    done(out, "cls_1.25mm", "det2d_1.25mm")
    (out / "notes.txt").write_text("of the user")
    before = files_of(out)
    refused = add(out, "det2d_1.25mm", *options)
    assert refused.returncode == 1
    assert named in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert files_of(out) == before
    done(out, "det2d_1.25mm", *options, "--overwrite")
    replaced = tmp_path / "new"
    done(replaced, "det2d_1.25mm", *options)
    assert files_of(out) == files_of(replaced) | {"notes.txt": b"of the user"}


def test_another_source_is_refused_also_if_all_configs_are_renewed(done, add, tmp_path, dummy) -> None:
    from lung_nodule_ct.testing.synthetic_archives import TinyArchives

    out = tmp_path / "hub"
    done(out, "cls_1.25mm", "det3d_5mm")
    other = TinyArchives().write(tmp_path / "other")
    for configs in (("det3d_5mm",), ("cls_1.25mm", "det3d_5mm")):
        refused = add(out, *configs, source=other)
        assert refused.returncode == 1
        assert "holds a build from other archives" in refused.stderr
    assert add(out, "det3d_5mm", "--overwrite", source=other).returncode == 0
    assert list(json.loads((out / "build.json").read_text())["configs"]) == ["det3d_5mm"]


def test_a_config_that_lacked_an_archive_must_be_renewed_with_the_others(cli, done, add, tmp_path, dummy) -> None:
    """The nodules of a crop are context of the scans, which are built without it if it is missing."""
    partial = tmp_path / "partial"
    shutil.copytree(dummy, partial)
    (crops,) = partial.rglob("class_dataset.zip")
    crops.rename(tmp_path / "class_dataset.zip")
    out = tmp_path / "hub"
    assert add(out, "det3d_5mm", source=partial).returncode == 0
    refused = add(out, "cls_1.25mm")
    assert refused.returncode == 1
    assert "class_dataset.zip" in refused.stderr
    done(out, "cls_1.25mm", "det3d_5mm")
    done(tmp_path / "new", "cls_1.25mm", "det3d_5mm")
    assert files_of(out) == files_of(tmp_path / "new")


def test_a_folder_that_is_not_a_build_is_never_replaced(add, tmp_path) -> None:
    out = tmp_path / "project"
    out.mkdir()
    for name, content in (("thesis.tex", "text"), ("build.json", "{}")):
        (out / name).write_text(content)
        for options in ((), ("--overwrite",)):
            refused = add(out, "cls_1.25mm", *options)
            assert refused.returncode == 1
            assert name in refused.stderr
    assert names_in(out) == ["build.json", "thesis.tex"]


@pytest.mark.parametrize("format_", ["parquet", "arrow"])
def test_files_and_links_of_the_user_are_kept(done, tmp_path, format_) -> None:
    out = tmp_path / "hub"
    done(out, "cls_1.25mm", "--format", format_)
    shards = next(path for path in sorted(out.rglob("*")) if path.suffix in (".parquet", ".arrow")).parent
    (shards / "cache-0123456789abcdef.arrow").write_bytes(b"cached")
    (out / "metadata.json").write_text("{}")
    (out / "empty" / "folder").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("outside")
    (out / "link").symlink_to("../elsewhere")
    (out / "dangling").symlink_to("nowhere")
    inode = (out / "metadata.json").stat().st_ino
    done(out, "cls_1.25mm", "--format", format_)
    assert (shards / "cache-0123456789abcdef.arrow").read_bytes() == b"cached"
    done(out, "det2d_1.25mm", "--format", format_)
    if format_ == "arrow":  # the files of the only config have moved into a folder
        shards = out / "cls_1.25mm" / shards.name
    assert (shards / "cache-0123456789abcdef.arrow").read_bytes() == b"cached"
    assert (out / "metadata.json").stat().st_ino == inode
    assert (out / "empty" / "folder").is_dir()
    assert [str((out / name).readlink()) for name in ("link", "dangling")] == ["../elsewhere", "nowhere"]
    assert (tmp_path / "elsewhere" / "file").read_text() == "outside"


def test_files_are_copied_where_there_are_no_hard_links(done, dummy_build, tmp_path, monkeypatch) -> None:
    out = tmp_path / "hub"
    done(out, "cls_1.25mm", "det3d_1.25mm", "det3d_5mm", "longitudinal")

    def refuse(*_: object) -> None:
        raise PermissionError("no hard links")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    done(out, "det2d_1.25mm", "det3d_bmp_1.25mm")
    assert files_of(out) == files_of(dummy_build())


@pytest.mark.parametrize("change", ["content", "size", "link"])
def test_a_changed_shard_is_never_replaced_unasked(done, add, tmp_path, change) -> None:
    out = tmp_path / "hub"
    done(out, "cls_1.25mm", "det2d_1.25mm")
    shard = out / "data" / "cls_1.25mm" / "train-00000-of-00001.parquet"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    if change == "link":
        (tmp_path / "kept.parquet").write_bytes(shard.read_bytes())
        shard.unlink()
        shard.symlink_to(tmp_path / "kept.parquet")
    else:
        shard.write_bytes(content if change == "content" else content + b"x")
    before = files_of(out)
    done(out, "det2d_1.25mm")  # another config: the shard stays as it is
    assert files_of(out) == before
    refused = add(out, "cls_1.25mm")
    assert refused.returncode == 1
    assert "data/cls_1.25mm/train-00000-of-00001.parquet" in refused.stderr
    assert files_of(out) == before
    done(out, "cls_1.25mm", "det2d_1.25mm", "--overwrite")
    assert not shard.is_symlink()
    done(tmp_path / "new", "cls_1.25mm", "det2d_1.25mm")
    assert files_of(out) == files_of(tmp_path / "new")


def test_a_linked_folder_of_shards_is_named_before_anything_is_built(done, add, tmp_path) -> None:
    out = tmp_path / "hub"
    done(out, "cls_1.25mm")
    (out / "data").rename(tmp_path / "large disk")
    (out / "data").symlink_to(tmp_path / "large disk")
    refused = add(out, "det2d_1.25mm")
    assert refused.returncode == 1
    assert "got data" in refused.stderr.lower()
    assert (out / "data" / "cls_1.25mm").is_dir()


def test_a_link_as_output_is_followed(done, tmp_path) -> None:
    (tmp_path / "disk").mkdir()
    out = tmp_path / "link"
    out.symlink_to("disk/hub")
    done(out, "cls_1.25mm")
    done(out, "det2d_1.25mm")
    assert out.is_symlink()
    assert names_in(tmp_path / "disk") == ["hub"]
    assert names_in(tmp_path / "disk" / "hub" / "data") == ["cls_1.25mm", "det2d_1.25mm"]


def test_a_second_build_waits_for_the_first_and_both_are_there(tmp_path, dummy) -> None:
    out = tmp_path / "hub"
    source = open_folder(dummy)
    with staging.exclusive(out):
        process = subprocess.Popen(
            [sys.executable, "-m", "lung_nodule_ct", "build", "cls_1.25mm", "--source", dummy, "--out", out],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        assert any("another process is writing" in line for line in process.stderr)
        assert not out.exists()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    threads = [
        threading.Thread(target=build_folder, args=([get_config(name)], source, out, BuildOptions()))
        for name in ("det2d_1.25mm", "det3d_5mm")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(json.loads((out / "build.json").read_text())["configs"]) == {"cls_1.25mm", "det2d_1.25mm", "det3d_5mm"}
    assert names_in(tmp_path) == ["hub"]


@pytest.mark.parametrize("name", ["hub", "a[1]b", "*"])
def test_what_killed_builds_left_is_removed_and_the_earlier_build_put_back(done, tmp_path, name) -> None:
    out = tmp_path / name
    done(out, "cls_1.25mm")
    before = files_of(out)
    out.rename(tmp_path / f".{name}.building-abcd1234.old")
    for left in ("abcd1234", "efgh5678"):
        (tmp_path / f".{name}.building-{left}" / "data").mkdir(parents=True)
        (tmp_path / f".{name}.building-{left}.lock").touch()
    for lock in ("building-ijkl9012", "sidecars", "build"):
        (tmp_path / f".{name}.{lock}.lock").touch()
    (tmp_path / f".{name}.building-notes").mkdir()  # a folder of the user
    done(out, "det2d_1.25mm")
    assert names_in(tmp_path) == sorted([f".{name}.building-notes", name])
    after = files_of(out)
    assert all(after[name] == content for name, content in before.items() if name.endswith(".parquet"))


def test_a_command_that_reads_puts_the_earlier_build_back(cli, done, tmp_path) -> None:
    out = tmp_path / "hub"
    done(out, "cls_1.25mm")
    out.rename(tmp_path / ".hub.building-abcd1234.old")
    (tmp_path / ".hub.building-abcd1234").mkdir()
    assert cli("audit", out).returncode == 0
    assert names_in(tmp_path) == ["hub"]


def test_two_folders_are_exchanged_in_two_steps_where_one_is_not_possible(done, tmp_path, monkeypatch) -> None:
    out = tmp_path / "hub"
    done(out, "cls_1.25mm")
    monkeypatch.setattr(staging, "_exchange", lambda *_: False)
    done(out, "det2d_1.25mm")
    assert names_in(out / "data") == ["cls_1.25mm", "det2d_1.25mm"]
    before = files_of(out)
    rename = Path.rename

    def fail(path: Path, target: Path) -> Path:
        if path.name.startswith(".hub.building-") and target == out and not path.name.endswith(".old"):
            raise PermissionError("of the test")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OutputError, match="of the test"):
        build_folder([get_config("det3d_5mm")], open_folder(Path("dummy_data")), out)
    monkeypatch.setattr(Path, "rename", rename)
    assert files_of(out) == before
    assert names_in(tmp_path) == ["hub"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and /sys")
def test_a_full_disk_and_a_read_only_folder_are_one_sentence(python, add, done, tmp_path, dummy) -> None:
    out = tmp_path / "hub"
    done(out, "cls_1.25mm")
    before = files_of(out)
    for name, size in (("det3d_1.25mm", 50_000), ("det2d_1.25mm", 4_000)):
        full = python(
            f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
sys.argv = ["lung-nodule-ct", "build", {name!r}, "--source", {str(dummy)!r}, "--out", {str(out)!r}]
from lung_nodule_ct.cli import main
main()
""",
            cwd=tmp_path,
        )
        assert full.returncode == 1
        assert full.stderr.count("\nerror: ") == 1
        assert "Traceback" not in full.stderr
    assert files_of(out) == before
    assert names_in(tmp_path) == ["hub"]
    refused = add(Path("/sys/kernel/build"), "cls_1.25mm")
    assert refused.returncode == 1
    assert "\nerror: the output /sys/kernel/build cannot be written" in refused.stderr


def test_workers_end_with_a_killed_parent(tmp_path) -> None:
    code = """
import os, signal, sys, time
from pathlib import Path
from lung_nodule_ct.targets.engine import LocalEngine
with LocalEngine(8) as engine:
    pool = engine._pool(4)
    futures = [pool.submit(time.sleep, 300) for _ in range(4)]
    processes = list(pool._processes)
    pool.submit(os.getpid)
    print(*processes, flush=True)
    time.sleep(3)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    script = tmp_path / "parent.py"
    script.write_text("if __name__ == '__main__':\n" + "".join(f"    {line}\n" for line in code.splitlines()))
    parent = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, timeout=60)
    workers = [int(number) for number in parent.stdout.split()]
    assert len(workers) == 4, parent.stderr
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{worker}").exists() and "Z" not in _state(worker) for worker in workers):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.1)


def _state(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_files_of_users_with_the_names_of_layout_files_are_kept(done, tmp_path) -> None:
    out = tmp_path / "hub"
    done(out, "cls_1.25mm")
    names = ("my.labels.txt", "features.json", "data/dataset_info.json")
    for name in names:
        (out / name).write_text("mine")
    done(out, "det2d_1.25mm", "--overwrite")
    assert [(out / name).read_text() for name in names] == ["mine"] * 3


def test_an_edited_report_is_never_replaced_unasked(done, add, tmp_path) -> None:
    out = tmp_path / "hub"
    done(out, "cls_1.25mm")
    report = (out / "findings.json").read_text()
    for edited in (report.replace('"note"', '"NOTE"'), report.replace('"action"', '"my note"')):
        (out / "findings.json").write_text(edited)
        refused = add(out, "det2d_1.25mm")
        assert refused.returncode == 1
        assert "findings.json" in refused.stderr
        assert "Traceback" not in refused.stderr
        assert (out / "findings.json").read_text() == edited


def test_permissions_of_folders_stay(done, tmp_path) -> None:
    out = tmp_path / "hub"
    done(out, "cls_1.25mm")
    (out / "secret").mkdir()
    (out / "secret" / "note.txt").write_text("mine")
    for folder in (out, out / "secret"):
        folder.chmod(0o700)
    done(out, "det2d_1.25mm")
    assert [folder.stat().st_mode & 0o777 for folder in (out, out / "secret")] == [0o700, 0o700]


def test_a_changed_shard_of_a_kept_config_stays_as_it_is_and_verify_names_it(done, cli, tmp_path) -> None:
    out = tmp_path / "hub"
    done(out, "cls_1.25mm")
    shard = next(out.rglob("train-*.parquet"))
    changed = bytearray(shard.read_bytes())
    changed[100] ^= 1
    shard.write_bytes(changed)
    printed = done(out, "det2d_1.25mm").stdout
    assert "cls_1.25mm: kept from the earlier build, not compared with its manifest; `lung-nodule-ct verify" in printed
    assert shard.read_bytes() == changed
    verified = cli("verify", out)
    assert verified.returncode == 1
    assert shard.name in verified.stdout + verified.stderr


def test_overwrite_removes_nothing_that_no_manifest_records(done, tmp_path) -> None:
    out = tmp_path / "hub"
    done(out, "cls_1.25mm")
    manifest = json.loads((out / "build.json").read_text("utf-8"))
    for key in ("files", "sha256", "dataset_version", "scan_numbers"):  # as releases before 2.0.0 wrote it
        del manifest[key]
    (out / "build.json").write_text(json.dumps(manifest))
    names = ("my.labels.txt", "features.json", "data/dataset_info.json")
    for name in names:
        (out / name).write_text("mine")
    printed = done(out, "det2d_1.25mm", "--overwrite").stdout
    assert [(out / name).read_text() for name in names if (out / name).exists()] == ["mine"] * 3
    assert all(f"{name}: kept" in printed for name in names)


@pytest.mark.parametrize("removed", [(), ("sha256",), ("files", "sha256")])
def test_an_edited_manifest_is_never_replaced_unasked(done, add, tmp_path, removed) -> None:
    out = tmp_path / "hub"
    done(out, "cls_1.25mm")
    manifest = {**json.loads((out / "build.json").read_text("utf-8")), "note": "mine"}
    edited = json.dumps({key: value for key, value in manifest.items() if key not in removed})
    (out / "build.json").write_text(edited)
    refused = add(out, "det2d_1.25mm")
    assert refused.returncode == 1
    assert "build.json" in refused.stderr
    assert (out / "build.json").read_text() == edited


def test_a_limited_build_says_that_it_is_one(dummy_build, done, add, tmp_path) -> None:
    out, full = tmp_path / "out", open_build(dummy_build())
    printed = done(out, "--all", "--limit", "2").stdout
    limited = open_build(out)
    for config in full.configs:
        for split, count in full.configs[config].items():
            assert limited.configs[config][split] == min(2, count)
            rows, first = (
                [row.get("image_id") or row.get("scan_id") or row.get("case_id") for row in build.rows(config, split)]
                for build in (limited, full)
            )
            assert rows == first[:2]
    assert (limited.manifest["limit"], full.manifest["limit"]) == (2, None)
    assert "warning limited x" in printed
    findings = {entry["config"]: entry for entry in limited.report["findings"] if entry["code"] == "limited"}
    assert set(findings) == set(full.configs)
    for config, entry in findings.items():
        assert entry["count"] == sum(max(0, count - 2) for count in full.configs[config].values())
    assert findings["cls_1.25mm"]["detail"] == "of cls_1.25mm, kept: train 2 of 22, validation 2 of 11"
    # what the plan says of single scans and pictures is about those that were built
    about = [[(e["config"], e["code"], e["member"]) for e in build.report["findings"]] for build in (limited, full)]
    assert {entry for entry in about[0] if entry[1] != "limited"} < set(about[1])
    assert {e[2] for e in about[1] if e[1] == "mask-missing"} - {e[2] for e in about[0]}
    account = limited.report["account"]
    assert {name: (entry["vanished"], entry["lost_examples"]) for name, entry in account.items()} == dict.fromkeys(
        full.configs, (0, 0)
    )
    assert {name: entry["items"] for name, entry in account.items()} == {
        name: entry["items"] for name, entry in full.report["account"].items()
    }
    card = (out / "README.md").read_text()
    assert "made with `--limit 2`" in card
    assert "--limit" not in (full.folder / "README.md").read_text()
    assert any("made with --limit 2" in note for note in plan_publication(limited).notes)
    # a full config is not added to it, and a limit that leaves nothing out leaves no finding
    assert "another limit" in add(out, "cls_1.25mm").stderr
    everything = tmp_path / "everything"
    done(everything, "cls_1.25mm", "--limit", "1000")
    assert not [entry for entry in open_build(everything).report["findings"] if entry["code"] == "limited"]
    assert add(out, "cls_1.25mm", "--limit", "0").returncode == 2
