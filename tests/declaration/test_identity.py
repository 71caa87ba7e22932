"""Names of volumes and images, numbers of scans and images, folds of patients, and texts without private names."""

from __future__ import annotations

import re
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lung_nodule_ct.declaration.archives import ARCHIVES
from lung_nodule_ct.declaration.dates import count_dates, date_token, mask_dates, parse_date, spells_date
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
    redact_words,
)
from lung_nodule_ct.declaration.labels import (
    LIST_SPLITS,
    PATHOLOGY,
    PATHOLOGY_NAMES,
    SPLIT_OF_FOLD,
    SPLIT_ORDER,
    SplitBy,
)

DAYS = st.dates(date(1990, 1, 1), date(2099, 12, 31))
NUMBERS = st.integers(1, 9999).filter(lambda number: not 1900 <= number < 2100)  # which would be a year
PATIENTS = st.one_of(NUMBERS.map(str), st.from_regex(r"\A0[0-9]{1,4}\Z"))


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


WORDS = [
    "jpegimages",
    "annotations",
    "imagesets",
    "main",
    "images",
    "imgs",
    "train",
    "val",
    "valid",
    "validate",
    "validation",
    "test",
    "trainval",
    "class",
    "class_dataset",
    "voc_ct",
    "read_me",
    "readme",
    "annotation",
    "nodule",
    "image_annotation_augment_diameter",
    "train_anno",
    "val_anno",
    "test_anno",
    "anno_train",
    "anno_val",
    "anno_test",
    "seriesuid",
    "series_uid",
    "name",
    "coordx",
    "coordy",
    "coordz",
    "coord_x",
    "coord_y",
    "coord_z",
    "x",
    "y",
    "z",
    "diameter_mm",
    "diameter",
    "radius",
    "pid",
    "filename",
    "file_name",
    "width",
    "height",
    "xmin",
    "ymin",
    "zmin",
    "xmax",
    "ymax",
    "zmax",
    "x_min",
    "y_min",
    "z_min",
    "x_max",
    "y_max",
    "z_max",
    "augmented",
    "__MACOSX",
    ".DS_Store",
    "Thumbs.db",
    "desktop.ini",
]


@pytest.mark.parametrize("word", WORDS)
def test_words_of_the_published_layout_are_kept(word: str) -> None:
    for text in (word, word.upper(), word.lower()):
        assert redact_name(text) == redact_words(text) == text
    if "." not in word:
        assert redact_name(f"{word}.csv") == f"{word}.csv"
    assert redact_name(f"{word}q") == "<name>"


@pytest.mark.parametrize(
    "suffix",
    [
        "mhd",
        "mha",
        "raw",
        "zraw",
        "nrrd",
        "bmp",
        "jpg",
        "jpeg",
        "png",
        "tif",
        "tiff",
        "gif",
        "xml",
        "csv",
        "tsv",
        "txt",
        "md",
        "xls",
        "xlsx",
        "json",
        "zip",
        "rar",
        "7z",
        "tar",
        "gz",
        "dcm",
        "db",
        "ini",
        "001",
        "z01",
        "03",
    ],
)
def test_known_extensions_are_kept(suffix: str) -> None:
    assert redact_name(f"ZhangSan.{suffix}") == f"<name>.{suffix}"
    assert redact_name(f"ZhangSan.{suffix.upper()}") == f"<name>.{suffix.upper()}"
    assert redact_name(f"ZhangSan.{suffix}q") == "<name>"


def test_names_of_all_archives_are_kept() -> None:
    for spec in ARCHIVES:
        stem = spec.name.removesuffix(".zip")
        for name in (spec.name, stem, f"{stem} (1).zip", f"{stem}(12).zip", f"{stem}_(3)"):
            assert redact_name(name) == name
        assert redact_name(f"{stem} (2017).zip") == "<name>.zip"


@pytest.mark.parametrize(
    ("number", "kept"),
    [
        *(
            (each, True)
            for each in ("0", "12345", "-1", "+1.25", "1e3", "-2.5E-300", ".5", "nan", "NaN", "-inf", "inf", "")
        ),
        *((each, False) for each in ("123456", "1e1234", "1.5.6", "0x1", "nanx", "1_0x")),
    ],
)
def test_numbers_of_rows_are_kept(number: str, kept: bool) -> None:
    assert redact_words(f"{number},7") == (f"{number},7" if kept else "<name>,7")


