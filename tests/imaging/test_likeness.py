"""Copies are found in all eight positions, other images are not, and the work grows almost linearly."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from lung_nodule_ct.imaging import likeness
from lung_nodule_ct.imaging.likeness import (
    SYMMETRIES,
    best_symmetry,
    find_copies,
    find_slice,
    picture_thumbnail,
    slice_thumbnails,
    symmetric,
    volume_thumbnail,
)
from lung_nodule_ct.testing.phantoms import make_chest


def texture(seed: int, side: int = 128) -> np.ndarray:
    """A smooth random picture."""
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(side, side)), 5)
    return (40 + 170 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)


def compressed(pixels: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "JPEG", quality=60)
    return np.asarray(Image.open(file))


@pytest.mark.parametrize("number", range(8))
def test_a_copy_is_found_in_every_position(number) -> None:
    pictures = [texture(seed) for seed in range(12)]
    turned = symmetric(pictures[4])[number]
    thumbnails = [picture_thumbnail(picture) for picture in (*pictures, compressed(turned))]
    copies = find_copies(thumbnails, 0.99)
    assert [(copy.first, copy.second) for copy in copies] == [(4, 12)]
    again = symmetric(turned)[SYMMETRIES.index(copies[0].symmetry)]
    assert (again == pictures[4]).all()


@pytest.mark.parametrize(
    "change", [lambda p: p + 9, lambda p: p * 0.9, lambda p: p + np.random.default_rng(0).normal(0, 4, p.shape)]
)
def test_small_changes_of_grey_do_not_hide_a_copy(change) -> None:
    picture = texture(1)
    changed = np.clip(change(picture.astype(float)), 0, 255).astype(np.uint8)
    assert best_symmetry(picture_thumbnail(picture), picture_thumbnail(changed))[0] > 0.998


def test_stacks_that_lack_slices_are_copies() -> None:
    stack = np.stack([ndimage.shift(texture(3, 80), z, order=1) for z in range(20)])
    other = np.stack([ndimage.shift(texture(5, 80), z, order=1) for z in range(20)])
    thumbnails = [volume_thumbnail(each) for each in (stack, other, stack[:18, ::-1], stack[2:])]
    found = {(copy.first, copy.second) for copy in find_copies(thumbnails, 0.99)}
    assert found == {(0, 2), (0, 3), (2, 3)}


def test_a_blank_picture_has_no_thumbnail() -> None:
    assert picture_thumbnail(np.full((20, 30), 7, np.uint8)) is None
    assert volume_thumbnail(np.zeros((4, 20, 20), np.int16)) is None
    assert find_copies([], 0.9) == []


def test_the_slice_of_a_picture_is_found() -> None:
    chest = make_chest((24, 96, 96), (3.0, 3.0, 6.0))
    grey = np.clip((chest.volume[15].astype(float) + 1350) * 255 / 1500, 0, 255).astype(np.uint8)
    correlation, z, symmetry = find_slice(picture_thumbnail(grey), slice_thumbnails(chest.volume))
    assert correlation > 0.97
    assert abs(z - 15) <= 1
    assert SYMMETRIES[symmetry] == "as it is"
    _, _, turned = find_slice(picture_thumbnail(np.rot90(grey)), slice_thumbnails(chest.volume))
    assert SYMMETRIES[turned] == "rotated by 270 degrees"


def test_the_number_of_comparisons_grows_linearly(monkeypatch) -> None:
    counts = []
    compare = likeness.best_symmetry
    for number in (60, 240):
        calls = []
        monkeypatch.setattr(likeness, "best_symmetry", lambda *pair, calls=calls: (calls.append(1), compare(*pair))[1])
        find_copies([picture_thumbnail(texture(seed, 64)) for seed in range(number)], 0.99)
        counts.append(len(calls))
    assert counts[1] < 5 * counts[0]
