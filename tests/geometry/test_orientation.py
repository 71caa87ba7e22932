"""Display order of volumes, compared with the reorientation of ITK."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given

from lung_nodule_ct.geometry.display import Orientation
from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.testing.strategies import axis_aligned_directions


@given(axis_aligned_directions())
def test_voxels_points_and_boxes_are_reoriented_as_in_itk(direction):
    stored = np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5)
    spacing = (0.5, 0.75, 2.0)
    image = sitk.GetImageFromArray(stored)
    image.SetSpacing(spacing)
    image.SetOrigin((10.0, -20.0, 30.0))
    image.SetDirection(direction)
    reoriented = sitk.DICOMOrient(image, "LPS")
    orientation = Orientation.from_frame(Frame((10.0, -20.0, 30.0), spacing, direction))
    assert np.array_equal(orientation.volume(stored), sitk.GetArrayFromImage(reoriented))
    assert orientation.extent(spacing) == reoriented.GetSpacing()
    assert orientation.tilt_degrees == pytest.approx(0, abs=1e-6)
    point = (1.25, 0.5, 1.75)
    world = image.TransformContinuousIndexToPhysicalPoint(point)
    assert orientation.point(point, stored.shape) == pytest.approx(
        reoriented.TransformPhysicalPointToContinuousIndex(world)
    )
    x0, y0, z0, x1, y1, z1 = (1, 0, 1, 4, 3, 2)
    u0, v0, w0, u1, v1, w1 = orientation.box((x0, y0, z0, x1, y1, z1), stored.shape)
    inside = orientation.volume(stored)[w0:w1, v0:v1, u0:u1]
    assert sorted(inside.ravel()) == sorted(stored[z0:z1, y0:y1, x0:x1].ravel())


def test_the_tilt_of_a_scan_is_given_in_degrees():
    angle = np.radians(12)
    tilted = (1, 0, 0, 0, np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle))
    orientation = Orientation.from_frame(Frame(direction=tilted))
    assert (orientation.axes, orientation.flipped) == ((0, 1, 2), (False, False, False))
    assert orientation.tilt_degrees == pytest.approx(12)


def test_an_orientation_needs_each_axis_once():
    with pytest.raises(ValueError, match="once"):
        Orientation((0, 0, 2))


def test_without_a_frame_a_volume_is_displayed_as_stored():
    assert Orientation() == Orientation((0, 1, 2), (False, False, False), 0.0)
    with pytest.raises(ValueError, match="got"):
        Orientation(flipped=(False, False))


def test_the_nearest_axes_are_chosen_together_and_the_largest_tilt_is_given():
    turned = np.radians(30)
    about_x = (1, 0, 0, 0, np.cos(turned), -np.sin(turned), 0, np.sin(turned), np.cos(turned))
    mirrored = np.array(about_x).reshape(3, 3)[:, [2, 0, 1]] * (-2, 1, 3)  # columns of any length
    orientation = Orientation.from_frame(Frame(direction=tuple(mirrored.ravel())))
    assert (orientation.axes, orientation.flipped) == ((1, 2, 0), (False, False, True))
    assert orientation.tilt_degrees == pytest.approx(30)
    sheared = Orientation.from_frame(Frame(direction=(1, 0, 0, 0, 1, 1, 0, 0, 1)))
    assert sheared.tilt_degrees == pytest.approx(45)
