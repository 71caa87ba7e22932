"""Training from the outside: it learns, resumes bit for bit, runs on more devices, judges itself, and says what is wrong."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

jax = pytest.importorskip("jax")
for needed in ("flax", "grain", "optax", "orbax.checkpoint", "tensorboardX", "tyro", "matplotlib"):
    pytest.importorskip(needed)
import jax.numpy as jnp  # noqa: E402
from flax import nnx  # noqa: E402

jax.config.update("jax_disable_most_optimizations", True)  # of what runs in this process: it compiles in half the time
QUICK = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # the same in others

from lung_nodule_ct.cli import app  # noqa: E402
from lung_nodule_ct.errors import LungNoduleCTError  # noqa: E402
from lung_nodule_ct.read.build_folder import open_build  # noqa: E402
from lung_nodule_ct.testing.synthetic_archives import write_synthetic_archives  # noqa: E402
from lung_nodule_ct.train import layers, prepare  # noqa: E402
from lung_nodule_ct.train.convolution import winograd  # noqa: E402
from lung_nodule_ct.train.data import open_source  # noqa: E402
from lung_nodule_ct.train.expected_scores import EXPECTED_SCORES  # noqa: E402
from lung_nodule_ct.train.feed import host_batches  # noqa: E402
from lung_nodule_ct.train.recipes import RECIPES, InputOptions, ModelOptions, Recipe  # noqa: E402
from lung_nodule_ct.train.runs import open_run  # noqa: E402


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


TINY = ("--model.width", "4", "--model.blocks", "1", "--optim.warmup", "2")
CROPS = ("cls_1.25mm", *TINY, "--input.size", "16", "16", "--batch-size", "8")
BLIND = ("--watch", "0")


@pytest.fixture(scope="module")
def built(cli, tmp_path_factory) -> Path:
    """A build of made-up patients."""
    folder = tmp_path_factory.mktemp("lesions")
    names = ("cls_1.25mm", "det2d_1.25mm", "det3d_1.25mm", "longitudinal")
    done = cli("build", *names, "--source", write_synthetic_archives(folder / "source", 40), "--out", folder / "build")
    assert done.returncode == 0, done.stderr
    return folder / "build"


@pytest.fixture(scope="session")
def inside() -> Callable[..., Done]:
    """Run the command line in this process, which JAX is loaded into once."""

    def run(*arguments: str | Path) -> Done:
        result = CliRunner().invoke(app, list(map(str, arguments)))
        error = result.exception if isinstance(result.exception, LungNoduleCTError) else None
        if result.exception is not None and error is None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Done(result.exit_code, result.stdout, str(error or result.stderr))

    return run


def losses(run: Path) -> list[str]:
    with (run / "metrics.csv").open() as file:
        return [f"{row['step']} {row['loss_hex']}" for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def whole(cli, built, tmp_path_factory) -> Path:
    """A run that nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    done = cli("train", *CROPS, "--data", built, "--out", run, "--steps", "24", "--save-every", "4", **QUICK)
    assert done.returncode == 0, done.stderr
    return run


