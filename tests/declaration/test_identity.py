"""Names of volumes and images, numbers of scans and images, folds of patients, and texts without private names."""

from __future__ import annotations

import re
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lung_nodule_ct.declaration.dates import count_dates, mask_dates
from lung_nodule_ct.declaration.identity import (
    Name,
    ScanNumbers,
    fold_of,
    is_published_number,
    natural_key,
    parse_image_name,
    parse_volume_name,
    quoted,
    redact_name,
    redact_row,
    redact_text,
)

DAYS = st.dates(date(1990, 1, 1), date(2099, 12, 31))
PATIENTS = st.one_of(st.integers(1, 9999).map(str), st.from_regex(r"\A0[0-9]{1,4}\Z"))


@given(PATIENTS, DAYS)
def test_a_volume_and_a_slice_of_one_scan_have_the_same_id(patient: str, day: date) -> None:
    volume = parse_volume_name(f"{patient}_{day:%Y%m%d}")
    image = parse_image_name(f"{patient}_{day:%Y%m%d}_017")
    assert (volume.patient, volume.day, volume.bad_date) == (patient, day, None)
    assert (image.patient, image.day, image.fold, image.slice) == (patient, day, volume.fold, "017")
    numbers = ScanNumbers([volume, image])
    assert numbers.scan_id(volume) == numbers.scan_id(image) == f"{patient}-1"


@given(PATIENTS, st.lists(DAYS, min_size=1, unique=True), st.randoms())
def test_ids_are_ranks_of_the_distinct_dates_in_any_order(patient: str, days: list[date], random) -> None:
    names = [parse_volume_name(f"{patient}_{day:%Y%m%d}") for day in days] * 2
    random.shuffle(names)
    numbers = ScanNumbers(names)
    ids = [numbers.scan_id(parse_volume_name(f"{patient}_{day:%Y-%m-%d}")) for day in sorted(days)]
    assert ids == [f"{patient}-{rank}" for rank in range(1, len(days) + 1)]


@given(PATIENTS, st.lists(DAYS, min_size=1, unique=True), st.timedeltas(timedelta(-3000), timedelta(3000)))
def test_ids_do_not_depend_on_the_dates_but_on_their_order(patient: str, days: list[date], shift: timedelta) -> None:
    days = [day for day in days if 1900 <= (day + timedelta(shift.days)).year < 2100]
    original, moved = (
        [parse_image_name(f"{patient}_{day + by:%Y%m%d}_3") for day in days]
        for by in (timedelta(), timedelta(shift.days))
    )
    images = [[(f"{index}.jpg", name) for index, name in enumerate(names)] for names in (original, moved)]
    assert ScanNumbers(original).image_ids(images[0]) == ScanNumbers(moved).image_ids(images[1])


@given(PATIENTS, st.lists(st.tuples(DAYS, st.text("0123456789_", max_size=9)), max_size=8))
def test_no_id_spells_a_date(patient: str, images: list[tuple[date, str]]) -> None:
    stems = [f"{patient}_{day:%Y%m%d}_{rest}" for day, rest in images] + [f"{patient}_{rest}" for _, rest in images]
    names = [parse_image_name(stem) for stem in stems]
    ids = ScanNumbers(names).image_ids(list(zip(stems, names, strict=True)))
    assert len(set(ids)) == len(ids)
    for day, _ in images:
        for form in ("%Y%m%d", "%y%m%d", "%d%m%Y", "%d%m%y", "%Y_%m", "%m%d%y"):
            assert not any(
                day.strftime(form) in f"{own}|".replace(f"{patient}-", "") for own in ids if "image" not in own
            )
    assert not any(count_dates(own, within_words=True) for own in ids)


