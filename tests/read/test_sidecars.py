"""Files that commands add to a build: a changed build removes them, and keeps any other file."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lung_nodule_ct.errors import OutputError
from lung_nodule_ct.read.sidecars import SIDECARS, add_sidecars, own_sidecars


def add(folder, by, **files) -> None:
    with add_sidecars(folder, by=by) as stage:
        for name, text in files.items():
            path = stage / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


@pytest.fixture
def folder(build, dummy):
    return build(dummy, "cls_1.25mm").folder


def test_a_changed_build_removes_what_commands_added(folder, build, dummy) -> None:
    add(folder, "audit", audit="{}", pictures__one="1")
    add(folder, "preview", page="<p>")
    assert own_sidecars(folder) == {"README.md": "card", "audit": "audit", "pictures/one": "audit", "page": "preview"}
    build(dummy, "cls_1.25mm", overwrite=False)
    assert len(own_sidecars(folder)) == 4
    build(dummy, "det2d_1.25mm", overwrite=False)
    assert own_sidecars(folder) == {"README.md": "card"}
    assert not (folder / "pictures").exists()


@pytest.mark.parametrize("name", ["page", "README.md", SIDECARS])
def test_an_edited_file_prevents_a_rebuild(folder, build, dummy, name) -> None:
    add(folder, "preview", page="<p>")
    (folder / name).write_text("written by the user")
    for config in ("cls_1.25mm", "det2d_1.25mm"):
        with pytest.raises(OutputError, match=rf"would replace.*{name}"):
            build(dummy, config, overwrite=False)
    assert (folder / name).read_text() == "written by the user"


@pytest.mark.parametrize("name", ["pictures/other", "data/README.md", "data/preview/other.parquet"])
def test_a_file_of_the_user_is_kept_by_a_rebuild(folder, build, dummy, name) -> None:
    add(folder, "preview", page="<p>", pictures__one="1")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("written by the user")
    build(dummy, "det2d_1.25mm", overwrite=False)
    assert (folder / name).read_text() == "written by the user"
    assert not (folder / "page").exists()


def test_a_second_run_replaces_the_files_of_the_first(folder) -> None:
    add(folder, "audit", audit="1", pictures__old="1")
    add(folder, "audit", audit="2", table="2")
    assert (folder / "audit").read_text() == "2"
    assert not (folder / "pictures").exists()
    assert set(own_sidecars(folder)) == {"README.md", "audit", "table"}


def test_nothing_changes_if_a_file_is_foreign_or_the_command_fails(folder) -> None:
    add(folder, "audit", audit="1")
    (folder / "table").write_text("written by the user")
    with pytest.raises(OutputError, match="table"):
        add(folder, "audit", audit="2", table="2")
    with pytest.raises(OutputError, match="not the file that `preview` wrote"):
        add(folder, "preview", audit="written by audit")
    with pytest.raises(KeyError), add_sidecars(folder, by="audit") as stage:
        (stage / "audit").write_text("3")
        raise KeyError
    assert ((folder / "audit").read_text(), (folder / "table").read_text()) == ("1", "written by the user")
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_names_outside_the_folder_are_ignored(folder) -> None:
    (folder.parent / "outside").write_text("written by the user")
    document = json.loads((folder / SIDECARS).read_text())
    for name in ("../outside", str(folder.parent / "outside")):
        document["files"][name] = document["files"]["README.md"]
    (folder / SIDECARS).write_text(json.dumps(document))
    assert own_sidecars(folder) == {"README.md": "card"}
    add(folder, "card")
    assert (folder.parent / "outside").exists()


def test_simultaneous_commands_keep_each_others_files(folder) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: add(folder, f"command{number}", **{f"file{number}": str(number)}), range(24)))
    assert set(own_sidecars(folder)) == {"README.md", *(f"file{number}" for number in range(24))}
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_nothing_is_added_to_a_build_that_was_replaced_in_the_meantime(folder, build, dummy) -> None:
    with pytest.raises(OutputError, match="was replaced"), add_sidecars(folder, by="audit") as stage:
        (stage / "audit").write_text("of the old build")
        build(dummy, "det2d_1.25mm", overwrite=False)
    assert not (folder / "audit").exists()


def test_the_files_of_a_killed_command_are_known_as_its_own(folder, monkeypatch) -> None:
    """The command is stopped before each of its renames, as if it was killed there."""
    add(folder, "audit", audit="0", old="0", table="0")
    for number in range(1, 20):
        left, replace = number, Path.replace

        def stop(path: Path, target: Path) -> Path:
            nonlocal left
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
            return replace(path, target)  # noqa: B023 -- called in the same round

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", stop)
            try:
                add(folder, "audit", audit=str(number), new=str(number), table=str(number))
            except KeyboardInterrupt:
                ours = own_sidecars(folder)
                assert {name for name in ("audit", "old", "table") if (folder / name).exists()} <= set(ours)
                (folder / f".{SIDECARS}.0123abcd-1.partial").write_text("{")
                continue
        break
    assert number > 4
    assert [(folder / name).read_text() for name in ("audit", "new", "table")] == [str(number)] * 3
    assert set(own_sidecars(folder)) == {"README.md", "audit", "new", "table"}
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["README.md", "audit", SIDECARS, "build.json", "data", "findings.json", "new", "table"]
    )
