"""The rooms of the package: imports between them, and the number and length of modules."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "lung_nodule_ct"
MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.fixture(scope="module")
def drawing() -> ModuleType:
    """The script that draws the architecture."""
    spec = importlib.util.spec_from_file_location("make_architecture", ROOT / "docs" / "make_architecture.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_rooms_import_only_from_lower_layers(drawing) -> None:
    order = drawing.layers(drawing.room_graph())  # raises an error if rooms import each other in a cycle
    assert max(order.values()) <= 9
    assert order["errors"] == 1
    for lower, higher in (
        ("declaration", "sources"),
        ("sources", "formats"),
        ("formats", "examples"),
        ("examples", "targets"),
        ("read", "audit"),
        ("read", "preview"),
        ("read", "export"),
        ("targets", "publish"),
    ):
        assert order[lower] < order[higher]


def test_readers_of_a_build_do_not_depend_on_the_builder(drawing) -> None:
    graph = drawing.room_graph()
    for room in ("read", "audit", "preview", "export", "torch"):
        assert not graph[room] & {"examples", "targets"}, room


def test_imports_of_public_names_and_relative_imports_are_seen(drawing, tmp_path) -> None:
    package = tmp_path / "sample"
    (package / "shapes").mkdir(parents=True)
    (package / "__init__.py").write_text("from sample.shapes.box import Box\n")
    (package / "shapes" / "__init__.py").touch()
    (package / "shapes" / "box.py").write_text("from sample import Box\n")
    with pytest.raises(ValueError, match="circle"):
        drawing.layers(drawing.room_graph(package))
    (package / "shapes" / "box.py").write_text("from ..shapes import box\n")
    with pytest.raises(ValueError, match="full names"):
        drawing.room_graph(package)


def test_modules_have_no_import_cycles(drawing) -> None:
    """Imports within functions and for type checking are included."""
    names = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path for path in MODULES
    }
    graph = {
        name: {other for other, _ in drawing.imports_of(path) if other in names and other != name}
        for name, path in names.items()
    }
    assert drawing.layers(graph)


def test_only_three_modules_are_outside_the_rooms(drawing) -> None:
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py", "errors.py"}


def test_the_number_and_length_of_modules_are_limited() -> None:
    lines = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in MODULES}
    assert len(lines) <= 282
    assert {name: count for name, count in lines.items() if count > 400} == {}
    assert sum(lines.values()) / len(lines) >= 140


def test_the_architecture_page_shows_the_current_rooms(drawing) -> None:
    text = drawing.PAGE.read_text()
    assert drawing.page(text) == text, "run: python docs/make_architecture.py"
    described = set(re.findall(r"^\| `(\w+)/` \|", text, re.MULTILINE))
    assert described == {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    for file in re.findall(r"`(\w+/[\w/]+\.py)", text):
        assert (PACKAGE / file).is_file() or (ROOT / file).is_file(), file


@pytest.mark.slow
def test_a_renamed_room_requires_only_new_imports(tmp_path) -> None:
    """No other code contains the path or the name of a room."""
    copy = tmp_path / "lung_nodule_ct"
    shutil.copytree(PACKAGE, copy)
    (copy / "geometry").rename(copy / "shapes")
    for path in copy.rglob("*.py"):
        text = path.read_text()
        renamed = text.replace("lung_nodule_ct.geometry", "lung_nodule_ct.shapes").replace('"geometry.', '"shapes.')
        if renamed != text:  # the compiled code of the other modules is used
            path.write_text(renamed)
    shutil.copytree(ROOT / "card", tmp_path / "card")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import lung_nodule_ct
assert lung_nodule_ct.__file__.startswith({str(tmp_path)!r})
from lung_nodule_ct.cli import main
for arguments in (["build", "--all", "--source", {str(ROOT / "dummy_data")!r}, "--out", "out"], ["audit", "out"], ["card", "out"], ["preview", "out"]):
    sys.argv[1:] = arguments
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, arguments
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