def test_ids_of_scans() -> None:
    stems = [
        "80_20200611",
        "80_20190314",
        "80_20190314_2",
        "80_20190314_10",
        "80",
        "7_20180102",
        "3",
        "12_201903",
        "12_201904",
    ]
    numbers = ScanNumbers(map(parse_volume_name, stems))
    ids = [numbers.scan_id(parse_volume_name(stem)) for stem in stems]
    assert ids == ["80-2", "80-1", "80-1b", "80-1c", "80-0", "7-1", "3-1", "12-0", "12-0b"]
    assert numbers.scan_id(Name()) is None
    with pytest.raises(KeyError):
        numbers.scan_id(parse_volume_name("80_20990101"))


def test_ids_of_images() -> None:
    stems = ["a/10", "a/9", "a/80_20190314_008_02", "b/80_20190314_008_02", "a/80_20190314_x", "a/img_3", "a/80_008"]
    named = [(stem, parse_image_name(stem.rpartition("/")[2])) for stem in stems]
    ids = ScanNumbers(name for _, name in named).image_ids(named)
    assert ids == ["image-2", "image-1", "80-1_008_02", "80-1_008_02b", "image-5", "image-6", "80-0_008"]


def test_a_hundred_volumes_of_one_day_have_a_hundred_ids() -> None:
    names = [parse_volume_name(f"80_20190314_{number}") for number in range(1000)]
    numbers = ScanNumbers(names)
    ids = [numbers.scan_id(name) for name in names]
    assert len(set(ids)) == 1000
    assert all(re.fullmatch(r"80-1[a-z]*", own) for own in ids)


def test_folds_never_change() -> None:
    # rows of builds by different versions must have the same folds
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
        ("20190314", None, None, None),
        ("20012345", None, None, None),
        ("LIDC-IDRI-0001", None, None, None),
        ("78_03Feb2017", None, None, None),
        ("79_03-02-17", None, None, None),
        ("81_2017Feb03", None, None, None),
        ("170203", None, None, None),
        ("ZhangSan_20190314", None, None, None),
        ("８０_20190314", None, None, None),  # noqa: RUF001 -- digits that are not those of the archives
    ],
)
def test_volume_names_are_parsed(stem: str, patient: str | None, day: date | None, bad_date: str | None) -> None:
    name = parse_volume_name(stem)
    assert (name.patient, name.day, name.bad_date) == (patient, day, bad_date)


@pytest.mark.parametrize(
    ("stem", "patient", "slice_number"),
    [
        ("80_20190314_003", "80", "003"),
        ("80_20190314_0102_03", "80", "0102_03"),
        ("80_20190314", "80", None),
        ("1_003_01", "1", "003_01"),
        ("000123", None, None),
        ("img_0001", None, None),
        ("80_00000003", "80", None),
        ("20190314_003", None, None),
        ("LIDC-IDRI-0001_012", None, None),
        ("80_03Feb2017_008", None, None),
        ("80_2017", "80", None),
        ("2017_02_03", None, None),
        ("80_0302_17", "80", None),
        ("3_2_17", "3", None),
        ("17_0203_001", "17", None),
        ("17_0203", "17", None),
        ("1995_0312_001", None, None),
        ("80_013_02", "80", "013_02"),
        ("80_14", "80", "14"),
        ("80_3002_17", "80", None),
        ("80_0014_02", "80", "0014_02"),
    ],
)
def test_image_names_are_parsed(stem: str, patient: str | None, slice_number: str | None) -> None:
    name = parse_image_name(stem)
    assert (name.patient, name.slice) == (patient, slice_number)
    assert (name.fold is None) == (patient is None)


def test_two_scans_of_one_day_have_the_same_date_and_different_keys() -> None:
    one, two = parse_volume_name("80_20190314"), parse_volume_name("80_20190314_2")
    assert one.day == two.day
    assert one.scan != two.scan


@pytest.mark.parametrize(
    ("text", "known"), [("1", True), ("09184", True), ("123456", False), ("", False), ("1a", False), ("²", False)]
)
def test_published_numbers_have_one_to_five_digits(text: str, known: bool) -> None:
    assert is_published_number(text) is known


