"""Files that are written in the background have the right content on every file system, and a full disk is an error."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lung_nodule_ct.system import disk_writes
from lung_nodule_ct.system.disk_writes import BackgroundQueue, DirectFile, HashingWriter, WriteBackThrottle
from lung_nodule_ct.testing.archives import CT0, metaimage
from lung_nodule_ct.testing.synthetic_archives import TinyArchives

LENGTHS = (0, 1, 4095, 4096, 3_000_001, 5, 1 << 22, 70_000, 9_000_000)


def _parts(lengths) -> list[bytes]:
    return [np.random.default_rng(number).bytes(length) for number, length in enumerate(lengths)]


def _write(path: Path, parts, **options) -> str:
    digest = hashlib.sha256()
    with DirectFile(path, digest.update, **options) as file:
        for number, part in enumerate(parts):
            assert file.tell() == sum(map(len, parts[:number]))
            assert file.write(part) == len(part)
    return digest.hexdigest()


def _memory_backed() -> Path | None:
    return next((folder for folder in [Path("/dev/shm")] if os.access(folder, os.W_OK)), None)


@pytest.mark.parametrize("ahead", [0, 32 << 20])
@pytest.mark.parametrize("lengths", [(), (0,), (1,), (4096,), LENGTHS, (12_345_678,)])
def test_the_file_and_its_hash_equal_the_written_data(tmp_path, lengths, ahead) -> None:
    parts = _parts(lengths)
    path = tmp_path / "file"
    path.write_bytes(b"the old content, which is replaced" * 1000)
    digest = _write(path, parts, ahead=ahead)
    assert path.read_bytes() == b"".join(parts)
    assert digest == hashlib.sha256(b"".join(parts)).hexdigest()


@settings(max_examples=40)
@given(lengths=st.lists(st.integers(0, 30_000), max_size=12), piece=st.sampled_from([4096, 8192]))
def test_parts_of_any_length_are_written_completely(tmp_path_factory, lengths, piece) -> None:
    parts = _parts(lengths)
    path = tmp_path_factory.mktemp("direct") / "file"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk_writes, "_PIECE_BYTES", piece)
        _write(path, parts, ahead=3 * piece)
    assert path.read_bytes() == b"".join(parts)


@pytest.mark.parametrize("block", [1, 512, 1 << 16])
def test_a_disk_may_have_another_block_size(tmp_path, monkeypatch, block) -> None:
    """Direct writes that the disk refuses are continued as ordinary writes."""
    monkeypatch.setattr(disk_writes, "_BLOCK_BYTES", block)
    parts = _parts(LENGTHS)
    _write(tmp_path / "file", parts)
    assert (tmp_path / "file").read_bytes() == b"".join(parts)


@pytest.mark.skipif(_memory_backed() is None, reason="needs a file system in memory")
def test_a_file_system_in_memory_is_supported(tmp_path) -> None:
    path = _memory_backed() / f"{tmp_path.name}-{os.getpid()}"
    parts = _parts(LENGTHS)
    try:
        _write(path, parts)
        assert path.read_bytes() == b"".join(parts)
    finally:
        path.unlink(missing_ok=True)


def test_pyarrow_can_write_to_it(tmp_path) -> None:
    """A buffer can be changed as soon as the write returns."""
    memory = bytearray(b"first" * 2_000_000)
    with DirectFile(tmp_path / "file") as file, pa.PythonFile(file, "w") as sink:
        sink.write(pa.py_buffer(memory))
        memory[:] = b"other" * 2_000_000
    assert (tmp_path / "file").read_bytes() == b"first" * 2_000_000


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("length", [10, 40 << 20])
def test_a_full_disk_is_an_error_of_a_write_or_of_close(length) -> None:
    with pytest.raises(OSError, match="No space") as caught, DirectFile(Path("/dev/full")) as file:
        file.write(bytes(length))
    assert caught.value.errno == errno.ENOSPC
    assert file.closed
    with pytest.raises(ValueError, match="closed"):
        file.write(b"more")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_every_write_after_an_error_raises_it_again() -> None:
    file = DirectFile(Path("/dev/full"), ahead=0)
    for _ in range(3):
        with pytest.raises(OSError, match="No space"):
            file.write(bytes(40 << 20))
    with pytest.raises(OSError, match="No space"):
        file.close()
    assert file.closed


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_error_in_the_block_is_not_replaced_by_a_disk_error() -> None:
    with pytest.raises(KeyError, match="damaged"), DirectFile(Path("/dev/full")) as file:
        file.write(b"some")
        raise KeyError("damaged")
    assert file.closed


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("format_", ["parquet", "arrow"])
@pytest.mark.slow
def test_a_build_that_is_too_large_for_the_disk_leaves_nothing(python, tmp_path, format_, workers) -> None:
    tiny = TinyArchives()
    for number in range(300, 312):
        tiny[CT0] |= metaimage(
            f"{number}", np.random.default_rng(number).integers(-1000, 1000, (20, 128, 128), np.int16)
        )
    source = tiny.write(tmp_path / "in")
    outputs = tmp_path / "outputs"
    done = python(
        f"""
