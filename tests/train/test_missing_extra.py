"""Training without the packages of the extra: recipes are listed, and the error names the package to install."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.train


def test_recipes_are_listed(cli) -> None:
    done = cli("train", "--list")
    assert done.returncode == 0
    assert "det2d_1.25mm-anchors" in done.stdout


@pytest.mark.parametrize(
    "others",
    [["--steps", "3"], ["build", "cls_1.25mm"], ["--check"], ["--out", "runs/a"], ["--detector", "runs/a"]],
    ids=lambda o: o[0],
)
@pytest.mark.parametrize("listing", ["--list", "--models"])
def test_a_list_ignores_nothing(cli, listing, others) -> None:
    done = cli("train", listing, *others)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{listing}: it lists everything, and takes nothing else" in " ".join(done.stderr.replace("│", " ").split())


def test_options_without_a_recipe_are_refused(cli) -> None:
    done = cli("train", "--check")
    assert done.returncode == 2
    assert "name a build and a recipe" in done.stderr


def test_published_networks_are_listed(cli) -> None:
    table = cli("train", "--models")
    assert table.returncode == 0
    rows_of_table = table.stdout.split("\n\n")[0].splitlines()  # the sentences after it are wrapped on a terminal only
    assert max(map(len, rows_of_table)) <= 80
    rows = json.loads(cli("train", "--models", "--json").stdout)["models"]
    assert all(row["name"] in table.stdout and f"{row['parameters']:,}" in table.stdout for row in rows)
    resnet = {"name": "resnet50", "task": "classification", "baseline": "ResNet", "parameters": 23514054}
    assert rows[0] == resnet | {"variant": "ResNet-50 v1.5", "reference": "timm resnet50"}
    assert "belongs to --models" in " ".join(cli("train", "--list", "--json").stderr.split())


@pytest.mark.parametrize(
    "command",
    [["train", "cls_1.25mm"], ["evaluate", "runs/x"], ["compare", "runs/x"], ["leakage", "cls_1.25mm"], ["baselines"]],
    ids=lambda command: command[0],
)
def test_without_the_extra_the_error_names_it(python, tmp_path, command) -> None:
    done = python(
        "import sys\n"
        "sys.modules['jax'] = None  # the import fails\n"
        f"sys.argv[1:] = {command!r}\n"
        "from lung_nodule_ct.cli import main\n"
        "main()",
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "needs the package jax" in done.stderr
    assert 'pip install "lung_nodule_ct[train]"' in done.stderr


def test_help_and_list_do_not_import_jax(python, tmp_path) -> None:
    done = python(
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from lung_nodule_ct.cli import app\n"
        "for command in (['--help'], ['train', '--help'], ['evaluate', '--help'], ['train', '--list'], ['train', '--models']):\n"
        "    assert CliRunner().invoke(app, command).exit_code == 0, command\n"
        "assert not {'jax', 'flax', 'tyro'} & set(sys.modules)",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