@given(st.lists(st.text("019a._", max_size=6), unique=True))
def test_natural_order_is_total_and_sorts_numbers_by_value(texts: list[str]) -> None:
    assert len({natural_key(text) for text in texts}) == len(texts)
    assert sorted(map(str, range(200)), key=natural_key) == [str(number) for number in range(200)]
    assert natural_key("9" * 5000) < natural_key("1" + "0" * 5000)


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


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("class_dataset/train/1/80_20190314_008_02.bmp", "class_dataset/train/1/80_<date>_008_02.bmp"),
        ("1.25mm_2D_detection (1).zip", "1.25mm_2D_detection (1).zip"),
        ("1.25mm_3D_detection_mhd_0/80_20190314.mhd", "1.25mm_3D_detection_mhd_0/80_<date>.mhd"),
        ("imgs/00001/3.bmp, imgs/00002/3.bmp, …", "imgs/00001/3.bmp, imgs/00002/3.bmp, …"),
        (
            "train/1/7.bmp (train), test/2/8.bmp (validation), and 1,200 more",
            "train/1/7.bmp (train), test/2/8.bmp (validation), and 1,200 more",
        ),
        ("78_03Feb2017.mhd", "<name>.mhd"),
        ("81_2017Feb03.raw", "<name>.raw"),
        ("ZhangSan/12345678.bmp", "<name>/<name>.bmp"),
        ("80_20190314_ZhangSan.mhd", "80_<date>.mhd"),
        ("80_20190314_2.mhd", "80_<date>_2.mhd"),
        ("80_201903.mhd", "80_<date>.mhd"),
        ("imgs/2017/02/03/1.bmp", "imgs/<name>/<name>/<name>/<name>"),
        ("imgs/3/2/17/a.bmp", "imgs/<name>/<name>/<name>/<name>.bmp"),
        ("2017_0203.mhd", "<name>.mhd"),
        ("__MACOSX/._ZhangSan.mhd", "__MACOSX/._<name>.mhd"),
        ("张三.jpg", "<name>.jpg"),
    ],
)
def test_names_keep_what_is_published_and_lose_the_rest(name: str, public: str) -> None:
    assert redact_name(name) == public


@pytest.mark.parametrize(
    ("row", "public"),
    [
        ("line 3: 80_20190314,1.5,-2,3e1,nan", "line 3: 80_<date>,1.5,-2,3e1,nan"),
        ("line 1: seriesuid,coordX,coordY,coordZ,diameter_mm", "line 1: seriesuid,coordX,coordY,coordZ,diameter_mm"),
        ("line 2: ZhangSan;1;2", "line 2: <name>;1;2"),
        ("line 2: 78 03 Feb 2017,1", "line 2: <name>,1"),
        ("line 5: images/80_20190314_008.jpg 12,3,4,5,0", "line 5: images/80_<date>_008.jpg 12,3,4,5,0"),
        ("line 8: class 1: 8", "line 8: class 1: 8"),
        ("line 9: 12345678", "line 9: <name>"),
        ("line 5: 03 02 2017", "line 5: <name>"),
        ("line 5: 2017 0203", "line 5: <name>"),
        ("line 5: 2017|02|03", "line 5: <name>"),
        ("line 5: 2017/02", "line 5: <name>/<name>"),
        ("line 5: 2017.0203,170.0203", "line 5: <name>,170.0203"),
        ("line 5: 2017:02:03 10:11:12", "line 5: <name>"),
        ("line 4", "line 4"),
    ],
)
def test_rows_keep_numbers_and_known_words(row: str, public: str) -> None:
    assert redact_row(row) == public


@given(st.text("0123456789_-./,;: azZ张<>daten", max_size=40))
def test_redaction_of_what_was_redacted_changes_nothing(text: str) -> None:
    for redact in (redact_name, redact_row, redact_text):
        assert redact(redact(text)) == redact(text)


def test_texts_keep_what_the_package_says_and_lose_what_it_quotes() -> None:
    text = f"it names {quoted('Zhang ”San.jpg')} of 20190314, expected {quoted('80_20190314_008.jpg')}"
    assert redact_text(text) == "it names “<name>” of <date>, expected “80_<date>_008.jpg”"
