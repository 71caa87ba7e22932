"""The hard benchmark: its scans, the detector that learns nothing, real CT with one patient left out, and what is printed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("jax")
for needed in ("flax", "grain", "optax", "orbax.checkpoint", "tensorboardX", "tyro", "matplotlib"):
    pytest.importorskip(needed)

from lung_nodule_ct.declaration.configs import get_config  # noqa: E402
from lung_nodule_ct.declaration.identity import fold_of  # noqa: E402
from lung_nodule_ct.declaration.labels import SPLIT_OF_FOLD, VALIDATION, SplitBy  # noqa: E402
from lung_nodule_ct.declaration.manifest import Format  # noqa: E402
from lung_nodule_ct.errors import TrainingError  # noqa: E402
from lung_nodule_ct.geometry.frame import Frame  # noqa: E402
from lung_nodule_ct.read.build_folder import BuildFolder, open_build  # noqa: E402
from lung_nodule_ct.sources.resolve import open_folder  # noqa: E402
from lung_nodule_ct.targets.build import build_folder  # noqa: E402
from lung_nodule_ct.targets.options import BuildOptions  # noqa: E402
from lung_nodule_ct.testing.hard_archives import (  # noqa: E402
    ScanWithNodules,
    make_hard_scan,
    write_hard_archives,
    write_scans,
)
from lung_nodule_ct.testing.inserted_nodules import InsertedNodule, insert_nodule  # noqa: E402
from lung_nodule_ct.testing.phantoms import Phantom  # noqa: E402
from lung_nodule_ct.testing.synthetic_archives import write_synthetic_archives  # noqa: E402
from lung_nodule_ct.train import hard_benchmark, metrics  # noqa: E402
from lung_nodule_ct.train.batches import open_data_source  # noqa: E402
from lung_nodule_ct.train.expected_scores import EXPECTED_HARD_SCORES, EXPECTED_SCORES, ExpectedScore  # noqa: E402
from lung_nodule_ct.train.hard_benchmark import HardBenchmark, benchmark_statement  # noqa: E402
from lung_nodule_ct.train.recipes import RECIPES  # noqa: E402
from lung_nodule_ct.train.tasks import get_task  # noqa: E402
from lung_nodule_ct.train.threshold_detector import dense_components, predict_by_threshold  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

    from lung_nodule_ct.train.data.volumes import VolumeSource

pytestmark = pytest.mark.train

GATE = 0.45
THRESHOLDS = (-500.0, -300.0, -100.0)
CONFIG = "det3d_1.25mm"
TINY = ("--model.width", "4", "--model.blocks", "1", "--optim.warmup", "1", "--steps", "2", "--watch", "0")


def built(source: Path, folder: Path) -> BuildFolder:
    build_folder([get_config(CONFIG)], open_folder(source), folder, BuildOptions(format=Format.ARROW))
    return open_build(folder)


def threshold_cpm(build: BuildFolder, threshold_hu: float) -> float:
    recipe = replace(RECIPES[CONFIG], split_by=SplitBy.PATIENT)
    source = open_data_source(build, recipe, VALIDATION)
    predictions = list(predict_by_threshold(source, threshold_hu))
    return get_task(recipe).scorer(predictions)(np.arange(len(predictions)))["CPM"]


def open_splits(build: BuildFolder) -> dict[str, VolumeSource]:
    recipe = replace(RECIPES[CONFIG], split_by=SplitBy.PATIENT)
    return {split: open_data_source(build, recipe, split) for split in ("train", "validation")}


# --- the detector that learns nothing ---------------------------------------------------------------------------------


def test_it_finds_a_ball_and_ranks_it_above_a_tube() -> None:
    volume = np.full((24, 40, 40), -850, np.int16)
    z, y, x = np.indices(volume.shape)
    volume[(z - 12) ** 2 + (y - 10) ** 2 + (x - 10) ** 2 <= 25] = 30
    volume[np.abs(y - x * 0.5 - 18) + np.abs(z - 12) <= 2] = 30
    boxes, scores = dense_components(volume, np.ones(3), None, -300.0)
    assert len(boxes) == 2
    assert scores[0] > 1.5 * scores[1]
    np.testing.assert_allclose((boxes[0, :3] + boxes[0, 3:]) / 2, [12.5, 10.5, 10.5], atol=0.2)
    in_mask = dense_components(volume, np.ones(3), (x > 20).astype(np.int16), -300.0)[0]
    assert len(in_mask) == 1
    assert dense_components(np.full((4, 4, 4), -850, np.int16), np.ones(3), None, -300.0)[0].shape == (0, 6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_fails_on_the_scans_of_the_hard_benchmark(tmp_path, seed) -> None:
    source = write_hard_archives(tmp_path / "source", train=1, validation=hard_benchmark._VALIDATION, seed=seed)
    build = built(source, tmp_path / "build")
    scores = {threshold: threshold_cpm(build, threshold) for threshold in THRESHOLDS}
    assert max(scores.values()) <= GATE, scores
    assert max(scores.values()) > 0.15, scores  # so that the gate means something


@pytest.mark.slow
def test_it_fails_on_the_volumes_of_the_easy_check(tmp_path) -> None:
    vessels = EXPECTED_SCORES[CONFIG].vessels
    build = built(write_synthetic_archives(tmp_path / "source", 100, vessels=vessels), tmp_path / "build")
    scores = {threshold: threshold_cpm(build, threshold) for threshold in THRESHOLDS}
    assert max(scores.values()) <= GATE, scores
    assert max(scores.values()) > 0.15, scores


@pytest.mark.slow
def test_its_score_rises_with_size_and_contrast() -> None:
    def cpm(**options: float) -> float:
        found = []
        for number in range(24):
            made = make_hard_scan(np.random.default_rng([7, number]), **options)
            spacing = np.array(made.scan.frame.spacing[::-1])
            boxes, scores = dense_components(made.scan.volume, spacing, made.scan.lung_mask, -300.0)
            centers = ((boxes[:, :3] + boxes[:, 3:]) / 2 - 0.5) * spacing
            truth = np.array([nodule.center for nodule in made.nodules]).reshape(-1, 3) * spacing
            found.append(metrics.match_centers(centers, scores, truth, [n.diameter_mm for n in made.nodules]))
        return metrics.froc(found).cpm

    small, middle, large = (cpm(diameter_mm=diameter) for diameter in (5.0, 10.0, 18.0))
    assert small < middle < large
    assert cpm(contrast=0.5) < cpm(contrast=0.75) < cpm(contrast=1.0)


# --- scans ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["solid", "ground-glass", "part-solid"])
def test_a_nodule_changes_only_its_surroundings_and_never_a_denser_wall(kind) -> None:
    lung = np.full((40, 40, 40), -850, np.int16)
    lung[:, :, 24:] = 300
    nodule = InsertedNodule((20.0, 20.0, 20.0), 10.0, kind)
    changed = insert_nodule(lung, (1.0, 1.0, 1.0), nodule, np.random.default_rng(0)).astype(int)
    distance = np.linalg.norm(np.indices(lung.shape).reshape(3, -1).T - 20, axis=1).reshape(lung.shape)
    assert (changed[distance > 12] == lung[distance > 12]).all()
    assert changed[20, 20, 20] > -800
    assert abs(changed[:, :, 26:] - 300).max() < 120  # texture of the nodule, and nothing else
    volume_mm3 = (changed[..., :24] > -800).sum()
    assert 0.3 < volume_mm3 / (np.pi / 6 * 10**3) < 1.8
    assert (lung[:, :, :24] == -850).all(), "the argument was changed"


def test_the_same_seed_gives_the_same_hard_archives(tmp_path) -> None:
    one, other, third = (
        write_hard_archives(tmp_path / str(n), train=2, validation=1, seed=seed) for n, seed in enumerate((3, 3, 4))
    )
    written = {path.name: path.read_bytes() for path in one.iterdir()}
    assert written == {path.name: path.read_bytes() for path in other.iterdir()}
    assert written != {path.name: path.read_bytes() for path in third.iterdir()}
    sources = open_splits(built(one, tmp_path / "build"))
    assert len(sources["train"]) == 2
    more = open_splits(
        built(write_hard_archives(tmp_path / "more", train=3, validation=1, seed=3), tmp_path / "larger")
    )
    assert len(more["train"]) == 3
    same = (more["validation"].volume(0), sources["validation"].volume(0))
    np.testing.assert_array_equal(*same)  # the number of scans for training does not change those for validation


# --- real CT ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ct(tmp_path_factory) -> BuildFolder:
    """Three patients, whose lungs are -800, -810 and -820 HU, with an annotated nodule in the first slices."""

    def scan(patient: int) -> ScanWithNodules:
        volume = np.full((40, 48, 48), -800 - 10 * patient, np.int16)
        mask = np.full(volume.shape, 3, np.int16)
        scan = Phantom(volume, mask, Frame((-10.0, 5.0, 7.0), (1.0, 1.0, 1.25)))
        return ScanWithNodules(scan, (InsertedNodule((5.0, 24.0, 24.0), 8.0),))

    folder = tmp_path_factory.mktemp("ct")
    return built(write_scans(folder / "in", ((str(n), scan(n)) for n in range(3))), folder / "build")


def crops(benchmark: HardBenchmark) -> dict[str, ScanWithNodules]:
    return dict(benchmark._crops())


def test_the_patient_who_is_left_out_is_for_validation_only(ct, monkeypatch) -> None:
    monkeypatch.setattr(hard_benchmark, "_CROP", (16, 24, 24))
    monkeypatch.setattr(hard_benchmark, "_CT_TRAIN", 8)
    monkeypatch.setattr(hard_benchmark, "_CT_VALIDATION", 3)
    made = crops(HardBenchmark(1, ct))
    assert HardBenchmark(1, ct).left_out == "1"
    assert HardBenchmark(5, ct).left_out == "2"
    validation = {name for name in made if SPLIT_OF_FOLD[fold_of(name)] == VALIDATION}
    assert len(validation) == 3
    assert len(made) == 11
    for name, crop in made.items():
        of_patient = (-800 - int(np.median(crop.scan.volume))) // 10
        assert (of_patient == 1) is (name in validation)
        low = (crop.scan.frame.origin[2] - 7.0) / 1.25
        assert low > 5 + 8 / 2 / 1.25, "the crop has a part of the annotated nodule"
    again = crops(HardBenchmark(1, ct))
    assert all((made[name].scan.volume == again[name].scan.volume).all() for name in made)


def test_ct_that_cannot_be_used_is_an_error(ct, tmp_path) -> None:
    with pytest.raises(TrainingError, match="no patient 'x' with a lung mask") as raised:
        HardBenchmark(0, ct, "x")
    assert raised.value.expected == "one of 0, 1, 2"
    with pytest.raises(TrainingError, match="phantoms have no patient"):
        HardBenchmark(0, None, "1")
    with pytest.raises(TrainingError, match="no part of the CT"):
        crops(HardBenchmark(0, ct))  # every crop of this size has the annotated nodule
    one = built(write_hard_archives(tmp_path / "in", train=1, validation=0), tmp_path / "one")
    with pytest.raises(TrainingError, match="too few patients"):
        HardBenchmark(0, one)


def test_the_statement_names_the_domain_and_that_it_is_no_cpm(ct) -> None:
    for benchmark, domain in ((HardBenchmark(2), "phantoms"), (HardBenchmark(2, ct), "real CT")):
        text = benchmark_statement(benchmark.domain())
        assert domain in text
        assert "it is not the CPM of real nodules" in text
        assert "seed 2" in text
    assert "patient 2 left out" in text


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_score_is_printed_with_its_domain_and_the_detector_that_learns_nothing(cli, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(hard_benchmark, "_TRAIN", 3)
    monkeypatch.setattr(hard_benchmark, "_VALIDATION", 2)
    options = EXPECTED_HARD_SCORES[CONFIG].options
    monkeypatch.setitem(EXPECTED_HARD_SCORES, CONFIG, ExpectedScore(options, "CPM", None))
    run = tmp_path / "run"
    done = cli("train", CONFIG, "--check", "hard", "--out", run, *TINY, "--input.size", "16", "16", "16")
    assert done.returncode == 0, done.stderr
    again = cli("evaluate", run / "synthetic", run, "--draws", "20")
    document = json.loads((run / "evaluation/validation/scores.json").read_text())
    page = (run / "evaluation/validation/index.html").read_text()
    for text in (" ".join(done.stdout.split()), " ".join(again.stdout.split()), page):
        assert "Domain: nodules inserted into phantoms of lung, seed 0." in text
        assert "not the CPM of real nodules" in text
        assert "learns nothing" in text
    assert set(document["learning_free"]) == set(document["scores"])


@pytest.mark.slow
def test_the_minimum_is_that_of_phantoms_not_of_ct(ct, cli, tmp_path, monkeypatch) -> None:
    for name, value in (("_CROP", (24, 32, 32)), ("_CT_TRAIN", 6), ("_CT_VALIDATION", 6)):
        monkeypatch.setattr(hard_benchmark, name, value)
    out, size = tmp_path / "run", ("--input.size", "16", "16", "16")
    done = cli("train", CONFIG, "--check", "hard", "--real-ct", ct.folder, "--out", out, *TINY, *size)
    assert done.returncode == 0, done.stderr
    assert f"{CONFIG}: it runs; no minimum" in done.stdout
    assert EXPECTED_HARD_SCORES[CONFIG].minima.keys() == {"CPM", "hit_IoU"}


def test_options_that_do_not_fit_are_refused(cli, tmp_path) -> None:
    for words in (
        (CONFIG, "--check", "--real-ct", tmp_path),
        (CONFIG, "--leave-out", "1"),
        ("cls_1.25mm", "--check", "hard"),
        (CONFIG, "--check", "harder"),
    ):
        assert cli("train", *words, "--out", tmp_path / "run").returncode == 2, words
