"""Options of recipes: what is drawn, mixed, weighted and smoothed, which weights are evaluated, and on which devices."""

from __future__ import annotations

import csv
import json
import shutil
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

jax = pytest.importorskip("jax")
for needed in ("flax", "grain", "optax", "orbax.checkpoint", "tensorboardX", "tyro", "matplotlib"):
    pytest.importorskip(needed)
import jax.numpy as jnp  # noqa: E402

from lung_nodule_ct.read.build_folder import open_build  # noqa: E402
from lung_nodule_ct.testing.synthetic_archives import write_synthetic_archives  # noqa: E402
from lung_nodule_ct.train.batches import evaluation_batches, host_batches, load_ahead, open_data_source  # noqa: E402
from lung_nodule_ct.train.layers import compute_dtype  # noqa: E402
from lung_nodule_ct.train.preprocessing import preprocess  # noqa: E402
from lung_nodule_ct.train.recipes import (  # noqa: E402
    RECIPES,
    InputOptions,
    LossOptions,
    ModelOptions,
    Recipe,
)
from lung_nodule_ct.train.tasks import classification  # noqa: E402

pytestmark = pytest.mark.train

CROPS = replace(RECIPES["cls_1.25mm"], input=InputOptions(size=(16, 16)), batch_size=8, steps=40)
TINY = ("--model.width", "4", "--model.blocks", "1", "--input.size", "16", "16", "--batch-size", "8")


@pytest.fixture(scope="module")
def built(cli, tmp_path_factory) -> Path:
    """A build of synthetic crops."""
    folder = tmp_path_factory.mktemp("lesions")
    source = write_synthetic_archives(folder / "source", 20)
    done = cli("build", "cls_1.25mm", "--source", source, "--out", folder / "build")
    assert done.returncode == 0, done.stderr
    return folder / "build"


class Patients:
    """Examples that are only their index: ten of patient a, one of b, and two of unknown patients."""

    patients = ("a",) * 10 + ("b", None, None)
    ids = patients

    def __len__(self) -> int:
        return len(self.patients)

    def load(self, index: int, random: np.random.Generator) -> dict[str, np.ndarray]:
        return {"drawn": np.array([index, random.integers(1 << 30)])}


def drawn(recipe: Recipe, start: int = 0) -> np.ndarray:
    return np.concatenate([batch["drawn"] for batch in host_batches(Patients(), recipe, start)])


def test_patients_are_drawn_alike_and_the_order_depends_on_the_step_alone() -> None:
    recipe = replace(CROPS, steps=400, input=replace(CROPS.input, sample="patients"))
    order = drawn(recipe)
    assert len(order) == 3200
    counts = Counter(order[:, 0].tolist())
    of_patients = [sum(counts[index] for index in range(10)), counts[10], counts[11], counts[12]]
    assert all(abs(count - 800) < 120 for count in of_patients)  # 5 standard deviations
    assert min(counts[index] for index in range(10)) > 40
    assert (drawn(recipe, 399) == order[-8:]).all()
    assert (drawn(replace(recipe, threads=5)) == order).all()
    assert (drawn(replace(recipe, seed=1)) != order).any()
    by_example = Counter(drawn(replace(CROPS, steps=13))[:, 0].tolist())
    assert set(by_example.values()) == {8}  # 13 steps of 8 are 8 epochs of 13 examples


def test_batches_are_loaded_ahead_in_order() -> None:
    begun: list[int] = []

    def load(item: int) -> int:
        begun.append(item)
        return -item

    loaded = load_ahead(load, range(20), 3)
    assert next(loaded) == 0
    for item in range(1, 20):
        deadline = time.monotonic() + 30
        while len(begun) < min(item + 3, 20) and time.monotonic() < deadline:
            time.sleep(0.001)  # three are loaded or being loaded, although none is asked for
        assert len(begun) >= min(item + 3, 20)
        assert next(loaded) == -item
    assert list(loaded) == []
    assert sorted(begun) == list(range(20))


def test_the_next_batches_of_an_evaluation_are_loaded_while_one_is_used() -> None:
    class Counted(Patients):
        def load(self, index: int, random: np.random.Generator) -> dict[str, np.ndarray]:
            begun.add(index)
            return super().load(index, random)

    begun: set[int] = set()
    batches = evaluation_batches(Counted(), replace(CROPS, batch_size=4, threads=2))
    taken = [next(batches)]
    deadline = time.monotonic() + 30
    while len(begun) < 12 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert begun == set(range(12))  # the first batch, and one more for each thread
    taken += batches
    assert [list(indices) for indices, _ in taken] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12]]
    assert [batch["drawn"][:, 0].tolist() for _, batch in taken] == [*map(list, np.arange(12).reshape(3, 4)), [12] * 4]


