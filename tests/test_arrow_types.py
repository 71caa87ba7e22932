"""Our Arrow types are those of datasets."""

import pytest

from lung_nodule_ct.spec.configs import CONFIGS
from lung_nodule_ct.targets.arrow_types import to_arrow_schema
from lung_nodule_ct.targets.features import built_schema, to_features


@pytest.mark.parametrize("config", CONFIGS)
def test_they_are_those_that_datasets_gives_the_same_features(config) -> None:
    schema = built_schema(CONFIGS[config], keep_source_names=True)
    assert to_arrow_schema(schema) == to_features(schema).arrow_schema.remove_metadata()
