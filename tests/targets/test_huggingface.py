"""``load_dataset("lung_nodule_ct", …)``: registration, preparation, the cache, and streams."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import datasets
import fsspec
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

import lung_nodule_ct
from lung_nodule_ct.declaration.labels import SplitBy
from lung_nodule_ct.errors import BuildFolderError, OptionError, UnknownConfigError
from lung_nodule_ct.system import disk_writes
from lung_nodule_ct.system.files import file_hash
from lung_nodule_ct.targets import huggingface, prepared_cache
from lung_nodule_ct.testing.archives import CT0, DET2D, metaimage, noise_picture, noise_volume
from lung_nodule_ct.testing.synthetic_archives import TinyArchives

BOTH_ORDERS = [
    "import lung_nodule_ct; from datasets import load_dataset",
    "from datasets import load_dataset; import lung_nodule_ct",
]


@pytest.mark.parametrize("imports", BOTH_ORDERS)
@pytest.mark.parametrize("working_folder", ["empty folder", "checkout"])
@pytest.mark.slow
def test_the_builder_is_registered_in_any_order_of_imports(python, dummy, tmp_path, imports, working_folder) -> None:
    code = f"""
{imports}
import datasets
built = load_dataset("lung_nodule_ct", "det2d_1.25mm", data_dir={str(dummy)!r}, cache_dir={str(tmp_path / "cache")!r})
assert {{split: len(rows) for split, rows in built.items()}} == {{"train": 13, "validation": 4, "unassigned": 1}}
default = load_dataset("lung_nodule_ct", data_dir={str(dummy)!r}, cache_dir={str(tmp_path / "cache")!r})
assert default["train"].features == built["train"].features
assert len(datasets.get_dataset_config_names("lung_nodule_ct")) == 6
streamed = load_dataset("lung_nodule_ct", "det3d_1.25mm", data_dir={str(dummy)!r}, streaming=True, split="train")
assert streamed.num_shards == 7
assert len(next(iter(streamed))["volume"]["bytes"]) == 2 * 16 * 60 * 84
print("registered")
"""
    cwd = Path(__file__).parents[2] if working_folder == "checkout" else tmp_path
    done = python(code, cwd=cwd)
    assert done.stdout.splitlines()[-1:] == ["registered"], done.stderr


@pytest.mark.slow
def test_other_names_and_local_folders_are_passed_to_datasets(cli, python, dummy, tmp_path) -> None:
    assert cli("build", "cls_1.25mm", "--source", dummy, "--out", tmp_path / "lung_nodule_ct").returncode == 0
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "data.csv").write_text("a,b\n1,2\n")
    code = """
import lung_nodule_ct, datasets
assert datasets.load_dataset("lung_nodule_ct", "cls_1.25mm")["train"].num_rows == 22
assert datasets.load_dataset("other")["train"][0] == {"a": 1, "b": 2}
assert datasets.load_dataset("csv", data_files="other/data.csv")["train"].num_rows == 1
print("passed to datasets")
"""
    done = python(code, cwd=tmp_path, HF_DATASETS_CACHE=str(tmp_path / "cache"))
    assert done.stdout.splitlines()[-1:] == ["passed to datasets"], done.stderr


@pytest.mark.slow
def test_a_prepared_cache_needs_no_import_and_no_source(cli_process, python, dummy, tmp_path) -> None:
    cache = str(tmp_path / "cache")
    code = f"""
import sys
import lung_nodule_ct
from lung_nodule_ct.cli import main
try:
    lung_nodule_ct.load("cls_1.25mm")
except lung_nodule_ct.errors.LungNoduleCTError as error:
    print(error, file=sys.stderr)
for arguments in (["cls_1.25mm"], ["cls_1.25mm", "det3d_5mm", "--json"]):
    sys.argv[1:] = ["prepare", *arguments, "--source", {str(dummy)!r}]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, stop.code
    print("prepared")