def test_class_weights_are_those_of_the_option(built) -> None:
    build = open_build(built)
    for kind, weight in (
        ("inverse", lambda count: 1 / count),
        ("effective", lambda count: (1 - 0.999) / (1 - 0.999**count)),
        ("none", lambda count: 1.0),
    ):
        source = open_data_source(build, replace(CROPS, loss=LossOptions(class_weights=kind)), "train")
        examples = [source.load(index, np.random.default_rng(0)) for index in range(len(source))]
        counts = Counter(int(example["label"]) for example in examples)
        expected = np.array([weight(counts[int(example["label"])]) for example in examples])
        np.testing.assert_allclose(
            [example["weight"] for example in examples], expected / expected.mean(), rtol=1e-5, err_msg=kind
        )


class Fixed:
    """A network that returns the same logits for any image."""

    def __init__(self, logits: np.ndarray) -> None:
        self.logits = jnp.asarray(logits)

    def __call__(self, _image: Any) -> Any:
        return self.logits


def test_mixed_crops_have_the_loss_of_both_labels() -> None:
    random = np.random.default_rng(0)
    batch = {
        "image": random.integers(0, 255, (8, 16, 16), np.uint8),
        "label": np.arange(8, dtype=np.int32) % 6,
        "weight": random.uniform(0.5, 2, 8).astype(np.float32),
    }
    options = replace(CROPS.input, mixup=0.4, augment=False)
    mixed = jax.tree.map(np.asarray, preprocess(batch, options, jax.random.key(3)))
    share = mixed["share"]
    assert ((share > 0) & (share < 1)).all()
    assert len(set(share.tolist())) == 8
    plain = batch["image"] / np.float32(255)
    expected = share[:, None, None] * plain + (1 - share)[:, None, None] * plain[np.arange(8) - 1]
    np.testing.assert_allclose(mixed["image"][..., 0], expected, atol=1e-6)
    assert "share" not in preprocess(batch, options)  # in evaluation

    logits = random.normal(size=(8, 6)).astype(np.float32)
    smoothing = 0.1
    recipe = replace(CROPS, input=options, loss=LossOptions(label_smoothing=smoothing))
    total, _ = classification.loss(Fixed(logits), mixed, recipe, {"examples": 8.0})
    logarithms = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    targets = (1 - smoothing) * np.eye(6)[batch["label"]] + smoothing / 6
    targets = targets * batch["weight"][:, None]
    both = share[:, None] * targets + (1 - share)[:, None] * targets[np.arange(8) - 1]
    assert float(total) == pytest.approx(-(both * logarithms).sum() / 8, rel=1e-5)


