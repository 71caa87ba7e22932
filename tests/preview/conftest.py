"""A browser and the page of the embedded archives."""

from __future__ import annotations

from pathlib import Path

import chromium
import pytest
from preview_page import build_into

from lung_nodule_ct.preview import write_preview

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def browser():
    if chromium.PROGRAM is None:
        pytest.skip("Chromium is not installed")
    with chromium.started() as started:
        yield started


@pytest.fixture(scope="session")
def build(tmp_path_factory):
    """The embedded archives, with source names."""
    return build_into(ROOT / "dummy_data", tmp_path_factory.mktemp("preview") / "build")


@pytest.fixture(scope="session")
def page(build):
    return write_preview(build).path
