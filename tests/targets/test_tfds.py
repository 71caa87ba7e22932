"""TFDS and Beam give the same examples as a Parquet build, of the embedded archives and of real CT."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from built import Built
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lung_nodule_ct.declaration.configs import CONFIGS, get_config
from lung_nodule_ct.declaration.schema import Flag, Integer, Picture, Real, Records, Text, Vector, Voxels
from lung_nodule_ct.errors import LungNoduleCTError
from lung_nodule_ct.sources.resolve import open_folder
from lung_nodule_ct.testing.archives import CT0
from lung_nodule_ct.testing.synthetic_archives import TinyArchives

tfds = pytest.importorskip("tensorflow_datasets")
import lung_nodule_ct  # noqa: E402, F401 -- registers the builder
from lung_nodule_ct.publish.card import write_first_card  # noqa: E402
from lung_nodule_ct.targets.build import build_folder  # noqa: E402
from lung_nodule_ct.targets.options import BuildOptions  # noqa: E402
from lung_nodule_ct.targets.tfds.builder import TfdsBuilder  # noqa: E402

pytestmark = pytest.mark.tfds

with_tensorflow = pytest.mark.skipif(find_spec("tensorflow") is None, reason="TensorFlow is not installed")
with_beam = pytest.mark.skipif(find_spec("apache_beam") is None, reason="Apache Beam is not installed")
RAW = {"image": tfds.decode.SkipDecoding()}


@pytest.fixture(scope="module")
def hub(dummy, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "hub"
    build_folder(list(CONFIGS.values()), open_folder(dummy), folder, add_files=write_first_card)
    return folder


@pytest.fixture(scope="module")
def records(dummy, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("records") / "ar"
    build_folder(list(CONFIGS.values()), open_folder(dummy), folder, BuildOptions(format="array_record"))
    return folder


def canonical(kind, value):
    """Convert a value of the Parquet build to the value that TFDS returns."""
    match kind:
        case Text():
            return (value or "").encode()
        case Real():
            return float("nan") if value is None else value
        case Vector(item, length):
            return [(-1 if isinstance(item, Integer) else float("nan"))] * length if value is None else value
        case Voxels(dtype):
            if value is None:
                return [1, 1, 3], bytes(3 * np.dtype(dtype).itemsize)
            return value["shape"], value["bytes"]
        case Records(fields):
            return {f.name: [canonical(f.type, entry[f.name]) for entry in value] for f in fields}
        case Picture():
            return value["bytes"]
        case _:
            return -1 if value is None else value


def from_tfds(kind, value):
    """Convert a value that TFDS returns, from tensors or from records, to plain types."""
    match kind:
        case Text():
            return value if isinstance(value, bytes) else value.item() if hasattr(value, "item") else value.encode()
        case Voxels():
            return list(value.shape), value.tobytes()
        case Records(fields):
            return {f.name: [from_tfds(f.type, entry) for entry in value[f.name]] for f in fields}
        case Vector():
            return np.asarray(value).tolist()
        case Picture():
            return value if isinstance(value, bytes) else bytes(value)
        case Real():
            return float(value)
        case Flag() | _:
            return int(value)


def assert_same(config: str, hub_rows: list[dict], examples: list[dict]) -> None:
    schema = get_config(config).schema
    assert len(hub_rows) == len(examples)
    for row, example in zip(hub_rows, examples, strict=True):
        for column in schema.columns:
            expected, got = canonical(column.type, row[column.name]), from_tfds(column.type, example[column.name])
            if isinstance(column.type, Picture) and expected != got:  # TFDS stores BMP as PNG
                assert not expected.startswith(b"\xff\xd8")
                pixels = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in (expected, got)]
                assert (pixels[0] == pixels[1]).all()
                continue
            np.testing.assert_equal(got, expected, err_msg=f"{config} {column.name}")


def splits_of(folder: Path, config: str) -> dict[str, list[dict]]:
    built = Built(folder)
    names = [path.name.split("-")[0] for path in sorted((folder / "data" / config).glob("*.parquet"))]
    return {name: built.rows(config, name) for name in dict.fromkeys(names)}


def from_records(folder: Path, config: str) -> dict[str, list[dict]]:
    decoders = RAW if "image" in get_config(config).schema.names else None
    builder = tfds.builder(f"lung_nodule_ct/{config}", data_dir=folder, file_format="array_record")
    return {name: list(rows) for name, rows in builder.as_data_source(decoders=decoders).items()}


def from_tensors(folder: Path, config: str) -> dict[str, list[dict]]:
    decoders = RAW if "image" in get_config(config).schema.names else None
    loaded = tfds.load(f"lung_nodule_ct/{config}", data_dir=folder, decoders=decoders)
    return {name: list(tfds.as_numpy(rows)) for name, rows in loaded.items()}


@pytest.mark.parametrize("config", CONFIGS)
def test_array_records_equal_the_parquet_build(hub, records, config) -> None:
    expected, got = splits_of(hub, config), from_records(records, config)
    assert set(got) == set(expected)
    for split, rows in expected.items():
        assert_same(config, rows, got[split])


@with_tensorflow
@pytest.mark.parametrize("config", CONFIGS)
def test_tfrecords_that_load_builds_equal_the_parquet_build(hub, dummy, tmp_path, monkeypatch, config) -> None:
    monkeypatch.setenv("LUNG_NODULE_CT_SOURCE", str(dummy))
    expected, got = splits_of(hub, config), from_tensors(tmp_path, config)
    assert set(got) == set(expected)
    for split, rows in expected.items():
        assert_same(config, rows, got[split])


@with_beam
@pytest.mark.parametrize("config", ["det2d_1.25mm", "det3d_1.25mm", "det3d_bmp_1.25mm"])
def test_beam_gives_the_same_shards(hub, records, dummy, tmp_path, config) -> None:
    options = BuildOptions(format="array_record", engine="beam")
    build_folder([get_config(config)], open_folder(dummy), tmp_path / "ar", options)
    for path in sorted((records / "lung_nodule_ct" / config).rglob("*.array_record*")):
        by_beam = tmp_path / "ar" / path.relative_to(records)
        assert by_beam.read_bytes() == path.read_bytes()
    reports = [json.loads((folder / "findings.json").read_text())["findings"] for folder in (records, tmp_path / "ar")]
    expected, found = ([entry for entry in report if entry["code"] != "figure-mismatch"] for report in reports)
    assert [entry for entry in expected if entry["config"] == config] == found


@with_beam
@pytest.mark.slow
def test_beam_writes_the_same_parquet_build(hub, dummy, cli, tmp_path) -> None:
    done = cli(
        "build",
        "--all",
        "--source",
        dummy,
        "--out",
        tmp_path / "hub",
        "--engine",
        "beam",
        "--beam-options",
        "--direct_num_workers=1",
    )
    assert done.returncode == 0, done.stderr
    files = {path.relative_to(hub) for path in hub.rglob("*") if path.is_file()}
    assert files == {path.relative_to(tmp_path / "hub") for path in (tmp_path / "hub").rglob("*") if path.is_file()}
    for name in files:
        assert (tmp_path / "hub" / name).read_bytes() == (hub / name).read_bytes(), name


@pytest.mark.slow
def test_array_records_of_real_ct_equal_the_parquet_build(mirror, tmp_path) -> None:
    configs = list(CONFIGS.values())
    build_folder(configs, open_folder(mirror), tmp_path / "hub")
    build_folder(configs, open_folder(mirror), tmp_path / "ar", BuildOptions(format="array_record"))
    for config in CONFIGS:
        got = from_records(tmp_path / "ar", config)
        for split, rows in splits_of(tmp_path / "hub", config).items():
            assert_same(config, rows, got[split])


def test_normalized_boxes_are_clipped_to_the_image(records) -> None:
    count = 0
    for rows in from_records(records, "det2d_1.25mm").values():
        for row in rows:
            size = np.array([row["height"], row["width"]] * 2)
            normalized, published = np.asarray(row["objects"]["bbox_normalized"]), np.asarray(row["objects"]["bbox"])
            assert ((normalized >= 0) & (normalized <= 1)).all()
            for box, pixels in zip(normalized, published, strict=True):
                expected = np.clip(pixels[[1, 0, 3, 2]], 0, size)
                np.testing.assert_allclose(box * size, expected, atol=1e-3)
                count += 1
    assert count > 5


CODE = """
import sys, lung_nodule_ct, tensorflow_datasets as tfds
source = tfds.data_source(f"lung_nodule_ct/{sys.argv[1]}", data_dir=sys.argv[2], builder_kwargs={"file_format": "array_record"})
print("rows", sum(len(list(rows)) for rows in source.values()))
assert "tensorflow" not in sys.modules
"""


@pytest.mark.skipif(find_spec("tensorflow") is not None, reason="TensorFlow is installed")
@pytest.mark.parametrize("config", ["det2d_1.25mm", "det3d_1.25mm"])
@pytest.mark.slow
def test_building_and_reading_need_no_tensorflow(python, dummy, tmp_path, hub, config) -> None:
    code = f"import sys; sys.argv = ['', {config!r}, {str(tmp_path / 'ar')!r}]\n{CODE}"
    done = python(code, cwd=tmp_path, LUNG_NODULE_CT_SOURCE=str(dummy))
    expected = sum(len(rows) for rows in splits_of(hub, config).values())
    assert done.stdout.splitlines()[-1:] == [f"rows {expected}"], done.stderr


def test_a_damaged_member_is_named_and_no_file_is_left(tmp_path, cli) -> None:
    tiny = TinyArchives()
    tiny[CT0]["9.raw"] = b"short"
    source = tiny.write(tmp_path / "in")
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    engines = ["local", "beam"] if find_spec("apache_beam") else ["local"]
    for engine in engines:
        for format_ in ("array_record", "parquet"):
            done = cli(
                "build",
                "det3d_1.25mm",
                "--format",
                format_,
                "--engine",
                engine,
                "--source",
                source,
                "--out",
                outputs / "x",
            )
            assert done.returncode == 1
            assert [line for line in done.stderr.splitlines() if line.startswith("error: ") and "9.raw" in line], (
                done.stderr
            )
            assert not list(outputs.iterdir())
    with pytest.raises(LungNoduleCTError, match=r"9\.raw"):
        TfdsBuilder(
            config="det3d_1.25mm", data_dir=tmp_path / "tfds", source=source, file_format="array_record"
        ).download_and_prepare()


def test_the_tfds_info_has_citation_homepage_and_tags(tmp_path) -> None:
    from lung_nodule_ct.declaration.published import CITATION, HOMEPAGE

    info = tfds.builder("lung_nodule_ct/det3d_1.25mm", data_dir=tmp_path).info
    assert info.citation.strip() == CITATION.strip()
    assert info.homepage == HOMEPAGE
    assert TfdsBuilder.get_metadata().tags


def test_parquet_by_tfds_is_refused_and_the_error_names_the_build_command(tmp_path) -> None:
    with pytest.raises(LungNoduleCTError, match="lung-nodule-ct build"):
        tfds.builder("lung_nodule_ct/det2d_1.25mm", data_dir=tmp_path, file_format="parquet")


def test_files_of_a_killed_build_are_removed_and_a_finished_build_is_reused(tmp_path, dummy) -> None:
    incomplete = tmp_path / "lung_nodule_ct" / "cls_1.25mm" / "incomplete.ABC_2.0.0"
    incomplete.mkdir(parents=True)
    (incomplete / "part").write_text("of a build")
    for _ in range(2):
        TfdsBuilder(
            config="cls_1.25mm", data_dir=tmp_path, source=dummy, file_format="array_record"
        ).download_and_prepare()
    assert sorted(path.name for path in incomplete.parent.iterdir()) == [".build.lock", "2.0.0"]
    assert tfds.builder("lung_nodule_ct/cls_1.25mm", data_dir=tmp_path).info.splits["train"].num_examples == 22


@pytest.mark.slow
def test_of_three_simultaneous_builds_one_builds_and_all_load_the_result(tmp_path, dummy) -> None:
    import subprocess

    code = (
        "import sys, tensorflow_datasets as tfds, lung_nodule_ct\n"
        "builder = tfds.builder('lung_nodule_ct/det3d_1.25mm', data_dir=sys.argv[1], file_format='array_record')\n"
        "builder.download_and_prepare()\n"
        "print(builder.info.splits['train'].num_examples, builder.findings is not None)"
    )
    env = {**os.environ, "LUNG_NODULE_CT_SOURCE": str(dummy)}
    builds = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=env, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    printed = sorted(build.communicate()[0].splitlines()[-1] for build in builds)
    assert printed == ["7 False", "7 False", "7 True"]


def test_the_command_prints_counts_and_refuses_unsupported_options(cli, dummy, tmp_path) -> None:
    out = tmp_path / "ar"
    for _ in range(2):  # the second build replaces the first
        done = cli("build", "det2d_1.25mm", "--format", "array_record", "--source", dummy, "--out", out, "--json")
        assert json.loads(done.stdout)["configs"] == {"det2d_1.25mm": {"train": 13, "validation": 4, "unassigned": 1}}
    kept = cli("build", "det2d_1.25mm", "--format", "array_record", "--keep-source-names", "--out", out)
    assert kept.returncode == 2
    assert cli("build", "det2d_1.25mm", "--beam-options", "--runner=X", "--out", out).returncode == 2
    strict = cli(
        "build", "det2d_1.25mm", "--format", "array_record", "--strict", "--source", dummy, "--out", tmp_path / "strict"
    )
    assert strict.returncode == 1
    assert not (tmp_path / "strict").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--runner=NoSuchRunner", "the runner 'NoSuchRunner' cannot be used; got Unexpected pipeline runner"),
        ("--runner=no.such.Runner", "the runner 'no.such.Runner' cannot be used; got No module named 'no'"),
        ("--runner=os.path.join", "the runner 'os.path.join' cannot be used"),
        ("--runner='Direct", "quotation"),
    ],
)
@with_beam
def test_a_runner_that_beam_does_not_have_is_one_line(cli, dummy, tmp_path, options, message) -> None:
    out = tmp_path / "out"
    done = cli("build", "det2d_1.25mm", "--engine", "beam", "--beam-options", options, "--source", dummy, "--out", out)
    assert done.returncode in (1, 2)
    assert message in " ".join(done.stderr.replace("\u2502", "").split())
    assert "Traceback" not in done.stderr
    assert not out.exists()


def test_max_examples_and_manual_dir_of_tfds_are_used(dummy, tmp_path) -> None:
    sizes = {}
    for limit in (None, 3, 0):
        builder = TfdsBuilder(config="det2d_1.25mm", data_dir=tmp_path / str(limit), file_format="array_record")
        config = tfds.download.DownloadConfig(manual_dir=dummy, max_examples_per_split=limit)
        builder.download_and_prepare(download_config=config)
        sizes[limit] = {name: split.num_examples for name, split in builder.info.splits.items()}
    assert sizes == {
        None: {"train": 13, "validation": 4, "unassigned": 1},
        3: {"train": 3, "validation": 3, "unassigned": 1},
        0: {},
    }


def test_the_source_has_priority_over_manual_dir(dummy, tmp_path) -> None:
    tiny = TinyArchives().write(tmp_path / "tiny")
    builder = TfdsBuilder(config="det2d_1.25mm", data_dir=tmp_path / "out", file_format="array_record", source=tiny)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=dummy))
    assert builder.info.splits["train"].num_examples == 2


@with_tensorflow
def test_files_can_be_shuffled(dummy, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LUNG_NODULE_CT_SOURCE", str(dummy))
    options = {"split": "train", "data_dir": tmp_path, "decoders": RAW}
    plain = [row["image_id"] for row in tfds.load("lung_nodule_ct/det2d_1.25mm", **options).as_numpy_iterator()]
    for config in (None, tfds.ReadConfig(shuffle_seed=1)):
        rows = tfds.load("lung_nodule_ct/det2d_1.25mm", shuffle_files=True, read_config=config, **options)
        assert sorted(row["image_id"] for row in rows.as_numpy_iterator()) == sorted(plain)
    assert tfds.ReadConfig().enable_ordering_guard


@pytest.mark.slow
def test_splits_by_patient_of_two_processes_equal_the_parquet_build(hub, dummy, cli, tmp_path) -> None:
    for format_, out in (("parquet", tmp_path / "hub"), ("array_record", tmp_path / "ar")):
        options = ("--split-by", "patient", "--num-proc", "2")
        done = cli("build", "det2d_1.25mm", *options, "--format", format_, "--source", dummy, "--out", out)
        assert done.returncode == 0, done.stderr
    got = from_records(tmp_path / "ar", "det2d_1.25mm")
    expected = splits_of(tmp_path / "hub", "det2d_1.25mm")
    assert set(got) == set(expected) != set(splits_of(hub, "det2d_1.25mm"))
    for split, rows in expected.items():
        assert_same("det2d_1.25mm", rows, got[split])


def test_pickled_shards_are_small(dummy) -> None:
    from lung_nodule_ct.examples.plan import make_plan
    from lung_nodule_ct.targets.shards import plan_shards

    plan = make_plan(get_config("det3d_1.25mm"), open_folder(dummy))
    shards = plan_shards(plan, keep_source_names=False, shard_bytes=10**9)
    assert len(pickle.dumps(shards)) < 3_000 * len(plan.units)


def serialized_by_tfds(config: str, row: dict) -> bytes:
    """Serialize a row of the Parquet build with the serializer of TFDS."""
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    from lung_nodule_ct.targets.tfds.features import ABSENT_SHAPE, to_features_dict, to_tfds_example

    schema = get_config(config).schema
    features = to_features_dict(schema)
    example = to_tfds_example(schema, row)
    for column in schema.columns:
        if isinstance(column.type, Voxels) and row[column.name] is None:
            example[column.name] = np.zeros(ABSENT_SHAPE, column.type.dtype)
    encoded = features.encode_example(example)
    message = ExampleSerializer(features.get_serialized_info()).get_tf_example(encoded)
    return message.SerializeToString(deterministic=True)


@pytest.mark.parametrize("config", CONFIGS)
def test_examples_equal_those_that_tfds_serializes(hub, config) -> None:
    from tensorflow_datasets.proto import tf_example_pb2

    from lung_nodule_ct.read.build_folder import open_build
    from lung_nodule_ct.targets.tfds.features import ExamplePieces

    pieces = ExamplePieces(get_config(config).schema)
    for row in open_build(hub).rows(config, "train"):
        example = tf_example_pb2.Example.FromString(b"".join(pieces.of(row)))
        assert example.SerializeToString(deterministic=True) == serialized_by_tfds(config, row)


@given(sizes=st.lists(st.integers(0, 70_000), max_size=4), seed=st.integers(0, 9))
def test_records_of_any_size_are_read_back(tmp_path_factory, sizes, seed) -> None:
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    from lung_nodule_ct.targets.tfds.folder import open_records

    draw = np.random.default_rng(seed)
    records = [draw.integers(0, 256, size, np.uint8) for size in sizes]
    folder = tmp_path_factory.mktemp("records")
    for format_ in ("tfrecord", "array_record"):
        hashed = hashlib.sha256()
        with open_records(folder / format_, format_, hashed.update) as write:
            for record in records:
                write([record[:1].tobytes(), record[1:]])
        assert hashed.digest() == hashlib.sha256((folder / format_).read_bytes()).digest()
    expected = [record.tobytes() for record in records]
    if sizes:
        with ArrayRecordDataSource(str(folder / "array_record")) as source:
            assert source.__getitems__(range(len(source))) == expected
    if find_spec("tensorflow"):
        import tensorflow as tf

        assert list(tf.data.TFRecordDataset(str(folder / "tfrecord")).as_numpy_iterator()) == expected


@with_tensorflow
@with_beam
def test_the_command_of_tfds_builds(dummy, tmp_path) -> None:
    import subprocess

    folder = Path(__file__).parents[2] / "builders" / "lung_nodule_ct"
    command = [
        str(Path(sys.executable).with_name("tfds")),
        "build",
        str(folder),
        "--config=det2d_1.25mm",
        f"--data_dir={tmp_path}",
        f"--manual_dir={dummy}",
    ]
    env = {name: value for name, value in os.environ.items() if name != "LUNG_NODULE_CT_SOURCE"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert tfds.builder("lung_nodule_ct/det2d_1.25mm", data_dir=tmp_path).info.splits["train"].num_examples == 13


@with_tensorflow
@pytest.mark.parametrize("config", CONFIGS)
def test_tfds_shows_examples_as_data_frames_and_pictures(dummy, tmp_path, monkeypatch, config) -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("matplotlib").use("agg")
    monkeypatch.setenv("LUNG_NODULE_CT_SOURCE", str(dummy))
    rows, info = tfds.load(f"lung_nodule_ct/{config}", split="train", data_dir=tmp_path, with_info=True)
    assert len(tfds.as_dataframe(rows.take(2), info)) == 2
    if "image" in get_config(config).schema.names:
        assert tfds.show_examples(rows, info, rows=1, cols=2, plot_scale=1).axes
    else:
        with pytest.raises(ValueError, match="Visualisation not supported"):
            tfds.show_examples(rows, info)


if find_spec("tensorflow"):
    SPLITS = {
        config: {split: len(rows) for split, rows in counts.items()}
        for config, counts in {
            "cls_1.25mm": {"train": range(22), "validation": range(11)},
            "det2d_1.25mm": {"train": range(13), "validation": range(4), "unassigned": range(1)},
            "det3d_1.25mm": {"train": range(7)},
            "det3d_5mm": {"train": range(5)},
            "longitudinal": {"train": range(9)},
            "det3d_bmp_1.25mm": {"train": range(4), "validation": range(2)},
        }.items()
    }

    def _case(config: str) -> type:
        class Case(tfds.testing.DatasetBuilderTestCase):
            DATASET_CLASS = TfdsBuilder
            BUILDER_CONFIG_NAMES_TO_TEST = (config,)
            SPLITS = globals()["SPLITS"][config]
            EXAMPLE_DIR = str(Path(__file__).parents[2] / "dummy_data")
            SKIP_CHECKSUMS = True

            def setUp(self) -> None:
                os.environ["LUNG_NODULE_CT_SOURCE"] = self.EXAMPLE_DIR
                super().setUp()

            def tearDown(self) -> None:
                os.environ.pop("LUNG_NODULE_CT_SOURCE", None)
                super().tearDown()

        Case.__name__ = Case.__qualname__ = f"Test_{config.replace('.', '_')}"
        return Case

    TestCls, TestDet2D, TestDet3D, TestDet3DThick, TestLongitudinal, TestBmp = map(_case, CONFIGS)
