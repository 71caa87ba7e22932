"""``verify``: every file of a build against its manifest, in every format, and what an earlier manifest cannot prove."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from altered import alter_manifest

import lung_nodule_ct
from lung_nodule_ct.declaration.manifest import FileRecord, manifest_text
from lung_nodule_ct.errors import BuildFolderError
from lung_nodule_ct.read.sidecars import add_sidecars
from lung_nodule_ct.read.verification import files_in

ROOT = Path(__file__).parents[2]
WITH_TFDS = [
    pytest.mark.tfds,
    pytest.mark.skipif(find_spec("tensorflow_datasets") is None, reason="needs the extra tfds"),
]
FORMATS = ["parquet", "arrow", pytest.param("tfrecord", marks=WITH_TFDS), pytest.param("array_record", marks=WITH_TFDS)]
SHARD = "data/cls_1.25mm/train-00000-of-00001.parquet"
OTHER = "data/cls_1.25mm/validation-00000-of-00001.parquet"


@pytest.fixture
def folder(dummy_build, tmp_path) -> Path:
    """A copy of a Parquet build that a test can change."""
    return shutil.copytree(dummy_build("parquet"), tmp_path / "build")


def faults(folder: Path) -> dict[str, str]:
    return {fault.path: str(fault.kind) for fault in lung_nodule_ct.verify(folder).faults}


def flip(path: Path, position: int = 100) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("format_", FORMATS)
def test_the_manifest_records_every_file_of_a_build(dummy_build, format_) -> None:
    folder = dummy_build(format_)
    manifest = json.loads((folder / "build.json").read_text("utf-8"))
    recorded = {file["path"]: file for config in manifest["configs"].values() for file in config["files"]}
    assert len(recorded) == 10
    recorded |= manifest["files"]
    assert set(recorded) == files_in(folder) - {"build.json"}
    for name, entry in recorded.items():
        content = (folder / name).read_bytes()
        assert (entry["bytes"], entry["sha256"]) == (len(content), hashlib.sha256(content).hexdigest()), name
    assert list(manifest)[-1] == "sha256"
    result = lung_nodule_ct.verify(folder)
    assert result.is_sound
    assert (result.files, result.foreign, result.unproven) == (len(recorded) + 1, (), ())
    assert result.num_bytes == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("format_", FORMATS)
def test_a_damaged_missing_or_added_file_of_any_format_is_named(dummy_build, tmp_path, format_) -> None:
    folder = shutil.copytree(dummy_build(format_), tmp_path / "build")
    manifest = json.loads((folder / "build.json").read_text("utf-8"))
    one, two, *_ = (file["path"] for config in manifest["configs"].values() for file in config["files"])
    other = next(name for name in manifest["files"] if name.endswith(".json") and name != "findings.json")
    flip(folder / one)
    (folder / two).unlink()
    flip(folder / other, 1)
    added = two.replace("00000-of-00001", "00001-of-00002")
    shutil.copyfile(folder / one, folder / added)
    assert faults(folder) == {one: "changed", two: "missing", other: "changed", added: "added"}


def test_cut_grown_swapped_and_renamed_files_are_named(folder) -> None:
    shards = sorted((folder / "data").rglob("*.parquet"))
    cut, grown, one, two, renamed, *_ = (path.relative_to(folder).as_posix() for path in shards)
    (folder / cut).write_bytes((folder / cut).read_bytes()[:-1])
    (folder / grown).write_bytes((folder / grown).read_bytes() + b"\0")
    (folder / one).rename(folder / "kept")
    (folder / two).rename(folder / one)
    (folder / "kept").rename(folder / two)
    (folder / renamed).rename(folder / "old.parquet")
    result = lung_nodule_ct.verify(folder)
    assert faults(folder) == {cut: "changed", grown: "changed", one: "swapped", two: "swapped", renamed: "renamed"}
    texts = {fault.path: str(fault) for fault in result.faults}
    size = (folder / cut).stat().st_size
    assert f"expected {size + 1:,} bytes, sha256 " in texts[cut]
    assert f"got {size:,} bytes" in texts[cut]
    assert texts[one].endswith(f"got the content of {two}. Exchange it with {two}")
    assert texts[renamed].endswith(f"got this content as old.parquet. Rename old.parquet to {renamed}")
    assert result.foreign == ()


def test_a_shard_of_another_build_is_named(folder, cli, dummy, tmp_path) -> None:
    other = tmp_path / "other"
    assert cli("build", "--all", "--source", dummy, "--split-by", "patient", "--out", other).returncode == 0
    shutil.copyfile(other / SHARD, folder / SHARD)
    assert faults(folder) == {SHARD: "changed"}


def test_an_edited_manifest_proves_nothing(folder) -> None:
    path = folder / "build.json"
    text = path.read_text("utf-8")
    entry = json.loads(text)["configs"]["cls_1.25mm"]["files"][0]
    flip(folder / SHARD)
    content = (folder / SHARD).read_bytes()
    path.write_text(text.replace(entry["sha256"], hashlib.sha256(content).hexdigest()))
    assert faults(folder) == {"build.json": "manifest"}
    for edited in (
        text + " ",
        text.replace("  ", " "),
        text.replace("\n", "\r\n"),
        text.replace('"rows"', '"Rows"', 1),
    ):
        path.write_bytes(edited.encode())
        assert faults(folder)["build.json"] == "manifest"
        with add_sidecars(folder, by="audit") as stage:
            (stage / "audit").write_text("a command does not repair the manifest")
        assert faults(folder)["build.json"] == "manifest"


@pytest.mark.parametrize(
    "text", ["{", "[]", "null", '{"configs": 3}', '{"configs": {}, "files": {"a": 1}}', "[" * 9999]
)
def test_a_manifest_that_cannot_be_read_is_one_fault(folder, text) -> None:
    (folder / "build.json").write_text(text)
    assert faults(folder) == {"build.json": "manifest"}


@pytest.mark.parametrize("removed", [("files",), ("files", "sha256"), ("files", "sha256", "dataset_version")])
def test_a_command_does_not_record_files_in_a_manifest_that_lost_its_records(folder, cli, removed) -> None:
    path = folder / "build.json"
    manifest = {key: value for key, value in json.loads(path.read_text("utf-8")).items() if key not in removed}
    path.write_text(json.dumps(manifest))
    with add_sidecars(folder, by="audit") as stage:
        (stage / "page").write_text("1")
    assert cli("card", folder, "--no-croissant", "--examples", "1").returncode == 0
    assert json.loads(path.read_text("utf-8")) == manifest
    assert faults(folder) == {"build.json": "manifest"}


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/../../b", "a\0b"])
def test_no_file_outside_the_build_is_read(folder, name) -> None:
    record = FileRecord(1, "0" * 64).to_dict()
    alter_manifest(folder, lambda manifest: manifest["files"].update({name: record}))
    (fault,) = lung_nodule_ct.verify(folder).faults
    assert "is not a path inside the build" in fault.got


def test_files_of_the_user_are_listed_and_do_not_fail(cli, dummy_build, tmp_path) -> None:
    folder = shutil.copytree(dummy_build("arrow"), tmp_path / "build")
    names = ["cls_1.25mm/train/cache-1a2b.arrow", "metadata.json", "notes/a.txt", "own.parquet"]
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("written by the user")
    done = cli("verify", folder)
    assert done.returncode == 0
    assert f"not of this build, and not checked: {', '.join(names)}" in done.stdout
    assert json.loads(cli("verify", folder, "--json").stdout)["not_of_this_build"] == names


def test_the_command_prints_one_line_for_each_fault(folder, cli) -> None:
    done = cli("verify", folder)
    assert done.returncode == 0
    assert done.stdout.startswith("no fault; 14 files with ")
    flip(folder / SHARD)
    (folder / OTHER).unlink()
    done = cli("verify", folder)
    assert done.returncode == 1
    first, second, last = done.stdout.splitlines()
    assert first.startswith(f"changed: {SHARD}; expected ")
    assert second.startswith(f"missing: {OTHER}; expected ")
    assert "got no file. Restore" in second
    assert last.startswith("2 files are not as they were written; 12 files")
    document = json.loads(cli("verify", folder, "--json").stdout)
    assert [fault["kind"] for fault in document["faults"]] == ["changed", "missing"]
    for wrong in (folder / "data", folder / "nothing"):
        done = cli("verify", wrong)
        assert done.returncode == 1
        assert "cannot be verified" in done.stderr


def test_commands_that_add_files_renew_the_manifest(folder) -> None:
    def add(by: str, **files: str) -> None:
        with add_sidecars(folder, by=by) as stage:
            for name, text in files.items():
                (stage / name).write_text(text)

    add("audit", audit="1", table="1")
    add("preview", page="<p>")
    before = lung_nodule_ct.verify(folder)
    assert before.is_sound
    add("audit", audit="2")
    after = lung_nodule_ct.verify(folder)
    assert after.is_sound
    assert after.files == before.files - 1
    (folder / "page").write_text("changed")
    (fault,) = lung_nodule_ct.verify(folder).faults
    assert "lung-nodule-ct preview" in fault.remedy
    (folder / "page").unlink()
    add("audit", audit="3")
    assert faults(folder) == {"page": "missing"}


def test_a_command_does_not_hide_that_a_manifest_or_a_shard_was_changed(folder) -> None:
    path = folder / "build.json"
    manifest = json.loads(path.read_text("utf-8"))
    manifest["configs"]["cls_1.25mm"]["summary"] = "edited"
    path.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    flip(folder / SHARD)
    with add_sidecars(folder, by="audit") as stage:
        (stage / "audit").write_text("1")
    assert faults(folder) == {"build.json": "manifest", SHARD: "changed"}


@pytest.mark.parametrize("version", [2, 3])
def test_a_build_of_an_earlier_version_states_what_cannot_be_proven(dummy_build, cli, tmp_path, version) -> None:
    for format_ in ("parquet", "arrow"):
        folder = shutil.copytree(dummy_build(format_), tmp_path / format_)
        manifest = json.loads((folder / "build.json").read_text("utf-8"))
        for name in ("files", "sha256", "dataset_version", "scan_numbers"):
            del manifest[name]
        manifest["format_version"] = version
        for config in manifest["configs"].values() if version == 2 else ():
            del config["kind"], config["columns"]
        entries = [entry for config in manifest["configs"].values() for entry in config["files"]]
        for entry in entries if format_ == "arrow" else ():
            del entry["sha256"]
        (folder / "build.json").write_text(json.dumps(manifest))
        done = cli("verify", folder)
        assert done.returncode == 0
        assert "without its own hash" in done.stdout
        assert ("of 10 files only the size is recorded" in done.stdout) == (format_ == "arrow")
        assert "nothing is recorded of " in done.stdout
        shard = folder / entries[0]["path"]
        flip(shard)
        assert cli("verify", folder).returncode == (1 if format_ == "parquet" else 0)
        shard.write_bytes(shard.read_bytes()[:-1])
        assert faults(folder) == {entries[0]["path"]: "changed"}
    with add_sidecars(tmp_path / "parquet", by="audit") as stage:
        (stage / "audit.json").write_text("{}")
    assert "files" not in json.loads((tmp_path / "parquet" / "build.json").read_text("utf-8"))


def test_a_linked_folder_of_shards_is_followed_and_no_other(folder, tmp_path) -> None:
    (folder / "data").rename(tmp_path / "elsewhere")
    (folder / "data").symlink_to(tmp_path / "elsewhere")
    (folder / "again").symlink_to(folder)
    result = lung_nodule_ct.verify(folder)
    assert result.is_sound
    assert result.foreign == ("again",)
    shutil.copyfile(folder / SHARD, folder / SHARD.replace("00000-of", "00001-of"))
    assert list(faults(folder).values()) == ["added"]
    (folder / OTHER).unlink()
    (folder / OTHER).symlink_to("nowhere")
    assert faults(folder)[OTHER] == "missing"


def test_a_file_that_cannot_be_read_is_a_fault(folder) -> None:
    name = "x" * 300  # longer than a file system allows
    alter_manifest(folder, lambda manifest: manifest["files"].update({name: FileRecord(1, "0" * 64).to_dict()}))
    assert faults(folder) == {name: "unreadable"}


def test_the_first_fault_can_be_raised(folder) -> None:
    lung_nodule_ct.verify(folder).raise_faults()
    flip(folder / SHARD)
    flip(folder / OTHER)
    with pytest.raises(BuildFolderError, match=rf"is not as it was built: changed: {SHARD} \(and 1 more\)"):
        lung_nodule_ct.verify(folder).raise_faults()


def test_the_hash_of_a_manifest_covers_its_exact_text() -> None:
    text = manifest_text({"a": 1})
    assert manifest_text(json.loads(text)) == text
    content = text[: text.index(',\n  "sha256"')] + "\n}\n"
    assert json.loads(text)["sha256"] == hashlib.sha256(content.encode()).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize("formats", [["parquet", "arrow"], pytest.param(["tfrecord", "array_record"], marks=WITH_TFDS)])
def test_random_damages_are_found(formats) -> None:
    command = [sys.executable, "-m", "benchmarks.damages", "--count", "16", "--formats", *formats]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "16 of 16 damages found and named" in done.stdout


@pytest.mark.parametrize(
    "edit",
    [
        lambda manifest: manifest["configs"]["cls_1.25mm"]["files"][0].pop("sha256"),
        lambda manifest: manifest["configs"]["cls_1.25mm"]["files"][0].update(sha256=None),
        lambda manifest: manifest["files"]["findings.json"].update(sha256=None),
        lambda manifest: manifest.pop("files"),
        lambda manifest: (manifest.pop("files"), manifest.pop("sha256")),
        lambda manifest: [manifest.pop(name) for name in ("files", "sha256", "dataset_version")],
        lambda manifest: [manifest.pop(name) for name in ("files", "sha256", "scan_numbers")],
        lambda manifest: (
            [manifest.pop(name) for name in ("files", "sha256", "dataset_version", "scan_numbers")],
            manifest.update(format_version=2),
        ),
        lambda manifest: manifest["configs"]["cls_1.25mm"]["rows"].update(train=1),
        lambda manifest: manifest["configs"]["cls_1.25mm"]["files"][0].update(split="test"),
        lambda manifest: manifest["configs"]["cls_1.25mm"]["files"].append(
            manifest["configs"]["cls_1.25mm"]["files"][0]
        ),
    ],
)
def test_a_manifest_that_records_less_than_its_version_must_is_a_fault(dummy_build, tmp_path, edit) -> None:
    """Also with a new hash of its own, as somebody would write it who wants to hide a change."""
    folder = shutil.copytree(dummy_build(), tmp_path / "build")
    manifest = json.loads((folder / "build.json").read_text("utf-8"))
    edit(manifest)
    text = manifest_text(manifest) if "files" in manifest or "sha256" in manifest else json.dumps(manifest)
    (folder / "build.json").write_text(text)
    assert faults(folder) == {"build.json": "manifest"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("---\nconfigs:\n- config_name: default\n  data_files: validation/*\n---\n", {"README.md": "added"}),
        ("\ufeff---\r\nlicense: mit\r\n---\r\n", {"README.md": "added"}),
        ("# Notes\n\nconfigs: mine\n", {}),
    ],
)
def test_an_added_card_is_a_fault_if_readers_interpret_it(dummy_build, tmp_path, text, expected) -> None:
    folder = shutil.copytree(dummy_build("arrow"), tmp_path / "build")
    assert not (folder / "README.md").exists()
    (folder / "README.md").write_bytes(text.encode())
    assert faults(folder) == expected


@pytest.mark.parametrize("name", [".huggingface.yaml", "dataset_infos.json", "data/dataset_info.json"])
def test_an_added_file_that_readers_interpret_is_a_fault(dummy_build, tmp_path, name) -> None:
    folder = shutil.copytree(dummy_build(), tmp_path / "build")
    (folder / name).write_text("{}")
    assert faults(folder) == {name: "added"}
