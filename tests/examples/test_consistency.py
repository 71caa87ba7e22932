"""Findings about names and rows that need no voxel: each fault names its member or row, and repeats no date."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lung_nodule_ct.testing.archives import (
    CT0,
    NODULE_COLUMNS,
    NODULES,
    THICK0,
    THICK_FRAME,
    THICK_NODULES,
    THICK_SHAPE,
    metaimage,
    noise_volume,
    table,
)
from lung_nodule_ct.testing.synthetic_archives import TinyArchives

FIRST, SECOND = "7_20180102", "7_20190304"
CENTER = "-6.0,-17.0,33.0"


def rename(archives: TinyArchives, old: str, new: str, *names: str) -> None:
    """Rename the members of a scan in some archives, and its rows."""
    for name in names:
        members = archives[name]
        for member in [member for member in members if member.split("/")[-1].startswith(f"{old}.")]:
            data = members.pop(member)
            text = data.replace(f"{old}.raw".encode(), f"{new}.raw".encode()) if member.endswith(".mhd") else data
            members[member.replace(old, new)] = text
        if "annotations.csv" in members:
            members["annotations.csv"] = members["annotations.csv"].replace(old.encode(), new.encode())


@pytest.fixture
def findings(tmp_path, build) -> Callable[..., dict[str, list[dict[str, object]]]]:
    def run(archives: TinyArchives, *configs: str) -> dict[str, list[dict[str, object]]]:
        built = build(archives.write(tmp_path / "in"), *(configs or ("det3d_1.25mm",)), keep_source_names=False)
        by_code: dict[str, list[dict[str, object]]] = {}
        for entry in built.report["findings"]:
            by_code.setdefault(entry["code"], []).append(entry)
        return by_code

    return run


CODES = (
    "centres-rounded",
    "date-outside-study",
    "diameter-implausible",
    "patient-spelled-twice",
    "scans-on-one-date",
    "table-column-converted",
    "thicknesses-disagree",
)


def test_sound_archives_have_none_of_these_findings(findings) -> None:
    assert not set(findings(TinyArchives())) & {*CODES, "duplicate-annotation"}


@pytest.mark.parametrize("day", ["20991231", "19150905", "20151231", "20230201"])
def test_a_date_outside_the_study_is_reported_without_the_date(findings, day) -> None:
    archives = TinyArchives()
    rename(archives, SECOND, f"7_{day}", *archives)
    found = findings(archives)["date-outside-study"]
    assert len(found) == 1
    assert day not in str(found)
    assert day[:4] not in str(found).replace("2016-01 to 2023-01", "")


def test_the_first_and_the_last_month_of_the_study_are_inside(findings) -> None:
    archives = TinyArchives()
    rename(archives, FIRST, "7_20160101", *archives)
    rename(archives, SECOND, "7_20230131", *archives)
    assert "date-outside-study" not in findings(archives)


def test_two_scans_on_one_date_are_reported(findings) -> None:
    archives = TinyArchives()
    archives[CT0] |= metaimage(f"{FIRST}_b", noise_volume(8))
    found = findings(archives)["scans-on-one-date"]
    assert len(found) == 1
    assert str(found[0]["member"]).startswith("7_<date>")


def test_a_patient_with_and_without_zeros_is_reported(findings) -> None:
    archives = TinyArchives()
    rename(archives, SECOND, "007_20190304", *(name for name in archives if "5mm" not in name or "1.25" in name))
    found = findings(archives)["patient-spelled-twice"]
    assert [entry["member"] for entry in found] == ["007_<date>.mhd"]
    assert "elsewhere 7" in str(found[0]["detail"])


def test_a_copy_some_days_apart_is_reported_with_the_days(findings) -> None:
    archives = TinyArchives()
    rename(archives, FIRST, "7_20180104", THICK0, THICK_NODULES)
    found = findings(archives, "det3d_1.25mm", "det3d_5mm")["thicknesses-disagree"]
    assert {entry["config"] for entry in found} == {"det3d_1.25mm", "det3d_5mm"}
    assert all("2 days apart" in str(entry["detail"]) for entry in found)


def test_a_patient_with_another_number_at_one_thickness_is_reported(findings) -> None:
    archives = TinyArchives()
    archives[CT0] |= metaimage("31_20210705", noise_volume(5))
    archives[THICK0] |= metaimage("32_20210705", noise_volume(6, THICK_SHAPE), THICK_FRAME)
    found = findings(archives)["thicknesses-disagree"]
    assert [entry["member"] for entry in found] == ["31_<date>.mhd"]
    assert "32_<date>.mhd" in str(found[0]["detail"])
    archives[CT0] |= metaimage("32_20210705", noise_volume(5))  # now 32 has both, and 31 is a patient of one thickness
    assert "thicknesses-disagree" not in findings(archives)


@pytest.mark.parametrize(
    ("rows", "code", "count"),
    [
        ([f"{FIRST},{CENTER},3", f"{FIRST},-6.2,-17.1,33.1,3"], "duplicate-annotation", 1),
        ([f"{FIRST},{CENTER},3", f"{FIRST},{CENTER},4"], "duplicate-annotation", 1),
        ([f"{FIRST},{CENTER},3", f"{FIRST},{CENTER},3"], "duplicate-annotation", 1),
        ([f"{FIRST},{CENTER},3", f"{FIRST},-4.5,-17.0,33.0,3"], "duplicate-annotation", 0),
        ([f"{FIRST},{CENTER},150"], "diameter-implausible", 1),
        ([f"{FIRST},{CENTER},99"], "diameter-implausible", 0),
        ([f"{FIRST},{x},-15,35,3" for x in (-5, -10, 0, 5, 10)], "centres-rounded", 5),
        ([f"{FIRST},{x},-15,35,3" for x in (-5, -10, 0, 5, 10.5)], "centres-rounded", 0),
        ([f"{FIRST};-6,0;-17,5;33,0;3,5"], "table-column-converted", 1),
    ],
)
def test_rows_that_cannot_be_right_are_reported_by_row(findings, rows, code, count) -> None:
    archives = TinyArchives()
    header = NODULE_COLUMNS.replace(",", ";") if ";" in rows[0] else NODULE_COLUMNS
    archives[NODULES]["annotations.csv"] = table(header, *rows)
    found = findings(archives).get(code, [])
    assert len(found) == count
    assert all(str(entry["row"]).startswith("line ") for entry in found)


def test_near_rows_are_found_in_linear_time(findings) -> None:
    archives = TinyArchives()
    rows = [f"{FIRST},{-6 + index * 1e-4:.4f},-17.0,33.0,3" for index in range(400)]
    archives[NODULES]["annotations.csv"] = table(NODULE_COLUMNS, *rows)
    found = findings(archives)["duplicate-annotation"]
    assert sum(int(str(entry["count"])) for entry in found) == 399