def test_a_killed_run_goes_on_bit_for_bit_with_other_workers(whole, built, tmp_path, cli) -> None:
    run = tmp_path / "run"
    command = [Path(sys.executable).with_name("lung-nodule-ct"), "train", *CROPS, "--data", built, "--out", run]
    command += ["--steps", "24", "--save-every", "4"]
    process = subprocess.Popen(
        [*map(str, command), "--workers", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, **QUICK},
    )
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until and process.poll() is None and not any(run.glob("checkpoints/[0-9]*")):
            time.sleep(0.002)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (run / "checkpoints" / "24").exists(), "it was not killed in time"
    with (run / "metrics.csv").open("a") as file:
        file.write("9,1.5,0x1.")  # a row that was being written
    done = cli(*command[1:], **QUICK)
    assert done.returncode == 0, done.stderr
    assert losses(run) == losses(whole)
    assert len(losses(run)) == 24
    assert (run / "scores.csv").read_bytes() == (whole / "scores.csv").read_bytes()
    assert (run / "scores.csv").read_text().count("\n") == 1 + 24 // 4


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(whole, built, cli, inside, tmp_path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)

    def damage(steps: int) -> None:
        """Cut all of its files in half."""
        files = [path for path in (run / "checkpoints" / str(steps)).rglob("*") if path.is_file()]
        assert files
        for path in files:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    damage(24)
    judged = inside("evaluate", run, "--data", built, "--draws", "20", "--json")
    assert json.loads(judged.stdout)["steps"] == 20
    command = ("train", *CROPS, "--data", built, "--out", run, "--steps", "24", "--save-every", "4")
    done = cli(*command, **QUICK)
    assert done.returncode == 0, done.stderr
    assert "checkpoints/24 is damaged" in done.stderr
    assert "the one of step 20 is taken" in done.stderr
    for name in ("metrics.csv", "scores.csv"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()
    damage(24)
    damage(20)
    done = inside(*command)
    assert done.returncode == 1
    assert f"Remove {run / 'checkpoints'} to train it from the start" in done.stderr


def test_the_same_command_again_does_nothing_and_another_is_refused(whole, built, inside) -> None:
    before = (whole / "metrics.csv").read_bytes()
    same = ("--data", built, "--out", whole, "--steps", "24", "--save-every", "4")
    assert inside("train", *CROPS, *same).returncode == 0
    assert (whole / "metrics.csv").read_bytes() == before
    other = inside("train", *CROPS, *same, "--seed", "1")
    assert other.returncode == 1
    assert "its recipe.seed differs" in other.stderr


def test_losses_are_written_in_full(whole) -> None:
    with (whole / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            assert float(row["loss"]) == float.fromhex(row["loss_hex"])
    assert any((whole / "tensorboard").iterdir())


def test_four_devices_learn_what_one_does(whole, built, cli, tmp_path) -> None:
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", **QUICK}
    command = (
        "train",
        *CROPS,
        *BLIND,
        "--data",
        built,
        "--out",
        tmp_path / "four",
        "--steps",
        "24",
        "--save-every",
        "24",
    )
    done = cli(*command, **flags)
    assert done.returncode == 0, done.stderr
    one, four = (
        np.array([float.fromhex(line.split()[1]) for line in losses(run)]) for run in (whole, tmp_path / "four")
    )
    np.testing.assert_allclose(four[:10], one[:10], rtol=1e-3)
    odd = cli("train", *CROPS[:-1], "6", "--data", built, "--out", tmp_path / "odd", **flags)
    assert odd.returncode == 1
    assert "multiple of 4" in odd.stderr


def test_two_processes_learn_what_one_does(whole, built, cli, tmp_path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        hosts = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free.getsockname()[1]}", "JAX_NUM_PROCESSES": "2", **QUICK}
    command = ("train", *CROPS, "--data", built, "--out", tmp_path / "two", "--steps", "24", "--save-every", "24")
    with ThreadPoolExecutor(2) as pool:
        for done in pool.map(lambda own: cli(*command, **hosts, JAX_PROCESS_ID=str(own)), range(2)):
            assert done.returncode == 0, done.stderr
    one, two = (np.array([float.fromhex(line.split()[1]) for line in losses(run)]) for run in (whole, tmp_path / "two"))
    np.testing.assert_allclose(two[:10], one[:10], rtol=1e-3)
    assert (tmp_path / "two/checkpoints/24").is_dir()
    assert (tmp_path / "two/scores.csv").read_text().count("\n") == 2


def test_evaluate_and_compare(whole, built, inside, tmp_path) -> None:
    done = inside("evaluate", whole, "--data", built, "--draws", "50", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    rows = pq.read_table(whole / "evaluation/validation/predictions.parquet").to_pylist()
    assert len(rows) == document["rows"] == 32
    own = sum(row["truth"] == row["predicted"] for row in rows) / len(rows)
    assert document["scores"]["accuracy"]["value"] == pytest.approx(own, abs=1e-12)
    assert {row["patient_id"] for row in rows} == {str(number) for number in range(100, 140, 5)}
    page = (whole / "evaluation/validation/index.html").read_text()
    assert page.count("data:image/png;base64,") == 4  # loss, scores over time, confusion matrix, worst cases
    table = inside("compare", whole)
    assert "paper: SE-ResNet" in table.stdout
    assert "0.555" in table.stdout
    assert max(map(len, table.stdout.splitlines())) <= 80


def test_the_leakage_gap_in_one_command(whole, built, inside, tmp_path) -> None:
    out = tmp_path / "both"
    command = ("leakage", *CROPS, *BLIND, "--data", built, "--out", out, "--steps", "2", "--draws", "20")
    done = inside(*command, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    published, patient = document["evaluations"]
    assert (published["split_by"], patient["split_by"]) == ("published", "patient")
    (gap,) = document["gaps"]
    for name, entry in gap["scores"].items():
        apart = published["scores"][name]["value"] - patient["scores"][name]["value"]
        assert entry["value"] == pytest.approx(apart, abs=1e-12)
        assert entry["low"] <= entry["high"]
    folds = {
        row["patient_id"]: row["fold"] for row in open_build(built).rows("cls_1.25mm", "train", ["patient_id", "fold"])
    }
    rows = pq.read_table(out / "patient/evaluation/validation/predictions.parquet").to_pylist()
    assert {folds[row["patient_id"]] for row in rows if row["patient_id"] in folds} == {3}
    shown = inside(*command).stdout
    assert "gap: published less patient, validation" in shown
    assert (out / "patient/metrics.csv").read_text().count("\n") == 3
    assert max(map(len, shown.splitlines())) <= 80
    # runs that differ in more than the split have no gap
    inside("evaluate", whole, "--data", built, "--draws", "20")
    compared = inside("compare", whole, out / "patient").stdout
    assert "gap" not in compared
    assert "different builds" not in compared
    document = json.loads((out / "patient/run.json").read_text())
    (out / "patient/run.json").write_text(json.dumps(document | {"data": {}}))
    assert "read different builds" in inside("compare", whole, out / "patient").stdout
    refused = inside("leakage", "det3d_1.25mm", "--data", built, "--out", tmp_path / "none")
    assert "no rows in the split 'validation' (published)" in refused.stderr
    assert not (tmp_path / "none").exists()
    assert inside(*command, "--split-by", "patient").returncode == 2


LEARN = (
    "--model.width",
    "8",
    "--model.blocks",
    "1",
    "1",
    "--optim.warmup",
    "5",
    "--optim.learning-rate",
    "5e-3",
    "--batch-size",
    "8",
)
MM = "--input.spacing-mm"


@pytest.mark.parametrize(
    ("recipe", "options", "better"),
    [
        (
            "cls_1.25mm",
            ("--input.size", "32", "32", "--batch-size", "32", "--optim.learning-rate", "3e-3", "--steps", "120"),
            lambda scores: scores["accuracy"] > 2 / 6,
        ),
        ("det2d_1.25mm", ("--steps", "50"), lambda scores: scores["AP50"] > 0.3),
        (
            "det3d_1.25mm-retina",
            ("--input.size", "8", "16", "16", MM, "4", "4", "4", "--model.patch", "2", "--steps", "80"),
            lambda scores: scores["CPM"] > 0.25,
        ),
        (
            "longitudinal",
            ("--input.size", "16", "16", "16", MM, "3", "3", "3", "--input.scans", "2", "--steps", "160"),
            lambda scores: scores["change_error_mm"] < 0.9 * scores["change_error_of_mean_mm"],
        ),
    ],
)
def test_every_task_learns(built, inside, tmp_path, recipe, options, better) -> None:
    run = tmp_path / "run"
    done = inside("train", recipe, *LEARN, *options, *BLIND, "--data", built, "--out", run)
    assert done.returncode == 0, done.stderr
    values = [float.fromhex(line.split()[1]) for line in losses(run)]
    assert np.mean(values[-10:]) < 0.8 * np.mean(values[:10])
    judged = inside("evaluate", run, "--data", built, "--draws", "20", "--json")
    assert judged.returncode == 0, judged.stderr
    assert better({name: entry["value"] for name, entry in json.loads(judged.stdout)["scores"].items()})
    for name in ("loss.png", "worst.png"):
        assert (run / "evaluation/validation" / name).stat().st_size > 1000


def test_a_check_says_when_a_recipe_did_not_learn(inside, tmp_path) -> None:
    hard = ("--model.bf16", "--optim.accumulate", "2")
    done = inside("train", "cls_1.25mm", "--check", "--out", tmp_path, "--steps", "2", *BLIND, *TINY, *hard)
    assert done.returncode == 1
    assert "cls_1.25mm did not learn on made-up patients; expected accuracy of at least 0.8, got 0." in done.stderr
    assert (tmp_path / "evaluation/validation/index.html").is_file()
    assert inside("train", "cls_1.25mm", "--check", "--data", tmp_path).returncode == 2


# --- the parts --------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**31 - 1), st.sampled_from([(6, 6), (5, 8), (4, 6, 6), (3, 4, 7)]))
@settings(max_examples=30)
def test_boxes_move_with_their_voxels(seed, shape) -> None:
    random = np.random.default_rng(seed)
    low = np.array([random.integers(0, n) for n in shape])
    high = np.array([random.integers(a + 1, n + 1) for a, n in zip(low, shape, strict=True)])
    image = np.zeros(shape, np.float32)
    image[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = 1
    moved, boxes = prepare.move(
        jax.random.key(seed), jnp.array(image), jnp.array(np.concatenate([low, high])[None], jnp.float32)
    )
    corners = np.asarray(boxes[0]).astype(int)
    expected = np.zeros(moved.shape, np.float32)
    expected[tuple(slice(a, b) for a, b in zip(corners[: len(shape)], corners[len(shape) :], strict=True))] = 1
    assert (np.asarray(moved) == expected).all()


def test_all_eight_turns_and_flips_come_up() -> None:
    image, none = jnp.arange(9.0).reshape(3, 3), jnp.zeros((0, 4))
    seen = {tuple(np.asarray(prepare.move(jax.random.key(s), image, none)[0]).ravel()) for s in range(80)}
    assert len(seen) == 8


def test_resampling_keeps_what_is_linear_and_moves_boxes_along() -> None:
    z, y, x = np.meshgrid(*(np.arange(n) for n in (20, 24, 28)), indexing="ij")
    ramp = (3.0 * z + 2.0 * y - x).astype(np.float32)
    scale = jnp.array([1.0, 0.5, 0.75]) / jnp.array([0.8, 0.5, 0.6])
    out = np.asarray(prepare.resample(jnp.array(ramp), scale, (10, 12, 12)))
    steps = 1 / np.asarray(scale)
    for axis, slope in enumerate((3.0, 2.0, -1.0)):
        np.testing.assert_allclose(np.diff(out, axis=axis), slope * steps[axis], rtol=1e-4)
    assert out.mean() == pytest.approx(ramp.mean(), rel=1e-4)


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 4), (4, 3)])
@pytest.mark.parametrize(("name", "shape"), [("_stacked", (2, 4, 5, 6)), ("_flat", (2, 5, 6))])
@given(seed=st.integers(0, 1000))
@settings(max_examples=3)
def test_convolutions_of_our_own_are_plain_ones_and_so_are_their_gradients(name, shape, inputs, outputs, seed) -> None:
    keys = jax.random.split(jax.random.key(seed), 3)
    shapes = (*shape, inputs), (*(3,) * (len(shape) - 1), inputs, outputs), (*shape, outputs)
    x, kernel, above = (jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True))
    (one, back), (other, other_back) = (jax.vjp(each, x, kernel) for each in (getattr(layers, name), layers._native))
    for told, true in zip((one, *back(above)), (other, *other_back(above)), strict=True):
        np.testing.assert_allclose(told, true, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "inputs", "outputs"),
    [((2, 4, 8, 12), 32, 16), ((1, 5, 7, 6), 1, 3), ((1, 1, 2, 3), 3, 1), ((3, 9, 10), 3, 5)],
)
def test_winograds_convolutions_are_plain_ones_and_so_are_their_gradients(shape, inputs, outputs) -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = (*shape, inputs), (*(3,) * (len(shape) - 1), inputs, outputs), (*shape, outputs)
    x, kernel, above = (jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True))

    def all_of(convolve):
        told, back = jax.vjp(convolve, x, kernel)
        return told, *back(above)

    for told, true in zip(
        *(jax.jit(all_of, static_argnums=0)(each) for each in (winograd, layers._native)), strict=True
    ):
        np.testing.assert_allclose(told, true, rtol=0, atol=3e-5 * float(jnp.sqrt(jnp.square(true).mean())))


