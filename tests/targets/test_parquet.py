"""Parquet builds: complete or absent, reproducible, and readable by ``datasets`` and the Hub."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from lung_nodule_ct.declaration.configs import CONFIGS, DET3D_1_25MM
from lung_nodule_ct.examples.plan import make_plan
from lung_nodule_ct.sources.resolve import open_folder
from lung_nodule_ct.system.progress import BuildProgress
from lung_nodule_ct.targets import engine
from lung_nodule_ct.targets.build import build_folder
from lung_nodule_ct.targets.options import BuildOptions
from lung_nodule_ct.targets.parquet import ParquetLayout
from lung_nodule_ct.targets.shards import plan_shards
from lung_nodule_ct.testing.archives import CT0, metaimage, noise_volume
from lung_nodule_ct.testing.synthetic_archives import TinyArchives

COLUMNS = {
    "cls_1.25mm": ["image", "label", "malignant", "image_id", "patient_id", "scan_id", "fold"],
    "det2d_1.25mm": ["image", "image_id", "width", "height", "objects", "patient_id", "scan_id", "fold"],
    "det3d_bmp_1.25mm": ["case_id", "volume", "nodules", "augmented", "fold"],
}
SCAN_COLUMNS = [
    "scan_id",
    "patient_id",
    "timepoint",
    "num_timepoints",
    "days_since_first",
    "fold",
    "slice_thickness_mm",
    "volume",
    "lung_mask",
    "lung_mask_origin",
    "spacing",
    "origin",
    "direction",
    "nodules",
]
COLUMNS |= dict.fromkeys(("det3d_1.25mm", "det3d_5mm", "longitudinal"), SCAN_COLUMNS)


@pytest.fixture(scope="module")
def hub(cli, dummy, tmp_path_factory) -> Path:
    """The build of all configs, as in the README."""
    out = tmp_path_factory.mktemp("hub") / "lung_nodule_ct"
    done = cli("build", "--all", "--source", dummy, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_two_processes_write_the_same_bytes(hub, cli, dummy, tmp_path) -> None:
    done = cli("build", "--all", "--source", dummy, "--out", tmp_path / "again", "--num-proc", "2")
    assert done.returncode == 0, done.stderr
    assert files_of(tmp_path / "again") == files_of(hub)


@pytest.mark.parametrize("workers", [4, 5])
def test_shards_do_not_depend_on_the_workers_that_the_last_of_them_has(tmp_path, monkeypatch, workers) -> None:
    monkeypatch.setattr(BuildOptions, "layout", lambda *_: ParquetLayout(shard_bytes=40_000))
    tiny = TinyArchives()
    for number in range(300, 312):
        tiny[CT0] |= metaimage(f"{number}", noise_volume(number, (8, 40, 40)))
    source = open_folder(tiny.write(tmp_path / "in"))
    shards = []
    for number in (1, workers):
        folder = tmp_path / str(number)
        build_folder([DET3D_1_25MM], source, folder, BuildOptions(num_proc=number))
        shards.append(files_of(folder / "data"))
    assert len(shards[0]) % workers
    assert shards[0] == shards[1]


@pytest.mark.slow
def test_load_dataset_reads_every_config_without_this_package(hub, python, tmp_path) -> None:
    code = f"""
import json, sys, datasets, numpy as np
for config in {list(CONFIGS)!r}:
    loaded = datasets.load_dataset({str(hub)!r}, config, cache_dir={str(tmp_path)!r})
    streamed = datasets.load_dataset({str(hub)!r}, config, streaming=True)
    for split, rows in loaded.items():
        assert rows.features == streamed[split].features
        for row, other in zip(rows, streamed[split], strict=True):
            assert row.keys() == other.keys()
            for column in ("volume", "lung_mask"):
                if row.get(column):
                    assert row[column] == other[column]
                    dtype = "<i2" if column == "volume" and "bmp" not in config else "u1"
                    array = np.frombuffer(row[column]["bytes"], dtype).reshape(row[column]["shape"])
            if "image" in row:
                assert row["image"].size[0] > 0
    counts = {{split: len(rows) for split, rows in loaded.items()}}
    print(json.dumps({{"config": config, "columns": loaded["train"].column_names, "rows": counts}}))
