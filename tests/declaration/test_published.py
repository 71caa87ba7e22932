"""Published counts next to those of an archive or a build."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lung_nodule_ct import CONFIGS
from lung_nodule_ct.declaration.configs import add_config
from lung_nodule_ct.examples.report import inspect_source
from lung_nodule_ct.sources.resolve import open_folder


@pytest.mark.parametrize("name", CONFIGS)
def test_a_further_config_of_a_kind_does_not_change_the_counts(dummy, name: str) -> None:
    before = inspect_source(open_folder(dummy)).figures()
    further = replace(CONFIGS[name], name="further", longitudinal=False)
    add_config(further)
    try:
        assert inspect_source(open_folder(dummy)).figures() == before
    finally:
        del CONFIGS["further"]
