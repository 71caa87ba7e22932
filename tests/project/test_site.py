"""The documentation site: the code of its pages runs, and its reference has every public name. ``nox -s docs`` builds the site."""

from __future__ import annotations

import importlib.util
import json
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from archive_server import serve

import lung_nodule_ct
from lung_nodule_ct import imaging
from lung_nodule_ct.cli import app
from lung_nodule_ct.declaration.configs import CONFIGS
from lung_nodule_ct.declaration.schema import Records

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
NEEDS = {"tfds": "tensorflow_datasets", "jax": "jax"}
"""The package that the code of a page needs, which the extra ``test`` does not install."""
MARKS = {"tfds": pytest.mark.tfds, "jax": pytest.mark.train}
PAGES = [
    path
    for path in (
        DOCS / "tutorial.md",
        *sorted((DOCS / "howto").glob("*.md")),
        *sorted((DOCS / "explanation").glob("*.md")),
    )
    if "```python\n" in path.read_text(encoding="utf-8") or "```sh\n" in path.read_text(encoding="utf-8")
]
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
_BLOCK = re.compile(r"(<!-- not run: [^\n]+ -->\n)?^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_COMMAND = """
done = subprocess.run([sys.executable, "-m", "lung_nodule_ct", *{words}], capture_output=True, text=True)
assert done.returncode == 0, done.stderr
"""


@pytest.fixture(scope="module")
def make_reference() -> ModuleType:
    """The script that writes the generated pages."""
    spec = importlib.util.spec_from_file_location("make_reference", DOCS / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("page", "module"), [("python.md", lung_nodule_ct), ("imaging.md", imaging), ("torch.md", lung_nodule_ct.torch)]
)
def test_every_public_name_is_on_its_page_of_the_reference(page, module) -> None:
    text = (REFERENCE / page).read_text(encoding="utf-8")
    documented = set(re.findall(rf"^\.\. (?:auto\w+|py:\w+):: {module.__name__}\.(\w+)$", text, re.MULTILINE))
    linked = set(re.findall(rf"^`{module.__name__}\.(\w+)` is \{{py:func\}}`lung_nodule_ct\.\1`", text, re.MULTILINE))
    missing = set(module.__all__) - documented - linked
    assert not missing, f"add to docs/reference/{page}: {sorted(missing)}"
    assert documented | linked <= set(module.__all__)


def test_the_reference_has_every_command_and_option(make_reference) -> None:
    text = make_reference.command_line()
    commands = [info.callback.__name__ for info in app.registered_commands]
    assert re.findall(r"^## `(.*)`$", text, re.MULTILINE) == commands
    assert (
        "| `--split-by` | The published splits, or splits by patient, without leakage. One of `published`, `patient`."
        in text
    )
    assert "[/" not in text


def test_the_page_of_extras_has_every_command_and_extra() -> None:
    text = (DOCS / "reference" / "extras.md").read_text(encoding="utf-8")
    words = set(re.findall(r"`([\w-]+)", text))
    project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = set(project["optional-dependencies"]) - {"test", "docs", "bench"}  # of those who work on the package
    assert {info.callback.__name__ for info in app.registered_commands} | extras <= words


def test_the_reference_has_every_column_with_its_type(make_reference) -> None:
    sections = re.split(r"^## ", make_reference.configs(), flags=re.MULTILINE)[1:]
    assert len(sections) == len(CONFIGS)
    for section, config in zip(sections, CONFIGS.values(), strict=True):
        names = []
        for column in config.schema.columns:
            names.append(column.name)
            if isinstance(column.type, Records):
                names += [f"{column.name}[].{field.name}" for field in column.type.fields]
        rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \| ([^|]+) \|$", section, re.MULTILINE)
        assert [name for name, _, _ in rows] == names, config.name
        assert all(kind and meaning for _, kind, meaning in rows)


def test_generated_pages_are_written_only_if_they_change(make_reference, tmp_path) -> None:
    make_reference.write(tmp_path)
    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert set(times) == {"command_line.md", "configs.md"}
    (tmp_path / "configs.md").write_text("changed")
    make_reference.write(tmp_path)
    assert (tmp_path / "command_line.md").stat().st_mtime_ns == times["command_line.md"]
    assert (tmp_path / "configs.md").read_text() == make_reference.configs()


def test_every_block_of_code_is_run_or_says_why_not() -> None:
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        languages = [language for _, language, _ in _BLOCK.findall(text)]
        assert len(languages) == text.count("\n```") // 2, f"{path.name}: every block names its language"
        assert set(languages) <= {"python", "sh"}, path.name


@pytest.mark.slow
@pytest.mark.parametrize("page", [pytest.param(path, id=path.stem, marks=MARKS.get(path.stem, ())) for path in PAGES])
def test_the_code_of_a_page_runs_and_prints_what_it_says(page, python, tmp_path) -> None:
    if page.stem in NEEDS:
        pytest.importorskip(NEEDS[page.stem])
    (tmp_path / "dummy_data").symlink_to(ROOT / "dummy_data")
    (tmp_path / "ARCHIVES").symlink_to(ROOT / "dummy_data")
    text = page.read_text(encoding="utf-8")
    blocks = [(language, code) for excused, language, code in _BLOCK.findall(text) if not excused]
    script = "import subprocess\nimport sys\n"
    for language, code in blocks:
        if language == "python":
            script += code
            continue
        for line in code.strip().splitlines():
            program, *words = line.split()
            assert program == "lung-nodule-ct", line
            script += _COMMAND.format(words=words)
    with serve(ROOT / "dummy_data") as server:
        env = {"LUNG_NODULE_CT_ZENODO_URL": server.url, "LUNG_NODULE_CT_CACHE": str(tmp_path / "downloads")}
        done = python(script, cwd=tmp_path, HF_DATASETS_CACHE=str(tmp_path / "cache"), **env)
    assert done.returncode == 0, done.stderr[-3000:]
    said = re.findall(r"^print\(.*\)  # (.+)$", "".join(code for _, code in blocks), re.MULTILINE)
    assert done.stdout.splitlines() == said


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in NOTEBOOKS])
def test_notebooks_are_stored_with_outputs_in_order_and_without_errors_or_paths(path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not re.search(r"/(?:home|root|tmp|Users)/", json.dumps(outputs))
    assert path.stat().st_size < 100_000
