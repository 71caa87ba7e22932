"""Tests never read or write the caches of a user."""

from __future__ import annotations

import os
from pathlib import Path

import datasets
import huggingface_hub.constants

from lung_nodule_ct.system.files import cache_folder


def test_every_cache_is_one_of_the_tests() -> None:
    """Also those that libraries fix when they are imported, which happens before any fixture runs."""
    own = Path(os.environ["HF_HOME"]).parent
    assert "lung-nodule-ct-tests-" in own.name
    for folder in (
        datasets.config.HF_DATASETS_CACHE,
        datasets.config.HF_MODULES_CACHE,
        huggingface_hub.constants.HF_HUB_CACHE,
        cache_folder(),
        os.environ["TFDS_DATA_DIR"],
        os.environ["XDG_CACHE_HOME"],
    ):
        assert own in Path(folder).parents, folder
