"""``show`` draws marks and voxels of every config at the positions that ITK computes."""

from __future__ import annotations

import io

import numpy as np
import pytest
import SimpleITK as sitk
from datasets import load_dataset
from matplotlib.patches import Ellipse, Rectangle
from scan_rows import itk_image_in_lps

import lung_nodule_ct
from lung_nodule_ct.declaration.configs import CONFIGS
from lung_nodule_ct.errors import ExampleError
from lung_nodule_ct.geometry.display import Window


@pytest.fixture(scope="module")
def rows(dummy_build):
    """All rows of every config, as a user loads them."""
    return {name: list(load_dataset(str(dummy_build()), name, split="train")) for name in CONFIGS}


def _marks(axes, kind):
    return [patch for patch in axes.patches if isinstance(patch, kind)]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.slow
def test_every_row_of_every_config_is_drawn(rows, config, tmp_path):
    for row in rows[config][:4]:
        figure = lung_nodule_ct.show(row)
        assert len(figure.axes) == (3 if "volume" in row else 1)
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000


@pytest.mark.parametrize("config", ["det3d_1.25mm", "det3d_5mm", "longitudinal"])
def test_spheres_and_voxels_are_where_itk_locates_them(rows, config):
    num_reoriented = 0
    for row in rows[config]:
        num_reoriented += row["direction"] != [1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0]
        for number, nodule in enumerate(row["nodules"]):
            if nodule["box_voxel"] is None:
                continue
            figure = lung_nodule_ct.show(row, nodule=number, window=Window("all", 0, 4000))
            image = itk_image_in_lps(row)
            x, y, z = image.TransformPhysicalPointToContinuousIndex(nodule["center_world"])
            index = [
                min(max(0, int(np.floor(value + 0.5))), size - 1)
                for value, size in zip((x, y, z), image.GetSize(), strict=True)
            ]
            axial, coronal, sagittal = figure.axes
            for axes, center in ((axial, (x, y)), (coronal, (x, z)), (sagittal, (y, z))):
                nearest = min(
                    np.hypot(*(np.array(mark.center) - np.array(center) - 0.5)) for mark in _marks(axes, Ellipse)
                )
                assert nearest < 1e-6
            expected = Window("all", 0, 4000).to_grey(sitk.GetArrayFromImage(image)[index[2]])
            assert np.array_equal(axial.images[0].get_array(), expected)
            for mark, down, across in ((axial, 1, 0), (coronal, 2, 0), (sagittal, 2, 1)):
                widest = max(_marks(mark, Ellipse), key=lambda patch: patch.width)
                spacing = image.GetSpacing()
                assert widest.width * spacing[across] == pytest.approx(widest.height * spacing[down])  # round in mm
                assert widest.width * spacing[across] <= max(n["diameter_mm"] for n in row["nodules"]) + 1e-9
    assert num_reoriented or config == "det3d_5mm", "no scan of the rows is stored rotated or mirrored"


def test_the_planes_cross_at_the_key_slice_and_the_title_names_what_it_was_chosen_by(rows):
    row = next(row for row in rows["det3d_1.25mm"] if row["direction"][0] == 1 and row["nodules"])
    nodules = [dict(nodule) for nodule in row["nodules"]]
    nodules[0] |= {"key_slice": nodules[0]["box_voxel"][2], "key_slice_basis": "evidence"}
    figure = lung_nodule_ct.show({**row, "nodules": nodules}, nodule=0)
    assert figure.axes[0].get_title().startswith(f"axial, z = {nodules[0]['key_slice']} of")
    assert f"key slice z = {nodules[0]['key_slice']} by evidence" in figure.get_suptitle()
    nodules[0] |= {"key_slice": None, "key_slice_basis": None}  # as in a build of an earlier release
    figure = lung_nodule_ct.show({**row, "nodules": nodules}, nodule=0)
    centre = int(np.floor(nodules[0]["center_voxel"][2] + 0.5))
    assert figure.axes[0].get_title().startswith(f"axial, z = {centre} of")
    assert "key slice" not in figure.get_suptitle()


