"""How names of files, scans and cases are compared, and that two names that are not the same are never confused."""

from __future__ import annotations

import unicodedata

import pytest

from lung_nodule_ct.declaration.names import Match, NameIndex, bare_name, name_key


@pytest.mark.parametrize(
    ("archived", "written"),
    [
        ("4_20200101", "4_20200101.MHD"),
        ("4_20200101", "4_20200101.Raw"),
        ("4_20200101", "D:\\ct\\4_20200101.mha"),
        ("4_20200101", "  ./ct/4_20200101 "),
        ("4_20200101", '="4_20200101"'),
        ("00001", "imgs/00001/"),
        ("00001", "imgs\\00001\\"),
        ("00001", "'00001"),
        ("Case_A", "case_a"),
        ("case_a", "CASE_A.JPG"),
        ("img (1)", "IMG  (1).bmp"),
        ("7_é1", unicodedata.normalize("NFD", "7_é1")),
        (unicodedata.normalize("NFD", "7_é1"), "7_é1"),
        ("00001", "\uff10\uff10\uff10\uff10\uff11"),
        ("scan a", "scan\u3000a"),
    ],
)
def test_the_same_name_is_found_however_it_is_written(archived: str, written: str) -> None:
    match = NameIndex([archived, "another"]).find(written)
    assert (match.name, match.repaired) == (archived, False)


@pytest.mark.parametrize("written", ["1", "1.0", "001", "01.00", "imgs/1.0"])
def test_an_id_that_a_spreadsheet_changed_is_repaired_if_one_name_fits(written: str) -> None:
    match = NameIndex(["00001", "00010", "100"]).find(written)
    assert (match.name, match.repaired) == ("00001", True)


@pytest.mark.parametrize(
    ("names", "written", "found"),
    [
        (["7_20180102", "7_20190304"], "7-20180102", "7_20180102"),
        (["7_20180102", "7_20190304"], "7_2018-01-02", "7_20180102"),
        (["7-2018-01-02"], "7_20180102.mhd", "7-2018-01-02"),
        (["7_20180102_003"], "7-20180102-003.jpg", "7_20180102_003"),
        (["7-20180102", "7_20180102"], "7-20180102", "7-20180102"),
        (["7-2018-01-02", "7_2018-01-02"], "7-20180102", None),
        (["7_2018010"], "7-20180102", None),
        (["a_1"], "a-1", None),
        (["07_20180102"], "7-20180102", None),
    ],
)
def test_names_of_the_same_numbers_are_one_name(names, written, found) -> None:
    match = NameIndex(names).find(written)
    assert (match.name, match.repaired) == (found, False)
    if written not in names:
        assert NameIndex(names, left_out=[written]).find(written) == Match()
    assert bool(match.candidates) == (len(names) > 1 and found is None)


def test_a_date_after_the_patient_that_became_a_decimal_number_is_repaired() -> None:
    match = NameIndex(["4_20200101", "4_20200102"]).find("4_20200101.0")
    assert (match.name, match.repaired) == ("4_20200101", True)


@pytest.mark.parametrize(
    ("archived", "written"),
    [
        (["001", "0001"], "1"),
        (["001", "0001"], "1.0"),
        (["001", "0001"], "00001"),
        (["1", "01"], "1.0"),
        (["1", "01"], "001"),
        (["Scan", "scan"], "SCAN"),
        (["7_20180102"], "7_20180102_1"),
        (["00002"], "0²"),
        (["1"], "1.5"),
        (["10"], "1"),
        (["0"], ""),
    ],
)
def test_a_name_that_fits_none_or_several_is_never_guessed(archived: list[str], written: str) -> None:
    assert NameIndex(archived).find(written).name is None


@pytest.mark.parametrize("written", ["001", "0001", "imgs/001/", "0001.bmp", "1"])
def test_the_exact_name_is_found_although_others_have_the_same_number(written: str) -> None:
    match = NameIndex(["001", "0001", "1"]).find(written)
    assert match.name == name_key(written)
    assert not match.repaired


def test_several_names_that_fit_are_reported() -> None:
    match = NameIndex(["001", "0001", "7"]).find("1")
    assert match.candidates == ("001", "0001")
    assert match.detail is not None
    assert "001, 0001" in match.detail


def test_the_number_of_a_file_name_is_not_repaired() -> None:
    names = NameIndex(["001", "b"])
    assert (names.find_file("1"), names.find_file("001"), names.find_file("B")) == (None, "001", "b")


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "bmp", "png", "tif", "tiff", "xml", "mhd", "mha", "raw", "zraw"])
def test_the_extension_of_a_member_is_not_part_of_its_name(suffix: str) -> None:
    assert NameIndex(["4_20200101"]).find(f"4_20200101.{suffix}").name == "4_20200101"
    assert NameIndex(["4_20200101"]).find(f"4_20200101.{suffix}x").name is None
    assert bare_name(f"a/b.{suffix}.txt") == f"b.{suffix}.txt"


@pytest.mark.parametrize(
    ("written", "bare", "key"),
    [
        (" D:\\data\\Scan_7.MHD ", "Scan_7", "scan_7"),
        ("imgs/Case 1/", "Case 1", "case 1"),
        ("'001", "001", "001"),
        ('"001"', "001", "001"),
        ("='001'", "001", "001"),
        ('="a"b', '="a"b', '="a"b'),
        ("\uff23\uff34 (1).bmp", "\uff23\uff34 (1)", "ct (1)"),
        ("\uff5e\uff01", "\uff5e\uff01", "~!"),  # the last and the first full-width form
        ("a\u00a0b", "a\u00a0b", "a b"),
        ("stra\u00dfe", "stra\u00dfe", "strasse"),
        ("a.b", "a.b", "a.b"),
        ("", "", ""),
        ("/ / ", "", ""),
    ],
)
def test_a_name_without_what_does_not_distinguish_it(written: str, bare: str, key: str) -> None:
    assert (bare_name(written), name_key(written)) == (bare, key)


def test_the_first_written_name_that_means_one_is_used() -> None:
    names = NameIndex(["7 1", "7", "001", "0001"])
    assert names.find_first(["absent", "7"]).name == "7"
    assert names.find_first(["7 1", "7"]).name == "7 1"
    assert names.find_first([]) == Match()
    assert names.find_first(["absent", "1"]).candidates == ("001", "0001")
    assert ("7" in names, "8" in names) == (True, False)
    assert names.find_file("7.jpg") == "7"


def test_at_most_five_names_that_fit_are_listed() -> None:
    names = ["0" * zeros + "1" for zeros in range(2, 9)]
    match = NameIndex(names).find("1")
    assert match.candidates == tuple(names)
    assert (
        match.detail == f"expected one name that fits, got “{', '.join(names[:5])}”; write it as it is in the archive"
    )
    assert NameIndex(names).find("2").detail is None
    assert NameIndex(["a.00"]).find("a.0").name is None  # no number ends in these zeros
    assert NameIndex(["a1.00"]).find("a1").name == "a1.00"
