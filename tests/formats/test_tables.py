"""Annotation tables, split lists, VOC files and workbooks in the notations that occur in practice."""

from __future__ import annotations

import codecs
import io
import itertools
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lung_nodule_ct.errors import LungNoduleCTError
from lung_nodule_ct.formats.split_lists import parse_split_list
from lung_nodule_ct.formats.tables import MAX_ROWS, filled_lines, parse_boxes, parse_nodules
from lung_nodule_ct.formats.text import NumberNotation, decode_text, lines_of, open_text, read_numbers
from lung_nodule_ct.formats.voc import parse_voc
from lung_nodule_ct.formats.workbook import parse_workbook
from lung_nodule_ct.testing.archives import workbook, zip_archive
from lung_nodule_ct.testing.strategies import box_tables, nodule_tables, split_lists

LUNA = "seriesuid,coordX,coordY,coordZ,diameter_mm"


def spheres(text: str | bytes) -> list[tuple[str, tuple[float, float, float], float]]:
    table = parse_nodules(text if isinstance(text, bytes) else text.encode())
    assert not table.bad
    return [(row.series_uid, row.center, row.diameter) for row in table.good]


@pytest.mark.parametrize(
    "text",
    [
        f"{LUNA}\n09184,1.5,-2,3e1,4\n",
        f"\ufeff{LUNA}\n09184,1.5,-2,3e1,4",
        f"{LUNA}\r\n09184,1.5,-2,3e1,4\r\n,,,,\r\n\r\n",
        "09184,1.5,-2,3e1,4",
        '"09184","1.5","-2","30","4"\n',
        " 09184 , 1.5 , -2 , 30 , 4 \n",
        f"{LUNA.replace(',', ';')}\n09184;1.5;-2;30;4\n",
        f"{LUNA.replace(',', chr(9))}\n09184\t1.5\t-2\t30\t4\n",
        "coordZ,coordY,coordX,diameter_mm,seriesuid\n30,-2,1.5,4,09184\n",
        "scan name,x,y,z,diameter\n09184,1.5,-2,30,4\n",
        "name,some x,some y,some z,how large\n09184,1.5,-2,30,4\n",
        "名称,坐标X,坐标Y,坐标Z,直径\n09184,1.5,-2,30,4\n".encode("gb18030"),
    ],
)
def test_a_nodule_is_read_in_every_notation(text) -> None:
    assert spheres(text) == [("09184", (1.5, -2.0, 30.0), 4.0)]


def test_rows_that_cannot_be_read_are_reported() -> None:
    table = parse_nodules(
        f"{LUNA}\na,1,2,3,4\nb,1,2,x,4\nc,1,2\n,1,2,3,4\nd,nan,2,3,4\ne,1_0,2,3,4\nf,1e308,2,3,4\n".encode()
    )
    assert [row.series_uid for row in table.good] == ["a"]
    assert [row.reference for row in table.bad] == [
        "line 3: b,1,2,x,4",
        "line 4: c,1,2",
        "line 5: ,1,2,3,4",
        "line 6: d,nan,2,3,4",
        "line 7: e,1_0,2,3,4",
        "line 8: f,1e308,2,3,4",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "pid,zmin,zmax,ymin,ymax,xmin,xmax,diameter\n09184,1,2,3,4,5,6,7.5\n",
        "pid,z_min,z_max,y_min,y_max,x_min,x_max,diameter\n09184,1,2,3,4,5,6,7.5\n",
        "\ufeffdiameter,xmin,ymin,zmin,xmax,ymax,zmax,pid\n7.5,5,3,1,6,4,2,09184\n",
        "09184,1,2,3,4,5,6,7.5\n",
        "pid,zmin,zmax,ymin,ymax,xmin,xmax,diameter\n09184,1.0,2.0,3.0,4.0,5.0,6.0,7.5\n",
    ],
)
def test_a_box_is_read_in_both_notations_and_any_column_order(text) -> None:
    table = parse_boxes(text.encode())
    (row,) = table.good
    assert (row.pid, row.low, row.high, row.diameter, row.augmented) == ("09184", (5, 3, 1), (6, 4, 2), 7.5, None)
    assert not table.bad


def test_boxes_may_lack_a_diameter_and_be_marked_as_augmented() -> None:
    table = parse_boxes(
        b"pid,zmin,zmax,ymin,ymax,xmin,xmax,augment\n1,1,2,3,4,5,6,1\n2,1,2,3,4,5,6,none\n3,1,2,3,4,5,6,\n4,1,2,3,4,5,6,flipud\n5,1,2.5,3,4,5,6,0\n"
    )
    assert [(row.diameter, row.augmented) for row in table.good] == [
        (None, True),
        (None, False),
        (None, None),
        (None, True),
    ]
    assert len(table.bad) == 1


def test_a_header_with_unknown_words_is_reported() -> None:
    with_patient = parse_nodules(b"patient_id,seriesuid,coordX,coordY,coordZ,diameter_mm\n9,9_20190314,1,2,3,4\n")
    assert [(row.series_uid, row.center, row.diameter) for row in with_patient.good] == [("9_20190314", (1, 2, 3), 4)]
    assert with_patient.unknown_header is None
    unknown = parse_nodules(b"scan no,where x,where y,where z,how large\n9,1,2,3,4\n")
    assert unknown.good[0].center == (1, 2, 3)
    assert unknown.unknown_header is not None
    assert parse_nodules(b"9,1,2,3,4\n").unknown_header is None


@pytest.mark.parametrize(
    ("header", "guessed"),
    [
        ("seriesuid,coordX,coordY,coordZ,how large", ("diameter_mm",)),
        ("patient,X,Y,Z,size", ("diameter_mm",)),
        ("scan no,coordX,coordY,coordZ,diameter_mm", ("seriesuid",)),
        ("name,x,across,z,d", ("coordy",)),
        (",name,x,across,z,d", ("coordy",)),
        ("seriesuid,coordX,coordY,coordZ,Diameter (mm)", ()),
        ("seriesuid,coordX,coordY,coordZ,直径", ()),
    ],
)
def test_nodules_are_read_if_one_column_name_is_unknown(header, guessed) -> None:
    index = "0," * header.startswith(",")
    table = parse_nodules(f"{header}\n{index}9,1,2,3,4\n".encode())
    assert [(row.series_uid, row.center, row.diameter) for row in table.good] == [("9", (1, 2, 3), 4)]
    assert table.guessed == guessed
    assert (table.unknown_header is not None) == bool(guessed)


