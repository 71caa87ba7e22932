"""Tests never read or write the caches of a user."""

from __future__ import annotations

import os
from pathlib import Path

import datasets
import huggingface_hub.constants

from lung_nodule_ct.system.files import cache_folder


def test_every_cache_is_in_the_folder_of_the_tests() -> None:
    """Includes the caches that libraries set when they are imported, before any fixture runs."""
    caches = Path(os.environ["HF_HOME"]).parent
    assert "lung-nodule-ct-tests-" in caches.name
    for folder in (
        datasets.config.HF_DATASETS_CACHE,
        datasets.config.HF_MODULES_CACHE,
        huggingface_hub.constants.HF_HUB_CACHE,
        cache_folder(),
        os.environ["TFDS_DATA_DIR"],
        os.environ["XDG_CACHE_HOME"],
    ):
        assert caches in Path(folder).parents, folder