@pytest.mark.parametrize(
    ("shape", "size", "outputs", "bf16", "chosen"),
    [
        ((1, 8, 8, 12, 16), 3, 16, False, True),
        ((1, 8, 8, 12, 16), 3, 8, False, False),  # few channels
        ((1, 4, 4, 8, 16), 3, 16, False, False),  # few tiles
        ((1, 8, 8, 12, 16), 5, 16, False, False),
        ((1, 8, 8, 12, 16), 3, 16, True, False),
        ((1, 16, 16, 16), 3, 16, False, True),
        ((1, 16, 16, 1), 3, 16, False, False),
    ],
)
def test_winograd_is_taken_where_it_pays(shape, size, outputs, bf16, chosen) -> None:
    options = ModelOptions("center", bf16=bf16, native_conv=False)
    layer = layers.Conv(len(shape) - 2, shape[-1], outputs, size, options=options, rngs=nnx.Rngs(0))
    with mock.patch.object(layers, "winograd", wraps=winograd) as taken:
        assert nnx.eval_shape(layer, jnp.ones(shape)).shape == (*shape[:-1], outputs)
    assert taken.called is chosen


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_data_follow_from_the_step_alone(dummy, inside, tmp_path, form) -> None:
    assert inside("build", "det3d_1.25mm", "--source", dummy, "--format", form, "--out", tmp_path / "b").returncode == 0
    model = ModelOptions("center", width=4, blocks=(1,))
    options = InputOptions(size=(8, 16, 16), spacing_mm=(2.0, 4.0, 4.0))
    recipe = Recipe("det3d_1.25mm", "detection", model, options, steps=9, batch_size=3, split_by="patient")
    source = open_source(open_build(tmp_path / "b"), recipe, "train")
    first = list(host_batches(source, recipe))
    later = list(host_batches(source, recipe, 4))
    assert len(first) == 9
    for one, other in zip(first[4:], later, strict=True):
        assert all((one[name] == other[name]).all() for name in one)
    row, batch = source.rows.light[0], first[0]
    assert set(batch) == {"image", "spacing", "boxes", "valid", "number"}
    assert batch["image"].dtype == np.int16
    nodule, (low, high) = row["nodules"][0], np.array_split(source.example(0, np.zeros(3, np.int64))["boxes"][0], 2)
    extent = np.array(nodule["diameter_mm"]) / np.array(row["spacing"][::-1])
    inside = source.example(0, np.zeros(3, np.int64))["valid"][0]
    if inside:
        np.testing.assert_allclose((low + high) / 2 - 0.5, nodule["center_voxel"][::-1], atol=1e-4)
        np.testing.assert_allclose(high - low, extent, rtol=1e-5)


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nothing",), "no recipe is named 'nothing'"),
        (("det3d_5mm",), "has no det3d_5mm"),
        (("cls_1.25mm", "--device", "tpu"), "there is no tpu; expected tpu, got"),
        (("cls_1.25mm", "--batch-size", "8", "--optim.accumulate", "3"), "equal parts"),
        (("cls_1.25mm", "--input.size", "8", "8", "8"), "expected y, x"),
        (("det2d_1.25mm", "--input.size", "32", "32"), "does not fit input.size"),
        (("cls_1.25mm", "--steps", "0"), "steps must be above 0"),
    ],
)
def test_what_cannot_be_trained_is_said(built, inside, tmp_path, arguments, says) -> None:
    done = inside("train", *arguments, "--data", built, "--out", tmp_path / "run")
    assert done.returncode != 0
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a file system that is full")
def test_no_room_for_the_arrow_copy_is_said_before_it_is_made(built, inside, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LUNG_NODULE_CT_CACHE", "/proc/cache")
    done = inside("train", *CROPS, "--data", built, "--out", tmp_path / "run")
    assert done.returncode == 1
    assert "there is not enough free space for the Arrow copy of cls_1.25mm in /proc/cache/training" in done.stderr


def test_a_loss_that_is_none_stops_with_step_and_examples(built, inside, tmp_path) -> None:
    run = tmp_path / "run"
    done = inside("train", *CROPS, "--optim.learning-rate", "1e30", "--data", built, "--out", run, "--steps", "20")
    assert done.returncode == 1
    assert "the loss at step" in done.stderr
    assert "examples" in done.stderr


def test_checkpoints_of_another_kind_are_refused(whole, built, cli, inside, tmp_path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    document = json.loads((run / "run.json").read_text())
    document["recipe"]["model"]["width"] = 8
    (run / "run.json").write_text(json.dumps(document))
    done = cli("evaluate", run, "--data", built)
    assert done.returncode == 1
    assert "of another model" in done.stderr
    (run / "run.json").write_text(json.dumps(document | {"format_version": 99}))
    done = inside("evaluate", run, "--data", built)
    assert "of another version" in done.stderr
    assert "holds no run" in inside("evaluate", tmp_path, "--data", built).stderr
    assert "holds no evaluation" in inside("compare", tmp_path).stderr


def test_recipes_are_read_back_as_they_were(whole) -> None:
    recipe = open_run(whole).recipe
    assert (recipe.config, recipe.model.width, recipe.input.size) == ("cls_1.25mm", 4, (16, 16))
    assert EXPECTED_SCORES.keys() == RECIPES.keys()