assert "lung_nodule_ct" not in sys.modules
"""
    done = python(code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    printed = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [each["config"] for each in printed] == list(CONFIGS)
    recorded = json.loads((hub / "build.json").read_text())["configs"]
    for each in printed:
        assert each["columns"] == COLUMNS[each["config"]]
        assert each["rows"] == recorded[each["config"]]["rows"]


def test_types_follow_from_the_schema(hub) -> None:
    from datasets import ClassLabel, Features, Image, List, Value, load_dataset_builder

    features = load_dataset_builder(str(hub), "det3d_1.25mm").info.features
    assert features["volume"] == {"bytes": Value("large_binary"), "shape": List(Value("int32"), length=3)}
    assert features["spacing"] == features["origin"] == List(Value("float64"), length=3)
    assert features["direction"] == List(Value("float64"), length=9)
    assert features["nodules"].feature["pathology"].names[0] == "invasive adenocarcinoma"
    assert features["timepoint"] == Value("int32")
    boxes = load_dataset_builder(str(hub), "det2d_1.25mm").info.features
    assert boxes["objects"] == List(
        {"bbox": List(Value("float32"), length=4), "category": ClassLabel(names=["nodule"]), "area": Value("float32")}
    )
    crops = load_dataset_builder(str(hub), "cls_1.25mm").info.features
    assert isinstance(crops, Features)
    assert crops["image"] == Image()
    assert crops["malignant"] == Value("bool")
    assert len(crops["label"].names) == 6


def test_row_groups_compression_and_encodings_suit_the_hub(hub) -> None:
    for path in (hub / "data").rglob("*.parquet"):
        file = pq.ParquetFile(path, page_checksum_verification=True)
        file.read()
        volumes = path.parent.name.startswith(("det3d", "long"))
        has_jpeg = path.parent.name == "det2d_1.25mm"  # which zstd makes no smaller; crops are BMP
        for group in range(file.num_row_groups):
            meta = file.metadata.row_group(group)
            assert meta.num_rows == 1 or not volumes
            for column in range(meta.num_columns):
                chunk = meta.column(column)
                is_jpeg = has_jpeg and chunk.path_in_schema == "image.bytes"
                assert chunk.compression == ("UNCOMPRESSED" if is_jpeg else "ZSTD")
                if chunk.path_in_schema.endswith("bytes"):
                    assert not any("DICTIONARY" in encoding for encoding in chunk.encodings)
                    assert not chunk.is_stats_set


def test_the_manifest_lists_every_file(hub) -> None:
    import hashlib

    manifest = json.loads((hub / "build.json").read_text())
    listed = {file["path"]: file for config in manifest["configs"].values() for file in config["files"]}
    assert set(listed) == {str(path.relative_to(hub)) for path in (hub / "data").rglob("*.parquet")}
    for name, file in listed.items():
        data = (hub / name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file["bytes"], file["sha256"])
    assert None not in manifest["source"].values()


def test_the_metadata_of_the_card_are_valid(hub) -> None:
    from datasets.info import DatasetInfosDict
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard

    card = DatasetCard.load(hub / "README.md")
    configs = MetadataConfigs.from_dataset_card_data(card.data)
    infos = DatasetInfosDict.from_dataset_card_data(card.data)
    assert set(configs) == set(infos) == set(CONFIGS)
    assert configs.get_default_config_name() == "det2d_1.25mm"
    manifest = json.loads((hub / "build.json").read_text())["configs"]
    for name, info in infos.items():
        assert {split: entry.num_examples for split, entry in info.splits.items()} == manifest[name]["rows"]
        assert info.download_size == sum(file["bytes"] for file in manifest[name]["files"])
    assert card.data.license == "unknown"
    assert card.data.size_categories == ["n<1K"]
    body = card.text
    assert "$" not in body
    for name in CONFIGS:
        assert f"`{name}`" in body or f"<code>{name}</code>" in body
    head = yaml.safe_load((hub / "README.md").read_text().split("---")[1])
    assert head["task_categories"] == ["image-classification", "object-detection"]


def test_findings_are_counted_graded_and_without_dates(hub) -> None:
    report = json.loads((hub / "findings.json").read_text())
    assert report["names"] == "redacted"
    totals: dict[str, int] = {}
    for finding in report["findings"]:
        assert set(finding) == {"config", "grade", "code", "archive", "member", "row", "detail", "action", "count"}
        assert finding["grade"] == report["summary"][finding["code"]]["grade"]
        totals[finding["code"]] = totals.get(finding["code"], 0) + finding["count"]
    assert totals == {code: entry["count"] for code, entry in report["summary"].items()}
    assert report["shared_patients"]["cls_1.25mm"] == {"train & validation": 3}


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """Archives whose build takes long enough to be stopped."""
    tiny = TinyArchives()
    for number in range(300, 380):
        tiny[CT0] |= metaimage(f"{number}", noise_volume(number, (40, 120, 120)))
    return tiny.write(tmp_path_factory.mktemp("large"))


def size_of(path: Path) -> int:
    """Number of bytes of a file; -1 if the build has just renamed it."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1


