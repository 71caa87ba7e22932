"""The account: every file of the archives and every row of their tables is in an example, in a finding, or ignored."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from lung_mask_2d import LUNG_MASK_2D, registered

from lung_nodule_ct.declaration.configs import CONFIGS, get_config
from lung_nodule_ct.declaration.findings import Code
from lung_nodule_ct.errors import LungNoduleCTError
from lung_nodule_ct.examples.account import Account, Fate, make_account
from lung_nodule_ct.examples.family import Reading
from lung_nodule_ct.examples.plan import Plan, family_of, make_plan
from lung_nodule_ct.examples.report import inspect_source
from lung_nodule_ct.examples.uses import PlanReport
from lung_nodule_ct.sources.resolve import open_folder
from lung_nodule_ct.sources.source import ArchivePool
from lung_nodule_ct.system.memory import BufferPool
from lung_nodule_ct.testing.archives import (
    CLS,
    CT0,
    DET2D,
    MASKS,
    NODULES,
    metaimage,
    metaimage_header,
    noise_picture,
    workbook,
)
from lung_nodule_ct.testing.bent_archives import BentArchives, bent_archives
from lung_nodule_ct.testing.synthetic_archives import TinyArchives

DET3D = "det3d_1.25mm"


@pytest.fixture
def tiny() -> TinyArchives:
    return TinyArchives()


def account_of(plan: Plan) -> Account:
    """Make all examples of a plan and return the account."""
    family, examples = family_of(plan.config), []
    with ArchivePool() as archives:
        for unit in plan.units:
            examples += family.make(unit, Reading(archives, BufferPool()))
    return make_account(plan, [member for example in examples for member in example.read], len(examples))


def files(built, config: str, archive: str) -> dict[str, int]:
    """The files of an archive by what became of them, as the report of a build has it."""
    counts = built.report["account"][config]["archives"][archive]["files"]
    return {fate: count for fate, count in counts.items() if count}


def test_every_config_of_the_tiny_archives_is_accounted_for(tiny, tmp_path, build) -> None:
    built = build(tiny.write(tmp_path / "in"), *CONFIGS)
    assert set(built.report["account"]) == set(CONFIGS)
    for name, account in built.report["account"].items():
        assert account["vanished"] == account["lost_examples"] == 0
        assert account["examples"] == len(built.rows(name))
        assert account["items"] == sum(account[str(fate)] for fate in Fate)
    assert built.report["account"][DET3D]["archives"][NODULES] == {
        "files": {"examples": 0, "parts": 1, "findings": 0, "ignored": 0},
        "rows": {"parts": 3, "findings": 0, "ignored": 1},
        "vanished": 0,
    }
    assert not built.findings("not-accounted-for")


def test_the_account_is_printed_for_every_config(tiny, tmp_path, cli) -> None:
    tiny[CLS]["__MACOSX/._a.bmp"] = b""
    done = cli("build", "cls_1.25mm", "--source", tiny.write(tmp_path / "in"), "--out", tmp_path / "out")
    text = " ".join(done.stdout.split())
    total = len(tiny[CLS])
    assert (
        f"account: {total} files and rows = 3 examples + 0 parts of examples + 0 in findings + {total - 3} ignored"
        in text
    )


def test_an_orphan_data_file_is_reported_although_another_header_names_its_data_otherwise(
    tiny, tmp_path, build
) -> None:
    tiny[CT0] |= {"11.mhd": metaimage_header("11", ElementDataFile="elsewhere.raw")}
    tiny[CT0] |= {"elsewhere.raw": tiny[CT0]["9.raw"], "orphan.raw": b"12"}
    source = tiny.write(tmp_path / "in")
    planned = inspect_source(open_folder(source)).plans[DET3D].findings
    assert [entry.place.member for entry in planned if entry.code is Code.MEMBER_UNUSED] == [
        "elsewhere.raw, orphan.raw"
    ]
    built = build(source, DET3D)
    (finding,) = built.findings("member-unused")
    assert (finding["archive"], finding["member"], finding["count"]) == (CT0, "orphan.raw", 1)
    assert files(built, DET3D, CT0) == {"examples": 3, "parts": 3, "findings": 1}


def test_a_data_file_that_its_header_does_not_name_is_reported(tiny, tmp_path, build) -> None:
    tiny[CT0]["9.mhd"] = metaimage_header("9", ElementDataFile="7_20180102.raw")
    tiny[CT0]["7_20180102.zraw"] = b"12"
    built = build(tiny.write(tmp_path / "in"), DET3D)
    (finding,) = built.findings("member-unused")
    assert (finding["member"], finding["count"]) == ("9.raw, 7_20180102.zraw", 2)
    assert files(built, DET3D, CT0) == {"examples": 2, "parts": 1, "findings": 2}


def test_files_that_two_headers_exchange_are_parts_of_examples(tiny, tmp_path, build) -> None:
    for one, other in (("9", "7_20180102"), ("7_20180102", "9")):
        tiny[CT0][f"{one}.mhd"] = metaimage_header(one, ElementDataFile=f"{other}.raw")
    built = build(tiny.write(tmp_path / "in"), DET3D)
    assert not built.findings("member-unused")
    assert files(built, DET3D, CT0) == {"examples": 2, "parts": 2}


def test_litter_repeated_names_and_folders_with_content_are_counted(tmp_path) -> None:
    pictures = [(f"class_dataset/train/1/9_{number}.bmp", noise_picture(number)) for number in range(2)]
    entries = [*pictures, pictures[0], ("a/", b""), ("b/", b"12"), ("x/.DS_Store", b"")]
    entries += [("__MACOSX/._9.bmp", b"1"), ("__MACOSX/class_dataset/train/1/9_5.bmp", noise_picture(5))]
    source = open_folder(BentArchives("cls_1.25mm", {CLS: entries}).write(tmp_path))
    plan = make_plan(get_config("cls_1.25mm"), source)
    account = account_of(plan)
    assert account.archives[0].files == {Fate.EXAMPLE: 2, Fate.FINDING: 3, Fate.IGNORED: 2}
    assert {Code.DUPLICATE_ID, Code.MEMBER_UNUSED} <= {finding.code for finding in plan.findings}


def test_scans_that_a_config_leaves_out_are_in_findings(tiny, tmp_path, build) -> None:
    built = build(tiny.write(tmp_path / "in"), "longitudinal", "det3d_5mm", split_by="patient")
    (finding,) = built.findings("scan-not-selected")
    assert (finding["config"], finding["count"]) == ("longitudinal", 2)
    assert files(built, "longitudinal", CT0) == {"examples": 1, "parts": 1, "findings": 2}
    assert files(built, "longitudinal", MASKS) == {"parts": 4, "findings": 2}
    rows = built.report["account"]["longitudinal"]["archives"][NODULES]["rows"]
    assert rows == {"parts": 2, "findings": 1, "ignored": 1}


def test_rows_of_tables_are_counted(tiny, tmp_path, build) -> None:
    tiny[NODULES]["annotations.csv"] += b"\n  \nnobody,1,2,3,4\n9,x,y,z,1\n9,-6.0,-17.0,33.0,3.5\n"
    built = build(tiny.write(tmp_path / "in"), DET3D)
    rows = built.report["account"][DET3D]["archives"][NODULES]["rows"]
    assert rows == {"parts": 4, "findings": 2, "ignored": 1}


def test_examples_without_a_fold_are_in_findings(tiny, tmp_path, build) -> None:
    tiny[CLS]["class_dataset/train/1/nobody.bmp"] = noise_picture(8)
    built = build(tiny.write(tmp_path / "in"), "cls_1.25mm", split_by="patient")
    assert built.report["account"]["cls_1.25mm"]["findings"] == 1


def test_what_a_family_says_nothing_about_is_named_and_does_not_stop_the_build(
    tiny, tmp_path, build, monkeypatch
) -> None:
    for number in range(150):
        tiny[DET2D][f"notes/{number:03d}.doc"] = b""
    monkeypatch.setattr(PlanReport, "reports", lambda self, *members: None)
    monkeypatch.setattr(PlanReport, "reads_workbook", lambda self, table, **counts: None)
    built = build(tiny.write(tmp_path / "in"), "det2d_1.25mm")
    (finding,) = built.findings("not-accounted-for")
    assert (finding["grade"], finding["archive"], finding["count"]) == ("error", DET2D, 151)
    names = finding["member"].split(", ")
    assert len(names) == 100
    assert {"VOC_CT.xlsx", "notes/000.doc"} <= set(names)
    assert built.report["account"]["det2d_1.25mm"]["vanished"] == 151
    assert len(built.rows("det2d_1.25mm")) == 3


def test_a_row_that_is_dropped_in_silence_is_noticed(tiny, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(PlanReport, "leaves_out_row", lambda self, row: None)
    tiny[NODULES]["annotations.csv"] += b"nobody,1,2,3,4\n"
    account = account_of(make_plan(get_config(DET3D), open_folder(tiny.write(tmp_path))))
    (finding,) = account.findings
    assert (str(finding.code), finding.place.member) == ("not-accounted-for", "annotations.csv: 4 of 5 rows")


def test_rows_of_a_workbook_are_counted_independently_of_their_reader(tiny, tmp_path, build) -> None:
    header, row = ["image", "xmin", "ymin", "xmax", "ymax"], ["9_004.jpg", 2, 3, 9, 11]
    tiny[DET2D]["VOC_CT.xlsx"] = workbook(
        [["Boxes"], header, row, [None] * 64 + ["beyond"]], more={"notes": [["x"], ["y"]]}
    )
    built = build(tiny.write(tmp_path / "in"), "det2d_1.25mm")
    (finding,) = built.findings("not-accounted-for")
    assert (finding["member"], finding["count"]) == ("VOC_CT.xlsx: 5 of 6 rows", 1)


@pytest.mark.parametrize("rows", [[], [["image", "xmin", "ymin", "xmax", "ymax"]], [["x"], ["y"]]])
def test_workbooks_without_boxes_are_accounted_for(tiny, tmp_path, build, rows) -> None:
    tiny[DET2D]["VOC_CT.xlsx"] = workbook(rows)
    built = build(tiny.write(tmp_path / "in"), "det2d_1.25mm")
    assert not built.findings("not-accounted-for")


def test_an_example_that_is_lost_is_noticed(tiny, tmp_path) -> None:
    plan = make_plan(get_config("cls_1.25mm"), open_folder(tiny.write(tmp_path)))
    (finding,) = make_account(plan, [], 2).findings
    assert (str(finding.code), finding.count) == ("not-accounted-for", 1)


def test_a_family_from_outside_is_accounted_for(tiny, tmp_path) -> None:
    tiny[MASKS] |= metaimage("12") | {"x.raw": b"1"}
    with registered():
        account = account_of(make_plan(LUNG_MASK_2D, open_folder(tiny.write(tmp_path))))
    assert account.archives[0].files == {Fate.EXAMPLE: 4, Fate.PART: 4, Fate.FINDING: 1}
    assert account.num_vanished == 0


def check_exact(case: BentArchives, folder) -> bool:
    """Check the account of bent archives; return whether they could be built."""
    source = open_folder(case.write(folder))
    try:
        plan = make_plan(get_config(case.config), source)
        account = account_of(plan)
    except LungNoduleCTError:  # an error names what is wrong
        return False
    findings = (*plan.findings, *account.findings)
    assert account.num_vanished == account.num_lost == 0, account.findings
    for archive in account.archives:
        assert sum(archive.files.values()) == case.num_files(archive.archive)
        reported = any(archive.archive in (finding.place.archive or "") for finding in findings)
        assert reported or not archive.files.get(Fate.FINDING)
    return True


@pytest.mark.parametrize("config", list(CONFIGS))
def test_bent_archives_are_accounted_for_exactly(tmp_path_factory, config) -> None:
    built: list[bool] = []

    @settings(max_examples=60)
    @given(bent_archives(config))
    def check(case: BentArchives) -> None:
        built.append(check_exact(case, tmp_path_factory.mktemp("bent")))

    run: Callable[[], None] = check
    run()
    assert sum(built) > len(built) / 4, "most cases are refused, so that the test shows little"
