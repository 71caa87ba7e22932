"""Annotation tables, split lists, VOC files and workbooks in the notations that occur in practice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lung_nodule_ct.errors import LungNoduleCTError
from lung_nodule_ct.formats.tables import parse_boxes, parse_nodules, parse_split_list
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
    parse_split_list(data)


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


def test_workbooks_are_read_with_and_without_a_header() -> None:
    rows = parse_workbook(
        workbook([["图像", "xmin", "ymin", "xmax", "ymax"], ["a.jpg", 1, 2, 3, 4], [], ["b", "5", 6.5, 7, None]]),
        "x.xlsx",
    )
    assert [(row.line, row.name, row.box) for row in rows] == [(2, "a.jpg", (1, 2, 3, 4)), (4, "b", None)]
    assert parse_workbook(workbook([["a.jpg", 1, 2, 3, 4]]), "x.xlsx")[0].box == (1, 2, 3, 4)


@pytest.mark.parametrize("data", [b"", b"not a workbook", zip_archive({"a": b"1"})])
def test_invalid_workbooks_are_refused(data) -> None:
    with pytest.raises((ValueError, LungNoduleCTError)):
        parse_workbook(data, "x.xlsx")
