"""Arrow columns of rows, compared with those that pyarrow makes of the same values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lung_nodule_ct.declaration.configs import CONFIGS
from lung_nodule_ct.targets.columns import to_column, to_hub_schema

KINDS = sorted({field.type for config in CONFIGS.values() for field in to_hub_schema(config.schema)}, key=str)


def _values(kind: pa.DataType) -> st.SearchStrategy[Any]:
    """Return a strategy for the values of a type, with null."""
    if pa.types.is_struct(kind):
        strategy: st.SearchStrategy[Any] = st.fixed_dictionaries({field.name: _values(field.type) for field in kind})
    elif pa.types.is_fixed_size_list(kind):
        strategy = st.lists(_values(kind.value_type), min_size=kind.list_size, max_size=kind.list_size)
    elif pa.types.is_list(kind):
        strategy = st.lists(_values(kind.value_type), max_size=4).map(tuple)
    elif pa.types.is_string(kind):
        strategy = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        strategy = st.binary(max_size=5)
    elif pa.types.is_boolean(kind):
        strategy = st.booleans()
    elif pa.types.is_integer(kind):
        strategy = st.integers(-(2 ** (kind.bit_width - 1)), 2 ** (kind.bit_width - 1) - 1)
    else:
        strategy = st.floats(width=kind.bit_width, allow_nan=False)
    return st.none() | strategy


@given(data=st.data())
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.slow
def test_a_column_equals_that_of_pyarrow(kind: pa.DataType, data: st.DataObject) -> None:
    values = data.draw(st.lists(_values(kind), max_size=5))
    column = to_column(values, kind)
    column.validate(full=True)
    assert column.equals(pa.array(values, kind))


def test_the_bytes_of_a_column_with_one_value_are_not_copied() -> None:
    voxels = np.arange(8, dtype=np.uint8)
    column = to_column([voxels], pa.large_binary())
    voxels[0] = 9
    assert column[0].as_py()[0] == 9


@pytest.mark.parametrize(
    ("value", "kind", "error"),
    [
        ("7", pa.int32(), TypeError),
        (1.5, pa.int32(), TypeError),
        (2**31, pa.int32(), OverflowError),
        ("0.5", pa.float64(), TypeError),
        ((1, 2), pa.list_(pa.int32(), 3), ValueError),
        (1, pa.int8(), TypeError),
    ],
)
def test_a_value_of_another_type_is_an_error(value: Any, kind: pa.DataType, error: type[Exception]) -> None:
    with pytest.raises(error):
        to_column([value], kind)
