"""The package: imports, public names, packaged files, findings, declaration and embedded archives."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import lung_nodule_ct
from lung_nodule_ct.declaration.configs import CONFIGS
from lung_nodule_ct.declaration.findings import GRADES, MEANINGS, Code
from lung_nodule_ct.declaration.labels import PATHOLOGY
from lung_nodule_ct.declaration.published import BASELINES, FIGURES

ROOT = Path(__file__).parents[2]


def test_import_of_the_package_does_not_import_heavy_packages(python, tmp_path) -> None:
    code = "import sys, lung_nodule_ct; print([m for m in ('numpy', 'pyarrow', 'datasets', 'tensorflow', 'jax') if m in sys.modules])"
    assert python(code, cwd=tmp_path).stdout == "[]\n"


@pytest.mark.parametrize("format_", ["parquet", "arrow"])
@pytest.mark.slow
def test_a_build_imports_neither_datasets_nor_frameworks(python, dummy, tmp_path, format_) -> None:
    arguments = ["build", "det3d_1.25mm", "--source", str(dummy), "--format", format_, "--out", "built", "--json"]
    code = f"""
import sys
from lung_nodule_ct.cli import app
app({arguments}, standalone_mode=False)
print([name for name in ("datasets", "openpyxl", "pandas", "tensorflow", "jax") if name in sys.modules])
"""
    assert python(code, cwd=tmp_path).stdout.endswith("}\n[]\n")


def test_public_names_exist_and_are_documented() -> None:
    assert set(lung_nodule_ct.__all__) <= set(dir(lung_nodule_ct))
    for name in lung_nodule_ct.__all__:
        assert getattr(lung_nodule_ct, name).__doc__ or name == "CONFIGS"
    with pytest.raises(AttributeError, match="unknown_name"):
        _ = lung_nodule_ct.unknown_name


def test_tab_completion_shows_the_public_names_only() -> None:
    packages = {"imaging", "testing", "torch"}
    assert set(dir(lung_nodule_ct)) == {*lung_nodule_ct.__all__, *packages, "__version__"}
    for name in packages:
        assert getattr(lung_nodule_ct, name).__doc__


@pytest.mark.slow
def test_the_result_of_load_has_a_type(tmp_path) -> None:
    """The package datasets has no types for mypy, so its classes are declared here. Editors read them from its source."""
    names = ("Dataset", "DatasetDict", "IterableDataset", "IterableDatasetDict")
    stubs = tmp_path / "stubs"
    (stubs / "datasets").mkdir(parents=True)
    (stubs / "datasets" / "__init__.pyi").write_text("".join(f"class {name}: ...\n" for name in names))
    calls = {
        'load("det2d_1.25mm", split="train")': "Dataset",
        'load("det2d_1.25mm", source="dummy_data", num_proc=2)': "DatasetDict",
        'load("det2d_1.25mm", split="train", streaming=True, track=True)': "IterableDataset",
        "load(streaming=True)": "IterableDatasetDict",
        "load(streaming=len(str()) > 1)": " | datasets.".join(("Dataset", *names[1:])),
    }
    lines = [f"reveal_type(lung_nodule_ct.{call})\n" for call in calls]
    (tmp_path / "use.py").write_text("".join(["import lung_nodule_ct\n", *lines, "lung_nodule_ct.load(sauce=1)\n"]))
    command = [sys.executable, "-m", "mypy", "--follow-imports=silent", "--config-file", str(ROOT / "pyproject.toml")]
    environment = {**os.environ, "MYPYPATH": f"{stubs}{os.pathsep}{ROOT}"}
    cache = ["--cache-dir", str(tmp_path / "cache"), "--no-warn-unused-ignores"]
    done = subprocess.run(
        [*command, *cache, str(tmp_path / "use.py")], capture_output=True, text=True, env=environment, check=False
    )
    assert re.findall(r'use\.py:\d+: note: Revealed type is "(.+)"', done.stdout) == [
        f"datasets.{name}" for name in calls.values()
    ], done.stdout
    (wrong,) = re.findall(r"use\.py:\d+: error: (.+)", done.stdout)
    assert "overload" in wrong


def test_the_installed_package_contains_the_template_of_the_card() -> None:
    from importlib.metadata import files

    listed = {str(path) for path in files("lung_nodule_ct") or []}
    assert "lung_nodule_ct/card/README.md" in listed


def test_every_finding_code_has_a_grade_a_meaning_and_documentation() -> None:
    assert set(GRADES) == set(MEANINGS) == set(Code)
    rows = re.findall(
        r"^\| `([a-z0-9-]+)` \| (\w+) \| (.+) \|$", (ROOT / "docs" / "findings.md").read_text(), re.MULTILINE
    )
    assert {(code, grade, meaning) for code, grade, meaning in rows} == {
        (str(c), str(GRADES[c]), MEANINGS[c]) for c in Code
    }


def test_the_declaration_is_complete() -> None:
    assert list(CONFIGS) == [
        "cls_1.25mm",
        "det2d_1.25mm",
        "det3d_1.25mm",
        "det3d_5mm",
        "longitudinal",
        "det3d_bmp_1.25mm",
    ]
    assert [(entry.folder, entry.letter, entry.malignant) for entry in PATHOLOGY] == [
        (1, "A", True),
        (2, "B", True),
        (3, "C", True),
        (4, "D", True),
        (5, "E", False),
        (6, "F", False),
    ]
    assert FIGURES[0].agreement(109) == "both"
    assert FIGURES[1].agreement(317) == "published"
    assert FIGURES[1].agreement(1) == "neither"
    assert {baseline.config for baseline in BASELINES} <= set(CONFIGS)


def test_the_embedded_archives_are_small_and_undamaged() -> None:
    archives = list((ROOT / "dummy_data").rglob("*.zip"))
    assert len(archives) == 14
    assert sum(path.stat().st_size for path in archives) < 2_000_000
    for path in archives:
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