def test_accelerators_compute_in_bfloat16_by_default(monkeypatch) -> None:
    dtypes = []
    for backend in ("cpu", "gpu", "tpu"):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        dtypes.append([compute_dtype(ModelOptions("classes", bf16=bf16)) for bf16 in (None, True, False)])
    half, full = jnp.bfloat16, jnp.float32
    assert dtypes == [[full, half, full], [half, half, full], [half, half, full]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cls_1.25mm", "--input.mixup", "-1"), "input.mixup is not a parameter"),
        (("cls_1.25mm", "--loss.label-smoothing", "1"), "loss.label_smoothing is not a share"),
        (("det3d_1.25mm", "--input.mixup", "0.2"), "input.mixup has no effect on the task detection of volumes"),
        (("det2d_1.25mm", "--inference.overlap", "0.5"), "inference.overlap has no effect on the task detection of"),
        (("cls_1.25mm", "--augment.zoom", "0.7", "1.4"), "augment.zoom has no effect on the task classification"),
        (("cls_1.25mm", "--input.spacing-mm", "1", "1", "1"), "input.spacing_mm has no effect on the task"),
        (("det2d_1.25mm", "--input.window", "0", "100"), "input.window has no effect on the task detection of slices"),
        (("cls_1.25mm", "--input.positives", "0.5"), "input.positives has no effect on the task classification"),
        (("longitudinal", "--input.boxes", "9"), "input.boxes has no effect on the task longitudinal"),
        (("det3d_1.25mm", "--input.follow", "largest"), "input.follow has no effect on the task detection of volumes"),
        (("det3d_1.25mm", "--input.scans", "2"), "input.scans has no effect"),
        (("det3d_1.25mm", "--model.last-only"), "model.last_only has no effect"),
        (("det2d_1.25mm", "--model.ordinal"), "model.ordinal has no effect"),
        (("cls_1.25mm-squeeze", "--model.bottleneck"), "model.squeeze has no effect on model.bottleneck"),
        (("cls_1.25mm", "--model.tower", "2"), "model.tower has no effect"),
        (
            ("cls_1.25mm", "--model.head", "anchors"),
            "model.head does not fit the task classification; expected classes",
        ),
        (("det2d_1.25mm", "--model.head", "classes"), "does not fit the task detection of slices"),
        (
            ("det2d_1.25mm", "--model", "ssd", "--model.head", "center"),
            "does not fit the network ssd; expected anchors",
        ),
        (("cls_1.25mm", "--model", "resnet50", "--model.head", "anchors"), "does not fit the network resnet50"),
        (("det3d_1.25mm", "--input.spacing-mm", "0", "1", "1"), "spacing_mm[0] must be above 0"),
        (("det3d_1.25mm", "--augment.noise", "nan"), "augment.noise must be 0 or more"),
        (("det3d_1.25mm", "--augment.zoom", "1", "inf"), "augment.zoom is not a range of factors"),
        (("cls_1.25mm", "--optim.warmup", "-5"), "warmup must be 0 or more"),
        (("cls_1.25mm", "--optim.weight-decay", "nan"), "weight_decay must be 0 or more"),
        (("cls_1.25mm", "--optim.learning-rate", "inf"), "learning_rate must be above 0"),
        (("cls_1.25mm", "--seed", "-1"), "seed must be 0 or more"),
        (("cls_1.25mm-ordinal", "--loss.label-smoothing", "0.1"), "no effect on a chain of thresholds"),
        (("cls_1.25mm", "--select", "best", "--watch", "0"), "expected --watch above 0"),
        (("cls_1.25mm", "--threads", "0"), "threads must be above 0"),
        (("cls_1.25mm", "--optim.swa-rate", "0.1"), "optim.swa_rate has no effect; expected optim.swa between 0 and 1"),
        (("cls_1.25mm", "--optim.swa", "0.2", "--optim.swa-rate", "2"), "optim.swa_rate is not a fraction"),
    ],
)
def test_options_without_an_effect_are_refused(cli, tmp_path, arguments, message) -> None:
    done = cli("train", tmp_path / "no-build", *arguments, "--out", tmp_path / "run")
    assert done.returncode == 2, done.stderr
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_best_weights_are_kept_and_evaluated(built, cli, tmp_path) -> None:
    run = tmp_path / "run"
    options = (
        "--select",
        "best",
        "--input.mixup",
        "0.2",
        "--loss.label-smoothing",
        "0.1",
        "--input.sample",
        "patients",
    )
    command = ("train", built, "cls_1.25mm", *TINY, "--steps", "48", "--save-every", "4", "--out", run, *options)
    done = cli(*command, "--optim.learning-rate", "3e-2", "--optim.warmup", "2", "--optim.ema", "0")
    assert done.returncode == 0, done.stderr
    with (run / "scores.csv").open(newline="") as file:
        accuracy = {int(row["steps"]): float(row["accuracy"]) for row in csv.DictReader(file)}
    best = max(accuracy, key=lambda steps: (accuracy[steps], -steps))
    assert best < 48, "the last checkpoint is the best, so that this test says nothing"
    document = json.loads(cli("evaluate", built, run, "--draws", "10", "--json").stdout)
    assert (document["steps"], document["trained_steps"], document["select"]) == (best, 48, "best")
    assert document["scores"]["accuracy"]["value"] == pytest.approx(accuracy[best], abs=1e-12)
    assert "the best checkpoint on validation examples" in (run / "evaluation/validation/index.html").read_text()
    assert max(int(path.name) for path in (run / "best").iterdir() if path.name.isdigit()) == best
    # a run that was stopped before the best ends with the same weights
    before = (run / "scores.csv").read_bytes()
    for folder in ("checkpoints", "best"):
        for path in (run / folder).iterdir():
            if path.name.isdigit() and int(path.name) > 44:
                shutil.rmtree(path)
    done = cli(*command, "--optim.learning-rate", "3e-2", "--optim.warmup", "2", "--optim.ema", "0")
    assert done.returncode == 0, done.stderr
    assert (run / "scores.csv").read_bytes() == before
    again = json.loads(cli("evaluate", built, run, "--draws", "10", "--json").stdout)
    assert again == document


@pytest.mark.slow
def test_all_devices_evaluate_batches_of_any_size(built, cli, python, tmp_path) -> None:
    run = tmp_path / "run"
    done = cli("train", built, "cls_1.25mm", *TINY[:-1], "6", "--steps", "4", "--watch", "0", "--out", run)
    assert done.returncode == 0, done.stderr
    assert cli("evaluate", built, run, "--draws", "5").returncode == 0
    predictions = run / "evaluation/validation/predictions.parquet"
    of_one = pq.read_table(predictions).to_pylist()
    command = ["evaluate", str(built), str(run), "--draws", "5"]
    done = python(
        "import jax, sys\n"
        "put, used = jax.device_put, set()\n"
        "def device_put(values, to):\n"
        "    result = put(values, to)\n"
        "    used.update((len(x.sharding.device_set), x.sharding.is_fully_replicated) for x in jax.tree.leaves(result))\n"
        "    return result\n"
        "jax.device_put = device_put\n"
        f"sys.argv[1:] = {command!r}\n"
        "from lung_nodule_ct.cli import app\n"
        f"app({command!r}, standalone_mode=False)\n"
        "print('devices', sorted(used))",
        cwd=tmp_path,
        devices=4,
    )
    used = done.stdout.splitlines()[-1]
    assert "(4, False), (4, True)" in used, done.stderr  # batches are divided, weights are copied
    assert "(1, False)" not in used
    of_four = pq.read_table(predictions).to_pylist()
    assert [row["id"] for row in of_four] == [row["id"] for row in of_one]
    both = ([row["probabilities"] for row in rows] for rows in (of_four, of_one))
    np.testing.assert_allclose(*both, atol=1e-5)