def test_columns_are_not_guessed_if_a_known_name_contradicts() -> None:
    table = parse_nodules(b"name,a,x,b,d\n9,1,2,3,4\n")
    assert (len(table.good), len(table.bad), table.guessed) == (0, 1, ())
    assert table.unknown_header is not None


@pytest.mark.parametrize(
    ("header", "diameter", "guessed", "reported"),
    [
        ("pid,zmin,zmax,ymin,ymax,xmin,xmax,diameter(mm)", 7.5, (), False),
        ("pid,zmin,zmax,ymin,ymax,xmin,xmax,直径", 7.5, (), False),
        ("pid,z min.,zmax,ymin,ymax,xmin,xmax,diameter", 7.5, (), False),
        ("pid,lowest,zmax,ymin,ymax,xmin,xmax,diameter", 7.5, ("zmin",), True),
        ("pid,zmin,zmax,ymin,ymax,xmin,xmax,reader", None, (), True),
        ("case no,a,b,c,d e,f,g,h", 7.5, ("pid", "zmin", "zmax", "ymin", "ymax", "xmin", "xmax", "diameter"), True),
    ],
)
def test_boxes_are_read_if_one_column_name_is_unknown_and_no_diameter_is_invented(
    header, diameter, guessed, reported
) -> None:
    table = parse_boxes(f"{header}\n9,1,2,3,4,5,6,7.5\n".encode())
    assert [(row.pid, row.low, row.high, row.diameter) for row in table.good] == [("9", (5, 3, 1), (6, 4, 2), diameter)]
    assert table.guessed == guessed
    assert (table.unknown_header is not None) == reported


def test_a_row_with_a_huge_cell_cannot_be_read() -> None:
    table = parse_nodules(f"{LUNA}\na,1,2,3,4\nb,{'9' * 200_000},2,3,4\n".encode())
    assert [row.series_uid for row in table.good] == ["a"]
    assert len(table.bad) == 1


def test_a_row_with_more_cells_than_the_header_is_reported_and_never_shifted() -> None:
    table = parse_nodules(f"{LUNA}\n7,a,1,2,3,4\n8,1,2,3,4,,\n9,1,5,2,25,0,5,4,0\n".encode())
    assert [(row.series_uid, row.center, row.diameter) for row in table.good] == [("8", (1, 2, 3), 4)]
    assert [row.problem for row in table.bad] == ["expected 5 cells, got 6", "expected 5 cells, got 9"]
    assert not parse_nodules(b"0,9,1,2,3,4\n1,9,1,2,3,4\n").good  # a column of row numbers, and no header that says so
    boxes = parse_boxes(b"pid,zmin,zmax,ymin,ymax,xmin,xmax,diameter\n9,1,2,3,4,5,6,7,8\n")
    assert (len(boxes.good), boxes.bad[0].problem) == (0, "expected 8 cells, got 9")


@pytest.mark.parametrize(
    ("before", "skipped"),
    [
        ("sep=,\n", 0),
        ('"sep=,"\r\n', 0),
        ("\n\n \n", 0),
        ("# nodules, 1.25 mm\n", 1),
        ("Nodules of the 1.25 mm scans\n\nmade by: two readers, 2020\n", 2),
        ("# 1,2,3\n,,,,\n", 1),
    ],
)
def test_lines_before_the_header_are_no_rows(before, skipped) -> None:
    table = parse_nodules(f"{before}{LUNA}\n9,1,2,3,4\n8,1,2,3,x\n# the end\n".encode())
    assert [(row.series_uid, row.center, row.diameter) for row in table.good] == [("9", (1, 2, 3), 4)]
    assert (len(table.skipped), table.bad_count) == (skipped, 1)
    assert table.bad[0].line == before.count("\n") + 3


def test_a_declared_delimiter_is_used() -> None:
    table = parse_nodules(b"sep=;\nseriesuid;coordX;coordY;coordZ;diameter_mm\n9;1;2;3;4\n")
    assert table.good[0].center == (1, 2, 3)
    assert parse_nodules(b"sep=|\nid|x|y|z|d\n9|1|2|3|4\n").good[0].diameter == 4


@pytest.mark.parametrize(
    ("row", "center"),
    [
        ("3;1,5;2,25;0,5;4,0", (1.5, 2.25, 0.5)),
        ("3;-123,456;2,25;0,5;4,0", (-123.456, 2.25, 0.5)),
        ("3;1.020,5;2,25;-1.000,125;4,0", (1020.5, 2.25, -1000.125)),
        ("3;1,020.5;-1,000;0.5;4.0", (1020.5, -1000, 0.5)),
        ("3;1 020,5;2\u00a0000,25;0,5;4,0", (1020.5, 2000.25, 0.5)),
        ("3;1\u2019020.5;\u22122;0.5;4", (1020.5, -2, 0.5)),
        ("3\t1,5\t2\t0,5\t4,0", (1.5, 2, 0.5)),
        ('3,"1,5","2,25","0,5","4,0"', (1.5, 2.25, 0.5)),
        ('3,"1,020.5","-1,000",0.5,4', (1020.5, -1000, 0.5)),
        ("3 1.5 2.25 0.5 4.0", (1.5, 2.25, 0.5)),
    ],
)
@pytest.mark.parametrize("has_header", [True, False])
def test_decimal_commas_and_thousands_are_read(row, center, has_header) -> None:
    delimiter = next((each for each in ";\t" if each in row), "," if "," in row else " ")
    header = f"{LUNA.replace(',', delimiter)}\n" if has_header else ""
    table = parse_nodules(f"{header}{row}\n".encode())
    assert [(each.series_uid, each.center, each.diameter) for each in table.good] == [("3", center, 4)]


@pytest.mark.parametrize("cell", ["1,020", "1,02,0", "1.0.2", "1,5,5", "--1", "1e400", "1_0", "4 mm", "1 2"])
def test_a_number_that_is_ambiguous_or_none_is_not_guessed(cell) -> None:
    table = parse_nodules(f'{LUNA}\n3,"{cell}",2,3,4\n'.encode())
    assert (len(table.good), table.bad_count) == (0, 1)


