"""Plain English: patterns that make a text hard to read for somebody whose first language is not English.

Each pattern has a replacement. The check covers code, comments, docstrings, messages and pages.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXEMPT = {"CHANGELOG.md", "LICENSE", "tests/project/test_language.py", "benchmarks/RESULTS.md"}
SUFFIXES = {".py", ".md", ".js", ".css", ".html", ".toml", ".yml", ".yaml", ".cff"}

_UNIT = (
    "row|slice|config|split|shard|volume|scan|patient|file|record|page|table|step|class|module|box|case|member|image"
)

PATTERNS = {
    r"\b(?:told|tells?|telling)\b(?!\()": "reported, predicted, matched, distinguishes",
    r"(?<![-\w])(?:stands?|stood)(?![-\w])": "is stored, occurs, is listed",
    r"\bbeside\b(?!\.json|_)": "next to, with, sidecar",
    r"\bsettl(?:e|es|ed|ing)\b": "write back",
    r"(?<![Tt]here )\bis no (?!longer\b|more\b)[a-z]+": "is not a",
    r"\b(?:As|as) of :\w+:": "state the condition itself",
    r"\bfor want of\b": "because there is no",
    r"\banew\b": "again",
    r"\bor else\b": "otherwise",
    r"\bshall\b": "must, will",
    r"\b(?:lest|whence|thereof|heretofore|therein|wherein)\b": "plain words",
    rf"\b(?:an?|one|the) \w+ an? (?:{_UNIT})\b": "one X per row",
    r"\b(?:bytes|ms|seconds|dates|boxes|lines|rows|pixels|voxels) an? [a-z]+\b": "bytes per element",
    r"\bso many (?!of\b)\w+ (?:of|are|is)\b": "a number of",
    r"\bbe had\b": "be obtained, be available",
    r"\bwhoever\b|\bwho asks\b|\bwhatsoever\b": "name the thing",
    r"\bretellings?\b|\bcrew\b|\bmade[- ]up\b": "cross-checks, workers, synthetic",
}


def files() -> list[Path]:
    """All tracked text files of the project."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = [name for name in listed.stdout.splitlines() if Path(name).suffix in SUFFIXES and name not in EXEMPT]
    return [ROOT / name for name in names if (ROOT / name).is_file()]


@pytest.mark.parametrize(("pattern", "instead"), PATTERNS.items())
def test_no_text_uses(pattern: str, instead: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:160]}"
        for path in files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert not found, f"say it in plain words ({instead}):\n" + "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "it is no image",
        "one file a config",
        "As of :meth:`read`",
        "found beside it",
        "what is told",
        "made anew",
        "2 bytes an element",
    ],
)
def test_the_patterns_match_what_they_should(text: str) -> None:
    assert any(re.search(pattern, text) for pattern in PATTERNS)


@pytest.mark.parametrize(
    "text", ["it is no longer an image", "one file per config", "beside.json", "table-stands-in", "a row of a table"]
)
def test_the_patterns_leave_plain_text_alone(text: str) -> None:
    assert not any(re.search(pattern, text) for pattern in PATTERNS)
