"""Views of loaded volumes share the memory of the dataset, and patches have the right position."""

from __future__ import annotations

import base64
import io
import multiprocessing
import pickle
import re
import sys

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from datasets import DatasetDict, load_dataset, load_from_disk
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scan_rows import itk_image, voxels

import lung_nodule_ct
from lung_nodule_ct.errors import MissingExtraError
from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.imaging import Scan
from lung_nodule_ct.read.build_folder import open_build
from lung_nodule_ct.read.volumes import Volume
from lung_nodule_ct.testing.strategies import frames


@pytest.fixture(scope="module")
def scans(dummy, tmp_path_factory):
    return lung_nodule_ct.load("det3d_1.25mm", source=dummy, split="train", cache_dir=tmp_path_factory.mktemp("cache"))


def test_views_equal_the_rows_without_a_copy(scans) -> None:
    views = lung_nodule_ct.volumes(scans)
    assert len(views) == len(scans) == len(views[:])
    for row, view in zip(scans, views, strict=True):
        assert (view.array == voxels(row)).all()
        assert not view.array.flags.owndata
        assert not view.array.flags.writeable
        assert view.frame == lung_nodule_ct.Frame(row["origin"], row["spacing"], row["direction"])
    address = views[2].array.__array_interface__["data"][0]
    assert address == lung_nodule_ct.volumes(scans)[2].array.__array_interface__["data"][0]


def test_views_follow_selections_and_shuffles(scans) -> None:
    for dataset in (
        scans.select([4, 1, 1]),
        scans.shuffle(seed=3),
        scans.select(range(2, 6)),
        scans.filter(lambda fold: fold == 0, input_columns="fold"),
    ):
        for row, view in zip(dataset, lung_nodule_ct.volumes(dataset), strict=True):
            assert (view.array == voxels(row)).all()


def test_masks_and_stacks_have_views(scans, dummy, tmp_path) -> None:
    masks = lung_nodule_ct.volumes(scans, "lung_mask")
    for index, row in enumerate(scans):
        if row["lung_mask"] is None:
            with pytest.raises(ValueError, match="null"):
                masks[index]
        else:
            assert (masks[index].array == voxels(row, "lung_mask", "u1")).all()
    stacks = lung_nodule_ct.load("det3d_bmp_1.25mm", source=dummy, split="train", cache_dir=tmp_path)
    view = lung_nodule_ct.volumes(stacks)[-1]
    assert view.array.dtype == np.uint8
    assert view.frame is None
    with pytest.raises(ValueError, match="no frame"):
        view.patch(center_world=(0, 0, 0), size=(3, 3, 3))


def test_a_patch_around_a_nodule_contains_the_nodule(scans) -> None:
    for row, view in zip(scans, lung_nodule_ct.volumes(scans), strict=True):
        for nodule in row["nodules"]:
            by_world = view.patch(center_world=nodule["center_world"], size_mm=(20, 20, 6.25))
            by_voxel = view.patch(center_voxel=nodule["center_voxel"], size=(5, 5, 5))
            assert by_world.shape == (5, 5, 5)
            assert (by_world == by_voxel).all()
            assert by_voxel[2, 2, 2] > -50


@given(st.tuples(*[st.floats(-6, 15)] * 3), st.tuples(*[st.integers(1, 9)] * 3))
def test_patches_are_padded_crops(center, size) -> None:
    array = np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7)
    patch = Volume(array).patch(center_voxel=center, size=size, outside=-5)
    assert patch.shape == size[::-1]
    padded = np.pad(array, 40, constant_values=-5)
    starts = [int(np.floor(c - n / 2 + 1)) + 40 for c, n in zip(center, size, strict=True)]
    x, y, z = starts
    assert (patch == padded[z : z + size[2], y : y + size[1], x : x + size[0]]).all()


def test_a_patch_of_odd_size_is_centred_on_the_nearest_voxel() -> None:
    array = np.zeros((9, 9, 9), np.int16)
    array[4, 3, 2] = 7
    for center in ((2.0, 3.0, 4.0), (2.4, 2.6, 4.4)):
        assert Volume(array).patch(center_voxel=center, size=(3, 3, 3))[1, 1, 1] == 7


def test_world_patches_agree_with_simpleitk(scans) -> None:
    row, view = scans[3], lung_nodule_ct.volumes(scans)[3]
    world = row["nodules"][0]["center_world"]
    x, y, z = itk_image(row).TransformPhysicalPointToIndex(world)
    assert (
        view.patch(center_world=world, size=(3, 3, 3)) == view.array[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2]
    ).all()