"""
    prepared = python(code, cwd=tmp_path, HF_DATASETS_CACHE=cache, LUNG_NODULE_CT_OFFLINE="1")
    assert prepared.returncode == 0, prepared.stderr
    assert "lung-nodule-ct download" in prepared.stderr
    first, second, rest = prepared.stdout.split("prepared\n")
    assert "count-mismatch" in first
    folders = json.loads(second)
    assert not rest
    assert (
        json.loads(Path(folders["cls_1.25mm"], "findings.json").read_text())["summary"]["same-pixels-in-two-splits"][
            "count"
        ]
        == 1
    )
    for imports in ("", "import lung_nodule_ct; lung_nodule_ct.load('cls_1.25mm')"):
        code = f"""
{imports}
from datasets import load_dataset
assert load_dataset("lung_nodule_ct", "cls_1.25mm")["train"].num_rows == 22
assert load_dataset("lung_nodule_ct", "det3d_5mm", split="train").num_rows == 5
assert len(list(load_dataset("lung_nodule_ct", "det3d_5mm", streaming=True)["train"])) == 5
print("loaded")
"""
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        done = python(code, cwd=tmp_path / "elsewhere", HF_DATASETS_CACHE=cache)
        assert done.stdout.splitlines()[-1:] == ["loaded"], done.stderr
        assert (f"the cache that was prepared from {dummy}" in done.stderr) == bool(imports)


def test_load_with_a_source_uses_what_prepare_wrote(cli, dummy, tmp_path) -> None:
    """Only if the archives are equal, wherever they are, and with the same options."""
    cache, copy = tmp_path / "cache", tmp_path / "copy"
    done = cli("prepare", "cls_1.25mm", "--source", dummy, "--cache-dir", cache, "--json")
    folder = Path(json.loads(done.stdout)["cls_1.25mm"])
    shutil.copytree(dummy, copy)
    for archives in (dummy, copy):
        loaded = lung_nodule_ct.load("cls_1.25mm", source=archives, split="train", cache_dir=cache)
        assert {Path(file["filename"]).parent for file in loaded.cache_files} == {folder}
        again = load_dataset("lung_nodule_ct", "cls_1.25mm", data_dir=str(archives), split="train", cache_dir=cache)
        assert {Path(file["filename"]).parent for file in again.cache_files} == {folder}
    by_patient = lung_nodule_ct.load(
        "cls_1.25mm", source=dummy, split="train", cache_dir=cache, split_by=SplitBy.PATIENT
    )
    assert folder not in {Path(file["filename"]).parent for file in by_patient.cache_files}
    (path,) = copy.rglob("class_dataset.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("class_dataset/train/1/new.txt", "")
    other = lung_nodule_ct.load("cls_1.25mm", source=copy, split="train", cache_dir=cache)
    assert folder not in {Path(file["filename"]).parent for file in other.cache_files}
    # a source that was only loaded is not what a call without a source gets
    lung_nodule_ct.load("det2d_1.25mm", source=dummy, cache_dir=cache)
    assert not list((cache / "lung_nodule_ct").glob("det2d_1.25mm/*"))


def test_changed_archives_are_prepared_again(tmp_path) -> None:
    tiny = TinyArchives()
    source = tiny.write(tmp_path / "in")

    def count() -> int:
        return lung_nodule_ct.load("det2d_1.25mm", source=source, split="train", cache_dir=tmp_path / "cache").num_rows

    assert count() == 2
    tiny[DET2D]["JPEGImages/7_20180102_009.jpg"] = noise_picture(50, kind="JPEG")
    tiny[DET2D]["ImageSets/Main/train.txt"] += b"7_20180102_009\n"
    tiny.write(source)
    assert count() == 3
    del tiny[DET2D]["JPEGImages/7_20180102_009.jpg"]
    tiny.write(source)
    assert count() == 2
    folders = [path.parent for path in (tmp_path / "cache").rglob("dataset_info.json")]
    assert len(folders) == 3


def test_options_are_part_of_the_cache_key(tmp_path) -> None:
    source = TinyArchives().write(tmp_path / "in")
    cache = tmp_path / "cache"
    plain = lung_nodule_ct.load("cls_1.25mm", source=source, cache_dir=cache)
    named = lung_nodule_ct.load("cls_1.25mm", source=source, cache_dir=cache, keep_source_names=True)
    by_patient = lung_nodule_ct.load("cls_1.25mm", source=source, cache_dir=cache, split_by="patient")
    assert "source_name" not in plain["train"].column_names
    assert named["train"].column_names[-1] == "source_name"
    assert set(plain) == {"train", "validation"}
    assert {fold for rows in by_patient.values() for fold in rows["fold"]} == {
        fold for rows in plain.values() for fold in rows["fold"]
    }
    assert set(by_patient["train"]["fold"]) <= {0, 1, 2}


def test_several_processes_give_the_same_rows_and_one_report(tmp_path) -> None:
    tiny = TinyArchives()
    for number in range(300, 312):
        tiny[CT0] |= metaimage(f"{number}", noise_volume(number))
    source = tiny.write(tmp_path / "in")
    one = lung_nodule_ct.load("det3d_1.25mm", source=source, split="train", cache_dir=tmp_path / "one")
    three = lung_nodule_ct.load("det3d_1.25mm", source=source, split="train", cache_dir=tmp_path / "three", num_proc=3)
    assert one.to_list() == three.to_list()
    reports = [json.loads(next((tmp_path / name).rglob("findings.json")).read_text()) for name in ("one", "three")]
    assert reports[0] == reports[1]
    assert reports[0]["summary"]["image-without-annotation"]["count"] == 12
    assert not list(tmp_path.rglob("*.part"))


def test_shards_that_are_written_in_small_pieces_have_the_same_rows(tmp_path, dummy, monkeypatch) -> None:
    plain = lung_nodule_ct.load("det3d_1.25mm", source=dummy, split="train", cache_dir=tmp_path / "plain")
    monkeypatch.setattr(disk_writes, "_PIECE_BYTES", 1 << 13)
    for processes in (None, 2):
        cache = str(tmp_path / f"{processes}")
        builder = datasets.load_dataset_builder("lung_nodule_ct", "det3d_1.25mm", data_dir=str(dummy), cache_dir=cache)
        builder.download_and_prepare(max_shard_size=200_000, num_proc=processes)
        assert builder.as_dataset("train").to_list() == plain.to_list()
        assert len(list(Path(builder.cache_dir).glob("*.arrow"))) > 2


def test_a_dataset_can_be_prepared_in_a_bucket(tmp_path) -> None:
    tiny = TinyArchives()
    tiny[CT0] |= metaimage("301", noise_volume(301)) | metaimage("302", noise_volume(301))
    source = tiny.write(tmp_path / "in")

    def builder() -> datasets.DatasetBuilder:
        cache = str(tmp_path / "cache")
        return datasets.load_dataset_builder("lung_nodule_ct", "det3d_1.25mm", data_dir=str(source), cache_dir=cache)

    remote, local = builder(), builder()
    remote.download_and_prepare(output_dir="memory://bucket", file_format="parquet")
    local.download_and_prepare()
    bucket = fsspec.filesystem("memory")
    assert bucket.exists("/bucket/dataset_info.json")
    with bucket.open("/bucket/lung_nodule_ct-train.parquet") as file:
        assert pq.read_table(file).num_rows == local.info.splits["train"].num_examples
    assert remote.findings == local.findings
    assert "same-pixels" in {str(finding.code) for finding in remote.findings}


@pytest.mark.parametrize("processes", [None, 2])
@pytest.mark.slow
def test_a_full_disk_is_an_error(python, dummy, tmp_path, processes) -> None:
    done = python(
        f"""