@pytest.mark.parametrize(
    "word",
    [
        "class",
        "probability",
        "state",
        "score",
        "volume",
        "malignancy",
        "Label",
        "confidence",
        "isNodule",
        "diameter_cm",
        "diameter_px",
        "voxelX",
        "概率",
        "类别",
        "体积",
    ],
)
def test_a_word_of_another_meaning_is_never_taken_by_position(word) -> None:
    table = parse_nodules(f"seriesuid,coordX,coordY,coordZ,{word}\n3,1,2,0.5,1\n".encode())
    assert [(row.center, row.diameter) for row in table.good] == [((1, 2, 0.5), None)]
    assert table.unknown_header is not None
    assert not table.guessed
    assert not parse_nodules(f"seriesuid,coordX,{word},coordZ,diameter_mm\n3,1,2,0.5,1\n".encode()).good
    boxes = parse_boxes(f"pid,zmin,zmax,ymin,ymax,xmin,xmax,{word}\n3,1,2,3,4,5,6,1\n".encode())
    assert boxes.good[0].diameter is None
    assert not parse_boxes(f"pid,zmin,{word},ymin,ymax,xmin,xmax\n3,1,2,3,4,5,6\n".encode()).good


@pytest.mark.parametrize(
    "header", ["seriesuid,coordX,coordY,coordZ,class,foo", "seriesuid,coordX,coordY,coordZ,foo,radius"]
)
def test_a_column_is_not_found_by_elimination_next_to_words_of_another_meaning(header) -> None:
    (row,) = parse_nodules(f"{header}\n3,1,2,0.5,1,5\n".encode()).good
    assert row.diameter == (10 if "radius" in header else None)


@pytest.mark.parametrize("word", ["radius", "radius_mm", "Radius (mm)", "半径"])
def test_a_radius_is_doubled_and_reported(word) -> None:
    table = parse_nodules(f"seriesuid,coordX,coordY,coordZ,{word}\n3,1,2,0.5,4\n".encode())
    assert (table.good[0].diameter, table.converted) == (8, "radius_mm is doubled")
    both = parse_nodules(f"seriesuid,coordX,coordY,coordZ,{word},diameter_mm\n3,1,2,0.5,4,9\n".encode())
    assert (both.good[0].diameter, both.converted) == (9, "")


SCAN_WORDS = (
    *("seriesuid", "series_uid", "scan", "scan_name", "scan_id", "name", "filename", "file_name", "file", "id", "case"),
    *("case_id", "case_number", "scan_number", "patient", "patient_id", "pid", "patient_number", "Scan Name"),
)
DIAMETER_WORDS = ("diameter_mm", "diameter", "d", "diam", "直径", "size_mm", "Diameter [mm]")


@pytest.mark.parametrize("word", SCAN_WORDS)
def test_every_word_for_the_scan_is_known(word) -> None:
    table = parse_nodules(f"x,y,z,d,{word}\n1,2,3,4,9\n".encode())
    assert [(row.series_uid, row.center, row.diameter) for row in table.good] == [("9", (1, 2, 3), 4)]
    assert (table.guessed, table.unknown_header) == ((), None)


def test_of_two_words_for_the_scan_the_first_in_the_list_of_the_known_is_used() -> None:
    for better, worse in itertools.pairwise(SCAN_WORDS[:-1]):
        table = parse_nodules(f"{worse},{better},x,y,z,d\nworse,better,1,2,3,4\n".encode())
        assert [row.series_uid for row in table.good] == ["better"]


@pytest.mark.parametrize("word", DIAMETER_WORDS)
def test_every_word_for_the_diameter_is_known(word) -> None:
    table = parse_nodules(f"{word},x,y,z,scan\n4,1,2,3,9\n".encode())
    assert (table.good[0].diameter, table.guessed, table.unknown_header) == (4, (), None)
    if word != "size_mm":
        boxes = parse_boxes(f"{word},pid,zmin,zmax,ymin,ymax,xmin,xmax\n7.5,9,1,2,3,4,5,6\n".encode())
        assert (boxes.good[0].diameter, boxes.guessed, boxes.unknown_header) == (7.5, (), None)


@pytest.mark.parametrize(
    "word", ["coord{}", "coord_{}", "{}", "world_{}", "{}_mm", "center_{}", "centre_{}", "Coord-{}"]
)
@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_every_word_for_a_coordinate_is_known(word, axis) -> None:
    header = ",".join(word.format(axis) if each == axis else each for each in ("z", "y", "x"))
    table = parse_nodules(f"{header},d,scan\n3,2,1,4,9\n".encode())
    assert [row.center for row in table.good] == [(1, 2, 3)]
    assert (table.guessed, table.unknown_header) == ((), None)


@pytest.mark.parametrize("word", ["radius_mm", "radius", "半径_mm", "半径"])
def test_every_word_for_the_radius_is_known(word) -> None:
    table = parse_nodules(f"{word},x,y,z,scan\n4,1,2,3,9\n".encode())
    assert (table.good[0].diameter, table.guessed, table.unknown_header) == (8, (), None)


@pytest.mark.parametrize(
    "word", ["pid", "id", "case", "case_id", "case_number", "name", "patient", "patient_id", "patient_number"]
)
@pytest.mark.parametrize("ends", ["{0}{1}", "{0}_{1}", "{1}{0}", "{1}_{0}"])
def test_every_word_of_a_table_of_boxes_is_known(word, ends) -> None:
    header = ",".join(ends.format(axis, end) for axis in "xyz" for end in ("max", "min"))
    table = parse_boxes(f"{header},{word},直径_mm\n6,5,4,3,2,1,9,7.5\n".encode())
    assert [(row.pid, row.low, row.high, row.diameter) for row in table.good] == [("9", (5, 3, 1), (6, 4, 2), 7.5)]
    assert (table.guessed, table.unknown_header) == ((), None)


@pytest.mark.parametrize("word", ["augmented", "augment", "augmentation", "is_augmented", "aug", "isAugmented"])
@pytest.mark.parametrize(
    ("flag", "augmented"),
    [
        *((each, None) for each in ("", " ", "nan", "null", "NA", "unknown")),
        *((each, False) for each in ("0", "0.0", "false", "no", "N", "none", "Original")),
        *((each, True) for each in ("1", "yes", "flip", "00")),
    ],
)
def test_every_word_for_augmentation_is_known(word, flag, augmented) -> None:
    if word == "isAugmented":
        word = "IS AUGMENTED"
    (row,) = parse_boxes(f"{word},pid,zmin,zmax,ymin,ymax,xmin,xmax\n{flag},9,1,2,3,4,5,6\n".encode()).good
    assert row.augmented is augmented


@pytest.mark.parametrize(
    "written", ["-1.5", "\uff0d\uff11\uff0e\uff15", "-\uff11.\uff15", "\u22121.5", "-1.5\x0b", "\u3000-1.5"]
)
def test_numbers_in_other_characters_and_blanks_are_read(written) -> None:
    table = parse_nodules(f"{LUNA}\n9,{written},2,3,4\n".encode())
    assert [row.center for row in table.good] == [(-1.5, 2, 3)]
    boxes = parse_boxes(f"pid,zmin,zmax,ymin,ymax,xmin,xmax\n9,1,2,3,4,5,{written}\n".encode())
    assert [row.problem for row in boxes.bad] == [f"expected a whole number, got “{written.strip()}”"]