def test_slice_returns_a_view_and_numpy_returns_a_copy(scans) -> None:
    view = lung_nodule_ct.volumes(scans)[0]
    assert (view.slice(3) == view.array[3]).all()
    copy = view.numpy()
    copy[0] = 5
    assert (view.array[0] != 5).any()


def test_invalid_datasets_indices_and_patches_are_refused(scans, dummy) -> None:
    with pytest.raises(ValueError, match="no volumes"):
        lung_nodule_ct.volumes(scans.select_columns(["fold"]))
    with pytest.raises(ValueError, match="expected a split"):
        lung_nodule_ct.volumes([1, 2])
    with pytest.raises(IndexError):
        lung_nodule_ct.volumes(scans)[99]
    with pytest.raises(ValueError, match="one of"):
        lung_nodule_ct.volumes(scans)[0].patch(size=(1, 1, 1))


@pytest.mark.parametrize("format_", ["parquet", "arrow"])
def test_a_build_and_a_stream_give_the_same_volumes(scans, dummy, cli, tmp_path, format_) -> None:
    done = cli("build", "det3d_1.25mm", "cls_1.25mm", "--format", format_, "--source", dummy, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    loaded = lung_nodule_ct.volumes(scans)
    folder = lung_nodule_ct.volumes(tmp_path / "out", kept=1)
    streamed = lung_nodule_ct.volumes(scans.to_iterable_dataset())
    assert len(folder) == len(loaded)
    for index in (3, 3, 0, -1):
        assert (folder[index].array == loaded[index].array).all()
        assert folder[index].frame == loaded[index].frame
    for view, expected in zip(streamed, loaded, strict=True):
        assert (view.array == expected.array).all()
        assert view.frame == expected.frame
    masks = lung_nodule_ct.volumes(tmp_path / "out", "lung_mask")
    for index, row in enumerate(scans):
        if row["lung_mask"] is None:
            with pytest.raises(ValueError, match="null"):
                masks[index]
        else:
            assert (masks[index].array == voxels(row, "lung_mask", "u1")).all()
    for wrong in ({"config": "cls_1.25mm", "split": "train"}, {"split": "nothing"}, {"column": "spacing"}):
        with pytest.raises((ValueError, FileNotFoundError)):
            lung_nodule_ct.volumes(tmp_path / "out", **wrong)[0]


def test_a_stream_from_the_archives_gives_volumes(scans, dummy) -> None:
    stream = lung_nodule_ct.load("det3d_1.25mm", source=dummy, split="train", streaming=True)
    for view, expected in zip(lung_nodule_ct.volumes(stream), lung_nodule_ct.volumes(scans), strict=True):
        assert (view.array == expected.array).all()


def test_a_kept_volume_is_not_decoded_again(dummy, build) -> None:
    folder = build(dummy, "det3d_1.25mm").folder
    views = lung_nodule_ct.volumes(folder, kept=1)
    assert views[2].array is views[2].array
    first = views[2].array
    assert views[3].array is not first
    assert views[2].array is not first


def test_b2nd_stores_the_same_volumes_and_its_card_shows_how_to_read_them(scans, dummy, cli, tmp_path) -> None:
    for codec in ("raw", "b2nd"):
        done = cli("build", "--all", "--volume-codec", codec, "--source", dummy, "--out", tmp_path / codec)
        assert done.returncode == 0, done.stderr
    raw, packed = open_build(tmp_path / "raw"), open_build(tmp_path / "b2nd")
    for config, splits in raw.configs.items():
        for split in splits:
            for view, expected in zip(raw.rows(config, split), packed.rows(config, split), strict=True):
                np.testing.assert_equal(expected, view)
    loaded = load_dataset(str(tmp_path / "b2nd"), "det3d_1.25mm", split="train", cache_dir=str(tmp_path / "cache"))
    sources = (
        lung_nodule_ct.volumes(tmp_path / "b2nd", config="det3d_1.25mm"),
        lung_nodule_ct.volumes(loaded),
        list(lung_nodule_ct.volumes(loaded.to_iterable_dataset())),
    )
    for packed_volumes in sources:
        for row, view, expected in zip(scans, packed_volumes, lung_nodule_ct.volumes(scans), strict=True):
            assert (view.numpy() == expected.numpy()).all()
            assert (view.slice(3) == expected.slice(3)).all()
            for nodule in row["nodules"]:
                position = {"center_world": nodule["center_world"], "size": (9, 30, 7)}
                assert (view.patch(**position) == expected.patch(**position)).all()
    card = (tmp_path / "b2nd" / "README.md").read_text()
    reader = next(part for part in card.split("```python\n") if part.startswith("import blosc2")).split("```")[0]
    variables: dict = {}
    exec(reader.replace("USER/lung_nodule_ct", str(tmp_path / "b2nd")), variables)  # the code of the card
    assert (variables["volume"] == lung_nodule_ct.volumes(scans)[0].array).all()
    assert (
        cli("build", "det3d_5mm", "--volume-codec", "b2nd", "--format", "tfrecord", "--source", dummy).returncode == 2
    )


def test_b2nd_in_arrow_has_the_same_volumes_and_is_not_added_to_a_raw_build(dummy, cli, tmp_path) -> None:
    arguments = ("--format", "arrow", "--source", dummy, "--out")
    for folder, codec in (("raw", ()), ("b2nd", ("--volume-codec", "b2nd"))):
        done = cli("build", "det3d_1.25mm", "cls_1.25mm", *codec, *arguments, tmp_path / folder)
        assert done.returncode == 0, done.stderr
    raw, packed = open_build(tmp_path / "raw"), open_build(tmp_path / "b2nd")
    assert (raw.manifest.get("volume_codec"), packed.manifest["volume_codec"]) == (None, "b2nd")
    for config, splits in raw.configs.items():
        for split in splits:
            for expected, row in zip(raw.rows(config, split), packed.rows(config, split), strict=True):
                np.testing.assert_equal(row, expected)
    mapped = load_from_disk(str(tmp_path / "b2nd" / "det3d_1.25mm"))["train"]
    assert mapped.data.column("volume").chunk(0).field("bytes")[0].as_py()[2:9] == b"b2frame"
    sources = (lung_nodule_ct.volumes(mapped), lung_nodule_ct.volumes(tmp_path / "b2nd", config="det3d_1.25mm"))
    for volumes in sources:
        for view, expected in zip(
            volumes, lung_nodule_ct.volumes(tmp_path / "raw", config="det3d_1.25mm"), strict=True
        ):
            assert (
                view.patch(center_voxel=(5, 6, 4), size=(9, 7, 5))
                == expected.patch(center_voxel=(5, 6, 4), size=(9, 7, 5))
            ).all()
    again = cli("build", "det3d_5mm", "--volume-codec", "b2nd", *arguments, tmp_path / "raw")
    assert again.returncode == 1
    assert "got b2nd" in again.stderr
    assert cli("verify", tmp_path / "b2nd").returncode == 0


@pytest.mark.parametrize("kind", ["selection", "parquet", "arrow"])
def test_a_pickled_copy_opens_the_files_again(scans, dummy_build, kind) -> None:
    """Without the voxels: the copy is small, and it maps the file again."""
    views = (
        lung_nodule_ct.volumes(scans.with_transform(lambda batch: batch).select([4, 1]))
        if kind == "selection"
        else lung_nodule_ct.volumes(dummy_build(kind), config="det3d_1.25mm")
    )
    _ = views[0], views[1]  # what was read before does not travel
    content = pickle.dumps(views)
    assert len(content) < views[0].array.nbytes / 2
    copy = pickle.loads(content)
    assert len(copy) == len(views)
    assert str(copy) == str(views)
    for one, other in zip(copy, views, strict=True):
        assert (one.array == other.array).all()
        assert one.frame == other.frame


@pytest.mark.slow
def test_a_spawned_process_reads_the_volumes(scans) -> None:
    views = lung_nodule_ct.volumes(scans)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(views.__getitem__, [2])[0].frame == views[2].frame


def test_streamed_volumes_travel_too(scans) -> None:
    stream = pickle.loads(pickle.dumps(lung_nodule_ct.volumes(scans.to_iterable_dataset())))
    assert [view.frame for view in stream] == [view.frame for view in lung_nodule_ct.volumes(scans)]


def test_views_are_printed_in_one_line(scans, dummy_build) -> None:
    views = lung_nodule_ct.volumes(scans)
    assert repr(views) == "Volumes(7 of det3d_1.25mm, train, volume)"
    assert repr(views[0]) == "Volume(16 x 60 x 84 int16, axes z y x; 4 x 4 x 1.25 mm, axes x y z)"
    stacks = lung_nodule_ct.volumes(dummy_build(), config="det3d_bmp_1.25mm", split="train")
    assert repr(stacks).endswith(" of det3d_bmp_1.25mm, train, volume)")
    assert "uint8, axes z y x; no frame" in repr(stacks[0])


def test_several_splits_are_refused_with_their_names(scans) -> None:
    with pytest.raises(ValueError, match=r"got the splits train, test; use dataset\['train'\]"):
        lung_nodule_ct.volumes(DatasetDict(train=scans, test=scans))


def test_a_patch_outside_the_volume_is_refused(scans) -> None:
    view = lung_nodule_ct.volumes(scans)[0]
    center = np.array(scans[0]["nodules"][0]["center_world"])
    with pytest.raises(ValueError, match=r"84 x 60 x 16 voxels along x, y, z.*LPS, not RAS.*outside="):
        view.patch(center_world=center * [-9, -9, 1], size=(8, 8, 8))
    assert (view.patch(center_voxel=(-50, 0, 0), size=(8, 8, 8), outside=7) == 7).all()
    assert view.patch(center_voxel=(-4, 0, 0), size=(8, 8, 8)).shape == (8, 8, 8)  # one voxel wide


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"center_voxel": (1, 2), "size": (3, 3, 3)}, "center_voxel: expected three numbers x, y, z"),
        ({"center_voxel": (1, 2, float("nan")), "size": (3, 3, 3)}, "center_voxel"),
        ({"center_voxel": (1, 2, 3), "size": (3, 3)}, "size: expected three numbers"),
        ({"center_voxel": (1, 2, 3), "size": 16}, "size: expected three numbers x, y, z, got 16"),
        ({"center_voxel": (1, 2, 3), "size": (3, 3, 0)}, "size: expected positive numbers"),
        ({"center_voxel": (1, 2, 3), "size_mm": (3, 3, -1)}, "size_mm: expected positive numbers"),
    ],
)
def test_places_and_sizes_of_patches_are_checked(scans, arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        lung_nodule_ct.volumes(scans)[0].patch(**arguments)


@given(frames())
def test_images_of_other_libraries_have_the_same_world(frame: Frame) -> None:
    array = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    volume = Volume(array, frame)
    nifti = volume.to_nibabel()
    assert np.shares_memory(np.asarray(nifti.dataobj), array)
    image = volume.to_sitk()
    for x, y, z in ((0, 0, 0), (3, 2, 1), (1, 0, 1)):
        world = frame.to_world([x, y, z])
        scale = 1e-9 * max(1, float(np.abs(frame.affine()).max()))
        np.testing.assert_allclose(image.TransformIndexToPhysicalPoint((x, y, z)), world, rtol=1e-9, atol=scale)
        np.testing.assert_allclose((nifti.affine @ [x, y, z, 1])[:3] * [-1, -1, 1], world, rtol=1e-9, atol=scale)
        np.testing.assert_allclose((frame.affine() @ [x, y, z, 1])[:3], world, rtol=1e-9, atol=scale)
        np.testing.assert_allclose(frame.affine("RAS"), nifti.affine)
        assert image.GetPixel(x, y, z) == nifti.dataobj[x, y, z] == array[z, y, x]


def test_a_nibabel_image_that_is_saved_is_read_by_simpleitk(scans, tmp_path) -> None:
    row, volume = scans[3], lung_nodule_ct.volumes(scans)[3]
    nibabel.save(volume.to_nibabel(), tmp_path / "scan.nii.gz")
    read, expected = sitk.ReadImage(str(tmp_path / "scan.nii.gz")), volume.to_sitk()
    assert (sitk.GetArrayFromImage(read) == voxels(row)).all()
    for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(read, name)(), getattr(expected, name)(), atol=1e-5)
        np.testing.assert_allclose(getattr(itk_image(row), name)(), getattr(expected, name)())


