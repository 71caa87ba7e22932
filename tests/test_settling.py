"""Files that settle while they are written are the same files."""

from __future__ import annotations

import numpy as np
import pytest

from lung_nodule_ct.system import disk_writes
from lung_nodule_ct.system.disk_writes import WriteBackThrottle


@pytest.mark.parametrize("enough", [1, 100_000, 1 << 30])
def test_what_is_written_stays(tmp_path, monkeypatch, enough) -> None:
    monkeypatch.setattr(disk_writes, "_WRITE_BACK_BYTES", enough)
    parts = [
        np.random.default_rng(number).bytes(size) for number, size in enumerate((0, 3_000_001, 5, 70_000, 1 << 20))
    ]
    paths = [tmp_path / "first", tmp_path / "second"]
    with WriteBackThrottle() as following:
        for path in paths:
            with path.open("wb", buffering=0) as file:
                for part in parts:
                    file.write(part)
                    following.more(path)
    assert {path.read_bytes() for path in paths} == {b"".join(parts)}
