"""What the project is made from: the lock file, the licences of dependencies, and a wheel that can be reproduced."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def licences() -> ModuleType:
    """The script that writes the page of licences."""
    spec = importlib.util.spec_from_file_location("make_licences", ROOT / "docs" / "make_licences.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_dependency_has_its_declared_licence_on_the_page(licences) -> None:
    listed = licences.listed()
    needed = licences.needed()
    assert {name for name in listed if name not in ("package", "---")} == set(needed), "python docs/make_licences.py"
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    locked = {package["name"]: package.get("version") for package in lock["package"]}
    installed = {name: own for name in needed if (own := licences.licence(name)) and version(name) == locked[name]}
    assert installed
    assert {name: listed[name] for name in installed} == installed
    assert "?" not in listed.values()


def test_no_dependency_of_the_core_has_a_strong_copyleft_licence(licences) -> None:
    for name, licence in licences.listed().items():
        assert not re.search(r"(?<!L)GPL", licence), f"{name}: {licence}"


def test_the_lock_file_has_every_dependency_with_hashes() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    locked = {package["name"]: package for package in lock["package"]}
    declared = [*project["dependencies"], *(word for own in project["optional-dependencies"].values() for word in own)]
    for requirement in declared:
        name = re.split(r"[<>=\[; ]", requirement)[0].lower().replace("_", "-")
        assert name in locked, "run: uv lock"
        for file in locked[name].get("wheels", []):
            assert re.fullmatch(r"sha256:[0-9a-f]{64}", file["hash"])
            assert file["url"].startswith("https://files.pythonhosted.org/")


_CONDA_NAMES = {"isal": "python-isal"}
"""Where conda-forge has another name than PyPI."""


def test_the_conda_recipe_has_the_dependencies_of_the_package() -> None:
    recipe = yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text(encoding="utf-8"))
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = pyproject["project"]
    assert recipe["schema_version"] == 1
    context = recipe["context"]
    assert (context["version"], f">={context['python_min']}") == (project["version"], project["requires-python"])
    assert recipe["package"]["name"] == project["name"]
    wanted = {}
    for requirement in project["dependencies"]:
        name, bounds = re.fullmatch(r"([\w-]+)([^;]*)(?:;.*)?", requirement).groups()
        wanted[_CONDA_NAMES.get(name, name)] = bounds.strip()
    python, *run = recipe["requirements"]["run"]
    assert python == "python >=${{ python_min }}"
    assert dict(entry.split(" ", 1) for entry in run) == wanted
    hatchling = pyproject["build-system"]["requires"][0].replace(">", " >")
    assert set(recipe["requirements"]["host"]) == {"python ${{ python_min }}.*", hatchling, "pip"}
    assert recipe["build"]["noarch"] == "python"
    assert recipe["build"]["python"]["entry_points"] == [
        f"{name} = {target}" for name, target in project["scripts"].items()
    ]
    assert recipe["about"]["license"] == project["license"]
    assert (ROOT / "conda" / recipe["source"]["path"] / recipe["about"]["license_file"]).is_file()


def test_the_conda_recipe_is_rendered_by_rattler_build() -> None:
    rattler_build = pytest.importorskip("rattler_build", reason="nox -s lint installs it")
    recipe = rattler_build.Stage0Recipe.from_file(str(ROOT / "conda" / "recipe.yaml"))
    (variant,) = recipe.render(rattler_build.VariantConfig())
    rendered = variant.recipe.to_dict()
    assert rendered["package"] == {"name": "lung_nodule_ct", "version": version("lung_nodule_ct")}
    assert rendered["requirements"]["run"][0] == "python >=3.11"
    assert "${{" not in str(rendered)


@pytest.mark.slow
def test_the_wheel_is_the_same_wherever_and_whenever_it_is_built(tmp_path) -> None:
    digests = set()
    for number, moment in enumerate((0, 1_700_000_000)):
        copy = tmp_path / f"copy {number}"
        copy.mkdir()
        for name in ("pyproject.toml", "README.md", "LICENSE", "card", "lung_nodule_ct"):
            copy_of = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
            copy_of(ROOT / name, copy / name)
        for path in copy.rglob("*"):
            os.utime(path, (moment + 400_000_000, moment + 400_000_000))
        command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(copy / "out"), str(copy)]
        if importlib.util.find_spec("hatchling") is None:
            command.remove("--no-isolation")
        subprocess.run(
            command, check=True, capture_output=True, env={**os.environ, "TZ": ("UTC", "Asia/Tokyo")[number]}
        )
        (wheel,) = (copy / "out").glob("*.whl")
        digests.add(hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert len(digests) == 1
