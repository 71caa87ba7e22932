"""Commands that are killed or interrupted at calls to the file system. ``python -m benchmarks.kills`` is the long version."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the command is a forked process"),
]


@pytest.mark.parametrize(
    ("number", "scenarios"),
    [
        ("KILL", ("build-parquet-1", "add-parquet-1", "add-arrow-1", "add-parquet-2", "add-two-steps")),
        ("KILL", ("prepare-1", "prepare-2", "card", "preview")),
        ("INT", ("add-parquet-1", "add-parquet-2", "prepare-2", "card")),
    ],
)
def test_nothing_is_lost_and_the_next_command_removes_what_is_left(number, scenarios) -> None:
    command = [sys.executable, "-m", "benchmarks.kills", "--most", "3", "--signal", number, "--only", *scenarios]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{3 * len(scenarios)} kills    0 failures" in done.stdout
