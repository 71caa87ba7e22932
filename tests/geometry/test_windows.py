"""CT windows, compared with ITK."""

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from lung_nodule_ct.geometry.display import LUNG, MEDIASTINAL, Window


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
