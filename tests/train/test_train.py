"""Training: runs of the command line, their parts, and errors for input that cannot be trained."""

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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from altered import alter
from hypothesis import given, settings
from hypothesis import strategies as st

jax = pytest.importorskip("jax")
for needed in ("flax", "grain", "optax", "orbax.checkpoint", "tensorboardX", "tyro", "matplotlib"):
    pytest.importorskip(needed)
import jax.numpy as jnp  # noqa: E402
from flax import nnx  # noqa: E402

from lung_nodule_ct.declaration.configs import CONFIGS  # noqa: E402
from lung_nodule_ct.errors import TrainingError  # noqa: E402
from lung_nodule_ct.read.build_folder import open_build  # noqa: E402
from lung_nodule_ct.testing.synthetic_archives import write_synthetic_archives  # noqa: E402
from lung_nodule_ct.train import convolution, loop, pages, preprocessing  # noqa: E402
from lung_nodule_ct.train.batches import host_batches, open_data_source  # noqa: E402
from lung_nodule_ct.train.expected_scores import EXPECTED_SCORES  # noqa: E402
from lung_nodule_ct.train.layers import Conv  # noqa: E402
from lung_nodule_ct.train.recipes import (  # noqa: E402
    RECIPES,
    InputOptions,
    ModelOptions,
    Recipe,
)
from lung_nodule_ct.train.runs import open_run, training  # noqa: E402
from lung_nodule_ct.train.tasks import detection  # noqa: E402

pytestmark = pytest.mark.train


TINY = ("--model.width", "4", "--model.blocks", "1", "--optim.warmup", "2")
CROPS = ("cls_1.25mm", *TINY, "--input.size", "16", "16", "--batch-size", "8")
NO_SCORES = ("--watch", "0")
STEPS = ("--steps", "24", "--save-every", "4")


@pytest.fixture(scope="module")
def built(cli, tmp_path_factory) -> Path:
    """A build of synthetic patients."""
    folder = tmp_path_factory.mktemp("lesions")
    names = ("cls_1.25mm", "det2d_1.25mm", "det3d_1.25mm", "longitudinal")
    source = write_synthetic_archives(folder / "source", 40)
    done = cli("build", *names, "--source", source, "--out", folder / "build")
    assert done.returncode == 0, done.stderr
    return folder / "build"


@pytest.fixture(scope="module")
def finished(cli, built, tmp_path_factory) -> Path:
    """A finished run that was never interrupted."""
    run = tmp_path_factory.mktemp("finished") / "run"
    done = cli("train", built, *CROPS, "--out", run, *STEPS)
    assert done.returncode == 0, done.stderr
    return run


def losses(run: Path) -> list[str]:
    with (run / "metrics.csv").open() as file:
        return [f"{row['step']} {row['loss_hex']}" for row in csv.DictReader(file)]


