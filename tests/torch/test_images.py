"""Volumes as images of MONAI and TorchIO, compared with the same scans written as NIfTI and read by these libraries."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from scan_rows import voxels

import lung_nodule_ct
from lung_nodule_ct.geometry.frame import Frame
from lung_nodule_ct.read.volumes import Volume
from lung_nodule_ct.testing.strategies import frames

torch = pytest.importorskip("torch", reason="needs the extra torch")
monai = pytest.importorskip("monai", reason="needs the extra monai")
torchio = pytest.importorskip("torchio", reason="needs the extra torchio")

pytestmark = pytest.mark.torch

THIN = "det3d_1.25mm"


@pytest.fixture(scope="module")
def scans(dummy, tmp_path_factory):
    return lung_nodule_ct.load(THIN, source=dummy, split="train", cache_dir=tmp_path_factory.mktemp("cache"))


@given(frames())
@settings(max_examples=30)
def test_a_voxel_is_at_the_same_place_in_every_library(frame: Frame) -> None:
    array = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    volume = Volume(array, frame)
    of_monai, of_torchio = volume.to_monai(), volume.to_torchio()
    for x, y, z in ((0, 0, 0), (3, 2, 1)):
        world = frame.to_world([x, y, z]) * [-1, -1, 1]
        scale = 1e-9 * max(1, float(np.abs(frame.affine()).max()))
        for affine in (of_monai.affine.numpy(), of_torchio.affine):
            np.testing.assert_allclose((affine @ [x, y, z, 1])[:3], world, rtol=1e-9, atol=scale)
        assert of_monai[0, x, y, z] == of_torchio.data[0, x, y, z] == array[z, y, x]


def test_images_equal_those_that_are_read_from_nifti(scans, tmp_path) -> None:
    from monai.transforms import LoadImage

    volume = lung_nodule_ct.volumes(scans)[3]
    nibabel.save(volume.to_nibabel(), tmp_path / "scan.nii.gz")
    read = LoadImage(ensure_channel_first=True, dtype=None)(tmp_path / "scan.nii.gz")
    image = volume.to_monai()
    assert torch.equal(image.as_tensor(), read.as_tensor())
    torch.testing.assert_close(image.affine, read.affine, atol=1e-5, rtol=1e-6)
    subject = torchio.ScalarImage(tmp_path / "scan.nii.gz")
    assert torch.equal(volume.to_torchio().data, subject.data)
    np.testing.assert_allclose(volume.to_torchio().affine, subject.affine, atol=1e-5)


def test_resampling_by_monai_and_torchio_equals_that_of_simpleitk(scans) -> None:
    from monai.transforms import Spacing

    volume = lung_nodule_ct.volumes(scans)[0]
    image = volume.to_sitk()
    even = Spacing(pixdim=(8.0, 8.0, 2.5), mode="bilinear", align_corners=True, dtype=torch.float64)(volume.to_monai())
    grid = sitk.Image([*map(int, even.shape[1:])], sitk.sitkFloat64)
    affine = even.affine.numpy() * np.array([[-1], [-1], [1], [1]])
    grid.SetOrigin(affine[:3, 3])
    grid.SetSpacing(np.linalg.norm(affine[:3, :3], axis=0))
    grid.SetDirection((affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)).ravel())
    expected = sitk.GetArrayFromImage(
        sitk.Resample(sitk.Cast(image, sitk.sitkFloat64), grid, sitk.Transform(), sitk.sitkLinear)
    )
    inner = (slice(1, -1),) * 3
    np.testing.assert_allclose(even[0].numpy().T[inner], expected[inner], atol=0.1)
    back = volume.to_torchio().as_sitk()
    assert (sitk.GetArrayFromImage(back) == sitk.GetArrayFromImage(image)).all()
    np.testing.assert_allclose(back.GetOrigin(), image.GetOrigin(), atol=1e-6)


def test_writable_arrays_share_memory_and_views_of_a_dataset_are_copied(scans) -> None:
    view = lung_nodule_ct.volumes(scans)[0]
    own = Volume(view.numpy(), view.frame)
    for image in (own.to_monai(), own.to_torchio().data):
        own.array[2, 3, 4] = 77
        assert image[0, 4, 3, 2] == 77
        own.array[2, 3, 4] = 0
    image = view.to_monai()
    image[:] = 5  # must not write to the mapped file
    assert (view.array == voxels(scans[0])).all()


def test_a_mask_is_a_label_map(scans) -> None:
    views = lung_nodule_ct.volumes(scans, "lung_mask")
    index = next(index for index, row in enumerate(scans) if row["lung_mask"] is not None)
    mask = views[index].to_torchio(label=True)
    assert isinstance(mask, torchio.LabelMap)
    assert set(mask.data.unique().tolist()) == set(np.unique(views[index].array).tolist())


def test_the_affine_of_a_patch_survives_a_persistent_dataset(dummy_build, tmp_path) -> None:
    from monai.data import PersistentDataset

    dataset = lung_nodule_ct.torch.patches(dummy_build("arrow"), THIN, size=(8, 16, 16))
    samples = [dataset[index] for index in range(2)]
    stored = PersistentDataset(samples, transform=[], cache_dir=tmp_path)
    for _ in range(2):  # written, then read
        assert torch.equal(torch.as_tensor(stored[1]["affine"]), samples[1]["affine"])
        assert torch.equal(torch.as_tensor(stored[1]["boxes"]), samples[1]["boxes"])


def test_flips_by_monai_move_the_boxes_with_the_voxels(dummy_build) -> None:
    from monai.apps.detection.transforms.dictionary import FlipBoxd

    options = {"size": (8, 24, 20), "positives": 1.0, "axes": "xyz"}
    build = dummy_build("arrow")
    flip = FlipBoxd(image_keys="image", box_keys="boxes", box_ref_image_keys="image", spatial_axis=0)
    plain = lung_nodule_ct.torch.patches(build, THIN, **options)
    flipped = lung_nodule_ct.torch.patches(build, THIN, transform=flip, **options)
    compared = 0
    for index in range(len(plain)):
        for one, other in zip(plain[index]["boxes"], flipped[index]["boxes"], strict=True):
            x0, y0, z0, x1, y1, z1 = map(int, one)
            u0, v0, w0, u1, v1, w1 = map(int, other)
            voxels_of_one = plain[index]["image"][0, x0:x1, y0:y1, z0:z1]
            voxels_of_other = torch.as_tensor(flipped[index]["image"])[0, u0:u1, v0:v1, w0:w1]
            assert torch.equal(voxels_of_one.flip(0), voxels_of_other)
            compared += 1
    assert compared


def test_random_numbers_of_monai_and_torchio_depend_on_the_index(dummy_build) -> None:
    from monai.transforms import Compose, RandGaussianNoised

    noise = torchio.RandomNoise(std=50)
    for transform in (
        Compose([RandGaussianNoised("image", prob=1.0)]),
        lambda sample: sample | {"image": noise(sample["image"])},
    ):
        datasets = [
            lung_nodule_ct.torch.patches(dummy_build("arrow"), THIN, size=(4, 8, 8), transform=transform)
            for _ in range(2)
        ]
        assert torch.equal(torch.as_tensor(datasets[0][1]["image"]), torch.as_tensor(datasets[1][1]["image"]))
        _ = datasets[0][2]
        assert torch.equal(torch.as_tensor(datasets[0][1]["image"]), torch.as_tensor(datasets[1][1]["image"]))
        plain = lung_nodule_ct.torch.patches(dummy_build("arrow"), THIN, size=(4, 8, 8))
        assert not torch.equal(torch.as_tensor(datasets[0][1]["image"]), plain[1]["image"])
