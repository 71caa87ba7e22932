"""CT windows, compared with ITK."""

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from lung_nodule_ct.geometry.display import LUNG, MEDIASTINAL, PRESETS, Window


@given(
    st.lists(st.integers(-32768, 32767), min_size=1), st.sampled_from([LUNG, MEDIASTINAL, Window("bone", 400, 1800)])
)
def test_grey_values_equal_those_of_itk(values, window):
    hu = np.array(values, np.int16)
    image = sitk.GetImageFromArray(hu[None].astype(np.float64))
    expected = sitk.GetArrayFromImage(sitk.IntensityWindowing(image, window.low, window.high, 0.0, 255.0))[0]
    assert np.abs(window.to_grey(hu) - expected).max() <= 0.5 + 1e-3


def test_a_window_of_width_zero_is_refused():
    with pytest.raises(ValueError, match="width"):
        Window("none", 0, 0)


def test_the_presets_of_chest_ct():
    assert [(each.name, each.low, each.high) for each in PRESETS] == [("lung", -1350, 150), ("mediastinal", -160, 240)]


def test_greys_are_rounded_to_the_nearest():
    grey = Window("unit", 127.5, 255).to_grey(np.array([-1, 0, 0.4, 0.6, 1, 254.4, 254.6, 255, 256]))
    assert grey.dtype == np.uint8
    assert grey.tolist() == [0, 0, 0, 1, 1, 254, 255, 255, 255]


def test_a_width_of_less_than_one_is_a_width():
    assert Window("narrow", 0, 0.5).high == 0.25
    with pytest.raises(ValueError, match="got nan"):
        Window("none", 0, float("nan"))
