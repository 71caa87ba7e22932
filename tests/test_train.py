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

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lesions import write_lesions
from typer.testing import CliRunner

jax = pytest.importorskip("jax")
for needed in ("flax", "grain", "optax", "orbax.checkpoint", "tensorboardX", "tyro", "matplotlib"):
    pytest.importorskip(needed)
import jax.numpy as jnp  # noqa: E402

jax.config.update("jax_disable_most_optimizations", True)  # of what runs in this process: it compiles in half the time
QUICK = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # the same in others

from lung_nodule_ct.built import open_build  # noqa: E402
from lung_nodule_ct.cli import app  # noqa: E402
from lung_nodule_ct.errors import LungNoduleCTError  # noqa: E402
from lung_nodule_ct.train import layers, prepare  # noqa: E402
from lung_nodule_ct.train.feed import host_batches  # noqa: E402
from lung_nodule_ct.train.recipes import RECIPES, InputOptions, ModelOptions, Recipe  # noqa: E402
from lung_nodule_ct.train.runs import open_run  # noqa: E402
from lung_nodule_ct.train.sources import open_source  # noqa: E402


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


TINY = ("--model.width", "4", "--model.blocks", "1", "--optim.warmup", "2")
CROPS = ("cls_1.25mm", *TINY, "--input.size", "16", "16", "--batch-size", "8")


@pytest.fixture(scope="module")
def built(cli, tmp_path_factory) -> Path:
    """A build of made-up patients."""
    folder = tmp_path_factory.mktemp("lesions")
    names = ("cls_1.25mm", "det2d_1.25mm", "det3d_1.25mm", "longitudinal")
    done = cli("build", *names, "--source", write_lesions(folder / "source", 20), "--out", folder / "build")
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
    done = cli("train", *CROPS, "--data", built, "--out", run, "--steps", "24", "--save-every", "4")
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
    done = cli(*command[1:])
    assert done.returncode == 0, done.stderr
    assert losses(run) == losses(whole)
    assert len(losses(run)) == 24


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
    command = ("train", *CROPS, "--data", built, "--out", tmp_path / "four", "--steps", "24", "--save-every", "24")
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


def test_evaluate_and_compare(whole, built, inside, tmp_path) -> None:
    done = inside("evaluate", whole, "--data", built, "--draws", "50", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    rows = pq.read_table(whole / "evaluation/validation/predictions.parquet").to_pylist()
    assert len(rows) == document["rows"] == 16
    own = sum(row["truth"] == row["predicted"] for row in rows) / len(rows)
    assert document["scores"]["accuracy"]["value"] == pytest.approx(own, abs=1e-12)
    assert {row["patient_id"] for row in rows} == {"100", "105", "110", "115"}
    page = (whole / "evaluation/validation/index.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    table = inside("compare", whole)
    assert "paper: SE-ResNet" in table.stdout
    assert "0.555" in table.stdout
    assert max(map(len, table.stdout.splitlines())) <= 80


def test_the_gap_between_the_splits_is_shown(whole, built, inside, tmp_path) -> None:
    run = tmp_path / "patient"
    assert (
        inside("train", *CROPS, "--data", built, "--out", run, "--steps", "2", "--split-by", "patient").returncode == 0
    )
    judged = json.loads(inside("evaluate", run, "--data", built, "--split", "test", "--draws", "20", "--json").stdout)
    rows = pq.read_table(run / "evaluation/test/predictions.parquet").to_pylist()
    folds = {
        row["patient_id"]: row["fold"] for row in open_build(built).rows("cls_1.25mm", "train", ["patient_id", "fold"])
    }
    assert {folds[row["patient_id"]] for row in rows if row["patient_id"] in folds} == {4}
    assert judged["split_by"] == "patient"
    inside("evaluate", whole, "--data", built, "--draws", "20")
    shown = inside("compare", whole, run).stdout
    assert "validation by published" in shown
    assert "test by patient" in shown


@pytest.mark.parametrize(
    ("recipe", "options", "score"),
    [
        ("det2d_1.25mm", (), "AP50"),
        ("det3d_1.25mm", ("--input.size", "8", "16", "16", "--input.spacing-mm", "3", "4", "4"), "CPM"),
        (
            "longitudinal",
            ("--input.size", "8", "8", "8", "--input.spacing-mm", "5", "5", "5", "--model.bf16"),
            "change_error_mm",
        ),
    ],
)
def test_every_task_trains_and_is_judged(built, inside, tmp_path, recipe, options, score) -> None:
    command = (recipe, *TINY, *options, "--batch-size", "4", "--steps", "4", "--optim.accumulate", "2")
    done = inside("train", *command, "--data", built, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert len(losses(tmp_path / "run")) == 4
    judged = inside("evaluate", tmp_path / "run", "--data", built, "--draws", "20", "--json")
    assert judged.returncode == 0, judged.stderr
    assert json.loads(judged.stdout)["scores"][score]["value"] >= 0
    assert (tmp_path / "run/evaluation/validation/loss.png").stat().st_size > 1000


def test_it_learns(built, cli, inside, tmp_path) -> None:
    command = (
        "cls_1.25mm",
        *["--model.width", "8", "--model.blocks", "1", "1", "--input.size", "32", "32", "--batch-size", "32"],
    )
    more = ("--steps", "120", "--optim.learning-rate", "3e-3", "--optim.warmup", "10", "--data", built)
    done = cli("train", *command, *more, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    values = [float.fromhex(line.split()[1]) for line in losses(tmp_path / "run")]
    assert np.mean(values[-10:]) < 0.6 * np.mean(values[:10])
    judged = inside("evaluate", tmp_path / "run", "--data", built, "--split", "validation", "--draws", "20", "--json")
    assert json.loads(judged.stdout)["scores"]["accuracy"]["value"] > 2 / 6


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
@given(seed=st.integers(0, 1000))
@settings(max_examples=3)
def test_stacked_convolutions_are_3d_convolutions_and_so_are_their_gradients(inputs, outputs, seed) -> None:
    keys = jax.random.split(jax.random.key(seed), 3)
    shapes = (2, 4, 5, 6, inputs), (3, 3, 3, inputs, outputs), (2, 4, 5, 6, outputs)
    x, kernel, above = (jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True))
    (one, back), (other, other_back) = (jax.vjp(each, x, kernel) for each in (layers._stacked, layers._native))
    for told, true in zip((one, *back(above)), (other, *other_back(above)), strict=True):
        np.testing.assert_allclose(told, true, rtol=1e-4, atol=1e-3)


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
    assert all(recipe.config for recipe in RECIPES.values())