def test_the_problem_of_every_bad_row_is_stated() -> None:
    rows = {
        "a,1,2,x,4": "expected a number, got “x”",
        "b,1,2": "expected 5 cells, got 3",
        ",1,2,3,4": "expected a name, got an empty cell",
        "c,1,2,3,4,5": "expected 5 cells, got 6",
        "d,1,2," + "y" * 50 + ",4": f"expected a number, got “{'y' * 40}”",
        "e,": "expected 5 cells, got 2",
        "f," + "9" * 70_000: "it is too long",
    }
    table = parse_nodules("\n".join([LUNA, *rows]).encode())
    assert [row.problem for row in table.bad] == list(rows.values())
    assert [row.text for row in table.bad] == [row[:200] for row in rows]
    assert table.bad_names == {"", *"abcde"}
    boxes = parse_boxes(b"pid,zmin,zmax,ymin,ymax,xmin,xmax\n9,1,2,3,4,5,6.5\n")
    assert boxes.bad[0].problem == "expected a whole number, got “6.5”"
    lacking = parse_boxes(b"pid,zmin,zmax,ymin,ymax,class\n9,1,2,3,4,5\n")
    assert lacking.bad[0].problem == "the table has no column xmin, xmax"


@pytest.mark.parametrize("mark", ["#", "//"])
def test_comments_in_tables_and_lists_are_ignored(mark) -> None:
    table = parse_nodules(f"{LUNA}\n9,1,2,3,4\n{mark} 8,1,2,3,4,5\n".encode())
    assert ([row.series_uid for row in table.good], table.bad_count, table.ignored) == (["9"], 0, 2)
    entries = list(parse_split_list(f"{mark} train\n9_004 {mark} checked twice\n9_005.jpg {mark} 1,2,3,4\n".encode()))
    assert [(entry.line, entry.stem, entry.boxes) for entry in entries] == [(2, "9_004", ()), (3, "9_005", ())]


def test_rows_have_the_numbers_of_their_lines() -> None:
    table = parse_nodules(f"\n{LUNA}\n{'9,1,2,3,4' + chr(10) * 2}".encode() + b"8,1,2,3,4\n" * 30 + b"7,1\n")
    assert [row.row.line for row in table.good] == [3, *range(5, 35)]
    assert (table.good[-1].row.reference, table.bad[0].reference) == ("line 34: 8,1,2,3,4", "line 35: 7,1")
    assert table.unknown_header is None
    unknown = parse_nodules(b"all\n\nscan no,where x,where y,where z,how large\n9,1,2,3,4\n")
    assert unknown.unknown_header.reference == "line 3: scan no,where x,where y,where z,how large"
    assert [row.reference for row in unknown.skipped] == ["line 1: all"]


@pytest.mark.parametrize(
    ("length", "problem"), [(1 << 16, "expected a number, got"), ((1 << 16) + 1, "it is too long")]
)
def test_a_line_has_at_most_65536_characters(length, problem) -> None:
    row = "9,1,2,3," + "x" * (length - 8)
    assert parse_nodules(f"{LUNA}\n{row}".encode()).bad[0].problem.startswith(problem)


def test_lines_of_the_heading_are_counted() -> None:
    assert parse_nodules(f"sep=,\nnodules\n{LUNA}\n9,1,2,3,4\n".encode()).ignored == 3
    assert parse_nodules(b"9,1,2,3,4\n").ignored == 0
    assert filled_lines(b'a\n\n , ;\t|\n""\nb') == 2


def test_a_line_of_a_list_is_shown_with_its_number() -> None:
    (entry,) = parse_split_list(b"\n" + b"a/" * 150 + b"9_004.jpg 1,2,3,4")
    assert entry.reference == f"line 2: {('a/' * 150)[:200]}"
    (long,) = parse_split_list(b"a" * 10 + b" b" * (1 << 15))
    assert (long.stem, long.text, long.boxes) == ((b"a" * 10 + b" b" * 95).decode(),) * 2 + ((),)


@pytest.mark.parametrize(
    ("line", "names", "boxes"),
    [
        ("9_004", ("9_004",), ()),
        ("9_004 1", ("9_004 1", "9_004"), ()),  # the name may end with the number
        ("9_004.jpg", ("9_004.jpg", "9_004"), ()),
        ("9_004 1,2,3,4", ("9_004",), ((1, 2, 3, 4),)),
        ("9_004.jpg 1,2,3,4,nodule 5.5,-6,7,8", ("9_004",), ((1, 2, 3, 4), (5.5, -6, 7, 8))),
        ("9_004.jpg 1 2 3 4", ("9_004",), ((1, 2, 3, 4),)),
        ("9_004.jpg 1 2 3 4 0", ("9_004",), ((1, 2, 3, 4),)),
        ("9_004.jpg 1 2 3", ("9_004.jpg 1 2 3", "9_004"), ()),
        ("9_004.jpg 1 2 3 4 5 6", ("9_004.jpg 1 2 3 4 5 6", "9_004"), ()),
        ("9_004.jpg 1,2,3", ("9_004.jpg 1,2,3", "9_004"), ()),
        ("a.jpg.bmp", ("a.jpg.bmp", "a.jpg"), ()),
        ("1 2 3 4 5", ("1 2 3 4 5", "1"), ((2, 3, 4, 5),)),
    ],
)
def test_what_a_line_of_a_list_may_name(line, names, boxes) -> None:
    (entry,) = parse_split_list(line.encode())
    assert entry.boxes == boxes
    assert entry.names == (names if not boxes else (entry.stem,))
    assert entry.stem == names[-1]


