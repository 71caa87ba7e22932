"""The metadata for ``datasets`` that this package writes equal those that ``datasets`` writes."""

import json

import datasets
import pytest

from lung_nodule_ct.declaration.configs import CONFIGS
from lung_nodule_ct.publish.preview_config import PREVIEW_SCHEMA
from lung_nodule_ct.targets.columns import InfoOfConfig, features_json, to_arrow_schema, to_features, to_hub_schema

SCHEMAS = {name: config.built_schema(keep_source_names=True) for name, config in CONFIGS.items()} | {
    "preview": PREVIEW_SCHEMA
}
each_schema = pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)


@each_schema
def test_arrow_types_and_metadata_equal_those_of_datasets(schema) -> None:
    features = to_features(schema)
    assert features_json(schema.columns) == features.to_dict()
    assert to_hub_schema(schema).equals(features.arrow_schema, check_metadata=True)
    assert to_arrow_schema(schema).metadata is None


@each_schema
def test_dataset_info_equals_that_of_datasets(schema, tmp_path) -> None:
    info = InfoOfConfig(schema.columns, {"train": 3, "test": 1}, [("train", 50, 5), ("test", 7, 4), ("train", 20, 2)])
    splits = datasets.SplitDict()
    splits.add(datasets.SplitInfo("train", num_bytes=70, num_examples=3))
    splits.add(datasets.SplitInfo("test", num_bytes=7, num_examples=1))
    expected = datasets.DatasetInfo(features=to_features(schema), splits=splits, download_size=11, dataset_size=77)
    assert info.to_yaml() == expected._to_yaml_dict()
    expected.write_to_directory(str(tmp_path))
    assert info.to_json() == json.loads((tmp_path / "dataset_info.json").read_text())