import resource
import datasets, lung_nodule_ct
builder = datasets.load_dataset_builder(
    "lung_nodule_ct", "det3d_1.25mm", data_dir={str(dummy)!r}, cache_dir={str(tmp_path / "cache")!r}
)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
builder.download_and_prepare(num_proc={processes})
""",
        cwd=tmp_path,
    )
    assert done.returncode != 0
    assert "File too large" in done.stderr


def test_streams_can_be_shuffled_and_sharded_by_scan(dummy) -> None:
    stream = lung_nodule_ct.load("det3d_1.25mm", source=dummy, split="train", streaming=True)
    order = [row["scan_id"] for row in stream]
    shuffled = [row["scan_id"] for row in stream.shuffle(seed=1, buffer_size=1)]
    halves = [[row["scan_id"] for row in stream.shard(2, index)] for index in range(2)]
    assert sorted(shuffled) == sorted(order) != shuffled
    assert sorted(halves[0] + halves[1]) == sorted(order)


def test_sequences_are_lazy_and_in_order(dummy, tmp_path) -> None:
    prepared = lung_nodule_ct.load("longitudinal", source=dummy, split="train", cache_dir=tmp_path)
    streamed = lung_nodule_ct.load("longitudinal", source=dummy, split="train", streaming=True)
    sequences = list(lung_nodule_ct.patient_sequences(prepared))
    assert sequences == list(lung_nodule_ct.patient_sequences(streamed))
    assert [(s.patient_id, s.slice_thickness_mm, s.timepoints) for s in sequences] == [
        ("12", 1.25, (0, 1, 2)),
        ("12", 5.0, (0, 2)),
        ("27", 1.25, (0, 1)),
        ("27", 5.0, (0, 1)),
    ]
    for sequence in sequences:
        assert list(sequence.days_since_first) == sorted(sequence.days_since_first)
        assert [scan["scan_id"] for scan in sequence] == list(sequence.scan_ids)
        assert len(sequence[-1:]) == 1
        assert sequence[0]["volume"]["shape"]
    growth = [scan["nodules"][0]["diameter_mm"] for scan in sequences[0]]
    assert growth == [16, 20, 25]
    assert len(list(lung_nodule_ct.patient_sequences(prepared, min_scans=3))) == 1
    with pytest.raises(ValueError, match="longitudinal"):
        list(lung_nodule_ct.patient_sequences(prepared.select_columns(["volume"])))


def test_unknown_configs_and_missing_sources_are_errors(tmp_path, dummy, monkeypatch) -> None:
    monkeypatch.setenv("LUNG_NODULE_CT_OFFLINE", "1")
    with pytest.raises(lung_nodule_ct.LungNoduleCTError, match="there is no config"):
        lung_nodule_ct.load("unknown", source=dummy)
    with pytest.raises(FileNotFoundError, match="lung-nodule-ct download"):
        lung_nodule_ct.load("cls_1.25mm", cache_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"class_dataset\.zip"):
        (tmp_path / "empty").mkdir()
        lung_nodule_ct.load("cls_1.25mm", source=tmp_path / "empty", cache_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match="no example"):
        lung_nodule_ct.load("det3d_bmp_1.25mm", source=dummy, split_by="patient", cache_dir=tmp_path)


@pytest.mark.parametrize("num_proc", [None, 2])
def test_a_damaged_member_is_named_and_leaves_no_cache(tmp_path, cli, num_proc) -> None:
    tiny = TinyArchives()
    tiny[CT0]["9.raw"] = b"short"
    source = tiny.write(tmp_path / "in")
    with pytest.raises(lung_nodule_ct.LungNoduleCTError, match=r"9\.raw") as caught:
        lung_nodule_ct.load("det3d_1.25mm", source=source, cache_dir=tmp_path / "cache", num_proc=num_proc)
    assert (caught.value.archive, caught.value.member) == (CT0, "9.mhd")
    assert not list((tmp_path / "cache").rglob("*.arrow"))
    options = ["--num-proc", str(num_proc)] if num_proc else []
    done = cli("prepare", "det3d_1.25mm", "--source", source, "--cache-dir", tmp_path / "cache", *options)
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ") and "9.raw" in line]
    assert "Traceback" not in done.stderr


def test_formats_keep_trailing_zeros(tmp_path) -> None:
    volume = noise_volume(1)
    volume[-1] = 0
    tiny = TinyArchives()
    tiny[CT0] |= metaimage("7_20180102", volume)
    loaded = lung_nodule_ct.load(
        "det3d_1.25mm", source=tiny.write(tmp_path / "in"), split="train", cache_dir=tmp_path / "cache"
    )
    for kind in (None, "numpy"):
        row = loaded.with_format(kind)[0]
        assert len(row["volume"]["bytes"]) == volume.nbytes


def test_options_of_load_that_do_not_exist_are_refused_with_the_choices(dummy, tmp_path) -> None:
    with pytest.raises(
        OptionError, match=r"split_by: there is no way to split by 'scan'; expected published or patient"
    ):
        lung_nodule_ct.load("cls_1.25mm", source=dummy, split_by="scan", cache_dir=tmp_path)
    with pytest.raises(UnknownConfigError, match=r"expected one of cls_1\.25mm, .*Did you mean cls_1\.25mm\?"):
        lung_nodule_ct.load("cls_1.25", source=dummy, cache_dir=tmp_path)
    with pytest.raises(ValueError, match=r"test.*train"):
        lung_nodule_ct.load("cls_1.25mm", source=dummy, split="test", cache_dir=tmp_path)


def test_a_changed_line_in_any_folder_changes_the_code_hash(tmp_path) -> None:
    """A prepared cache must not outlive the code that built it."""
    original = Path(lung_nodule_ct.__file__).parent
    package = tmp_path / "lung_nodule_ct"
    shutil.copytree(original, package, ignore=shutil.ignore_patterns("__pycache__"))
    before = prepared_cache.hash_of_code(package)
    assert before == prepared_cache.code_hash()
    folders = sorted({path.parent for path in package.rglob("*.py")})
    for folder in folders:
        changed = max(folder.glob("*.py"))
        text = changed.read_text()
        changed.write_text(text + "# changed\n")
        room = changed.relative_to(package).parts[0]
        changes_rows = room not in ("cli", "train", "preview", "publish", "torch")
        assert (prepared_cache.hash_of_code(package) != before) == changes_rows, changed
        changed.write_text(text)
    assert prepared_cache.hash_of_code(package) == before


def test_a_moved_or_new_module_changes_the_code_hash(tmp_path) -> None:
    package = tmp_path / "lung_nodule_ct"
    (package / "formats").mkdir(parents=True)
    (package / "formats" / "one.py").write_text("A = 1\n")
    hashes = {prepared_cache.hash_of_code(package)}
    (package / "formats" / "one.py").rename(package / "formats" / "two.py")
    hashes.add(prepared_cache.hash_of_code(package))
    (package / "formats" / "three.py").touch()
    hashes.add(prepared_cache.hash_of_code(package))
    assert len(hashes) == 3


@pytest.mark.parametrize("num_proc", [1, 2])
def test_a_prepared_cache_records_the_hashes_of_its_shards(dummy, tmp_path, monkeypatch, num_proc) -> None:
    written: list[Path] = []
    opened = disk_writes.DirectFile
    monkeypatch.setattr(prepared_cache, "DirectFile", lambda path, *args: written.append(path) or opened(path, *args))
    hashed_again: list[str] = []
    monkeypatch.setattr(
        prepared_cache,
        "file_hash",
        lambda path, algorithm: hashed_again.append(path.name) or file_hash(path, algorithm),
    )
    builder = huggingface.HuggingFaceBuilder(
        config_name="det3d_1.25mm", archives=dummy, cache_dir=str(tmp_path), dataset_name="lung_nodule_ct"
    )
    builder.download_and_prepare(num_proc=num_proc, max_shard_size=300_000)
    folder = Path(builder.cache_dir)
    shards = sorted(path.name for path in folder.glob("*.arrow"))
    assert len(shards) > 3
    assert num_proc > 1 or len(written) == len(shards)  # past the page cache, by this process
    assert set(hashed_again) == {"dataset_info.json", "findings.json"}
    assert {path.name for path in folder.iterdir()} == {*shards, *hashed_again, "build.json"}
    result = lung_nodule_ct.verify(folder)
    assert result.is_sound
    assert result.files == len(shards) + 3


def test_load_with_verify_refuses_a_damaged_cache(dummy, tmp_path) -> None:
    options = {"source": dummy, "cache_dir": tmp_path, "verify": True}
    assert lung_nodule_ct.load("cls_1.25mm", **options).num_rows == {"train": 22, "validation": 11}
    shard = next(tmp_path.rglob("*train*.arrow"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(BuildFolderError, match=f"changed: {shard.name}; expected .* sha256"):
        lung_nodule_ct.load("cls_1.25mm", **options)
    assert lung_nodule_ct.load("cls_1.25mm", source=dummy, cache_dir=tmp_path).num_rows["train"] == 22
    with pytest.raises(OptionError, match="Use verify without streaming"):
        lung_nodule_ct.load("cls_1.25mm", **options, streaming=True)


def test_a_killed_prepare_leaves_nothing_that_load_dataset_opens(python, dummy, tmp_path) -> None:
    """It is killed after everything was written, just before the cache gets its name."""
    import subprocess
    import sys

    cache = tmp_path / "cache"
    code = f"""