@pytest.mark.parametrize(
    ("table", "delimiter", "numbers"),
    [
        ("1.5;2.5", ";", {"1.5": 1.5, "1,5": 1.5, "1,500": None, "1.500": 1.5, "12,34,5": None, "1 000": 1000}),
        ("1,5;2,5", ";", {"1,500": 1.5, "-1,5": -1.5, "0,123": 0.123, "1.000,5": 1000.5, "1,2,3": None}),
        (
            "1,000,000;2",
            ";",
            {
                "123,456": 123456,
                "1234,567": 1234.567,
                "1,500": 1500,
                "12,345,678": None,  # over the limit
                "1,5": 1.5,
                "0,123": 0.123,
                "1,000.5": 1000.5,
            },
        ),
        ("1.5;1,020", ";", {"1,020": 1020, "1,020.5": 1020.5}),  # a decimal point, so that the comma groups
        ("1.000.000;2,5", ";", {"1.500": 1500, "1.000.000": 1000000, "2,5": 2.5, "1.000,25": 1000.25}),
        ("1.5;2,5", ";", {"1,500": None, "1.500": 1.5}),  # both are decimal marks
        ("1,020;1,5;1,000,000", ";", {"1,020": None}),  # a decimal mark and groups
        ("1,020", ",", {"1,020": None, "1.020": 1.02}),  # a comma that divides cells says nothing
        ('"1,5","2,5"', ",", {"1,500": 1.5}),
        ('"1,020.5",3', ",", {"1,020": 1020}),
        ("1 2", " ", {"1,020": None, "1.5": 1.5, "2\u202f000,5": 2000.5, "2'000": 2000, "\u22121,5": -1.5}),
        ("1,020 2", " ", {"1,020": 1.02, "01,020": 1.02, "1234,567": 1234.567, "12.34.567": None, "1,2.3,4": None}),
    ],
)
def test_the_numbers_of_a_table_are_read_in_one_notation(table, delimiter, numbers) -> None:
    notation = NumberNotation.of(table, delimiter)
    assert {text: notation.read(text) for text in numbers} == numbers
    for text, number in numbers.items():
        assert notation.read_all([text, "7"]) == (None if number is None else (number, 7))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1000000", 1e6),
        ("-1000000", -1e6),
        ("1000001", None),
        ("-1000001", None),
        ("inf", None),
        ("nan", None),
        ("1_0", None),
        ("+1.5", 1.5),
        (" 2 ", 2),
        ("1e3", 1000),
        ("", None),
        ("\uff11", 1),
    ],
)
def test_a_number_is_finite_and_at_most_a_million(text, number) -> None:
    assert NumberNotation().read(text) == number
    assert NumberNotation().read_all(["3", text]) == (None if number is None else (3, number))
    assert read_numbers([text, "3"]) == (None if number is None else (number, 3))
    if "." not in text:  # a whole number is the same in every notation
        assert NumberNotation("decimal", "groups").read_all(["3", text]) == (None if number is None else (3, number))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "gb18030"])
def test_text_is_decoded(encoding) -> None:
    bom = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}.get(encoding, b"")
    assert decode_text(bom + "肺 9".encode(encoding)) == "肺 9"
    assert open_text(b"\xef\xbb\xbf" * 2 + b"a\r\nb\rc").read() == "a\nb\nc"
    assert lines_of(b"a  \r\n b\n\n") == ["a", " b", ""]
    assert decode_text(b"\xff") == "\ufffd"


def test_the_best_of_several_names_of_the_scan_is_used() -> None:
    table = parse_nodules(b"id,name,x,y,z,d\n1,80_20190314,1,2,3,4\n")
    assert table.good[0].series_uid == "80_20190314"


@pytest.mark.parametrize("flag", ["0", "0.0", "false", "No"])
def test_a_case_that_is_not_augmented_is_marked_so(flag) -> None:
    (row,) = parse_boxes(f"pid,zmin,zmax,ymin,ymax,xmin,xmax,augmented\n1,1,2,3,4,5,6,{flag}\n".encode()).good
    assert row.augmented is False


def test_tables_and_lists_have_a_limit_of_rows(monkeypatch) -> None:
    assert MAX_ROWS == 1_048_576
    for module in ("tables", "split_lists"):
        monkeypatch.setattr(f"lung_nodule_ct.formats.{module}.MAX_ROWS", 1000)
    with pytest.raises(ValueError, match="more than 1,000 rows"):
        parse_nodules(b"9,1\n" * 1001)
    with pytest.raises(ValueError, match="more than 1,000 lines"):
        list(parse_split_list(b"9\n" * 1001))
    assert parse_nodules(b"9,1\n" * 1000).bad_count == len(list(parse_split_list(b"9\n" * 1000))) == 1000


def test_bad_rows_are_counted_and_the_first_hundred_are_described() -> None:
    table = parse_nodules(LUNA.encode() + b"\n9,1,2,3,4\n" + b"9,1,?,3,4\n" * 100_000)
    assert (len(table.good), table.bad_count, len(table.bad)) == (1, 100_000, 100)
    assert table.bad_names == {"9"}


def test_rows_about_one_scan_are_limited() -> None:
    table = parse_nodules(LUNA.encode() + b"\n" + b"9,1,2,3,4\n" * 12_000 + b"8,1,2,3,4\n")
    assert (len(table.good), table.bad_count) == (10_001, 2_000)
    assert "more than 10,000 rows" in table.bad[0].problem


@pytest.mark.parametrize("data", [b"9," + b"1," * 5_000_000, b"9" * 5_000_000, b'"' * 1_000_000, b"1" * 60_000 + b",1"])
def test_a_long_line_is_a_bad_row_within_linear_time(data) -> None:
    assert parse_nodules(LUNA.encode() + b"\n" + data).bad_count <= 1
    assert len(list(parse_split_list(data))) == 1


@given(nodule_tables())
def test_every_nodule_is_read(case) -> None:
    assert spheres(case.data) == list(case.content)


@given(box_tables())
def test_every_box_is_read(case) -> None:
    table = parse_boxes(case.data)
    assert [(row.pid, row.low, row.high, row.diameter) for row in table.good] == list(case.content)
    assert not table.bad
    assert table.unknown_header is None


@given(split_lists())
def test_every_entry_of_a_split_list_is_read(case) -> None:
    assert [(entry.stem, entry.boxes) for entry in parse_split_list(case.data)] == list(case.content)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_cause_no_error_in_a_table(data) -> None:
    parse_nodules(data)
    parse_boxes(data)
    list(parse_split_list(data))


@pytest.mark.parametrize(
    ("line", "stem", "boxes"),
    [
        ("80_20190314_003", "80_20190314_003", 0),
        ("80_20190314_003 1", "80_20190314_003", 0),
        ("JPEGImages/80_20190314_003.jpg", "80_20190314_003", 0),
        ("D:\\my data\\JPEGImages\\80_20190314_003.JPG", "80_20190314_003", 0),
        ("x y/80_20190314_003.bmp 1,2,3,4,0 5,6,7,8", "80_20190314_003", 2),
        ("80_20190314_003.jpg 1.5,2,3,4", "80_20190314_003", 1),
        ("09184", "09184", 0),
        ("80_20190314_003.jpg 1 2 3 4 0", "80_20190314_003", 1),
        ("7_20200101 (1)", "7_20200101 (1)", 0),
        ("my scan 1,2,3,4 5,6,7,8", "my scan", 2),
        ("JPEGImages/img [3].BMP", "img [3]", 0),
        ("imgs/00001/", "00001", 0),
        ("imgs\\00001\\", "00001", 0),
        ("00001  # checked", "00001", 0),
    ],
)
def test_lines_of_split_lists_are_parsed(line, stem, boxes) -> None:
    (entry,) = parse_split_list(f"\ufeff{line}\r\n\r\n".encode())
    assert (entry.stem, len(entry.boxes)) == (stem, boxes)