@pytest.mark.parametrize(
    ("row", "public"),
    [
        ("1;2\t3,4: 5", "1;2\t3,4: 5"),
        ("1|2", "<name>"),
        ("ZhangSan;2\tLi,y: Wang", "<name>;2\t<name>,y: <name>"),
        ("train/ZhangSan\\val", "train/<name>/val"),
        ("7_20180102 1", "<name>"),
        ("7_20180102.jpg 1", "7_<date>.jpg 1"),
        ("7 Zhang", "<name>"),
        (" Zhang ", " <name> "),
        ("train (validation)", "<name>"),
        ("7 8 9", "<name>"),
        ("80_<date>_008_02", "80_<date>_008_02"),
        ("80_<date>_008_x", "<name>"),
        ("123456_<date>", "<name>"),
    ],
)
def test_cells_are_redacted_one_by_one(row: str, public: str) -> None:
    assert redact_words(row) == public
    assert redact_row(f"line 3: {row}") == f"line 3: {redact_words(row)}"


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("a.mhd (train)", "<name>.mhd (train)"),
        ("7.mhd (unassigned), 8.mhd (test)", "7.mhd (unassigned), 8.mhd (test)"),
        ("7.mhd (other)", "<name>"),
        ("._7.mhd", "._7.mhd"),
        ("…", "…"),
        ("and 7 more", "and 7 more"),
        ("and many more", "<name>"),
        ("80_20190314", "80_<date>"),
        ("80_99999999_3.mhd", "80_<date>_3.mhd"),
        ("80_003", "80_003"),
        ("80_003_02.jpg", "80_003_02.jpg"),
        ("80-20190314.mhd", "80_<date>.mhd"),
        ("1.2.3", "<name>"),
        ("a/", "<name>/"),
        (".mhd", "<name>.mhd"),
    ],
)
def test_names_are_redacted_part_by_part(name: str, public: str) -> None:
    assert redact_name(name) == public


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("20190314", 1),
        ("a 20190314 b 2019-03-15", 2),
        ("2019/3/14", 1),
        ("2019:03:14", 1),
        ("2019 03 14", 1),
        ("2019年3月14日", 1),
        ("2019年3月4", 1),
        ("14.3.2019", 1),
        ("3/14/2019", 1),
        ("14_03_2019", 1),
        ("14-03-2019", 1),
        ("03.04.2019", 1),  # day and month in either order are one date
        ("2019-03.14", 0),
        ("20191314", 0),
        ("20190230", 0),
        ("18991231", 0),
        ("19000101", 1),
        ("20991231", 1),
        ("21000101", 0),
        ("120190314", 0),
        ("201903140", 0),
        ("2019-03-145", 0),
        ("12019-03-14", 0),
        ("114.03.2019", 0),
        ("", 0),
    ],
)
def test_dates_in_texts_are_counted(text: str, number: int) -> None:
    assert count_dates(text) == count_dates(text, within_words=True) == number


def test_dates_between_letters_count_if_requested() -> None:
    assert (count_dates("x20190314y"), count_dates("x20190314y", within_words=True)) == (0, 1)
    assert count_dates("x120190314y", within_words=True) == 0
    assert count_dates("_20190314_") == 1


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("x120190314", True),
        ("201903145", True),
        ("2019-3-4", True),
        ("2019 03 14", True),
        ("2019_03.14", True),
        ("2019/03/14", False),
        ("20190230", False),
        ("2019-3-145", False),
        ("12019-3-14", False),
        ("80", False),
    ],
)
def test_a_date_anywhere_in_a_name_is_found(text: str, spelled: bool) -> None:
    assert spells_date(text) is spelled


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("20190314", date(2019, 3, 14)),
        ("2019-03-14", date(2019, 3, 14)),
        ("2019_03.14", date(2019, 3, 14)),
        ("2019 03 14", date(2019, 3, 14)),
        ("2019031", None),
        ("201903145", None),
        ("20190x14", None),
        ("18991231", None),
        ("19000101", date(1900, 1, 1)),
        ("20991231", date(2099, 12, 31)),
        ("21000101", None),
        ("2019\u00b30314", None),
    ],
)
def test_eight_digits_are_a_date_from_1900_to_2099(text: str, day: date | None) -> None:
    assert parse_date(text) == day