def test_a_volume_without_a_frame_has_no_image() -> None:
    for method in ("to_sitk", "to_nibabel", "to_monai", "to_torchio"):
        with pytest.raises(ValueError, match=f"{method}: this volume has no frame.*numpy"):
            getattr(Volume(np.zeros((2, 2, 2), np.uint8)), method)()


@pytest.mark.parametrize(
    ("method", "module", "extra"),
    [("to_monai", "monai", "monai"), ("to_torchio", "torchio", "torchio"), ("to_sitk", "SimpleITK", "imaging"), ("to_nibabel", "nibabel", "export")],
)  # fmt: skip
def test_a_missing_library_is_named_with_its_extra(monkeypatch, method, module, extra) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, f"{module}.data", None)
    with pytest.raises(
        MissingExtraError, match=rf'needs the package {module}.*pip install "lung_nodule_ct\[{extra}\]"'
    ):
        getattr(Volume(np.zeros((2, 2, 2), np.int16), Frame()), method)()


def test_decoded_rows_hold_arrays_and_keep_nulls(dummy, scans, tmp_path) -> None:
    decoder = lung_nodule_ct.decoded("numpy")
    assert pickle.loads(pickle.dumps(decoder)) == decoder
    decoded = scans.with_transform(decoder)
    for row, plain in zip(decoded, scans, strict=True):
        assert (row["volume"] == voxels(plain)).all()
        assert (row["lung_mask"] is None) == (plain["lung_mask"] is None)
        assert row["spacing"].dtype == np.float64
        assert row["fold"] == plain["fold"]
        for nodule, stored in zip(row["nodules"], plain["nodules"], strict=True):
            assert nodule["center_world"].tolist() == stored["center_world"]
            assert nodule["diameter_mm"] == stored["diameter_mm"]
    assert any(row["lung_mask"] is None for row in decoded)
    slices = lung_nodule_ct.load("det2d_1.25mm", source=dummy, split="train", cache_dir=tmp_path)
    for row, plain in zip(slices.with_transform(decoder), slices, strict=True):
        assert (row["image"] == np.asarray(plain["image"])).all()
        assert [list(entry["bbox"]) for entry in row["objects"]] == [entry["bbox"] for entry in plain["objects"]]