VOC = "<annotation><filename>a.jpg</filename><size><width>20</width><height>16</height></size>{}</annotation>"
BOX = "<object><name>nodule</name><diffcult>0</diffcult><bndbox><xmin>{}</xmin><ymin> 02 </ymin><xmax>3.5</xmax><ymax>4</ymax></bndbox></object>"


@pytest.mark.parametrize(
    "data",
    [
        VOC.format(BOX.format("1")).encode(),
        b'<?xml version="1.0" encoding="utf-8"?>\n' + VOC.format(BOX.format("1.0")).encode(),
        ('<?xml version="1.0" encoding="GBK"?><!-- 肺 -->' + VOC.format(BOX.format("001"))).encode("gbk"),
        ('<?xml version="1.0" encoding="gb2312"?><!-- 肺 -->' + VOC.format(BOX.format("1"))).encode("gb18030"),
        b"\xef\xbb\xbf" + VOC.format(BOX.format("1")).encode(),
        ('<?xml version="1.0" encoding="utf-16"?>' + VOC.format(BOX.format("1"))).encode("utf-16"),
    ],
)
def test_voc_is_read_in_every_encoding(data) -> None:
    annotation = parse_voc(data)
    assert (annotation.filename, annotation.width, annotation.height) == ("a.jpg", 20, 16)
    assert [entry.box for entry in annotation.objects] == [(1.0, 2.0, 3.5, 4.0)]


@pytest.mark.parametrize(
    ("declared", "encoding"),
    [
        ("gbk", "gbk"),
        ("GB18030", "gb18030"),
        ("gb2312", "gbk"),
        ("latin-1", "latin-1"),
        ("utf-8", "gbk"),
        ("none-such", "utf-8"),
    ],
)
def test_the_file_name_in_a_voc_file_is_decoded_as_declared(declared, encoding) -> None:
    name = "é.jpg" if encoding == "latin-1" else "肺.jpg"
    text = f"""  <?xml version='1.0' encoding = '{declared}' ?>{VOC.format("").replace("a.jpg", name)}"""
    assert parse_voc(text.encode(encoding)).filename == name


def test_a_complete_voc_file_has_nothing_unusual() -> None:
    more = "<pose>Left</pose><truncated>0</truncated><difficult>0</difficult><occluded>0</occluded><bndbox>"
    body = (
        "<folder>a</folder><path>b</path><segmented>0</segmented>"
        "<source><database>x</database><image>y</image></source><owner><name>z</name></owner>"
        + BOX.format("1").replace("<bndbox>", more)
    )
    data = VOC.format(body).replace("</size>", "<depth>3</depth></size>").encode()
    annotation = parse_voc(data)
    assert (len(annotation.objects), annotation.unusual) == (1, ())
    assert (annotation.objects[0].name, annotation.objects[0].text) == ("nodule", "1, 02, 3.5, 4")


@pytest.mark.parametrize(
    ("size", "expected", "unusual"),
    [
        ("<width>20</width>", (20, None), 0),
        ("<width>0</width><height>0</height>", (None, None), 0),
        ("<width>-1</width><height>16</height>", (None, 16), 0),
        ("<width>20.0</width><height>16.5</height>", (20, None), 1),
        ("<width>1</width><height>2</height>", (1, 2), 0),
        ("<width></width><height>2</height>", (None, 2), 0),
    ],
)
def test_the_size_of_a_voc_file_is_read(size, expected, unusual) -> None:
    annotation = parse_voc(f"<annotation><size>{size}</size></annotation>".encode())
    assert (annotation.width, annotation.height, len(annotation.unusual)) == (*expected, unusual)
    assert annotation.filename == ""
    bare = parse_voc(b"<annotation/>")
    assert (bare.width, bare.height, bare.objects, bare.unusual) == (None, None, (), ())


def test_texts_and_lists_of_a_voc_file_are_bounded() -> None:
    tags = "".join(f"<t{number}/>" for number in range(30))
    annotation = parse_voc(VOC.format(tags + BOX.format("1").replace("nodule", "n" * 300)).encode())
    assert len(annotation.unusual) == 20
    assert annotation.unusual[0] == ("an element “t0” in <annotation>", "not read")
    assert annotation.objects[0].name == "n" * 200
    (missing,) = parse_voc(VOC.format("<object><name>nodule</name></object>").encode()).objects
    assert (missing.box, missing.text) == (None, "-, -, -, -")
    assert len(parse_voc(VOC.format(BOX.format("1") * 1000).encode()).objects) == 1000
    nested = parse_voc(VOC.format(f"<group>{BOX.format('1')}</group>").encode())
    assert nested.unusual == (("an element “group” in <annotation>", "its objects are used"),)


def test_voc_numbers_that_cannot_be_read_give_no_box() -> None:
    for text in ("x", "", "nan"):
        (entry,) = parse_voc(VOC.format(BOX.format(text)).encode()).objects
        assert entry.box is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'<!DOCTYPE a [<!ENTITY x "y">]><annotation>&x;</annotation>', "entities"),
        (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>', "document type"),
        (b"<annotation><object></annotation>", "well-formed"),
        (b"", "well-formed"),
        (b"\x89PNG", "well-formed"),
    ],
)
def test_unsafe_and_malformed_voc_is_refused(data, message) -> None:
    with pytest.raises(ValueError, match=message):
        parse_voc(data)


def test_voc_tags_are_read_in_any_case_and_namespace() -> None:
    data = (
        VOC.format(BOX.format("1"))
        .replace("object>", "Object>")
        .replace("bndbox>", "BndBox>")
        .replace("xmin>", "XMin>")
    )
    (entry,) = parse_voc(data.encode()).objects
    assert entry.box == (1, 2, 3.5, 4)
    (entry,) = parse_voc(data.replace("<annotation>", '<annotation xmlns="http://x">').encode()).objects
    assert entry.box == (1, 2, 3.5, 4)
    prefixed = data.replace("<annotation>", '<v:annotation xmlns:v="http://x">').replace(
        "</annotation>", "</v:annotation>"
    )
    assert parse_voc(prefixed.encode()).width == 20
    assert not parse_voc(prefixed.encode()).unusual