@pytest.mark.parametrize(
    ("stem", "token"),
    [
        ("80_20190314_2", "20190314"),
        ("80_99999999", "99999999"),
        ("80_2019-03-14", "2019-03-14"),
        ("80_2019-99-14", "2019-99-14"),
        ("80_1019-03-14", None),
        ("80_120190314", None),
        ("80_2019-3-14", None),
        ("80_2019031", None),
    ],
)
def test_what_is_written_like_a_date_is_found_in_a_name(stem: str, token: str | None) -> None:
    match = date_token(stem)
    assert (match and match.group()) == token


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("201903", "<date>"),
        ("a 190314 b", "a <date> b"),
        ("191314", "191314"),
        ("201913", "201913"),
        ("123456789", "<date>"),
        ("1234567", "1234567"),
        ("1.20190314", "1.<date>"),
        ("1.12345678", "1.12345678"),
        ("2019 / 3 / 14", "<date>"),
        ("2019 年 3 月 14日", "<date>日"),
        ("1.2.2019", "<date>"),
        ("1.2-2019", "1.2-2019"),
        ("1.2.20190", "1.2.20190"),
        ("99/12/1999", "<date>"),
    ],
)
def test_what_could_be_a_date_is_masked(text: str, masked: str) -> None:
    assert mask_dates(text) == masked


def test_the_classes_and_splits_are_as_published() -> None:
    assert [(each.folder, each.letter, each.name, each.malignant, each.index) for each in PATHOLOGY] == [
        (1, "A", "invasive adenocarcinoma", True, 0),
        (2, "B", "minimally invasive adenocarcinoma", True, 1),
        (3, "C", "adenocarcinoma in situ", True, 2),
        (4, "D", "malignant other", True, 3),
        (5, "E", "inflammation", False, 4),
        (6, "F", "benign other", False, 5),
    ]
    assert tuple(each.name for each in PATHOLOGY) == PATHOLOGY_NAMES
    assert SPLIT_ORDER == ("train", "validation", "test", "unassigned")
    assert SPLIT_OF_FOLD == ("train", "train", "train", "validation", "test")
    assert {"train": "train"} | dict.fromkeys(("val", "validation", "validate", "valid"), "validation") == LIST_SPLITS
    assert [str(each) for each in SplitBy] == ["published", "patient"]


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("80_20190314_ 2 ", Name("80", date(2019, 3, 14), None, "2")),
        ("80_20190230_2", Name("80", None, "20190230", "2")),
        ("80_201903", Name("80", None, "201903")),
        ("80_3_4", Name()),
        (" 80 ", Name("80")),
        ("123456", Name()),
        ("80_", Name("80")),
    ],
)
def test_all_that_the_name_of_a_volume_states(stem: str, name: Name) -> None:
    assert parse_volume_name(stem) == name
    assert name.scan == (name.patient, name.day, name.bad_date or "", name.part)


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("80_20190314", Name("80", date(2019, 3, 14))),
        ("80_20190314_8-2", Name("80", date(2019, 3, 14), None, "", "8-2")),
        ("80_20190314_0302_17", Name("80", date(2019, 3, 14), None, "", "0302_17")),
        ("80_20190314_2017", Name("80", date(2019, 3, 14))),
        ("80_20190314_12345", Name("80", date(2019, 3, 14))),
        ("80_99999999_8", Name("80", None, "99999999", "", "8")),
        ("80_99999999", Name("80")),
        ("80_8", Name("80", slice="8")),
        ("80_170203", Name()),
        ("80_1702_03", Name("80")),  # 17-02-03
        ("80_1332_01", Name("80", slice="1332_01")),
        ("80_0013_01", Name("80", slice="0013_01")),
        ("80_3112_99", Name("80")),  # 31-12-99
        ("80_1231_99", Name("80")),
        ("80_9912_31", Name("80")),  # 99-12-31
        ("80_9913_31", Name("80", slice="9913_31")),
        ("80_9912_32", Name("80", slice="9912_32")),
        ("80_302_17", Name("80", slice="302_17")),
        ("80", Name()),
        ("80_x", Name()),
    ],
)
def test_all_that_the_name_of_an_image_states(stem: str, name: Name) -> None:
    assert parse_image_name(stem) == name


def test_the_suffixes_of_many_scans_of_one_day() -> None:
    names = [parse_volume_name(f"80_20190314_{number}") for number in range(704)]
    numbers = ScanNumbers(names)
    suffixes = [numbers.scan_id(name).removeprefix("80-1") for name in names]
    assert suffixes[:4] == ["", "b", "c", "d"]
    assert suffixes[24:29] == ["y", "z", "ba", "bb", "bc"]
    assert suffixes[675:678] == ["zz", "baa", "bab"]
    assert len(set(suffixes)) == 704
