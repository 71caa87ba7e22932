"""The same archives give the same files, byte for byte, whatever the machine, the folders, the environment and the number of workers."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

WITH_TFDS = [
    pytest.mark.tfds,
    pytest.mark.skipif(find_spec("tensorflow_datasets") is None, reason="needs the extra tfds"),
]

#: Builds all configs with small shards, so that several workers have something to do.
CODE = """
import dataclasses, os
from pathlib import Path
from lung_nodule_ct.declaration.configs import CONFIGS
from lung_nodule_ct.publish.card import write_first_card
from lung_nodule_ct.sources.resolve import open_folder
from lung_nodule_ct.targets.build import build_folder
from lung_nodule_ct.targets.options import BuildOptions

os.umask({umask})
layout = BuildOptions.layout
BuildOptions.layout = lambda self, count: dataclasses.replace(layout(self, count), shard_bytes=20_000)
options = BuildOptions(format={format_!r}, num_proc={num_proc})
add_files = write_first_card if options.format == "parquet" else None
build_folder(list(CONFIGS.values()), open_folder(Path({source!r})), Path({out!r}), options, add_files=add_files)
"""


def copy_archives(source: Path, target: Path, *, reverse: bool) -> Path:
    """Copy archives in an order that the file system may return, with new times."""
    for path in sorted(source.rglob("*.zip"), reverse=reverse):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return target


@pytest.mark.slow
@pytest.mark.parametrize(
    "format_",
    ["parquet", "arrow", pytest.param("tfrecord", marks=WITH_TFDS), pytest.param("array_record", marks=WITH_TFDS)],
)
def test_every_file_is_equal_in_two_settings(dummy, tmp_path, python, format_) -> None:
    one, two = tmp_path / "one", tmp_path / "a longer name" / "[2]"
    settings = {
        one: (1, 0, {"TZ": "Pacific/Kiritimati", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "1"}),
        two: (
            3,
            63,
            {
                "TZ": "America/Adak",
                "LC_ALL": "POSIX",
                "PYTHONHASHSEED": "2",
                "PYTHONCOERCECLOCALE": "0",
                "PYTHONUTF8": "0",
            },
        ),
    }
    files = []
    for folder, (num_proc, umask, env) in settings.items():
        source = copy_archives(dummy, folder / "in", reverse=folder == two)
        out = folder / "out"
        code = CODE.format(umask=umask, format_=format_, num_proc=num_proc, source=str(source), out=str(out))
        done = python(code, cwd=folder, **env)
        assert done.returncode == 0, done.stderr
        files.append({path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()})
    assert sorted(files[0]) == sorted(files[1])
    assert len(files[0]) > 25
    assert [name for name, content in files[0].items() if content != files[1][name]] == []
    for folder in (str(tmp_path), str(dummy)):
        assert not [name for name, content in files[0].items() if folder.encode() in content]