TWO_BOXES = BOX.format("1").replace(
    "</object>", "<bndbox><xmin>5</xmin><ymin>6</ymin><xmax>7</xmax><ymax>8</ymax></bndbox></object>"
)


@pytest.mark.parametrize(
    ("body", "boxes", "unusual"),
    [
        (BOX.format("1"), 1, []),
        (TWO_BOXES, 2, ["an object has 2 boxes"]),
        (
            BOX.format("1").replace("</object>", "<polygon><x1>1</x1></polygon></object>"),
            1,
            ["an element “polygon” in <object>"],
        ),
        (BOX.format("1").replace("bndbox", "robndbox"), 1, ["an element “robndbox” in <object>"]),
        (BOX.format("1") + "<bndbox><xmin>1</xmin></bndbox>", 1, ["an element “bndbox” in <annotation>"]),
        (BOX.format("1").replace("<name>", BOX.format("5") + "<name>"), 2, ["an element “object” in <object>"]),
        (f"<objects>{BOX.format('1')}</objects>", 1, ["an element “objects” in <annotation>"]),
        (BOX.format("1").replace("<xmin>", "<xmin>9</xmin><xmin>"), 1, ["<xmin> occurs 2 times in <bndbox>"]),
        (BOX.format("1").replace("<name>", "<name>other</name><name>"), 1, ["<name> occurs 2 times in <object>"]),
        ("<item><box>1 2 3 4</box></item>", 0, ["an element “item” in <annotation>"]),
        (BOX.format("1") + "<size><width>9</width></size>", 1, ["<size> occurs 2 times in <annotation>"]),
    ],
)
def test_content_that_is_no_pascal_voc_is_reported(body, boxes, unusual) -> None:
    annotation = parse_voc(VOC.format(body).encode())
    assert len(annotation.objects) == boxes
    assert [content for content, _ in annotation.unusual] == unusual


def test_a_voc_file_of_another_root_or_with_an_unreadable_size_is_reported() -> None:
    other = parse_voc(VOC.format(BOX.format("1")).replace("annotation", "labels").encode())
    assert (len(other.objects), other.unusual) == (
        1,
        (("the root is “labels” and not <annotation>", "its objects are used"),),
    )
    odd = parse_voc(VOC.format("").replace("<height>16", "<height>tall").encode())
    assert (odd.width, odd.height) == (20, None)
    assert odd.unusual == (("<height> of <size> is “tall”", "not compared with the image"),)


def test_a_voc_file_has_a_limit_of_boxes_and_any_depth_is_read() -> None:
    with pytest.raises(ValueError, match="more than 1,000 boxes"):
        parse_voc(VOC.format(BOX.format("1") * 1001).encode())
    deep = parse_voc(VOC.format("<a>" * 200_000 + "</a>" * 200_000).encode())
    assert deep.unusual == (("an element “a” in <annotation>", "not read"),)


def test_workbooks_are_read_with_and_without_a_header() -> None:
    rows = parse_workbook(
        workbook([["图像", "xmin", "ymin", "xmax", "ymax"], ["a.jpg", 1, 2, 3, 4], [], ["b", "5", 6.5, 7, None]]),
        "x.xlsx",
    ).rows
    assert [(row.line, row.name, row.box) for row in rows] == [(2, "a.jpg", (1, 2, 3, 4)), (4, "b", None)]
    assert parse_workbook(workbook([["a.jpg", 1, 2, 3, 4]]), "x.xlsx").rows[0].box == (1, 2, 3, 4)


HEADER = ["image", "xmin", "ymin", "xmax", "ymax"]


@pytest.mark.parametrize(
    "rows",
    [
        [HEADER, ["a.jpg", 1, 2, 3, 4]],
        [["", *HEADER], [0, "a.jpg", 1, 2, 3, 4]],
        [["filename", "width", "height", "class", *HEADER[1:]], ["a.jpg", 40, 30, "nodule", 1, 2, 3, 4]],
        [["ymax", "xmax", "ymin", "xmin", "File Name"], [4, 3, 2, 1, "a.jpg"]],
        [["boxes of all slices"], [], HEADER, [], ["a.jpg", "1", " 2.0 ", 3.0, "4"]],
        [["图像", "xmin", "ymin", "xmax", "ymax"], ["a.jpg", 1, 2, 3, 4]],
        [["id", "Filename", "X Min", "Y Min", "X Max", "Y Max"], [7, "a.jpg", 1, 2, 3, 4]],
        [["a.jpg", 1, 2, 3, 4]],
    ],
)
def test_columns_of_a_workbook_are_found_by_their_names(rows) -> None:
    parsed = parse_workbook(workbook(rows), "x.xlsx")
    assert [(row.name, row.box) for row in parsed.rows] == [("a.jpg", (1, 2, 3, 4))]
    assert (parsed.unread, parsed.guessed) == ((), ())


IMAGE_WORDS = (
    *("image", "image_name", "filename", "file_name", "file", "name", "img", "img_name", "picture", "stem", "image_id"),
    *("id", "图像", "图像名", "图像名称", "图片", "图片名", "图片名称", "文件名", "文件", "名称"),
)


@pytest.mark.parametrize("word", IMAGE_WORDS)
@pytest.mark.parametrize(
    "ends",
    [
        HEADER[1:],
        ["x_min", "y_min", "x_max", "y_max"],
        ["minx", "miny", "maxx", "maxy"],
        ["x1", "y1", "x2", "y2"],
        ["min_x", "min_y", "max_x", "max_y"],
    ],
)
def test_every_word_of_a_workbook_is_known(word, ends) -> None:
    parsed = parse_workbook(workbook([[*reversed(ends), word], [4, 3, 2, 1, "a.jpg"]]), "x.xlsx")
    assert [(row.line, row.name, row.box, row.sheet) for row in parsed.rows] == [(2, "a.jpg", (1, 2, 3, 4), "")]
    assert (parsed.unread, parsed.guessed) == ((), ())


