"""The paper's baselines: one command for all networks and both splits, and tables with the published figures."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

jax = pytest.importorskip("jax")
for needed in ("flax", "grain", "optax", "orbax.checkpoint", "tensorboardX", "tyro", "matplotlib"):
    pytest.importorskip(needed)

import network_outputs  # noqa: E402
import normalised_network  # noqa: E402

from lung_nodule_ct.declaration.published import BASELINES  # noqa: E402
from lung_nodule_ct.testing.synthetic_archives import write_synthetic_archives  # noqa: E402
from lung_nodule_ct.train.models import NETWORKS  # noqa: E402
from lung_nodule_ct.train.tasks import classification, detection  # noqa: E402

pytestmark = pytest.mark.train

TINY = ("--input.size", "32", "32", "--batch-size", "8", "--steps", "4", "--save-every", "2", "--watch", "0")
DRAWS = ("--draws", "20")


@pytest.fixture(scope="module")
def built(cli, tmp_path_factory) -> Path:
    """A build of synthetic crops, with patients in every fold."""
    folder = tmp_path_factory.mktemp("lesions")
    source = write_synthetic_archives(folder / "source", 40)
    done = cli("build", "cls_1.25mm", "--source", source, "--out", folder / "build")
    assert done.returncode == 0, done.stderr
    return folder / "build"


@pytest.fixture
def small_networks(monkeypatch) -> None:
    """In place of ResNet, ResNeXt and the others a tiny network; ConvNeXt does not fit into the memory."""

    def build(recipe: Any, rngs: Any) -> Any:
        if recipe.model.network == "convnext":
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory\nallocating 1 GiB")
        return normalised_network.NormalisedNetwork(recipe, rngs)

    monkeypatch.setattr(classification, "build_model", build)


def rows_of(out: Path) -> dict[tuple[str, str], dict[str, Any]]:
    document = json.loads((out / "baselines.json").read_text())
    return {(row["network"], row["split_by"]): row for row in document["rows"]}


def table(out: Path, name: str) -> list[dict[str, str]]:
    with (out / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_network_that_fails_is_a_row_and_the_command_continues(small_networks, built, cli, tmp_path) -> None:
    out = tmp_path / "paper"
    command = ("baselines", built, "--out", out, *TINY, *DRAWS, "--only", "convnext", "--only", "resnet50")
    done = cli(*command)
    assert done.returncode == 1
    assert "2 of 4 runs have no scores: convnext (published), convnext (patient)" in done.stderr
    assert max(map(len, done.stdout.splitlines()[:-1])) <= 80  # the last line has the path
    rows = rows_of(out)
    assert list(rows) == [(network, by) for network in NETWORKS for by in ("published", "patient")]
    for by, count in (("published", 32), ("patient", 20)):
        row = rows["resnet50", by]
        assert (row["problem"], row["steps"], row["rows"]) == (None, 4, count)
        assert row["protocol_steps"] > 600
        accuracy = row["scores"]["accuracy"]
        assert 0 <= accuracy["low"] <= accuracy["value"] <= accuracy["high"] <= 1
        assert rows["convnext", by]["problem"] == "RuntimeError: RESOURCE_EXHAUSTED: out of memory"
        assert rows["cabnet", by]["problem"] == "not trained"
    lines = table(out, "table1_classification")
    assert [line["source"] for line in lines[:3]] == ["paper", "ours, published split", "ours, split by patient"]
    assert (lines[0]["accuracy"], lines[0]["quadratic_kappa"], lines[0]["accuracy_low"]) == ("0.6103", "0.5413", "")
    assert float(lines[1]["accuracy"]) == rows["resnet50", "published"]["scores"]["accuracy"]["value"]
    markdown = (out / "baselines.md").read_text()
    assert "| ResNet (ResNet-50 v1.5) | paper | 0.6103 | 0.5413 |  |" in markdown
    assert "4 steps, not the paper's" in markdown
    # again: what is finished is not trained again, and what failed is
    before = {path: path.stat().st_mtime_ns for path in (out / "resnet50").rglob("*")}
    again = cli(*command)
    assert again.returncode == 1
    assert again.stderr.count("finished before") == 2
    assert {path: path.stat().st_mtime_ns for path in (out / "resnet50").rglob("*")} == before
    # a stopped run continues, and the rows of networks that are not trained now remain
    metrics = (out / "resnet50/patient/metrics.csv").read_bytes()
    shutil.rmtree(out / "resnet50/patient/evaluation")
    shutil.rmtree(out / "resnet50/patient/checkpoints/4")
    resumed = cli(*command[:-3], "resnet50")
    assert resumed.returncode == 0, resumed.stderr
    assert (out / "resnet50/patient/metrics.csv").read_bytes() == metrics
    assert rows_of(out) == rows
    # another command is refused before it trains or writes anything
    tables = (out / "baselines.json").read_bytes()
    other = cli(*command, "--seed", "1")
    assert other.returncode == 1
    assert "holds another run: its recipe.seed differs" in " ".join(other.stderr.split())
    assert (out / "baselines.json").read_bytes() == tables


def test_the_paper_s_figures_are_complete_and_none_is_made_up(small_networks, built, cli, tmp_path) -> None:
    done = cli("baselines", built, "--out", tmp_path, *TINY, *DRAWS, "--only", "resnet50", "--only", "ssd", "--json")
    assert done.returncode == 1
    rows = rows_of(tmp_path)
    assert "has no det2d_1.25mm" in rows["ssd", "published"]["problem"]
    lines = [line for line in json.loads(done.stdout)["rows"] if line["source"] == "paper"]
    shown = {line["baseline"]: {name: score["value"] for name, score in line["scores"].items()} for line in lines}
    assert shown == {entry.model: dict(entry.scores) for entry in BASELINES}
    for line in lines:
        assert line["network"] is not None or "no such network here" in line["remark"]
        assert all(score["low"] is score["high"] is None for score in line["scores"].values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--only", "resnet5"), "no network is named 'resnet5'"),
        (("--split-by", "patient"), "trains on both splits"),
        (("--steps", "0"), "steps must be above 0"),
        (("--only", "resnet50", "--model.width", "8"), "model.width has no effect on the published"),
        (("--only", "ssd"), "has no config that the networks are trained on; expected det2d_1.25mm, got cls_1.25mm"),
    ],
)
def test_the_error_states_what_cannot_be_trained(built, cli, tmp_path, arguments, message) -> None:
    done = cli("baselines", "--data", built, "--out", tmp_path / "paper", *arguments)
    assert done.returncode in (1, 2)
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert not (tmp_path / "paper").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_takes_steps_on_the_embedded_archives(
    name, dummy_build, cli, tmp_path, monkeypatch, request
) -> None:
    """With fewer blocks, which compile faster. The embedded archives have no patient in the fold of validation."""
    if name == "faster_rcnn":  # which takes longer to sample its features than to compile
        request.getfixturevalue("optimised")
    for task in (classification, detection):
        monkeypatch.setattr(task, "build_network", network_outputs.build_shallow)
    options = ("--input.size", "96", "96", "--batch-size", "2", "--steps", "2", "--watch", "0", "--draws", "5")
    done = cli("baselines", "--data", dummy_build("parquet"), "--out", tmp_path, "--only", name, *options)
    assert f"1 of 2 runs have no scores: {name} (patient)" in done.stderr
    rows = rows_of(tmp_path)
    assert "no rows in the split 'validation' (patient)" in rows[name, "patient"]["problem"]
    row = rows[name, "published"]
    assert (row["problem"], row["steps"]) == (None, 2)
    assert row["scores"]["accuracy" if NETWORKS[name].task == "classification" else "AP"]["value"] is not None
