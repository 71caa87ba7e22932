"""Copies are found in all positions, neighbouring slices are not copies, and the work grows almost linearly."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from lung_nodule_ct.imaging import likeness
from lung_nodule_ct.imaging.likeness import compare, find_alike
from lung_nodule_ct.imaging.slice_search import SliceSearch
from lung_nodule_ct.imaging.thumbnails import (
    SYMMETRIES,
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
    copies = find_alike(thumbnails, 0.99)
    assert [(copy.first, copy.second) for copy in copies] == [(4, 12)]
    again = symmetric(turned)[SYMMETRIES.index(copies[0].likeness.symmetry)]
    assert (again == pictures[4]).all()


@pytest.mark.parametrize(
    "change", [lambda p: p + 9, lambda p: p * 0.9, lambda p: p + np.random.default_rng(0).normal(0, 4, p.shape)]
)
def test_small_changes_of_grey_do_not_hide_a_copy(change) -> None:
    picture = texture(1)
    changed = np.clip(change(picture.astype(float)), 0, 255).astype(np.uint8)
    assert compare(picture_thumbnail(picture), picture_thumbnail(changed)).correlation > 0.998


def test_stacks_that_lack_slices_are_copies() -> None:
    stack = np.stack([ndimage.shift(texture(3, 80), z, order=1) for z in range(20)])
    other = np.stack([ndimage.shift(texture(5, 80), z, order=1) for z in range(20)])
    thumbnails = [volume_thumbnail(each) for each in (stack, other, stack[:18, ::-1], stack[2:])]
    found = {(copy.first, copy.second) for copy in find_alike(thumbnails, 0.99)}
    assert found == {(0, 2), (0, 3), (2, 3)}


def test_a_blank_picture_has_no_thumbnail() -> None:
    assert picture_thumbnail(np.full((20, 30), 7, np.uint8)) is None
    assert volume_thumbnail(np.zeros((4, 20, 20), np.int16)) is None
    assert find_alike([], 0.9) == []


def test_the_slice_of_a_picture_is_found() -> None:
    chest = make_chest((24, 96, 96), (3.0, 3.0, 6.0))
    grey = np.clip((chest.volume[15].astype(float) + 1350) * 255 / 1500, 0, 255).astype(np.uint8)
    other = make_chest((20, 96, 96), (3.6, 3.2, 6.0), seed=5)
    search = SliceSearch([slice_thumbnails(other.volume), slice_thumbnails(chest.volume)])
    found = search.find_anywhere(picture_thumbnail(grey))
    assert found.correlation > 0.97
    assert (found.scan, SYMMETRIES[found.symmetry]) == (1, "as it is")
    assert abs(found.z - 15) <= 1
    turned = search.find(picture_thumbnail(np.rot90(grey)), [1])
    assert SYMMETRIES[turned.symmetry] == "rotated by 270 degrees"
    assert search.correlation(picture_thumbnail(grey), 1, 15, 0) > search.correlation(picture_thumbnail(grey), 1, 3, 0)
    assert SliceSearch([]).find_anywhere(picture_thumbnail(grey)) is None


def noisy(picture: np.ndarray, seed: int) -> np.ndarray:
    """The same structures with other noise, as in the next slice of a scan."""
    noise = np.random.default_rng(seed).normal(0, 4, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("side", [127, 128, 201])
@pytest.mark.parametrize("gain", [0.9, 1.0, 1.2])
def test_fine_detail_distinguishes_a_copy_from_the_next_slice(side, gain) -> None:
    own, following = (noisy(texture(1, side), seed) for seed in (1, 2))
    copy = np.clip(own[:, ::-1] * gain, 0, 255).astype(np.uint8)
    first = picture_thumbnail(own)
    assert compare(first, picture_thumbnail(copy)).fine > 0.98
    likeness = compare(first, picture_thumbnail(following))
    assert likeness.correlation > 0.99
    assert likeness.fine < 0.5


def test_a_brighter_copy_is_found_among_many_neighbours() -> None:
    """Forty pictures differ in noise only, so their thumbnails do not single out the copy."""
    pictures = [noisy(texture(1), seed) for seed in range(40)]
    brighter = np.clip(np.rot90(pictures[7]) * 1.1, 0, 255).astype(np.uint8)
    pairs = find_alike([picture_thumbnail(picture) for picture in (*pictures, brighter)], 0.9)
    assert [(pair.first, pair.second) for pair in pairs if (pair.likeness.fine or 0) > 0.98] == [(7, 40)]


def test_a_stack_in_reverse_order_is_a_copy() -> None:
    stack = np.stack([ndimage.shift(texture(3, 80), z, order=1) for z in range(20)])
    found = compare(volume_thumbnail(stack), volume_thumbnail(stack[::-1, :, ::-1]))
    assert found.correlation > 0.999
    assert found.is_reversed
    assert found.symmetry == "mirrored left to right"
    assert not compare(volume_thumbnail(stack), volume_thumbnail(stack)).is_reversed


def test_pictures_too_small_or_too_flat_have_no_fine_detail() -> None:
    assert picture_thumbnail(texture(1, 40)).detail is None
    flat = np.repeat(np.where(np.arange(128) < 64, 0, 255)[None], 128, axis=0).astype(np.uint8)
    assert picture_thumbnail(flat).detail is None
    assert compare(picture_thumbnail(flat), picture_thumbnail(flat)).fine is None


def test_a_picture_keeps_less_than_10_kb() -> None:
    thumbnail = picture_thumbnail(texture(1, 512))
    assert thumbnail.values.nbytes + thumbnail.detail.nbytes < 10_000


def test_the_number_of_comparisons_grows_linearly(monkeypatch) -> None:
    """All pictures are alike, so that each candidate is compared completely."""
    counts = []
    compare_all = likeness.compare
    for number in (60, 240):
        calls = []
        monkeypatch.setattr(likeness, "compare", lambda *pair, calls=calls: (calls.append(1), compare_all(*pair))[1])
        find_alike([picture_thumbnail(noisy(texture(1, 64), seed)) for seed in range(number)], 0.9)
        counts.append(len(calls))
    assert counts[0] > 60
    assert counts[1] < 5 * counts[0]