def test_a_word_that_is_not_known_is_taken_by_its_position_and_reported() -> None:
    parsed = parse_workbook(workbook([["image", "left", "ymin", "xmax", "ymax"], ["a.jpg", 1, 2, 3, 4]]), "x.xlsx")
    assert parsed.rows[0].box == (1, 2, 3, 4)
    assert [columns for _, columns in parsed.guessed] == [("xmin",)]


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([], "it is empty"),
        ([[], [None, ""]], "it is empty"),
        (
            [["a.jpg", 1, 2, 3]],
            "expected columns named image, xmin, ymin, xmax, ymax, or rows of a file name and four numbers",
        ),
        (
            [["a.jpg", 1, 2, 3, 4, 5]],
            "expected columns named image, xmin, ymin, xmax, ymax, or rows of a file name and four",
        ),
        (
            [["image", "xmin", "ymin"], ["a.jpg", 1, 2]],
            "expected columns named image, xmin, ymin, xmax, ymax, got none named xmax, ymax",
        ),
    ],
)
def test_why_a_sheet_is_not_read(rows, problem) -> None:
    parsed = parse_workbook(workbook(rows), "x.xlsx")
    assert parsed.rows == ()
    assert [text.startswith(problem) for _, text in parsed.unread] == [True]


def test_a_row_of_a_workbook_is_shown_with_its_line() -> None:
    parsed = parse_workbook(
        workbook([HEADER, ["a.jpg", 1, 2.5, 3, 4], ["b.jpg", 1, "x", 3, 4], [None, 1, 2, 3, 4]]), "x.xlsx"
    )
    assert [row.reference for row in parsed.rows] == [
        "line 2: a.jpg, 1, 2.5, 3, 4",
        "line 3: b.jpg",
        "line 4: , 1, 2, 3, 4",
    ]


def test_all_sheets_of_a_workbook_are_read() -> None:
    sheets = {
        "one": [HEADER, ["a.jpg", 1, 2, 3, 4]],
        "blank": [],
        "notes": [["to do"]],
        "two": [HEADER, ["b.jpg", 5, 6, 7, 8]],
    }
    parsed = parse_workbook(workbook(sheets.pop("one"), more=sheets), "x.xlsx")
    assert [(row.name, row.box) for row in parsed.rows] == [("a.jpg", (1, 2, 3, 4)), ("b.jpg", (5, 6, 7, 8))]
    assert parsed.rows[1].reference == "sheet “two”, line 2: b.jpg, 5, 6, 7, 8"
    assert [sheet for sheet, _ in parsed.unread] == ["notes"]


@pytest.mark.parametrize("cell", ["nan", "inf", "-inf", "1e400", "#DIV/0!", None, "1e12"])
def test_a_cell_that_is_no_finite_number_gives_no_box(cell) -> None:
    (row,) = parse_workbook(workbook([HEADER, ["a.jpg", 1, 2, cell, 4]]), "x.xlsx").rows
    assert row.box is None


@pytest.mark.parametrize(
    "header", [["image", "width", "height", "x", "y"], ["image", "class", "score", "xmax", "ymax"]]
)
def test_columns_of_another_meaning_are_not_read_from_a_workbook(header) -> None:
    parsed = parse_workbook(workbook([header, ["a.jpg", 1, 2, 3, 4]]), "x.xlsx")
    assert not parsed.rows
    assert "got none named" in parsed.unread[0][1]


@pytest.mark.parametrize(("limit", "part"), [("_MAX_SHEET_BYTES", "sheet"), ("_MAX_PART_BYTES", "xl")])
def test_the_parts_of_a_workbook_have_a_limit_of_bytes(monkeypatch, limit, part) -> None:
    data = workbook([HEADER, ["a.jpg", 1, 2, 3, 4]])
    monkeypatch.setattr(f"lung_nodule_ct.formats.workbook.{limit}", 100)
    with pytest.raises(LungNoduleCTError, match=part):
        parse_workbook(data, "x.xlsx")


@pytest.mark.parametrize(("count", "is_read"), [(100, True), (101, False)])
def test_a_workbook_has_at_most_a_hundred_sheets(count, is_read) -> None:
    more = {f"s{number}": [] for number in range(count - 1)}
    data = workbook([HEADER, ["a.jpg", 1, 2, 3, 4]], more=more)
    if is_read:
        assert parse_workbook(data, "x.xlsx").unread == ()
    else:
        with pytest.raises(ValueError, match=r"x\.xlsx exceeds a limit: more than 100 sheets"):
            parse_workbook(data, "x.xlsx")


def test_a_workbook_is_read_to_its_64th_column() -> None:
    for column, is_read in ((64, True), (65, False)):
        header, row = ([None] * (column - 5) + cells for cells in ([*HEADER], ["a.jpg", 1, 2, 3, 4]))
        assert bool(parse_workbook(workbook([header, row]), "x.xlsx").rows) is is_read


def test_a_workbook_has_a_limit_of_rows(monkeypatch) -> None:
    monkeypatch.setattr("lung_nodule_ct.formats.workbook.MAX_WORKBOOK_ROWS", 50)
    rows = [["a.jpg", 1, 2, 3, 4]] * 30
    with pytest.raises(ValueError, match="more than 50 rows"):
        parse_workbook(workbook(rows, more={"two": rows}), "x.xlsx")
    assert len(parse_workbook(workbook(rows, more={"two": rows[:20]}), "x.xlsx").rows) == 50


def test_the_rows_of_a_workbook_are_counted_in_its_xml() -> None:
    def counts(data: bytes) -> tuple[int, int, int, int]:
        parsed = parse_workbook(data, "x.xlsx")
        return len(parsed.rows), parsed.num_headings, parsed.num_unread, parsed.num_filled

    rows = [["Boxes"], [], HEADER, ["a.jpg", 1, 2, 3, 4], [" ", None], ["b.jpg", "x"]]
    assert counts(workbook(rows)) == (2, 2, 0, 4)
    assert counts(workbook([HEADER])) == (0, 1, 0, 1)
    same = [HEADER, ["a.jpg", 1, 2, 3, 4]]
    assert counts(workbook(same, more={"same": same, "blank": [], "notes": [["x"], [" "], ["y", 5]]})) == (2, 2, 2, 6)
    assert counts(workbook([*same, [None] * 64 + ["beyond the columns that are read"]])) == (1, 1, 0, 3)
    with zipfile.ZipFile(io.BytesIO(workbook(same))) as book:
        members = {name: book.read(name) for name in book.namelist()}
    sheet = members["xl/worksheets/sheet1.xml"]
    twice = sheet.replace(
        b"</sheetData>", b'<row r="2"><c r="A2" t="inlineStr"><is><t>lost</t></is></c></row></sheetData>'
    )
    assert counts(zip_archive(members | {"xl/worksheets/sheet1.xml": twice}))[3] == 3


@pytest.mark.parametrize("data", [b"", b"not a workbook", zip_archive({"a": b"1"})])
def test_invalid_workbooks_are_refused(data) -> None:
    with pytest.raises((ValueError, LungNoduleCTError)):
        parse_workbook(data, "x.xlsx")
