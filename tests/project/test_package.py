"""What is promised of the package as a whole."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest

import lung_nodule_ct
from lung_nodule_ct.declaration.configs import CONFIGS
from lung_nodule_ct.declaration.findings import GRADES, MEANINGS, Code
from lung_nodule_ct.declaration.labels import PATHOLOGY
from lung_nodule_ct.declaration.published import BASELINES, FIGURES

ROOT = Path(__file__).parents[2]


def test_importing_it_imports_nothing_heavy(python, tmp_path) -> None:
    code = "import sys, lung_nodule_ct; print([m for m in ('numpy', 'pyarrow', 'datasets', 'tensorflow', 'jax') if m in sys.modules])"
    assert python(code, cwd=tmp_path).stdout == "[]\n"


@pytest.mark.parametrize("form", ["parquet", "arrow"])
@pytest.mark.slow
def test_a_build_imports_neither_datasets_nor_frameworks(python, dummy, tmp_path, form) -> None:
    arguments = ["build", "det3d_1.25mm", "--source", str(dummy), "--format", form, "--out", "built", "--json"]
    code = f"""
import sys
from lung_nodule_ct.cli import app
app({arguments}, standalone_mode=False)
print([name for name in ("datasets", "openpyxl", "pandas", "tensorflow", "jax") if name in sys.modules])
"""
    assert python(code, cwd=tmp_path).stdout.endswith("}\n[]\n")


def test_what_is_promised_is_there() -> None:
    assert set(lung_nodule_ct.__all__) <= set(dir(lung_nodule_ct))
    for name in lung_nodule_ct.__all__:
        assert getattr(lung_nodule_ct, name).__doc__ or name == "CONFIGS"
    with pytest.raises(AttributeError, match="nonsense"):
        _ = lung_nodule_ct.nonsense


def test_the_installed_package_is_tested_and_carries_its_prose() -> None:
    from importlib.metadata import files

    listed = {str(path) for path in files("lung_nodule_ct") or []}
    assert "lung_nodule_ct/card/README.md" in listed


def test_every_code_is_graded_explained_and_documented() -> None:
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


def test_the_embedded_data_are_small_and_whole() -> None:
    archives = list((ROOT / "dummy_data").rglob("*.zip"))
    assert len(archives) == 14
    assert sum(path.stat().st_size for path in archives) < 2_000_000
    for path in archives:
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