import os, signal, sys
from lung_nodule_ct.targets import prepared_cache
prepared_cache.replace_folder = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
import lung_nodule_ct
lung_nodule_ct.prepare("det3d_5mm", source={str(dummy)!r}, cache_dir={str(cache)!r}, num_proc=2)
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=False)
    (folder,) = cache.glob("lung_nodule_ct/det3d_5mm/*")
    (left,) = [path for path in folder.iterdir() if path.is_dir()]
    assert list(left.rglob("*.arrow"))
    load = f"""
import datasets
try:
    datasets.load_dataset("lung_nodule_ct", "det3d_5mm", cache_dir={str(cache)!r})
except (ValueError, FileNotFoundError, ConnectionError) as error:
    print(type(error).__name__)
"""
    assert python(load, cwd=tmp_path).stdout in ("ValueError\n", "DatasetNotFoundError\n", "ConnectionError\n")
    incomplete = folder / f"{left.name.removeprefix('.')[:33]}.incomplete"  # as datasets itself leaves it
    incomplete.mkdir()
    (incomplete / "lung_nodule_ct-train-00001-00000-of-00002.arrow").write_bytes(b"of another number of processes")
    (folder / f"{incomplete.stem}_builder.lock").touch()
    path = lung_nodule_ct.prepare("det3d_5mm", source=dummy, cache_dir=cache)
    assert [entry.name for entry in folder.iterdir()] == [path.name]
    assert [file.name for file in path.glob("*.arrow")] == ["lung_nodule_ct-train.arrow"]
    inode = path.stat().st_ino
    assert (
        lung_nodule_ct.prepare("det3d_5mm", source=dummy, cache_dir=cache).stat().st_ino == inode
    )  # not written again


def test_simultaneous_prepares_write_one_cache(dummy, tmp_path) -> None:
    from threading import Thread

    threads = [
        Thread(target=lung_nodule_ct.prepare, args=["cls_1.25mm"], kwargs={"source": dummy, "cache_dir": tmp_path})
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (folder,) = tmp_path.glob("lung_nodule_ct/cls_1.25mm/*")
    assert len(list(folder.iterdir())) == 1
    assert lung_nodule_ct.load("cls_1.25mm", source=dummy, cache_dir=tmp_path, split="train").num_rows == 22