import resource, sys
from lung_nodule_ct.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))
out = {str(outputs / "out")!r}
arguments = ["det3d_1.25mm", "--format", {format_!r}, "--source", {str(source)!r}, "--out", out, "--num-proc", {workers!r}]
sys.argv = ["lung-nodule-ct", "build", *arguments]
main()
""",
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(outputs.iterdir())


@pytest.mark.parametrize("part_bytes", [1, 100_000, 1 << 30])
def test_throttled_writes_do_not_change_the_content(tmp_path, monkeypatch, part_bytes) -> None:
    monkeypatch.setattr(disk_writes, "_WRITE_BACK_BYTES", part_bytes)
    parts = _parts((0, 3_000_001, 5, 70_000, 1 << 20))
    paths = [tmp_path / "first", tmp_path / "second"]
    seen = dict.fromkeys(paths, b"")

    def see(path: Path, piece: bytes) -> None:
        seen[path] += piece

    with WriteBackThrottle(see) as throttle:
        for path in paths:
            with path.open("wb", buffering=0) as file:
                for part in parts:
                    file.write(part)
                    throttle.more(path)
    assert {path.read_bytes() for path in paths} == set(seen.values()) == {b"".join(parts)}


@pytest.mark.parametrize("part_bytes", [1, 1 << 30])
def test_a_file_is_hashed_while_it_grows(tmp_path, monkeypatch, part_bytes) -> None:
    monkeypatch.setattr(disk_writes, "_WRITE_BACK_BYTES", part_bytes)
    path, parts = tmp_path / "file", _parts(LENGTHS)
    path.write_bytes(b"the beginning")
    with path.open("a+b", buffering=0) as file, HashingWriter(file, ["md5", "sha256"]) as writer:
        assert writer.hash_existing() == 13
        for part in parts:
            writer.write(part)
        hashes = writer.finish()
        content = path.read_bytes()
        assert content == b"the beginning" + b"".join(parts)
        assert hashes == {name: hashlib.new(name, content).hexdigest() for name in ("md5", "sha256")}
        writer.restart()
        writer.write(b"other")
        assert writer.finish()["md5"] == hashlib.md5(b"other").hexdigest()
    assert path.read_bytes() == b"other"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_error_of_the_write() -> None:
    with (
        pytest.raises(OSError, match="No space"),
        Path("/dev/full").open("wb", buffering=0) as file,
        HashingWriter(file, ["md5"]) as writer,
    ):
        writer.write(b"some")


def test_a_queue_runs_calls_in_order_and_none_after_a_failure() -> None:
    done: list[int] = []

    def call(number: int) -> None:
        if number == 3:
            raise KeyError("three")
        done.append(number)

    queue = BackgroundQueue(2)
    with pytest.raises(KeyError, match="three"):
        for number in range(9):
            queue.submit(call, number)
        queue.wait()
    for use in (queue.wait, queue.check, lambda: queue.submit(call, 0)):
        with pytest.raises(KeyError, match="three"):
            use()
    queue.close()
    assert done == [0, 1, 2]