def stopped_build(source: Path, outputs: Path, least: int) -> subprocess.Popen[str]:
    """Start a build, and stop it when it has written more than ``least`` bytes of a shard that it has not finished."""
    command = [str(Path(sys.executable).with_name("lung-nodule-ct")), "build", "det3d_1.25mm"]
    for _ in range(5):
        outputs.mkdir()
        process = subprocess.Popen(
            [*command, "--source", source, "--out", outputs / "hub"],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        deadline = time.monotonic() + 60
        while process.poll() is None and not any(size_of(path) > least for path in outputs.rglob("*.partial")):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGSTOP)
        if process.poll() is None and list(outputs.rglob("*.partial")):
            return process
        process.send_signal(signal.SIGCONT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        shutil.rmtree(outputs)
    pytest.fail("every build ended before it could be stopped")


@pytest.mark.slow
def test_a_killed_build_leaves_no_build_and_the_next_one_removes_its_files(large, tmp_path, cli) -> None:
    outputs = tmp_path / "outputs"
    process = stopped_build(large, outputs, 1_000_000)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (outputs / "hub").exists()
    assert not list(outputs.rglob("*.parquet"))
    assert not list(outputs.rglob("README.md"))
    assert all(path.name.startswith((".hub.building-", ".hub.build.lock")) for path in outputs.iterdir())
    small = TinyArchives().write(tmp_path / "small")
    assert cli("build", "det3d_1.25mm", "--source", small, "--out", outputs / "hub").returncode == 0
    assert [path.name for path in outputs.iterdir()] == ["hub"]


@pytest.mark.slow
def test_an_interrupted_build_leaves_nothing(large, tmp_path) -> None:
    outputs = tmp_path / "outputs"
    process = stopped_build(large, outputs, -1)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert not list(outputs.iterdir())


def test_the_folder_of_a_running_build_is_not_removed(tmp_path, dummy, cli) -> None:
    from lung_nodule_ct.system.staging import temporary_folder

    with temporary_folder(tmp_path / "hub") as stage:
        (stage / "incomplete").write_text("part of a build")
        assert cli("build", "cls_1.25mm", "--source", dummy, "--out", tmp_path / "hub").returncode == 0
        assert (stage / "incomplete").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]


@pytest.mark.slow
def test_two_simultaneous_builds_are_both_complete(tmp_path, dummy) -> None:
    command = [str(Path(sys.executable).with_name("lung-nodule-ct")), "build", "--all", "--source", str(dummy), "--out"]
    processes = [
        subprocess.Popen([*command, str(tmp_path / "hub")], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        for _ in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]
    assert len(list((tmp_path / "hub" / "data").iterdir())) == 6


def test_shards_have_similar_sizes_and_keep_the_order_of_units(tmp_path, monkeypatch) -> None:
    tiny = TinyArchives()
    for number in range(300, 340):
        tiny[CT0] |= metaimage(f"{number}", noise_volume(number, (4, 8, 8 + 8 * (number % 5))))
    plan = make_plan(DET3D_1_25MM, open_folder(tiny.write(tmp_path)))
    total = sum(unit.packed_bytes for unit in plan.units)
    for count in (1, 3, 7, 10_000):
        shards = plan_shards(plan, keep_source_names=False, shard_bytes=max(1, total // count))
        assert [unit for shard in shards for unit in shard.units] == list(plan.units)
        assert [shard.index for shard in shards] == list(range(len(shards)))
        assert {shard.count for shard in shards} == {len(shards)}
        assert all(shard.units for shard in shards)
        if count in (3, 7):
            sizes = [sum(unit.packed_bytes for unit in shard.units) for shard in shards]
            assert len(shards) == count
            assert max(sizes) < 1.5 * total / count


def test_the_nodules_of_the_embedded_archives_are_at_bright_voxels(hub) -> None:
    """Includes rotated and mirrored scans."""
    count = 0
    for path in (hub / "data").glob("det3d_1.25mm/*.parquet"):
        for row in pq.read_table(path).to_pylist():
            volume = np.frombuffer(row["volume"]["bytes"], "<i2").reshape(row["volume"]["shape"])
            for nodule in row["nodules"]:
                x, y, z = np.rint(nodule["center_voxel"]).astype(int)
                assert volume[z, y, x] > -50
                # the nodule is in the lung, and not in the wall of the chest
                assert np.median(volume[z, y - 12 : y + 12, x - 12 : x + 12]) < -500
                count += 1
    assert count == 8


@pytest.mark.parametrize("num_proc", [2, 3, 4, 5, 7])
def test_every_worker_is_used(dummy, tmp_path, monkeypatch, num_proc) -> None:
    """A process of Parquet has two threads: one inflates, the other writes."""
    plan = make_plan(DET3D_1_25MM, open_folder(dummy))
    shards = plan_shards(plan, keep_source_names=False, shard_bytes=1)
    threads: list[int] = []

    def write(_layout, shard, _stage, prefetch, *_rest):
        threads.append(prefetch + 1)
        return SimpleNamespace(shard=shard)

    monkeypatch.setattr(engine, "write_shard", write)
    monkeypatch.setattr(engine.LocalEngine, "_pool", lambda _self, _processes: pool)
    with ThreadPoolExecutor(1) as pool, engine.LocalEngine(num_proc) as local:
        assert len(list(local.write(ParquetLayout(), shards, tmp_path, BuildProgress()))) == len(shards)
    processes = -(-num_proc // 2)
    assert sum(threads[:processes]) == num_proc
