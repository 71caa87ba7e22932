"""A file that settles while it is written is the same file, and its hash that of its bytes."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from lung_nodule_ct.targets import settling
from lung_nodule_ct.targets.settling import Settling


@pytest.mark.parametrize("hashed", [True, False])
@pytest.mark.parametrize("enough", [1, 100_000, 1 << 30])
def test_what_is_written_stays_and_is_hashed(tmp_path, monkeypatch, hashed, enough) -> None:
    monkeypatch.setattr(settling, "_ENOUGH", enough)
    parts = [
        np.random.default_rng(number).bytes(size) for number, size in enumerate((0, 3_000_001, 5, 70_000, 1 << 20))
    ]
    path = tmp_path / "file"
    with Settling(path, hashed=hashed) as following:
        with path.open("wb", buffering=0) as file:
            for part in parts:
                file.write(part)
                following.more()
        digest = following.digest()
    assert path.read_bytes() == b"".join(parts)
    assert digest == (hashlib.sha256(b"".join(parts)).hexdigest() if hashed else None)