def test_boxes_of_a_slice_are_as_published_and_can_be_zoomed_to(rows):
    row = max(rows["det2d_1.25mm"], key=lambda row: len(row["objects"]))
    (axes,) = lung_nodule_ct.show(row).axes
    drawn = [(*box.get_xy(), box.get_width(), box.get_height()) for box in _marks(axes, Rectangle)]
    assert drawn == [(x0, y0, x1 - x0 + 1, y1 - y0 + 1) for x0, y0, x1, y1 in (o["bbox"] for o in row["objects"])]
    (axes,) = lung_nodule_ct.show(row, nodule=0).axes
    x0, _, x1, _ = row["objects"][0]["bbox"]
    low, high = axes.get_xlim()
    assert low < x0
    assert high > x1
    assert high - low < row["width"]


def test_the_box_of_a_stack_is_drawn_without_a_sphere(rows):
    row = next(row for row in rows["det3d_bmp_1.25mm"] if row["nodules"])
    axial = lung_nodule_ct.show(row, nodule=0).axes[0]
    x0, y0, _, x1, y1, _ = row["nodules"][0]["box_voxel"]
    assert (x0, y0, x1 - x0, y1 - y0) in [
        (*b.get_xy(), b.get_width(), b.get_height()) for b in _marks(axial, Rectangle)
    ]
    assert not _marks(axial, Ellipse)


@pytest.mark.parametrize("config", CONFIGS)
def test_a_row_is_drawn_if_its_columns_have_other_names(rows, config):
    row = rows[config][0]
    renamed = {
        f"{name}_x" if name in ("image", "volume", "lung_mask", "nodules", "objects") else name: row[name]
        for name in row
    }
    original, other = lung_nodule_ct.show(row), lung_nodule_ct.show(renamed)
    for axes, others in zip(original.axes, other.axes, strict=True):
        assert np.array_equal(axes.images[0].get_array(), others.images[0].get_array())
        assert len(axes.patches) == len(others.patches)
        assert len(axes.collections) == len(others.collections)


def test_an_encoded_picture_and_a_row_with_only_a_mask_are_drawn(rows):
    image = rows["det2d_1.25mm"][0]["image"]
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    (axes,) = lung_nodule_ct.show({"slice": {"bytes": encoded.getvalue(), "path": None}}).axes
    assert np.array_equal(axes.images[0].get_array(), np.asarray(image.convert("L")))
    row = next(row for row in rows["det3d_1.25mm"] if row["lung_mask"] and row["lung_mask"]["bytes"])
    figure = lung_nodule_ct.show({"volume": None, "lung_mask": row["lung_mask"]})
    assert max(axes.images[0].get_array().max() for axes in figure.axes) > 200  # labels are stretched
    assert "labels 0 to 4" in figure.get_suptitle()


def test_windows_change_the_grey_values_and_unknown_windows_are_refused(rows):
    row = rows["det3d_1.25mm"][0]
    lung, mediastinal = (
        lung_nodule_ct.show(row, window=name).axes[0].images[0].get_array() for name in ("lung", "mediastinal")
    )
    assert (np.asarray(lung) != np.asarray(mediastinal)).any()
    with pytest.raises(ValueError, match="lung, mediastinal"):
        lung_nodule_ct.show(row, window="bone")


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ("a path", "expected a row"),
        ({"text": 1}, "got text"),
        ({}, "no columns"),
        ({"image": "a path"}, "PIL image"),
        ({"volume": b"", "nodules": []}, "bytes, shape"),
        ({"volume": {"bytes": b"123", "shape": [1, 2, 3]}, "nodules": []}, "do not fit"),
    ],
)
def test_a_row_that_cannot_be_shown_is_refused(example, message):
    with pytest.raises(ExampleError, match=message):
        lung_nodule_ct.show(example)


def test_a_nodule_that_does_not_exist_is_refused(rows):
    for config in ("det3d_1.25mm", "det2d_1.25mm"):
        with pytest.raises(ExampleError, match="99"):
            lung_nodule_ct.show(rows[config][0], nodule=99)


def test_without_matplotlib_the_error_names_the_extra(python, tmp_path):
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import lung_nodule_ct\n"
        "from lung_nodule_ct.errors import MissingExtraError\n"
        "try: lung_nodule_ct.show({'image': None})\n"
        "except MissingExtraError as error: print(error)"
    )
    assert 'pip install "lung_nodule_ct[show]"' in python(code, cwd=tmp_path).stdout.replace("Pip", "pip")
