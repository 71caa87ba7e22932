"""Names of volumes and images, keys of scans, folds of patients, and masked dates."""

from __future__ import annotations

import re
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lung_nodule_ct.declaration.dates import mask_dates
from lung_nodule_ct.declaration.identity import fold_of, image_id, parse_image_name, parse_volume_name

DAYS = st.dates(date(1990, 1, 1), date(2099, 12, 31))
PATIENTS = st.one_of(st.integers(1, 9999).map(str), st.from_regex(r"\A0\d{1,4}\Z"), st.just("LIDC-0001"))
DATE = re.compile(r"(19|20)\d\d-?(0[1-9]|1[0-2])-?([0-2]\d|3[01])")


@given(PATIENTS, DAYS)
def test_a_volume_and_a_slice_of_one_scan_have_the_same_key(patient: str, day: date) -> None:
    volume = parse_volume_name(f"{patient}_{day:%Y%m%d}")
    image = parse_image_name(f"{patient}_{day:%Y%m%d}_017")
    assert (volume.patient, volume.day, volume.bad_date) == (patient, day, None)
    assert (image.patient, image.scan_id, image.fold) == (patient, volume.scan_id, volume.fold)


@given(PATIENTS, DAYS, DAYS)
def test_keys_distinguish_scans_and_contain_no_date(patient: str, one: date, other: date) -> None:
    keys = [parse_volume_name(f"{patient}_{day:%Y%m%d}").scan_id for day in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)
    for key in keys:
        assert key is not None
        assert re.fullmatch(r"[a-z2-7]{16}", key)
        assert not DATE.search(key)


def test_keys_and_folds_never_change() -> None:
    # rows of builds by different versions must have the same keys
    assert parse_volume_name("80_20190314").scan_id == "u5ynv46wu3w6huvh"
    assert image_id("train/1/80_20190314_014_01") == "6xt6skhzhlbe7lnm"
    assert [fold_of(patient) for patient in ("1", "80", "94", "100", "080")] == [0, 2, 4, 0, 1]


@pytest.mark.parametrize(
    ("stem", "patient", "day", "bad_date"),
    [
        ("1", "1", None, None),
        ("080", "080", None, None),
        ("80_20190314", "80", date(2019, 3, 14), None),
        ("80-20190314", "80", date(2019, 3, 14), None),
        ("80_2019-03-14", "80", date(2019, 3, 14), None),
        ("80_20190230", "80", None, "20190230"),
        ("80_99999999", "80", None, "99999999"),
        ("80_201903", "80", None, "201903"),
        ("80_2019_3_14", None, None, None),
        ("20190314", None, date(2019, 3, 14), None),
        ("20012345", "20012345", None, None),
        ("LIDC-IDRI-0001", "LIDC-IDRI-0001", None, None),
    ],
)
def test_volume_names_are_parsed(stem: str, patient: str | None, day: date | None, bad_date: str | None) -> None:
    name = parse_volume_name(stem)
    assert (name.patient, name.day, name.bad_date) == (patient, day, bad_date)


@pytest.mark.parametrize(
    ("stem", "patient"),
    [
        ("80_20190314_003", "80"),
        ("1_003_01", "1"),
        ("000123", None),
        ("img_0001", None),
        ("80_00000003", "80"),
        ("20190314_003", None),
        ("LIDC-IDRI-0001_012", "LIDC-IDRI-0001"),
    ],
)
def test_image_names_are_parsed(stem: str, patient: str | None) -> None:
    name = parse_image_name(stem)
    assert name.patient == patient
    assert (name.scan_id is None) == (name.fold is None) == (patient is None)


def test_two_scans_of_one_day_have_the_same_date_and_different_keys() -> None:
    one, two = parse_volume_name("80_20190314"), parse_volume_name("80_20190314_2")
    assert one.day == two.day
    assert one.scan_id != two.scan_id


@given(
    DAYS,
    st.sampled_from(
        [
            "80_{:%Y%m%d}.mhd",
            "{:%Y-%m-%d}",
            "scan of {:%Y/%m/%d}, 3",
            "x{:%Y%m%d}12",
            "80.{:%Y%m%d}.mhd",
            "{:%d-%m-%Y}",
            "{:%Y %m %d}",
            "{:%Y年%m月%d日}",
        ]
    ),
)
def test_masked_text_has_no_date(day: date, text: str) -> None:
    assert not re.search(r"\d{4}", mask_dates(text.format(day)))


def test_masking_does_not_change_coordinates() -> None:
    assert mask_dates("80_190314.mhd: got 190314") == "80_<date>.mhd: got <date>"
    row = "line 3: 56.20840547,-115.8675792,1,234,567"
    assert mask_dates(row) == row
