"""The datasets for PyTorch: what a sample holds, that it is right, and that it is the same in every kind of worker."""

from __future__ import annotations

import contextlib
import importlib.util
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worker_functions import shape_and_sum, with_noise

import lung_nodule_ct
from lung_nodule_ct import imaging
from lung_nodule_ct.errors import OptionError, TrainingError
from lung_nodule_ct.read.build_folder import open_build

torch = pytest.importorskip("torch", reason="needs the extra torch")

pytestmark = pytest.mark.torch

THIN, STACKS = "det3d_1.25mm", "det3d_bmp_1.25mm"


@pytest.fixture(scope="module")
def build(dummy_build):
    return dummy_build("arrow")


def assert_plain(value: Any) -> None:
    """Only tensors, numbers, strings and lists."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            assert_plain(item)
    else:
        assert isinstance(value, torch.Tensor | int | float | str), value


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return set(one) == set(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(torch.equal(one, other)) if isinstance(one, torch.Tensor) else one == other


def doubled(sample):
    return sample | {"image": sample["image"] * 2}


def test_a_patch_holds_the_voxels_the_boxes_and_the_affine_of_its_place(build) -> None:
    dataset = lung_nodule_ct.torch.patches(build, THIN, size=(6, 20, 24), per_scan=6)
    scans = lung_nodule_ct.volumes(build, config=THIN)
    rows = list(open_build(build).rows(THIN, "train"))
    assert len(dataset) == 6 * len(rows)
    found = 0
    for index in range(len(dataset)):
        sample, scan, row = dataset[index], scans[index // 6], rows[index // 6]
        assert_plain(sample)
        assert (sample["image"].dtype, sample["image"].shape) == (torch.float32, (1, 6, 20, 24))
        assert sample["id"] == row["scan_id"]
        assert sample["patient_id"] == (row["patient_id"] or "")
        x, y, z = sample["first_voxel"]
        padded = np.pad(scan.array, 30, constant_values=-1024)[z + 30 : z + 36, y + 30 : y + 50, x + 30 : x + 54]
        assert (sample["image"][0].numpy() == padded).all()
        world = sample["affine"].numpy() @ [2.0, 3.0, 4.0, 1.0]
        np.testing.assert_allclose(
            world[:3] * [-1, -1, 1], scan.frame.to_world([x + 2, y + 3, z + 4]), rtol=0, atol=1e-9
        )
        centers = [
            np.array(nodule["box_voxel"]).reshape(2, 3).mean(0) for nodule in row["nodules"] if nodule["box_voxel"]
        ]
        inside = [c for c in centers if ((c >= [x, y, z]) & (c < np.array([x + 24, y + 20, z + 6]))).all()]
        assert len(sample["boxes"]) == len(sample["labels"]) == len(sample["pathology"]) == len(inside)
        assert (sample["boxes"][:, 3:] > sample["boxes"][:, :3]).all()
        found += len(inside)
    assert found > len(rows)


def test_positive_patches_contain_a_complete_nodule(build) -> None:
    for config in (THIN, STACKS):
        dataset = lung_nodule_ct.torch.patches(build, config, size=(8, 24, 24), positives=1.0, per_scan=8)
        boxes = 0
        for index in range(len(dataset)):
            nodules = [n for n in dataset.rows.metadata[index // 8]["nodules"] if n["box_voxel"] is not None]
            sample = dataset[index]
            if nodules:
                assert len(sample["boxes"]) + sample["left_out"]
                x, y, z = sample["first_voxel"]
                shown = (sample["boxes"].numpy() + np.tile([x, y, z], 2)).tolist()
                stored = [n["box_voxel"] for n in nodules]
                small = [box for box in stored if np.ptp(np.reshape(box, (2, 3)), axis=0)[2] <= 8]
                assert any(list(map(float, box)) in shown for box in stored) or len(small) < len(stored)
            boxes += len(sample["boxes"])
        assert boxes
        assert ("affine" in sample) == (config == THIN)


def test_no_patch_is_drawn_at_a_nodule_without_positives(build) -> None:
    at_nodules, elsewhere = (
        lung_nodule_ct.torch.patches(build, THIN, size=(4, 8, 8), positives=share, per_scan=20) for share in (1.0, 0.0)
    )
    count = [
        sum(len(dataset[index]["boxes"]) > 0 for index in range(len(dataset))) for dataset in (at_nodules, elsewhere)
    ]
    assert count[1] < count[0] / 3


def test_axes_xyz_is_the_same_patch_transposed(build) -> None:
    one = lung_nodule_ct.torch.patches(build, THIN, size=(6, 20, 24))[3]
    other = lung_nodule_ct.torch.patches(build, THIN, size=(6, 20, 24), axes="xyz")[3]
    assert other["image"].shape == (1, 24, 20, 6)
    assert torch.equal(one.pop("image").permute(0, 3, 2, 1), other.pop("image"))
    assert same(one, other)


def test_every_way_to_store_volumes_gives_the_same_samples(build, dummy, dummy_build, cli, tmp_path) -> None:
    packed = tmp_path / "b2nd"
    done = cli("build", THIN, "longitudinal", "--volume-codec", "b2nd", "--source", dummy, "--out", packed)
    assert done.returncode == 0, done.stderr
    options = {"size": (6, 20, 24), "seed": 2}
    for other in (packed, dummy_build("parquet")):
        for name, config in (("patches", THIN), ("sequences", "longitudinal")):
            make = getattr(lung_nodule_ct.torch, name)
            one, two = make(build, config, **options), make(other, config, **options)
            assert len(one) == len(two)
            assert all(same(one[index], two[index]) for index in range(len(one)))


@pytest.mark.parametrize("size", [None, (8, 30, 40), (40, 100, 100)])
def test_a_registered_pair_is_a_part_of_both_scans_on_the_grid_of_the_first(build, dummy_pairs, size) -> None:
    dataset = lung_nodule_ct.torch.registered_pairs(build, dummy_pairs, size=size)
    stored = open_build(build).rows("longitudinal", "train")
    rows = {(row["scan_id"], row["slice_thickness_mm"]): dict(row) for row in stored}
    shown = 0
    for index, patient in enumerate(dataset.patients):
        sample = dataset[index]
        assert_plain(sample)
        earlier, later = (rows[sample[name], sample["slice_thickness_mm"]] for name in ("id", "moving_id"))
        days = later["days_since_first"] - earlier["days_since_first"]
        assert (sample["patient_id"], sample["days"]) == (patient, days)
        expected = imaging.registered_pair([earlier, later], 0, 1)
        x, y, z = sample["first_voxel"]
        depth, height, width = size or expected.fixed.shape
        box = (x, y, z, x + width, y + height, z + depth)
        parts = [imaging.crop(scan, box) for scan in expected]
        assert sample["image"].shape == (2, depth, height, width)
        assert (sample["image"][0].numpy() == parts[0].array).all()
        inside = (
            imaging.crop(expected.fixed, box, outside=9999).array != 9999
        )  # outside of the earlier scan there is more
        assert (sample["image"][1].numpy() == parts[1].array)[inside].mean() > 0.999  # as rounded
        world = sample["affine"].numpy() @ [2.0, 3.0, 4.0, 1.0]
        np.testing.assert_allclose(world[:3] * [-1, -1, 1], parts[0].frame.to_world([2, 3, 4]), rtol=0, atol=1e-9)
        for scan, prefix in zip(expected, ("", "moving_"), strict=True):
            boxes = [np.array(nodule["box_voxel"]) - np.tile([x, y, z], 2) for nodule in scan.nodules]
            clipped = {tuple(np.clip(box, 0, np.tile([width, height, depth], 2)).tolist()) for box in boxes}
            assert {tuple(box) for box in sample[f"{prefix}boxes"].int().tolist()} <= clipped
            assert len(sample[f"{prefix}boxes"]) + sample[f"{prefix}left_out"] <= len(boxes)
        shown += len(sample["boxes"]) > 0 and len(sample["moving_boxes"]) > 0
    assert len(dataset) == shown == 5


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_give_the_registered_pairs_of_this_process(build, dummy_pairs, context) -> None:
    dataset = lung_nodule_ct.torch.registered_pairs(build, dummy_pairs, size=(6, 20, 24), transform=with_noise)
    loader = torch.utils.data.DataLoader(dataset, None, num_workers=1, multiprocessing_context=context)
    assert all(same(sample, dataset[index]) for index, sample in enumerate(loader))


def test_pairs_that_do_not_fit_the_build_are_refused(build, dummy_pairs, tmp_path) -> None:
    def refused(message: str, pairs: Path, **options: Any) -> None:
        with pytest.raises(OptionError, match=message):
            lung_nodule_ct.torch.registered_pairs(build, pairs, **options)

    refused("has no pairs.csv; expected a folder of export --to nifti-pairs", tmp_path)
    refused("has no days_since_first .* and volume", dummy_pairs, config="cls_1.25mm")
    copy = tmp_path / "pairs"
    shutil.copytree(dummy_pairs, copy)
    (transform, *_) = sorted((copy / "transforms").iterdir())
    transform.write_text("Transform: BSplineTransform_double_3_3\n")
    refused(f"{transform.name} cannot be read: expected an affine transform.*export the pairs again", copy)
    transform.unlink()
    refused(f"{transform.name} cannot be read", copy)
    (copy / "pairs.csv").write_text("pair,fixed,moving\n")
    refused("no column fixed_scan_id", copy)
    head = "fixed_scan_id,moving_scan_id,slice_thickness_mm,transform\n"
    (copy / "pairs.csv").write_text(f"{head}12-1,12-2,1.25,\n800-1,800-2,1.25,transforms/none.tfm\n")
    refused("no registered pair whose scans are both in the split.*got 2 pairs, 1 of them registered", copy)


def test_a_patch_larger_than_the_volume_is_padded(build) -> None:
    sample = lung_nodule_ct.torch.patches(build, THIN, size=(40, 100, 100))[0]
    assert sample["image"].shape == (1, 40, 100, 100)
    assert (sample["image"][0, 0] == -1024).all()
    assert (sample["image"] > -1024).any()


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_give_the_samples_of_this_process(build, context) -> None:
    dataset = lung_nodule_ct.torch.patches(build, THIN, size=(6, 20, 24), seed=5, transform=with_noise)
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size=2,
        num_workers=2,
        multiprocessing_context=context,
        collate_fn=lung_nodule_ct.torch.collate,
        persistent_workers=True,
    )
    epochs = []
    for epoch in (0, 1):
        dataset.set_epoch(epoch)  # the workers of the first epoch still run
        expected = [
            lung_nodule_ct.torch.collate([dataset[i] for i in (k, k + 1) if i < len(dataset)])
            for k in range(0, len(dataset), 2)
        ]
        epochs.append(list(loader))
        assert same(epochs[-1], expected)
    assert not same(*epochs)


def test_a_sample_depends_on_seed_epoch_and_index_only(build) -> None:
    options = {"size": (6, 20, 24), "transform": with_noise}
    one = lung_nodule_ct.torch.patches(build, THIN, seed=1, **options)
    torch.manual_seed(7)
    first = one[2]
    after = torch.rand(1)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(1), after)  # the transform did not use the generator of the program
    assert same(one[2], first)
    assert same(lung_nodule_ct.torch.patches(build, THIN, seed=1, **options)[2], first)
    assert not same(lung_nodule_ct.torch.patches(build, THIN, seed=2, **options)[2], first)
    one.set_epoch(1)
    assert not same(one[2], first)
    assert same(pickle.loads(pickle.dumps(one))[2], one[2])


def test_a_transform_is_called_in_every_dataset(build) -> None:
    plain = lung_nodule_ct.torch.crops(build, size=(16, 16))
    assert torch.equal(
        lung_nodule_ct.torch.crops(build, size=(16, 16), transform=doubled)[1]["image"], plain[1]["image"] * 2
    )
    image, target = lung_nodule_ct.torch.detection2d(build, transform=lambda image, target: (1 - image, target))[0]
    assert torch.equal(image, 1 - lung_nodule_ct.torch.detection2d(build)[0][0])
    assert set(target) >= {"boxes", "labels", "image_id"}


def test_detection2d_has_the_published_boxes(build) -> None:
    rows = list(open_build(build).rows("det2d_1.25mm", "train"))
    dataset = lung_nodule_ct.torch.detection2d(build)
    left_out = 0
    for index, row in enumerate(rows):
        image, target = dataset[index]
        assert_plain(target)
        assert (image.dtype, image.shape) == (torch.float32, (3, row["height"], row["width"]))
        assert 0 <= image.min() <= image.max() <= 1
        assert (target["id"], target["patient_id"]) == (row["image_id"], row["patient_id"] or "")
        boxes = target["boxes"]
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        published = [entry["bbox"] for entry in row["objects"]]
        assert len(boxes) + target["left_out"] == len(published)
        if not target["left_out"]:
            clipped = np.clip(np.reshape(published, (-1, 4)), 0, [row["width"], row["height"]] * 2)
            assert boxes.tolist() == clipped.tolist()
        assert (target["labels"] == 1).all()
        left_out += target["left_out"]
    images, targets = next(iter(torch.utils.data.DataLoader(dataset, 4, collate_fn=lung_nodule_ct.torch.collate)))
    assert (len(images), len(targets)) == (4, 4)


def test_a_detector_of_torchvision_is_trained_on_detection2d(build) -> None:
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("needs torchvision")
    from torch_reference import import_torchvision

    detection = import_torchvision().models.detection
    torch.manual_seed(0)
    model = detection.retinanet_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=2, min_size=64, max_size=96
    )
    model.train()
    dataset = lung_nodule_ct.torch.detection2d(build)
    images, targets = next(iter(torch.utils.data.DataLoader(dataset, 4, collate_fn=lung_nodule_ct.torch.collate)))
    losses = model(images, targets)
    total = sum(losses.values())
    total.backward()
    assert torch.isfinite(total)
    assert set(losses) == {"classification", "bbox_regression"}


def test_class_weights_make_all_classes_count_the_same(build) -> None:
    dataset = lung_nodule_ct.torch.crops(build, size=(16, 20))
    weights = dataset.class_weights
    labels = torch.tensor(dataset.labels)
    totals = torch.stack([weights[labels][labels == label].sum() for label in labels.unique()])
    torch.testing.assert_close(totals, totals[:1].expand_as(totals))
    assert weights[labels].mean() == pytest.approx(1)
    batch = next(iter(torch.utils.data.DataLoader(dataset, 5, collate_fn=lung_nodule_ct.torch.collate)))
    assert batch["image"].shape == (5, 1, 16, 20)
    assert batch["label"].dtype == torch.int64
    assert len(batch["id"]) == 5
    assert len({dataset[index]["image"].shape for index in range(3)}) == 1
    assert lung_nodule_ct.torch.crops(build, size=None)[0]["image"].ndim == 3


def test_sequences_are_the_scans_of_a_patient_in_order(build) -> None:
    dataset = lung_nodule_ct.torch.sequences(build)
    scans = {
        row["scan_id"] + str(row["slice_thickness_mm"]): row for row in open_build(build).rows("longitudinal", "train")
    }
    assert len(dataset) == 4
    for index in range(len(dataset)):
        sample = dataset[index]
        assert_plain(sample)
        assert sample["days"].tolist() == sorted(sample["days"].tolist())
        for number, scan_id in enumerate(sample["ids"]):
            row = scans[scan_id + str(sample["slice_thickness_mm"])]
            assert sample["patient_id"] == row["patient_id"]
            assert sample["days"][number] == row["days_since_first"]
            assert (sample["images"][number][0].numpy() == row["volume"]).all()
            boxes = [nodule["box_voxel"] for nodule in row["nodules"] if nodule["box_voxel"]]
            assert sample["boxes"][number].tolist() == boxes
    small = lung_nodule_ct.torch.sequences(build, size=(8, 24, 24))
    with_nodule = 0
    for index in range(len(small)):
        for image, boxes, left_out in zip(
            *(small[index][name] for name in ("images", "boxes", "left_out")), strict=True
        ):
            assert image.shape == (1, 8, 24, 24)
            with_nodule += bool(len(boxes) + left_out)
    assert with_nodule
    assert len(lung_nodule_ct.torch.sequences(build, min_scans=3)) < len(dataset)


def test_the_sampler_draws_every_patient_the_same_number_of_times(build) -> None:
    dataset = lung_nodule_ct.torch.detection2d(build)
    sampler = lung_nodule_ct.torch.PatientSampler(dataset, 2, seed=3)
    drawn = list(sampler)
    assert len(drawn) == len(sampler) == len(set(drawn))
    available = {patient: dataset.patients.count(patient) for patient in dataset.patients}
    patients = [dataset.patients[index] for index in drawn]
    assert {patient: patients.count(patient) for patient in available} == {p: min(2, n) for p, n in available.items()}
    assert list(sampler) == drawn
    sampler.set_epoch(1)
    assert list(sampler) != drawn
    batches = torch.utils.data.DataLoader(dataset, 4, sampler=sampler, collate_fn=lung_nodule_ct.torch.collate)
    assert sum(len(images) for images, _ in batches) == len(drawn)


def test_without_patients_there_is_no_sampler_of_patients(build) -> None:
    with pytest.raises(OptionError, match="no sample has a known patient"):
        lung_nodule_ct.torch.PatientSampler(lung_nodule_ct.torch.patches(build, STACKS))


def test_splits_by_patient_share_no_patient(dummy, build) -> None:
    parts = {}
    for split in ("train", "validation", "test"):
        with contextlib.suppress(TrainingError):  # the few patients do not fill every split
            parts[split] = set(lung_nodule_ct.torch.detection2d(build, split=split, split_by="patient").patients)
    assert len(parts) == 2
    assert not set.intersection(*parts.values())


def test_a_build_that_is_split_by_patient_has_its_own_splits(dummy, cli, tmp_path) -> None:
    done = cli("build", "det2d_1.25mm", "--split-by", "patient", "--source", dummy, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    opened = open_build(tmp_path / "out")
    for split in opened.splits("det2d_1.25mm"):
        dataset = lung_nodule_ct.torch.detection2d(opened, split=split)
        assert len(dataset) == opened.count("det2d_1.25mm", split)


@pytest.mark.parametrize(
    ("name", "context"),
    [*((name, "fork") for name in lung_nodule_ct.CONFIGS), (THIN, "spawn"), ("cls_1.25mm", "spawn")],
)
def test_decoded_rows_of_every_config_can_be_loaded_with_workers(dummy, tmp_path, name, context) -> None:
    rows = lung_nodule_ct.load(name, source=dummy, split="train", cache_dir=tmp_path)
    decoded = rows.with_transform(lung_nodule_ct.decoded("torch"))
    loader = torch.utils.data.DataLoader(
        decoded, 3, num_workers=1, multiprocessing_context=context, collate_fn=lung_nodule_ct.torch.collate
    )
    seen = 0
    for batch in loader:
        for key in set(batch) & {"volume", "image"}:
            for value in batch[key]:
                assert isinstance(value, torch.Tensor)
                expected = rows[seen][key]
                stored = (
                    np.asarray(expected) if key == "image" else np.frombuffer(expected["bytes"], value.numpy().dtype)
                )
                assert (value.numpy().ravel() == stored.ravel()).all()
                seen += 1
        if "spacing" in batch:
            assert batch["spacing"].dtype == torch.float64
    assert seen == len(rows)


@pytest.mark.parametrize("context", ["fork", "spawn"])
@pytest.mark.parametrize("kind", ["loaded", "parquet", "arrow"])
def test_volumes_are_a_dataset_for_workers(dummy, dummy_build, tmp_path, kind, context) -> None:
    source = {"split": "train", "config": THIN}
    views = (
        lung_nodule_ct.volumes(lung_nodule_ct.load(THIN, source=dummy, split="train", cache_dir=tmp_path))
        if kind == "loaded"
        else lung_nodule_ct.volumes(dummy_build(kind), **source)
    )
    loader = torch.utils.data.DataLoader(
        views, None, num_workers=1, multiprocessing_context=context, collate_fn=shape_and_sum
    )
    assert list(loader) == [shape_and_sum(view) for view in views]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda torch_, build: torch_.patches(build, "cls_1.25mm"), "has no nodules and volume; expected one of det3d_1.25mm"),
        (lambda torch_, build: torch_.detection2d(build, THIN), "expected one of det2d_1.25mm"),
        (lambda torch_, build: torch_.crops(build, THIN), "expected one of cls_1.25mm"),
        (lambda torch_, build: torch_.patches(build, size=(4, 4)), "size: .*three positive integers z, y, x"),
        (lambda torch_, build: torch_.patches(build, size=64), "size: .*three positive integers z, y, x, got 64"),
        (lambda torch_, build: torch_.patches(build, size=(4, 4, 0)), "size"),
        (lambda torch_, build: torch_.patches(build, positives=2), "positives"),
        (lambda torch_, build: torch_.patches(build, axes="yx"), "zyx or xyz"),
        (lambda torch_, build: torch_.patches(build, per_scan=0), "per_scan"),
        (lambda torch_, build: torch_.patches(build, seed=-1), "seed"),
        (lambda torch_, build: torch_.patches(build, split_by="scan"), "published or patient"),
        (lambda torch_, build: torch_.sequences(build, min_scans=9), "min_scans"),
        (lambda torch_, build: torch_.sequences(build, min_scans=0), "min_scans"),
        (lambda torch_, build: torch_.crops(build, size=(4, 4, 4)), "size"),
        (lambda torch_, build: torch_.PatientSampler(torch_.crops(build), 0), "per_patient"),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused_with_the_choices(build, make, message) -> None:
    with pytest.raises(OptionError, match=message):
        make(lung_nodule_ct.torch, build)


def test_an_unknown_split_is_refused_with_the_choices(build) -> None:
    with pytest.raises(ValueError, match="expected one of train, validation"):
        lung_nodule_ct.torch.crops(build, split="test")


def test_samples_of_different_keys_are_not_a_batch() -> None:
    with pytest.raises(ValueError, match="expected the keys a in each, got b"):
        lung_nodule_ct.torch.collate([{"a": 1}, {"b": 1}])


def test_an_index_outside_is_refused(build) -> None:
    dataset = lung_nodule_ct.torch.crops(build)
    assert same(dataset[-1], dataset[len(dataset) - 1])
    with pytest.raises(IndexError):
        dataset[len(dataset)]
