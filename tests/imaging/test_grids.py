"""Scans on other grids: SimpleITK as the reference, world points that stay, and ways back."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import lung_nodule_ct
from lung_nodule_ct import imaging
from lung_nodule_ct.geometry.boxes import sphere_box
from lung_nodule_ct.geometry.display import MEDIASTINAL
from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.imaging import Scan
from lung_nodule_ct.read.volumes import Volume
from lung_nodule_ct.testing.phantoms import PhantomNodule, make_chest
from lung_nodule_ct.testing.strategies import axis_aligned_directions, frames, points

TILTED = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)
NODULE = {"nodule_id": "1-0-0", "center_world": (12.0, 10.0, 9.0), "diameter_mm": 6.0, "pathology": None}


def noise(shape=(9, 14, 17), dtype=np.float32, seed=0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=shape) * 300).astype(dtype)


def scan_of(frame: Frame, shape=(9, 14, 17), dtype=np.int16) -> Scan:
    mask = np.random.default_rng(1).choice(np.array([0, 3, 4, 7], np.uint8), shape)
    return Scan(noise(shape, dtype), frame, mask, (NODULE,))


def by_simpleitk(array: np.ndarray, frame: Frame, target: Frame, shape, interpolator) -> np.ndarray:
    image = SimpleITK.GetImageFromArray(array)
    image.SetOrigin(frame.origin)
    image.SetSpacing(frame.spacing)
    image.SetDirection(frame.direction)
    result = SimpleITK.Resample(
        image,
        tuple(reversed(shape)),
        SimpleITK.Transform(),
        interpolator,
        target.origin,
        target.spacing,
        target.direction,
        -1024.0,
    )
    return SimpleITK.GetArrayFromImage(result)


# --- SimpleITK as the reference ---------------------------------------------------------------------------------------

GRIDS = {
    "spacing": Frame((0.3, 0.1, 0.2), (1.3, 0.7, 1.9)),
    "larger": Frame((-5.0, -4.0, -3.0), (1.3, 0.7, 1.9)),
    "turned axes": Frame((16.2, 0.4, 0.3), (1.1, 1.2, 1.3), (0.0, -1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0)),
    "tilted": Frame((4.0, -3.0, 0.3), (1.1, 1.2, 1.3), TILTED),
}


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize(
    ("interpolation", "interpolator"),
    [
        ("linear", SimpleITK.sitkLinear),
        ("nearest", SimpleITK.sitkNearestNeighbor),
        ("b-spline", SimpleITK.sitkBSpline),
    ],
)
def test_values_are_those_of_simpleitk(name, interpolation, interpolator) -> None:
    frame, target, shape = Frame((0.0, 0.5, 1.0), (0.9, 1.0, 1.1)), GRIDS[name], (11, 12, 13)
    array = noise()
    found = imaging.on_grid(Volume(array, frame), target, shape, interpolation=interpolation)
    expected = by_simpleitk(array, frame, target, shape, interpolator)
    assert found.array.dtype == np.float32
    np.testing.assert_allclose(found.array, expected, atol=2e-2)
    assert (found.array == -1024).any() == (expected == -1024).any()


@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
@pytest.mark.parametrize("origin", [(4.0, 5.0, 6.0), (-9.0, 8.0, 9.0), (17.0, 18.0, 17.0), (-300.0, 0.0, 0.0)])
def test_a_tilted_part_is_that_of_the_tilted_whole(interpolation, origin) -> None:
    """Only the part of a volume that contributes is given to SimpleITK."""
    volume, tilted = (
        Volume(noise((22, 22, 22)), Frame((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))),
        Frame(origin, (0.8,) * 3, TILTED),
    )
    whole = imaging.on_grid(volume, tilted, (60, 60, 60), interpolation=interpolation)
    part = imaging.on_grid(volume, tilted, (5, 6, 7), interpolation=interpolation)
    np.testing.assert_allclose(part.array, whole.array[:5, :6, :7], atol=1e-3)


def test_resampling_to_a_spacing_is_that_of_simpleitk() -> None:
    scan = scan_of(Frame((3.0, -2.0, 1.0), (0.7, 0.7, 2.5)))
    found = imaging.resample(scan, (1.0, 1.0, 1.0))
    expected = by_simpleitk(scan.array.astype(np.float32), scan.frame, found.frame, found.shape, SimpleITK.sitkLinear)
    assert found.array.dtype == np.int16
    np.testing.assert_allclose(found.array, expected, atol=0.501)


def test_a_b_spline_is_that_of_scipy_away_from_the_border() -> None:
    array = noise((20, 20, 20))
    found = imaging.on_grid(
        Volume(array, Frame()), Frame((6.3, 6.2, 6.1)), (6, 6, 6), interpolation=imaging.Interpolation.B_SPLINE
    )
    z, y, x = np.mgrid[6.1:12, 6.2:12, 6.3:12]
    np.testing.assert_allclose(found.array, ndimage.map_coordinates(array, [z, y, x], order=3, mode="mirror"), atol=0.5)


def test_integers_stay_integers_and_a_b_spline_does_not_overflow() -> None:
    array = np.where(np.indices((8, 8, 8)).sum(0) % 2, 32767, -32768).astype(np.int16)
    for interpolation in imaging.Interpolation:
        found = imaging.resample(Volume(array, Frame()), (0.7, 0.7, 0.7), interpolation=interpolation)
        assert found.array.dtype == np.int16
    assert imaging.resample(Volume(np.full((4, 4, 4), 200, np.uint8), Frame()), (0.7,) * 3).array.min() == 200


def test_a_mask_has_only_its_labels() -> None:
    found = imaging.resample(scan_of(Frame(spacing=(0.8, 0.8, 2.0))), (1.1, 1.1, 1.1), interpolation="b-spline")
    assert found.lung_mask.dtype == np.uint8
    assert set(np.unique(found.lung_mask)) == {0, 3, 4, 7}


# --- properties -------------------------------------------------------------------------------------------------------

SHAPES = st.tuples(*(st.integers(2, 9),) * 3)
STEPS = st.tuples(*(st.floats(0.3, 4.0),) * 3)


@settings(max_examples=60)
@given(frame=frames(), shape=SHAPES, spacing=STEPS, world=points())
def test_a_world_point_stays(frame, shape, spacing, world) -> None:
    nodule = {**NODULE, "center_world": world, "diameter_mm": 5.0}
    scan = Scan(np.zeros(shape, np.int16), frame, nodules=(nodule,))
    changed = [
        imaging.resample(scan, [size * step for size, step in zip(frame.spacing, spacing, strict=True)]),
        imaging.crop(scan, (-1, 0, 1, 3, 2, 2)),
        imaging.pad(scan, (10, 3, 12)),
        imaging.canonical(scan),
    ]
    for moved in changed:
        (entry,) = moved.nodules
        assert entry["center_world"] == world
        np.testing.assert_allclose(moved.frame.to_world(entry["center_voxel"]), world, atol=1e-6)
        expected = sphere_box(entry["center_voxel"], 5.0, moved.frame.spacing, moved.shape).clipped
        assert entry["box_voxel"] == expected


@settings(max_examples=60)
@given(direction=axis_aligned_directions(), spacing=STEPS, seed=st.integers(0, 99))
def test_voxels_stay_at_their_world_positions(direction, spacing, seed) -> None:
    """A volume whose values are a linear function of the world position has the same values on every grid."""
    slope = np.random.default_rng(seed).normal(size=3)
    frame = Frame((3.0, -7.0, 11.0), (0.9, 1.1, 2.0), direction)
    z, y, x = np.indices((6, 8, 10))
    values = (frame.to_world(np.stack([x, y, z], -1).reshape(-1, 3)) @ slope).reshape(x.shape).astype(np.float32)
    scan = Scan(values, frame)
    for moved in (imaging.resample(scan, spacing), imaging.canonical(scan), imaging.crop(scan, (1, 2, 1, 9, 8, 5))):
        z, y, x = np.indices(moved.shape)
        grid = np.stack([x, y, z], -1).reshape(-1, 3)
        world = moved.frame.to_world(grid)
        at = frame.to_voxel(world)
        inside = ((at >= 0) & (at <= np.array(values.shape[::-1]) - 1)).all(axis=1)
        np.testing.assert_allclose(moved.array.reshape(-1)[inside], (world @ slope)[inside], atol=1e-3)


@settings(max_examples=60)
@given(frame=frames(), shape=SHAPES, more=st.tuples(*(st.integers(0, 4),) * 6))
def test_the_way_back_from_other_borders_and_axes_is_exact(frame, shape, more) -> None:
    scan = Scan(noise(shape, np.int16), frame, np.full(shape, 3, np.uint8), (NODULE,))
    box = [-count for count in more[:3]] + [length + count for length, count in zip(shape[::-1], more[3:], strict=True)]
    for changed in (imaging.crop(scan, box), imaging.canonical(scan), imaging.canonical(imaging.crop(scan, box))):
        back = imaging.on_grid(changed, *scan.grid)
        assert np.array_equal(back.array, scan.array)
        assert np.array_equal(back.lung_mask, scan.lung_mask)
        assert back.frame == scan.frame
        assert back.nodules == scan.nodules


def test_the_way_back_from_another_spacing_keeps_a_smooth_volume() -> None:
    frame = Frame((3.0, -2.0, 1.0), (0.7, 0.7, 1.25), TILTED)
    z, y, x = np.indices((16, 30, 30))
    smooth = (400 * np.sin(x / 9) * np.cos(y / 8) * np.cos(z / 7)).astype(np.float32)
    finer = imaging.resample(Volume(smooth, frame), (0.4, 0.4, 0.6))
    back = imaging.on_grid(finer, frame, smooth.shape)
    assert np.abs(back.array - smooth)[1:-1, 1:-1, 1:-1].max() < 8


@settings(max_examples=60)
@given(frame=frames(), direction=axis_aligned_directions(), low=st.tuples(*(st.integers(-9, 9),) * 3))
def test_boxes_move_and_return(frame, direction, low) -> None:
    box = [*low, *(value + 4 for value in low)]
    target = Frame((1.0, 2.0, 3.0), (0.5, 2.0, 1.5), direction)
    aligned = Frame(frame.origin, frame.spacing)
    moved = imaging.map_boxes(box, aligned, target)
    np.testing.assert_allclose(imaging.map_boxes(moved, target, aligned), box, atol=1e-6)
    with pytest.raises(ValueError, match="shape"):
        imaging.map_boxes([1, 2, 3], aligned, target)


# --- crops, orientation, windows --------------------------------------------------------------------------------------


def test_canonical_is_the_phantom_as_it_was_drawn() -> None:
    chest = make_chest((10, 60, 84), (4.0, 4.0, 5.0))
    turned = chest.reoriented((0, 0, -1, 1, 0, 0, 0, -1, 0))
    found = imaging.canonical(Scan(turned.volume, turned.frame, turned.lung_mask))
    assert np.array_equal(found.array, chest.volume)
    assert np.array_equal(found.lung_mask, chest.lung_mask)
    np.testing.assert_allclose(found.frame.origin, chest.frame.origin)
    assert found.frame.direction == chest.frame.direction


def test_a_crop_to_the_lungs_keeps_lungs_and_nodules() -> None:
    nodule = {"center_world": (74.0, 90.0, 0.0), "diameter_mm": 30.0}  # behind the lung
    chest = make_chest((20, 128, 170), (2.2, 2.2, 2.5), [PhantomNodule((74.0, -4.0, 0.0), 18.0)])
    scan = Scan(chest.volume, chest.frame, nodules=(nodule,))
    found = imaging.crop_to_lungs(scan, margin_mm=5.0)
    assert found.array.size < 0.7 * scan.array.size
    assert (found.lung_mask > 0).sum() > 0.98 * (chest.lung_mask > 0).sum()
    before, after = (np.array(each.nodules[0]["box_voxel"]) for each in (scan, found))
    assert (after[3:] - after[:3] == before[3:] - before[:3]).all()
    x, y, z = scan.frame.to_voxel(found.frame.origin).round().astype(int)
    d, h, w = found.shape
    assert np.array_equal(found.array, chest.volume[z : z + d, y : y + h, x : x + w])


def test_a_scan_without_lungs_cannot_be_cropped_to_them() -> None:
    with pytest.raises(ValueError, match="give a box"):
        imaging.crop_to_lungs(Scan(np.zeros((4, 20, 20), np.int16), Frame()))


def test_padding_is_air_and_equal_on_both_sides() -> None:
    scan = Scan(np.full((2, 3, 4), 7, np.int16), Frame((1.0, 2.0, 3.0)), np.full((2, 3, 4), 4, np.uint8))
    padded = imaging.pad(scan, (4, 2, 8))
    assert padded.shape == (4, 3, 8)
    assert padded.array[1, 0].tolist() == [-1024, -1024, 7, 7, 7, 7, -1024, -1024]
    assert padded.lung_mask[1, 0].tolist() == [0, 0, 4, 4, 4, 4, 0, 0]
    assert imaging.pad(scan, (4, 4, 8), outside=0).array.min() == 0


def test_a_grid_far_away_is_air() -> None:
    scan = scan_of(Frame())
    for frame in (
        Frame((900.0, 0.0, 0.0)),
        Frame((-900.0, 0.0, 0.0), direction=(-1, 0, 0, 0, 1, 0, 0, 0, 1)),
        GRIDS["spacing"],
        Frame((900.0, 0.0, 0.0), direction=TILTED),
    ):
        found = imaging.on_grid(scan, frame, (3, 4, 5))
        assert found.shape == (3, 4, 5)
        assert (found.array == -1024).all() == (abs(frame.origin[0]) == 900)


def test_a_window_makes_greys() -> None:
    scan = scan_of(Frame())
    assert np.array_equal(imaging.window(scan, MEDIASTINAL), MEDIASTINAL.to_grey(scan.array))


# --- scans ------------------------------------------------------------------------------------------------------------


def test_a_scan_of_a_loaded_row_has_its_mask_and_nodules(dummy_build) -> None:
    import datasets

    folder = dummy_build("parquet")
    files = sorted(map(str, (folder / "data" / "det3d_1.25mm").glob("train-*.parquet")))
    rows = datasets.load_dataset("parquet", data_files=files, split="train")
    for row in rows:
        scan = Scan.from_row(row)
        assert (scan.lung_mask is None) == (row["lung_mask"] is None)
        for mine, built in zip(scan.nodules, row["nodules"], strict=True):
            assert list(mine["center_voxel"]) == built["center_voxel"]
            assert mine["box_voxel"] == (built["box_voxel"] and tuple(built["box_voxel"]))
    assert np.array_equal(lung_nodule_ct.volumes(folder, config="det3d_1.25mm")[0].array, Scan.from_row(rows[0]).array)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"frame": None}, "frame"),
        ({"array": np.zeros((4, 4), np.int16)}, "axes z, y, x"),
        ({"lung_mask": np.zeros((2, 2, 2), np.uint8)}, "lung_mask: expected the shape"),
        ({"nodules": ({"diameter_mm": 3.0},)}, "center_world"),
    ],
)
def test_a_scan_that_does_not_fit_together_is_refused(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        Scan(**{"array": np.zeros((4, 4, 4), np.int16), "frame": Frame(), **arguments})


def test_wrong_arguments_are_named() -> None:
    scan = scan_of(Frame())
    for call, message in (
        (lambda: imaging.resample(scan, (1.0, 0.0, 1.0)), "spacing"),
        (lambda: imaging.crop(scan, (0, 0, 0, 4, 0, 4)), "box"),
        (lambda: imaging.on_grid(scan, Frame(), (0, 4, 4)), "shape"),
        (lambda: imaging.resample(scan, interpolation="cubic"), "cubic"),
        (lambda: imaging.resample(Volume(scan.array)), "frame"),
        (lambda: Scan.from_row({"volume": None}), "volume"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


# --- imports ----------------------------------------------------------------------------------------------------------


def test_importing_the_room_imports_none_of_its_packages(python, tmp_path) -> None:
    code = (
        "import sys; from lung_nodule_ct import imaging\n"
        "print([name for name in ('scipy', 'skimage', 'SimpleITK') if name in sys.modules], 'resample' in dir(imaging))\n"
        "print(all(getattr(imaging, name) for name in imaging.__all__), 'SimpleITK' in sys.modules)"
    )
    assert python(code, cwd=tmp_path).stdout.split("\n")[:2] == ["[] True", "True False"]


def test_without_scipy_the_error_names_the_extra(python, tmp_path) -> None:
    code = (
        "import sys; sys.modules['scipy'] = None\n"
        "from lung_nodule_ct import imaging\n"
        "from lung_nodule_ct.errors import MissingExtraError\n"
        "try: imaging.segment_lungs\n"
        "except MissingExtraError as error: print(error)"
    )
    shown = python(code, cwd=tmp_path).stdout
    assert "imaging.segment_lungs" in shown
    assert 'pip install "lung_nodule_ct[imaging]"' in shown.replace("Pip", "pip")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="segment_liver"):
        imaging.segment_liver  # noqa: B018