def test_an_unknown_framework_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="expected numpy, torch, jax, got 'tensorflow'"):
        lung_nodule_ct.decoded("tensorflow")


def pictures_of(page: str) -> list[np.ndarray]:
    """The pictures in a page, axes (y, x, colour)."""
    found = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)" alt="[^"]+" title="[^"]+">', page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in found]


def test_a_volume_is_three_planes_in_a_notebook() -> None:
    """The phantom has one bright corner: left, back, head. The pictures are in radiological orientation, whatever is stored."""
    corner = np.full((10, 20, 40), -1024, np.int16)
    corner[-3:, -6:, -12:] = 150
    frame = Frame((0, 0, 0), (1.0, 1.0, 2.0))
    for axis in (None, 0, 1, 2):
        stored = corner if axis is None else np.flip(corner, axis)
        direction = np.ones(3) if axis is None else np.where(np.arange(3) == 2 - axis, -1.0, 1.0)
        volume = Volume(stored, Frame(frame.origin, frame.spacing, tuple(np.diag(direction).ravel())))
        page = volume._repr_html_()
        assert repr(volume) in page
        scan = Scan.from_volume(volume)
        shown = Scan(
            scan.array, scan.frame, nodules=({"center_world": scan.frame.to_world(_corner(axis)), "diameter_mm": None},)
        )
        for picture, bright in zip(
            pictures_of(shown._repr_html_()), (("bottom", "right"), ("top", "right"), ("top", "right")), strict=True
        ):
            rows, columns = np.nonzero(picture[..., 0] > 200)
            assert (rows.mean() > picture.shape[0] / 2) == (bright[0] == "bottom")
            assert columns.mean() > picture.shape[1] / 2
            assert max(picture.shape) == 200
        heights = [picture.shape[:2] for picture in pictures_of(page)]
        assert heights == [(100, 200), (100, 200), (200, 200)]  # 40 x 20 x 20 mm
        assert len(page) < 40_000