def loss_values(run: Path) -> np.ndarray:
    return np.array([float.fromhex(line.split()[1]) for line in losses(run)])


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_run_continues_bit_for_bit_with_other_workers(finished, built, tmp_path, cli_process) -> None:
    run = tmp_path / "run"
    command = ["train", built, *CROPS, "--out", run, *STEPS]
    process = subprocess.Popen(
        [sys.executable, "-m", "lung_nodule_ct", *map(str, command), "--workers", "2"],
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
    assert not (run / "checkpoints" / "24").exists(), "the run ended before it was killed"
    with (run / "metrics.csv").open("a") as file:
        file.write("9,1.5,0x1.")  # a row that was only partly written
    done = cli_process(*command)
    assert done.returncode == 0, done.stderr
    assert losses(run) == losses(finished)
    assert len(losses(run)) == 24
    assert (run / "scores.csv").read_bytes() == (finished / "scores.csv").read_bytes()
    assert (run / "scores.csv").read_text().count("\n") == 1 + 24 // 4


def test_a_moved_run_continues_and_names_no_folder(finished, built, cli, tmp_path) -> None:
    run = tmp_path / "elsewhere" / "run"
    shutil.copytree(finished, run)
    shutil.rmtree(run / "checkpoints" / "24")
    done = cli("train", built, *CROPS, "--out", run, *STEPS)
    assert done.returncode == 0, done.stderr
    assert losses(run) == losses(finished)
    for folder in (finished, run):
        for path in folder.rglob("*"):
            assert path.is_dir() or not any(str(root).encode() in path.read_bytes() for root in (finished, run)), path


def test_a_second_training_of_a_run_is_refused(finished, built, cli, tmp_path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / ".scores.csv.0123abcd-1.partial").touch()
    with training(open_run(run)):
        before = sorted(path.name for path in run.rglob("*"))
        done = cli("train", built, *CROPS, "--out", run, *STEPS)
        assert done.returncode == 1
        assert f"error: another command is training {run}. " in done.stderr
        assert sorted(path.name for path in run.rglob("*")) == before
    assert not [path.name for path in run.iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_a_run_continues_from_the_checkpoint_before_a_damaged_one(finished, built, cli, tmp_path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)

    def damage(steps: int) -> None:
        """Cut all files of a checkpoint in half."""
        files = [path for path in (run / "checkpoints" / str(steps)).rglob("*") if path.is_file()]
        assert files
        for path in files:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    damage(24)
    evaluated = cli("evaluate", built, run, "--draws", "20", "--json")
    assert json.loads(evaluated.stdout)["steps"] == 20
    command = ("train", built, *CROPS, "--out", run, *STEPS)
    done = cli(*command)
    assert done.returncode == 0, done.stderr
    message = " ".join(done.stderr.split())
    assert "checkpoints/24 is damaged" in message
    assert "the one of step 20 is used" in message
    for name in ("metrics.csv", "scores.csv"):
        assert (run / name).read_bytes() == (finished / name).read_bytes()
    damage(24)
    damage(20)
    done = cli(*command)
    assert done.returncode == 1
    assert "Train from the start with another --out" in done.stderr


def test_the_same_command_again_does_nothing_and_another_is_refused(finished, built, cli) -> None:
    before = (finished / "metrics.csv").read_bytes()
    same = ("--data", built, "--out", finished, *STEPS)
    assert cli("train", *CROPS, *same).returncode == 0
    assert (finished / "metrics.csv").read_bytes() == before
    other = cli("train", *CROPS, *same, "--seed", "1")
    assert other.returncode == 1
    assert "its recipe.seed differs" in other.stderr


def test_losses_are_written_in_full_precision(finished) -> None:
    with (finished / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            assert float(row["loss"]) == float.fromhex(row["loss_hex"])
    assert any((finished / "tensorboard").iterdir())


@pytest.mark.slow
def test_four_devices_give_the_losses_of_one(finished, built, python, tmp_path) -> None:
    same = ("--data", built, "--out", tmp_path / "four", "--steps", "24", "--save-every", "24")
    even_batches = [str(argument) for argument in ("train", *CROPS, *NO_SCORES, *same)]
    uneven_batches = [
        str(argument) for argument in ("train", *CROPS[:-1], "6", "--data", built, "--out", tmp_path / "uneven")
    ]
    done = python(
        "import sys\n"
        "from lung_nodule_ct.cli import app, main\n"
        f"app({even_batches!r}, standalone_mode=False)\n"
        "print('the even batches were trained')\n"
        f"sys.argv[1:] = {uneven_batches!r}\n"
        "main()",
        cwd=tmp_path,
        devices=4,
    )
    assert "the even batches were trained" in done.stdout, done.stderr
    np.testing.assert_allclose(loss_values(tmp_path / "four")[:10], loss_values(finished)[:10], rtol=1e-3)
    assert done.returncode == 1
    assert "multiple of 4" in done.stderr


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(finished, built, cli_process, tmp_path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        hosts = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free.getsockname()[1]}", "JAX_NUM_PROCESSES": "2"}
    command = ("train", built, *CROPS, "--out", tmp_path / "two", "--steps", "24", "--save-every", "24")
    with ThreadPoolExecutor(2) as pool:
        for done in pool.map(lambda number: cli_process(*command, **hosts, JAX_PROCESS_ID=str(number)), range(2)):
            assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(loss_values(tmp_path / "two")[:10], loss_values(finished)[:10], rtol=1e-3)
    assert (tmp_path / "two/checkpoints/24").is_dir()
    assert (tmp_path / "two/scores.csv").read_text().count("\n") == 2


def test_evaluate_and_compare_print_scores(finished, built, cli) -> None:
    done = cli("evaluate", built, finished, "--draws", "50", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    rows = pq.read_table(finished / "evaluation/validation/predictions.parquet").to_pylist()
    assert len(rows) == document["rows"] == 32
    accuracy = sum(row["truth"] == row["predicted"] for row in rows) / len(rows)
    assert document["scores"]["accuracy"]["value"] == pytest.approx(accuracy, abs=1e-12)
    assert {row["patient_id"] for row in rows} == {str(number) for number in range(100, 140, 5)}
    page = (finished / "evaluation/validation/index.html").read_text()
    assert page.count("data:image/png;base64,") == 4  # loss, scores over time, confusion matrix, worst cases
    table = cli("compare", finished)
    assert "paper: SE-ResNet" in table.stdout
    assert "0.555" in table.stdout
    assert max(map(len, table.stdout.splitlines())) <= 80


def test_compare_pairs_the_scores_of_the_same_examples(finished, built, cli, tmp_path) -> None:
    assert cli("evaluate", built, finished, "--draws", "20").returncode == 0
    same, other, subset = (tmp_path / name for name in ("same", "other", "subset"))
    for folder in (same, other, subset):
        shutil.copytree(finished, folder)
    path = "evaluation/validation/predictions.parquet"
    rows = pq.read_table(finished / path).to_pylist()
    changed = [row | {"predicted": row["truth"]} if row["patient_id"] < "120" else row for row in rows]
    pq.write_table(pa.Table.from_pylist(changed), other / path)
    pq.write_table(pa.Table.from_pylist(rows[1:]), subset / path)
    done = cli("compare", finished, same, subset, other, "--json")
    assert done.returncode == 0, done.stderr
    equal, unequal = json.loads(done.stdout)["differences"]
    assert (equal["first"], equal["second"]) == (finished.name, "same")
    assert all(score == {"value": 0, "low": 0, "high": 0} for score in equal["scores"].values())  # the same samples
    assert (unequal["first"], unequal["second"], unequal["rows"]) == (finished.name, "other", len(rows))
    accuracies = [np.mean([row["truth"] == row["predicted"] for row in table]) for table in (rows, changed)]
    score = unequal["scores"]["accuracy"]
    assert score["value"] == pytest.approx(accuracies[1] - accuracies[0], abs=1e-12)
    assert score["low"] < score["value"] < score["high"]
    shown = cli("compare", finished, other).stdout
    assert f"difference: other minus {finished.name}, validation" in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.slow
def test_leakage_trains_both_splits_and_prints_the_gap(finished, built, cli, tmp_path) -> None:
    out = tmp_path / "both"
    command = ("leakage", built, *CROPS, *NO_SCORES, "--out", out, "--steps", "2", "--draws", "20")
    done = cli(*command, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    published, patient = document["evaluations"]
    assert (published["split_by"], patient["split_by"]) == ("published", "patient")
    (gap,) = document["gaps"]
    for name, score in gap["scores"].items():
        difference = published["scores"][name]["value"] - patient["scores"][name]["value"]
        assert score["value"] == pytest.approx(difference, abs=1e-12)
        assert score["low"] <= score["high"]
    folds = {
        row["patient_id"]: row["fold"] for row in open_build(built).rows("cls_1.25mm", "train", ["patient_id", "fold"])
    }
    rows = pq.read_table(out / "patient/evaluation/validation/predictions.parquet").to_pylist()
    assert {folds[row["patient_id"]] for row in rows if row["patient_id"] in folds} == {3}
    shown = cli(*command).stdout
    assert "gap: published minus patient, validation" in shown
    assert (out / "patient/metrics.csv").read_text().count("\n") == 3
    assert max(map(len, shown.splitlines())) <= 80
    # runs that differ in more than the split have no gap
    cli("evaluate", built, finished, "--draws", "20")
    compared = cli("compare", finished, out / "patient").stdout
    assert "gap" not in compared
    assert "different builds" not in compared
    document = json.loads((out / "patient/run.json").read_text())
    (out / "patient/run.json").write_text(json.dumps(document | {"data": {}}))
    assert "read different builds" in cli("compare", finished, out / "patient").stdout
    refused = cli("leakage", built, "det3d_1.25mm", "--out", tmp_path / "none")
    assert "no rows in the split 'validation' (published)" in refused.stderr
    assert not (tmp_path / "none").exists()
    assert cli(*command, "--split-by", "patient").returncode == 2


SMALL = (
    *("--model.width", "8", "--model.blocks", "1", "1", "--batch-size", "8"),
    *("--optim.warmup", "5", "--optim.learning-rate", "5e-3"),
)
MM = "--input.spacing-mm"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "options", "has_learned"),
    [
        (
            "cls_1.25mm",
            ("--input.size", "32", "32", "--batch-size", "32", "--optim.learning-rate", "3e-3", "--steps", "120"),
            lambda scores: scores["accuracy"] > 2 / 6,
        ),
        ("det2d_1.25mm", ("--steps", "50"), lambda scores: scores["AP50"] > 0.3),
        (
            "det3d_1.25mm-anchors",
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
def test_every_task_learns(built, cli, tmp_path, recipe, options, has_learned) -> None:
    run = tmp_path / "run"
    done = cli("train", built, recipe, *SMALL, *options, *NO_SCORES, "--out", run)
    assert done.returncode == 0, done.stderr
    values = loss_values(run)
    assert np.mean(values[-10:]) < 0.8 * np.mean(values[:10])
    evaluated = cli("evaluate", built, run, "--draws", "20", "--json")
    assert evaluated.returncode == 0, evaluated.stderr
    assert has_learned({name: score["value"] for name, score in json.loads(evaluated.stdout)["scores"].items()})
    for name in ("loss.png", "worst.png"):
        assert (run / "evaluation/validation" / name).stat().st_size > 1000


@pytest.mark.slow
def test_a_check_fails_if_a_recipe_did_not_learn(cli, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(loop, "_PATIENTS", 20)
    options = ("--model.bf16", "True", "--optim.accumulate", "2")
    done = cli("train", "cls_1.25mm", "--check", "--out", tmp_path, "--steps", "2", *NO_SCORES, *TINY, *options)
    assert done.returncode == 1
    assert "cls_1.25mm did not learn on synthetic patients; expected accuracy of at least 0.8, got 0." in done.stderr
    assert (tmp_path / "evaluation/validation/index.html").is_file()
    assert cli("train", "cls_1.25mm", "--check", "--data", tmp_path).returncode == 2


def volume_prediction(side: float, **changes: object) -> dict[str, object]:
    """One nodule of 8 voxels, found with a box of another side."""
    box = [20 - side / 2] * 3 + [20 + side / 2] * 3
    row = {"id": "1-1", "boxes": [box], "scores": [0.9], "centers": [[20.0] * 3]}
    truth = {"truth_boxes": [[16.0] * 3 + [24.0] * 3], "truth_centers": [[20.0] * 3], "truth_diameters": [8.0]}
    return {**row, **truth, **changes}


def test_boxes_of_a_wrong_size_are_seen_although_froc_does_not_see_them() -> None:
    right, wrong = (detection.scorer([volume_prediction(side)])(np.arange(1)) for side in (8, 12.8))
    assert right["CPM"] == wrong["CPM"] == 1
    assert (right["hit_IoU"], wrong["hit_IoU"]) == (1, pytest.approx(1.6**-3))
    assert "IoU 0.24, 1.6 x the side" in pages._caption(volume_prediction(12.8))
    missed = detection.scorer([volume_prediction(8, centers=[[40.0] * 3])])(np.arange(1))
    assert np.isnan(missed["hit_IoU"])
    expected = EXPECTED_SCORES["det3d_1.25mm"]
    assert expected.minima.keys() == {"CPM", "hit_IoU"}


@pytest.mark.parametrize(
    ("changes", "index", "reasons"),
    [
        ({}, 20, []),
        ({}, 30, ["nodule at z 16 to 24, slice 30 shown", "best predicted box at z 16 to 24, slice 30 shown"]),
        ({"boxes": [], "scores": []}, 20, ["no box predicted"]),
        ({"truth_boxes": []}, 20, ["no nodule"]),
    ],
)
def test_a_panel_without_a_box_says_why(changes, index, reasons) -> None:
    assert pages.missing_boxes(volume_prediction(8, **changes), index) == reasons


@pytest.mark.parametrize("name", ["det2d_1.25mm", "det3d_1.25mm"])
def test_the_reason_is_written_on_the_panel(built, name) -> None:
    recipe = RECIPES[name]
    of_volumes = ("centers", "truth_centers", "truth_diameters") if name == "det3d_1.25mm" else ()
    nothing = {key: [] for key in ("boxes", "scores", "truth_boxes", *of_volumes)}
    source = open_data_source(open_build(built), recipe, "train")
    figure = pages.plot_worst_cases(source, [{"id": "1-1", "number": 0, **nothing}], recipe.input)
    assert [text.get_text() for text in figure.axes[0].texts] == ["no nodule\nno box predicted"]


# --- parts ------------------------------------------------------------------------------------------------------------

augment = jax.jit(preprocessing.augment)
resample = jax.jit(preprocessing.resample, static_argnums=2)


@given(st.integers(0, 2**31 - 1), st.sampled_from([(6, 6), (5, 8), (4, 6, 6), (3, 4, 7)]))
@settings(max_examples=30)
def test_augmentation_moves_boxes_with_their_voxels(seed, shape) -> None:
    random = np.random.default_rng(seed)
    low = np.array([random.integers(0, n) for n in shape])
    high = np.array([random.integers(a + 1, n + 1) for a, n in zip(low, shape, strict=True)])
    image = np.zeros(shape, np.float32)
    image[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = 1
    moved, boxes = augment(
        jax.random.key(seed), jnp.array(image), jnp.array(np.concatenate([low, high])[None], jnp.float32)
    )
    corners = np.asarray(boxes[0]).astype(int)
    expected = np.zeros(moved.shape, np.float32)
    expected[tuple(slice(a, b) for a, b in zip(corners[: len(shape)], corners[len(shape) :], strict=True))] = 1
    assert (np.asarray(moved) == expected).all()


def test_augmentation_draws_all_eight_flips_and_rotations() -> None:
    image, no_boxes = jnp.arange(9.0).reshape(3, 3), jnp.zeros((0, 4))
    drawn = {tuple(np.asarray(augment(jax.random.key(seed), image, no_boxes)[0]).ravel()) for seed in range(80)}
    assert len(drawn) == 8


def test_resampling_preserves_a_linear_ramp() -> None:
    z, y, x = np.meshgrid(*(np.arange(n) for n in (20, 24, 28)), indexing="ij")
    ramp = (3.0 * z + 2.0 * y - x).astype(np.float32)
    scale = jnp.array([1.0, 0.5, 0.75]) / jnp.array([0.8, 0.5, 0.6])
    out = np.asarray(resample(jnp.array(ramp), scale, (10, 12, 12)))
    steps = 1 / np.asarray(scale)
    for axis, slope in enumerate((3.0, 2.0, -1.0)):
        np.testing.assert_allclose(np.diff(out, axis=axis), slope * steps[axis], rtol=1e-4)
    assert out.mean() == pytest.approx(ramp.mean(), rel=1e-4)


@partial(jax.jit, static_argnums=0)
def result_and_gradients(convolve, x, kernel, gradient) -> tuple[jax.Array, ...]:
    result, pull_back = jax.vjp(convolve, x, kernel)
    return result, *pull_back(gradient)


def random_operands(seed: int, shape: tuple[int, ...], inputs: int, outputs: int) -> list[jax.Array]:
    """An image, a kernel of 3 pixels per axis, and a gradient of the result."""
    shapes = (*shape, inputs), (*(3,) * (len(shape) - 1), inputs, outputs), (*shape, outputs)
    keys = jax.random.split(jax.random.key(seed), 3)
    return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 4), (4, 3)])
@pytest.mark.parametrize(("name", "shape"), [("_convolution_3d", (2, 4, 5, 6)), ("_convolution_2d", (2, 5, 6))])
@given(seed=st.integers(0, 1000))
@settings(max_examples=3)
@pytest.mark.slow
def test_convolutions_for_cpu_and_their_gradients_equal_those_of_xla(name, shape, inputs, outputs, seed) -> None:
    operands = random_operands(seed, shape, inputs, outputs)
    results, expected = (
        result_and_gradients(convolve, *operands)
        for convolve in (getattr(convolution, name), convolution._xla_convolution)
    )
    for result, reference in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, reference, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "inputs", "outputs"),
    [
        ((2, 4, 8, 12), 32, 16),
        pytest.param((1, 5, 7, 6), 1, 3, marks=pytest.mark.slow),
        pytest.param((1, 1, 2, 3), 3, 1, marks=pytest.mark.slow),
        ((3, 9, 10), 3, 5),
    ],
)
def test_winograd_convolutions_and_their_gradients_equal_those_of_xla(shape, inputs, outputs) -> None:
    operands = random_operands(0, shape, inputs, outputs)
    results, expected = (
        result_and_gradients(convolve, *operands) for convolve in (convolution._winograd, convolution._xla_convolution)
    )
    for result, reference in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, reference, rtol=0, atol=3e-5 * float(jnp.sqrt(jnp.square(reference).mean())))


@pytest.mark.parametrize(
    ("shape", "size", "outputs", "bf16", "used"),
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
def test_winograd_is_used_where_it_is_faster(shape, size, outputs, bf16, used) -> None:
    options = ModelOptions("center", bf16=bf16, native_conv=False)
    layer = Conv(len(shape) - 2, shape[-1], outputs, size, options=options, rngs=nnx.Rngs(0))
    with mock.patch.object(convolution, "_winograd", wraps=convolution._winograd) as winograd:
        assert nnx.eval_shape(layer, jnp.ones(shape)).shape == (*shape[:-1], outputs)
    assert winograd.called is used


@pytest.mark.parametrize("format_", ["parquet", "arrow"])
def test_batches_are_a_function_of_the_step(dummy_build, format_) -> None:
    model = ModelOptions("center", width=4, blocks=(1,))
    options = InputOptions(size=(8, 16, 16), spacing_mm=(2.0, 4.0, 4.0))
    recipe = Recipe("det3d_1.25mm", "detection", model, options, steps=9, batch_size=3, split_by="patient")
    source = open_data_source(open_build(dummy_build(format_)), recipe, "train")
    first = list(host_batches(source, recipe))
    later = list(host_batches(source, recipe, 4))
    assert len(first) == 9
    for one, other in zip(first[4:], later, strict=True):
        assert all((one[name] == other[name]).all() for name in one)
    row, batch = source.rows.metadata[0], first[0]
    assert set(batch) == {"image", "spacing", "boxes", "valid", "index"}
    assert batch["image"].dtype == np.int16
    example = source.patch(0, np.zeros(3, np.int64))
    nodule, (low, high) = row["nodules"][0], np.array_split(example["boxes"][0], 2)
    extent = np.array(nodule["diameter_mm"]) / np.array(row["spacing"][::-1])
    if example["valid"][0]:
        np.testing.assert_allclose((low + high) / 2 - 0.5, nodule["center_voxel"][::-1], atol=1e-4)
        np.testing.assert_allclose(high - low, extent, rtol=1e-5)


def test_the_recipe_of_a_run_is_read_back(finished) -> None:
    recipe = open_run(finished).recipe
    assert (recipe.config, recipe.model.width, recipe.input.size) == ("cls_1.25mm", 4, (16, 16))
    assert EXPECTED_SCORES.keys() == RECIPES.keys()


# --- input that cannot be trained -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("unknown",), "no recipe is named 'unknown'"),
        (("det2d_1.25mm-retina",), "It is called det2d_1.25mm-anchors now"),
        (("det3d_5mm",), "has no det3d_5mm"),
        (("cls_1.25mm", "--device", "tpu"), "no tpu is available; expected tpu, got"),
        (("cls_1.25mm", "--batch-size", "8", "--optim.accumulate", "3"), "equal parts"),
        (("cls_1.25mm", "--input.size", "8", "8", "8"), "expected y, x"),
        (("cls_1.25mm", "--config", "det2d_1.25mm"), "expected a config of kind crop, got kind slice"),
        (("det2d_1.25mm", "--input.size", "32", "32"), "does not fit input.size"),
        (("det2d_1.25mm", "--input.size", "32"), "slices need an input.size of two axes"),
        (("det2d_1.25mm", "--input.size", "32", "32", "32"), "slices need an input.size of two axes"),
        (("det3d_1.25mm", "--input.size", "32", "32"), "patches need an input.size of three axes"),
        (("longitudinal", "--input.spacing-mm", "None"), "need input.spacing_mm"),
        (("cls_1.25mm", "--steps", "0"), "steps must be above 0"),
    ],
)
def test_the_error_states_what_cannot_be_trained(built, cli, tmp_path, arguments, message) -> None:
    done = cli("train", built, *arguments, "--out", tmp_path / "run")
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_config_of_an_unknown_kind_is_refused(built) -> None:
    framed = {name for name, config in CONFIGS.items() if config.schema.has_frame}
    assert framed == {"det3d_1.25mm", "det3d_5mm", "longitudinal"}
    build, recipe = open_build(built), RECIPES["det2d_1.25mm"]
    manifest = json.loads(json.dumps(build.manifest))
    manifest["configs"][recipe.config]["kind"] = "other"
    with pytest.raises(
        TrainingError, match=r"detection cannot be trained on det2d_1.25mm; expected .* slice or .*, got kind other"
    ):
        open_data_source(replace(build, manifest=manifest), recipe, "train")
    stage = replace(RECIPES["det3d_1.25mm-candidates"], config=recipe.config)
    with pytest.raises(TrainingError, match=r"candidates cannot be trained on .* scan or stack, got kind slice"):
        open_data_source(build, stage, "train")


# --- tracks -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def with_decoys(built, tmp_path) -> Path:
    """The build with a larger nodule in the first scan of each patient, and with tracks of the other ones."""
    shutil.copytree(built, tmp_path / "build")

    def change(rows) -> None:
        for row in rows:
            (nodule,) = row["nodules"]
            track = {"track_id": f"{row['patient_id']}-t1", "track_pathology": 5}
            decoy = nodule | {
                "diameter_mm": 40.0,
                "track_reason": "no scan of another date has an annotation at its place",
            }
            row["nodules"] = [nodule | track] if row["timepoint"] else [decoy, nodule | track]

    return alter(tmp_path / "build", "longitudinal", change)


def sequences(folder: Path, follow: str):
    recipe = RECIPES["longitudinal" if follow == "tracks" else "longitudinal-largest"]
    assert recipe.input.follow == follow
    return open_data_source(open_build(folder), recipe, "train")


def test_sequences_follow_tracks_and_their_twin_the_largest_nodule(built, with_decoys) -> None:
    plain, tracks, largest = (
        sequences(built, "tracks"),
        sequences(with_decoys, "tracks"),
        sequences(with_decoys, "largest"),
    )
    assert len(plain) == len(tracks) == len(largest) > 4
    assert {name.split(" at ")[0] for name in tracks.ids} == {f"{patient}-t1" for patient in plain.patients}
    assert largest.ids == plain.ids
    assert tracks.patients == plain.patients
    for index in range(len(plain)):
        sizes = [[nodule.diameter_mm for nodule in source.nodules(index)] for source in (plain, tracks, largest)]
        assert sizes[0] == sizes[1]
        assert sizes[2] == [40.0, *sizes[0][1:]]
        examples = [source.load(index, np.random.default_rng(0)) for source in (plain, tracks, largest)]
        for name in ("image", "change", "years", "present"):
            assert np.array_equal(examples[0][name], examples[1][name])
        assert examples[2]["change"] != examples[1]["change"]


def test_the_class_of_a_track_is_that_of_any_of_its_scans(built, with_decoys) -> None:
    def only_the_track_knows(rows) -> None:
        for row in rows:
            row["nodules"] = [nodule | {"pathology": None} for nodule in row["nodules"]]

    folder = alter(with_decoys, "longitudinal", only_the_track_knows)
    by_source = [
        {int(source.load(index, np.random.default_rng(0))["malignant"]) for index in range(len(source))}
        for source in (sequences(folder, "tracks"), sequences(folder, "largest"))
    ]
    assert by_source == [{0}, {-1}]  # class 5 is benign


def test_a_patient_without_a_track_has_its_latest_scan(with_decoys) -> None:
    def lose(rows) -> None:
        for row in rows:
            reason = {
                "track_id": None,
                "track_reason": "the scans are unregistered: no lungs were found in the fixed scan",
            }
            row["nodules"] = [nodule | reason for nodule in row["nodules"]]

    source = sequences(alter(with_decoys, "longitudinal", lose), "tracks")
    patients = sequences(with_decoys, "largest")
    assert source.ids == patients.ids
    for index in range(len(source)):
        assert [nodule.diameter_mm for nodule in source.nodules(index)] == [patients.nodules(index)[-1].diameter_mm]
        assert not source.load(index, np.random.default_rng(0))["changed"]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a file system that is full")
def test_the_free_space_for_the_arrow_copy_is_checked_before_it_is_made(built, cli, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LUNG_NODULE_CT_CACHE", "/proc/cache")
    done = cli("train", built, *CROPS, "--out", tmp_path / "run")
    assert done.returncode == 1
    assert "there is not enough free space for the Arrow copy of cls_1.25mm in /proc/cache/training" in done.stderr


@pytest.mark.slow
def test_an_interrupt_that_a_callback_drops_stops_the_training(built, python, tmp_path) -> None:
    """As Python drops an exception in a callback of garbage collection, which JAX has."""
    command = ["train", str(built), *CROPS, *NO_SCORES, "--out", str(tmp_path / "run"), "--steps", "40"]
    done = python(
        "import signal, sys\n"
        "from contextlib import suppress\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # the tests may run in the background
        "from lung_nodule_ct.cli import main\n"
        "from lung_nodule_ct.train.training_log import TrainingLog\n"
        "add = TrainingLog.add\n"
        "def add_and_drop(self, step, *values):\n"
        "    add(self, step, *values)\n"
        "    if step == 3:\n"
        "        with suppress(KeyboardInterrupt):\n"
        "            signal.raise_signal(signal.SIGINT)\n"
        "TrainingLog.add = add_and_drop\n"
        f"sys.argv[1:] = {command!r}\n"
        "main()",
        cwd=tmp_path,
    )
    assert done.returncode == 130, done.stderr
    assert len(losses(tmp_path / "run")) < 6


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_with_its_step_and_examples(built, cli, tmp_path) -> None:
    run = tmp_path / "run"
    done = cli("train", built, *CROPS, "--optim.learning-rate", "1e30", "--out", run, "--steps", "20")
    assert done.returncode == 1
    assert "the loss at step" in done.stderr
    assert "examples" in done.stderr


@pytest.mark.slow
def test_checkpoints_of_another_model_and_runs_of_another_version_are_refused(
    finished, built, cli, cli_process, tmp_path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    document = json.loads((run / "run.json").read_text())
    document["recipe"]["model"]["width"] = 8
    (run / "run.json").write_text(json.dumps(document))
    # in a separate process, because Orbax leaves coroutines that cause warnings later
    done = cli_process("evaluate", built, run)
    assert done.returncode == 1
    assert "of another model" in done.stderr
    (run / "run.json").write_text(json.dumps(document | {"format_version": 99}))
    done = cli("evaluate", built, run)
    assert "of another version" in done.stderr
    assert "holds no run" in cli("evaluate", built, tmp_path).stderr
    message = cli("evaluate", built, tmp_path / "nothing").stderr
    assert f"there is no folder {tmp_path / 'nothing'}" in message
    assert "Errno" not in message
    assert "holds no evaluation" in cli("compare", tmp_path).stderr
