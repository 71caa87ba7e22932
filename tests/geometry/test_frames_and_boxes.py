"""Frames compared with SimpleITK, boxes of spheres compared with all voxels, and conversions between box formats."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from lung_nodule_ct import Frame, convert_boxes
from lung_nodule_ct.geometry.boxes import SphereBox, clip_box, slice_range, sphere_box
from lung_nodule_ct.testing.strategies import frames, points


def image_of(frame: Frame) -> sitk.Image:
    image = sitk.Image([4, 5, 6], sitk.sitkInt16)
    image.SetOrigin(frame.origin)
    image.SetSpacing(frame.spacing)
    image.SetDirection(frame.direction)
    return image


@given(frames(), points())
def test_frame_agrees_with_simpleitk(frame, point) -> None:
    image = image_of(frame)
    index = image.TransformPhysicalPointToContinuousIndex(point)
    assert np.abs((frame.to_voxel(point) - index) * frame.spacing).max() < 1e-6
    assert np.abs(frame.to_world(point) - image.TransformContinuousIndexToPhysicalPoint(point)).max() < 1e-6


@given(frames(), st.lists(points(), min_size=1, max_size=5))
def test_world_and_voxel_are_inverse_for_many_points(frame, many) -> None:
    assert frame.to_world(frame.to_voxel(many)).shape == (len(many), 3)
    np.testing.assert_allclose(frame.to_world(frame.to_voxel(many)), many, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "xyz", "target": "zyxzyx"}, "source: expected one of xyzxyz, zyxzyx, cccwhd, got 'xyz'"),
        ({"source": "xyzxyz", "target": "yolo"}, "target: expected one of xyzxyz"),
        ({"source": "xyzxyz", "target": "zyxzyx", "source_bounds": "open"}, "expected one of half-open, inclusive"),
    ],
)
def test_unknown_forms_of_boxes_are_refused_with_the_choices(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        convert_boxes([1, 2, 3, 4, 5, 6], **arguments)


def test_an_unknown_world_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="space: expected LPS or RAS, got 'LAS'"):
        Frame().affine("LAS")


@pytest.mark.parametrize(
    "wrong",
    [
        {"spacing": (1, 0, 1)},
        {"spacing": (1, -1, 1)},
        {"origin": (float("nan"), 0, 0)},
        {"direction": (1, 0, 0, 0, 1, 0, 0, 0, 0)},
        {"direction": (1, 0, 0)},
        {"direction": (1e308, 1e308, 0, 1e308, -1e308, 0, 0, 0, 1e308)},
        {"spacing": (1e-320, 1, 1)},
    ],
)
def test_invalid_frames_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Frame(**wrong)


def test_a_frame_without_arguments_is_the_index_itself() -> None:
    assert Frame() == Frame((0, 0, 0), (1, 1, 1), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    assert Frame().to_world([1, 2, 3]).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("origin", {"origin": (0, 0)}),
        ("origin", {"origin": (0, 0, 0, 0)}),
        ("spacing", {"spacing": (1, 1)}),
        ("spacing", {"spacing": (1, float("inf"), 1)}),
        ("direction", {"direction": (1, 0, 0, 0, 1, 0, 0, 0, 1, 0)}),
        ("direction", {"direction": (1e-5, 0, 0, 0, 1e-5, 0, 0, 0, 1)}),
    ],
)
def test_the_error_of_an_invalid_frame_names_what_is_wrong(name, wrong) -> None:
    with pytest.raises(
        ValueError, match=rf"^{name}: expected .*, got \({', '.join(map(str, map(float, wrong[name])))}\)"
    ):
        Frame(**wrong)


def test_a_direction_is_invertible_from_a_determinant_of_one_in_a_thousand_million() -> None:
    assert Frame(direction=(2e-9, 0, 0, 0, 1, 0, 0, 0, 1)).to_voxel([2e-9, 0, 0])[0] == pytest.approx(1)
    assert not Frame(direction=(1e200, 0, 0, 0, 1, 0, 0, 0, 1)).is_orthonormal


@pytest.mark.parametrize(
    ("direction", "orthonormal"),
    [
        ((0.6, -0.8, 0, 0.8, 0.6, 0, 0, 0, 1), True),  # a rotation whose matrix is not symmetric
        ((0, 1, 0, 0, 0, -1, 1, 0, 0), True),
        ((1, 0, 0, 0, 1, 0, 0, 0, 1.00004), True),  # as rounded in a header
        ((1, 0, 0, 0, 1, 0, 0, 0, 1.0002), False),
        ((1, 8e-5, 0, 0, 1, 0, 0, 0, 1), True),
        ((1, 2e-4, 0, 0, 1, 0, 0, 0, 1), False),
        ((1, 0, 0.3, 0, 1, 0, 0, 0, 1), False),  # a shear
        ((2, 0, 0, 0, 0.5, 0, 0, 0, 1), False),
    ],
)
def test_a_direction_is_orthonormal_within_a_ten_thousandth(direction, orthonormal) -> None:
    assert Frame(direction=direction).is_orthonormal is orthonormal


def test_the_frame_of_a_row_needs_all_three_columns() -> None:
    row = {"origin": [1, 2, 3], "spacing": [1, 1, 2], "direction": [0, 1, 0, 1, 0, 0, 0, 0, 1], "label": 3}
    assert Frame.from_row(row) == Frame((1, 2, 3), (1, 1, 2), (0, 1, 0, 1, 0, 0, 0, 0, 1))
    for name in ("origin", "spacing", "direction"):
        assert Frame.from_row({key: value for key, value in row.items() if key != name}) is None
    assert Frame.from_row({}) is None


@given(
    st.tuples(*[st.floats(-3, 12).map(lambda value: round(value, 2))] * 3),
    st.floats(0.5, 9).map(lambda value: round(value, 2)),
    st.tuples(*[st.sampled_from([0.5, 0.8, 1.25, 5.0])] * 3),
)
def test_sphere_box_is_the_bounding_box_of_the_voxels_in_the_sphere(center, diameter, spacing) -> None:
    shape = (7, 8, 9)
    box = sphere_box(center, diameter, spacing, shape)
    z, y, x = np.indices(shape)
    axes = [np.arange(n) for n in shape[::-1]]
    # along each axis, the voxels whose distance to the centre of the sphere is at most the radius
    within = [np.abs(a - c) * s <= diameter / 2 + 1e-6 for a, c, s in zip(axes, center, spacing, strict=True)]
    inside = within[2][z] & within[1][y] & within[0][x]
    if not inside.any():
        assert box.clipped is None
        return
    x0, y0, z0, x1, y1, z1 = box.clipped
    expected = np.zeros(shape, bool)
    expected[z0:z1, y0:y1, x0:x1] = True
    assert (inside == expected).all()


def test_a_sphere_between_voxels_is_distinguished_from_one_outside() -> None:
    between = sphere_box((1, 1, 0.5), 1, (1, 1, 5), (3, 3, 3))
    outside = sphere_box((-9, 1, 1), 4, (1, 1, 1), (3, 3, 3))
    assert between.clipped is None
    assert between.between_voxels
    assert outside.clipped is None
    assert not outside.between_voxels


def test_a_voxel_on_the_surface_of_a_sphere_belongs_to_it_within_the_published_digits() -> None:
    shape = (20, 20, 20)
    inside = SphereBox((8, 8, 8, 13, 13, 13), (8, 8, 8, 13, 13, 13))
    assert sphere_box((10, 10, 10), 4, (1, 1, 1), shape) == inside
    assert sphere_box((10, 10, 10), 4 - 1e-6, (1, 1, 1), shape) == inside  # as rounded to six digits
    assert sphere_box((10, 10, 10), 4 + 1e-6, (1, 1, 1), shape) == inside
    assert sphere_box((10, 10, 10), 4 - 1e-5, (1, 1, 1), shape).unclipped == (9, 9, 9, 12, 12, 12)
    assert sphere_box((10.3, 10, 9.8), 4, (1, 0.5, 2), shape).unclipped == (9, 6, 9, 13, 15, 11)


def test_the_box_of_a_sphere_ends_at_the_border_of_the_volume() -> None:
    at_the_end = sphere_box((7, 5, 3), 2, (1, 1, 1), (4, 6, 8))
    assert at_the_end == SphereBox((6, 4, 2, 9, 7, 5), (6, 4, 2, 8, 6, 4))
    assert clip_box((0, 0, 0, 8, 6, 4), (4, 6, 8)) == (0, 0, 0, 8, 6, 4)
    assert clip_box((7, 5, 3, 8, 6, 4), (4, 6, 8)) == (7, 5, 3, 8, 6, 4)
    assert clip_box((8, 0, 0, 9, 6, 4), (4, 6, 8)) is None


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (3, 7, (1, 4)),
        (1, 9, (0, 5)),
        (1, 1, (0, 1)),
        (9, 9, (4, 5)),
        (4, 4, (2, 2)),  # between two slices
        (2, 8, (1, 4)),
        (0, 0, (-1, 0)),  # before the first slice, one number is one index
        (-2, 3, (-3, 2)),
        (-3, -2, (-4, -2)),
        (10, 10, (5, 6)),
        (9, 12, (4, 8)),
        (12, 13, (7, 9)),
    ],
)
def test_slices_are_found_by_their_numbers(low, high, expected) -> None:
    assert slice_range(low, high, [1, 3, 5, 7, 9]) == expected


@given(st.tuples(*[st.integers(-5, 15)] * 6))
def test_clipping_equals_array_slicing(box) -> None:
    shape = (4, 6, 8)
    x0, y0, z0, x1, y1, z1 = box
    padded = np.zeros((40, 40, 40), bool)
    padded[z0 + 10 : z1 + 10, y0 + 10 : y1 + 10, x0 + 10 : x1 + 10] = True
    inside = padded[10 : 10 + shape[0], 10 : 10 + shape[1], 10 : 10 + shape[2]]
    clipped = clip_box(box, shape)
    expected = np.zeros(shape, bool)
    if clipped is not None:
        expected[clipped[2] : clipped[5], clipped[1] : clipped[4], clipped[0] : clipped[3]] = True
    assert (inside == expected).all()
    assert (clipped is None) == (not inside.any())


FORMS = ["xyzxyz", "zyxzyx", "cccwhd"]
BOUNDS = ["half-open", "inclusive"]
boxes = st.lists(
    st.tuples(*[st.integers(-1000, 1000)] * 3, *[st.integers(1, 500)] * 3).map(
        lambda v: (*v[:3], *(low + size for low, size in zip(v[:3], v[3:], strict=True)))
    ),
    min_size=1,
    max_size=4,
)


@given(boxes, st.sampled_from(FORMS), st.sampled_from(BOUNDS))
def test_a_conversion_and_its_inverse_return_the_same_boxes(many, form, bounds) -> None:
    converted = convert_boxes(many, "xyzxyz", form, target_bounds=bounds)
    restored = convert_boxes(converted, form, "xyzxyz", source_bounds=bounds)
    assert (restored == np.array(many)).all()


def test_every_form_and_bound_contains_the_same_voxels() -> None:
    volume = np.zeros((10, 11, 12), bool)
    box = (2, 3, 4, 5, 7, 9)
    x0, y0, z0, x1, y1, z1 = box
    volume[z0:z1, y0:y1, x0:x1] = True
    low_zyx, high_zyx = np.split(convert_boxes(box, "xyzxyz", "zyxzyx", target_bounds="inclusive"), 2)
    inside_voxels = np.argwhere(volume)
    assert (inside_voxels.min(0) == low_zyx).all()
    assert (inside_voxels.max(0) == high_zyx).all()
    center, size = np.split(convert_boxes(box, "xyzxyz", "cccwhd"), 2)
    # the coordinates of a box count from the edge of the first voxel, an index from its centre
    assert (center - 0.5 == inside_voxels[:, ::-1].mean(0)).all()
    assert size.prod() == volume.sum()


def test_integers_stay_integers() -> None:
    assert convert_boxes([[0, 0, 0, 1, 2, 3]], "xyzxyz", "zyxzyx").dtype.kind == "i"


def test_other_numbers_become_float64() -> None:
    assert convert_boxes(np.array([0, 0, 0, 1, 2, 3], np.float32), "xyzxyz", "zyxzyx").dtype == np.float64
    assert convert_boxes(["0.5", "0", "0", "1.5", "2", "3"], "xyzxyz", "zyxzyx").tolist() == [0, 0, 0.5, 3, 2, 1.5]
    assert convert_boxes([0, 0, 0, 1, 2, 3], "xyzxyz", "cccwhd").dtype == np.float64


def test_boxes_have_half_open_bounds_unless_others_are_given() -> None:
    assert convert_boxes([0, 0, 0, 1, 2, 3], "xyzxyz", "xyzxyz").tolist() == [0, 0, 0, 1, 2, 3]
    assert convert_boxes([0, 0, 0, 1, 2, 3], "xyzxyz", "xyzxyz", target_bounds="inclusive").tolist() == [
        0,
        0,
        0,
        0,
        1,
        2,
    ]
    assert convert_boxes(np.zeros((0, 6), int), "xyzxyz", "zyxzyx").shape == (0, 6)


def test_the_error_shows_the_boxes_without_a_voxel() -> None:
    with pytest.raises(ValueError, match=r"^boxes: .*got array\(\[\[0, 0, 0, 1, 0, 1\]\]\)"):
        convert_boxes([[0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 0, 1]], "xyzxyz", "cccwhd")
    with pytest.raises(ValueError, match=r"^boxes: expected shape .*got \(1, 1, 6\)"):
        convert_boxes([[[0, 0, 0, 1, 1, 1]]], "xyzxyz", "cccwhd")


@pytest.mark.parametrize(
    ("wrong", "form"), [([0, 0, 0, 1, 1], "xyzxyz"), ([0, 0, 0, 0, 1, 1], "xyzxyz"), ([0, 0, 0, 1, 1, 1], "xyxyzz")]
)
def test_invalid_boxes_are_refused(wrong, form) -> None:
    with pytest.raises(ValueError, match=r"boxes|xyxyzz"):
        convert_boxes(wrong, form, "cccwhd")


def test_a_box_of_one_voxel_has_equal_inclusive_bounds() -> None:
    one = convert_boxes([4, 4, 4, 4, 4, 4], "xyzxyz", "xyzxyz", source_bounds="inclusive")
    assert one.tolist() == [4, 4, 4, 5, 5, 5]