def _corner(axis: int | None) -> list[float]:
    """The stored voxel x, y, z of the bright corner."""
    return [2.0 if axis == 2 - number else size - 3.0 for number, size in enumerate((40, 20, 10))]


def test_a_scan_in_a_notebook_marks_and_lists_its_nodules() -> None:
    frame = Frame((-30, -20, 0), (1.0, 1.0, 2.0))
    nodule = {"center_world": (5.0, 5.0, 20.0), "diameter_mm": 12.0, "nodule_id": "<script>1", "pathology": 0}
    scan = Scan(np.full((20, 60, 60), -800, np.int16), frame, nodules=(nodule,))
    page = scan._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;1" in page
    assert "invasive adenocarcinoma" in page
    assert "5.0, 5.0, 20.0" in page
    assert "no lung mask, 1 nodule)" in page
    for picture in pictures_of(page):
        orange = picture[..., 0].astype(int) - picture[..., 2] > 60
        assert orange.any()
    for picture in pictures_of(Scan(scan.array, frame)._repr_html_()):
        assert not (picture[..., 0].astype(int) - picture[..., 2] > 60).any()
    many = Scan(scan.array, frame, nodules=(nodule,) * 10)
    assert many._repr_html_().count("<tr>") == 9
    assert "2 more nodules" in many._repr_html_()


def test_masks_are_shown_in_a_notebook() -> None:
    labels = np.zeros((10, 20, 30), np.uint8)
    labels[:, :, 5:12], labels[:, :, 18:25] = 3, 4
    page = Volume(labels)._repr_html_()
    axial, coronal, _ = pictures_of(page)  # labels up to 15 are stretched
    for picture in (axial, coronal):
        assert picture.max() > 240
        assert picture.min() < 15
    assert 'alt="plane, ' in page
