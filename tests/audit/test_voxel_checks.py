"""The checks of voxels through the public API: a sound build of phantoms has no flag, and each fault is flagged by name."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from altered import alter
from chest_archives import SCANS, ChestArchives, chest, other_chest
from PIL import Image
from scipy import ndimage

from lung_nodule_ct.audit import audit_build, check_groups, write_audit
from lung_nodule_ct.declaration.configs import CONFIGS
from lung_nodule_ct.errors import BuildFolderError, OptionError
from lung_nodule_ct.geometry.display import LUNG
from lung_nodule_ct.read.build_folder import open_build
from lung_nodule_ct.testing.archives import BMP0, BMP_TABLES, CLS, CT0, DET2D, MASKS, THICK0, encode_picture

FIRST, SECOND, THIRD = SCANS
VOXELS = ("rows", "evidence", "scans", "order", "thickness", "masks", "copies", "identity")
CHECKED = ("det2d_1.25mm", "det3d_1.25mm", "det3d_5mm", "longitudinal", "det3d_bmp_1.25mm")


@pytest.fixture
def flags(tmp_path, build) -> Callable[..., list[dict[str, Any]]]:
    """Build the archives and return the flags of the voxel checks."""

    def run(archives: ChestArchives, *configs: str) -> list[dict[str, Any]]:
        archives.write_tables()
        folder = build(archives.write(tmp_path / "in"), *(configs or CHECKED), keep_source_names=False).folder
        return json.loads(json.dumps(audit_build(open_build(folder), only=VOXELS).document()))["flags"]

    return run


def test_a_sound_build_has_no_flag(flags) -> None:
    assert flags(ChestArchives()) == []


@pytest.mark.slow
def test_patients_with_the_same_lungs_are_a_hint(tmp_path, build) -> None:
    archives = ChestArchives()  # its phantoms have the same lungs
    found = []
    for _ in range(2):
        folder = build(archives.write(tmp_path / "in"), "det3d_1.25mm", keep_source_names=False).folder
        audit = audit_build(open_build(folder), only=["identity"])
        assert audit.flags == ()
        found.append(audit.document()["numbers"]["identity"]["patients_alike"])
        archives.set_scan(THIRD, other_chest())
    assert found == [[["7", "9"]], []]


def test_real_ct_has_no_flag(mirror, build) -> None:
    folder = build(mirror, *CONFIGS, keep_source_names=False).folder
    audit = audit_build(open_build(folder), only=VOXELS)
    # the mirror holds two stacks of which a turned copy is in the other split
    assert [flag.check for flag in audit.flags] == ["turned-copies"] * 2
    assert {flag.row.config for flag in audit.flags} == {"det3d_bmp_1.25mm"}
    assert all("in two splits" in flag.measured and flag.other is not None for flag in audit.flags)
    verdicts = audit.document()["numbers"]["evidence"]
    assert verdicts["nodule-evidence"]["present"] == 11
    assert verdicts["nodule-evidence"]["cut by the end of the volume"] == 2  # a lesion that continues below its slab
    assert verdicts["box-evidence"]["present"] + verdicts["box-evidence"].get("too small for a verdict", 0) == 22


def _exchange(archives: ChestArchives) -> None:
    for row in archives.nodules:
        row[1], row[2] = row[2], row[1]


def _move(archives: ChestArchives) -> None:
    archives.nodules[0][1] += 10


def _double(archives: ChestArchives) -> None:
    archives.nodules[0][4] *= 2


def _far_too_large(archives: ChestArchives) -> None:
    """More than the scan is high, so that the nodule is cut by both ends."""
    archives.nodules[0][4] = archives.thick_nodules[0][4] = 90.0


def _radius(archives: ChestArchives) -> None:
    archives.thick_nodules[1][4] /= 2


def _voxels(change: Callable[[np.ndarray], np.ndarray], archive: str = CT0) -> Callable[[ChestArchives], None]:
    def run(archives: ChestArchives) -> None:
        phantom = chest(FIRST) if archive != THICK0 else chest(FIRST).with_thick_slices(4)
        voxels = phantom.lung_mask if archive == MASKS else phantom.volume
        archives.set_volume(FIRST, change(voxels.astype(np.int32)), archive)

    return run


def _box(archives: ChestArchives) -> None:
    member = f"Annotations/{FIRST}_016.xml"
    text = archives[DET2D][member].decode()
    for tag in ("xmin", "xmax"):
        start = text.index(f"<{tag}>") + len(tag) + 2
        end = text.index(f"</{tag}>")
        text = text[:start] + str(int(text[start:end]) - 60) + text[end:]
    archives[DET2D][member] = text.encode()


def _thick_place(archives: ChestArchives) -> None:
    archives.thick_nodules[0][3] += 3


def _thick_row(archives: ChestArchives) -> None:
    archives.nodules.append([THIRD, 70.0, 20.0, 3.0, 9.0])


def _stack_diameter(archives: ChestArchives) -> None:
    table = archives[BMP_TABLES]
    for name in [name for name in table if name.endswith(".csv")]:
        table[name] = table[name].replace(b"20.0", b"90.0")


def _slice_of(scan: str) -> str:
    return f"JPEGImages/{scan}_016.jpg"


def _other_slice(archives: ChestArchives) -> None:
    grey = np.kron(LUNG.to_grey(other_chest().volume[16]), np.ones((3, 3), np.uint8))
    archives.set_scan(THIRD, other_chest())
    archives[DET2D][_slice_of(FIRST)] = encode_picture(grey, "JPEG")


def _turned_slice(archives: ChestArchives) -> None:
    """One of three slices of a scan is mirrored."""
    for number in (15, 17):
        archives.add_slice(SECOND, number)
    picture = np.asarray(Image.open(io.BytesIO(archives[DET2D][_slice_of(SECOND)])))
    archives[DET2D][_slice_of(SECOND)] = encode_picture(np.ascontiguousarray(picture[:, ::-1]), "JPEG")


def _stack_copy(archives: ChestArchives) -> None:
    for name in [name for name in archives[BMP0] if name.startswith("imgs/00001/")]:
        picture = np.asarray(Image.open(io.BytesIO(archives[BMP0][name])))
        copy = encode_picture(np.ascontiguousarray(picture[::-1]), "BMP")
        archives[BMP0][name.replace("00001", "00002")] = copy
    archives.stacks["00002"] = archives.stacks["00001"]
    archives.validation = ["00002"]


def _reversed_stack(archives: ChestArchives) -> None:
    """The slices move to the side from the first to the last, so that the stack differs from its reverse."""
    _stack_copy(archives)
    slices = [np.asarray(Image.open(io.BytesIO(archives[BMP0][f"imgs/00001/{number}.bmp"]))) for number in range(32)]
    for number, pixels in enumerate(slices):
        picture = encode_picture(np.roll(pixels, 3 * number, axis=1), "BMP")
        archives[BMP0] |= {f"imgs/00001/{number}.bmp": picture, f"imgs/00002/{31 - number}.bmp": picture}


def _other_number(archives: ChestArchives) -> None:
    """The pictures of two slices of a scan are exchanged."""
    for number in range(11, 22):
        archives.add_slice(SECOND, number)
    pictures = archives[DET2D]
    one, other = (f"JPEGImages/{SECOND}_{number:03}.jpg" for number in (12, 19))
    pictures[one], pictures[other] = pictures[other], pictures[one]


def _slice_of_another_date(archives: ChestArchives) -> None:
    """A scan of the same patient, but of another shape."""
    archives.set_scan(SECOND, other_chest())
    grey = np.kron(LUNG.to_grey(other_chest().volume[16]), np.ones((3, 3), np.uint8))
    archives[DET2D][_slice_of(FIRST)] = encode_picture(grey, "JPEG")


def _blank_slice(archives: ChestArchives) -> None:
    archives[DET2D][_slice_of(FIRST)] = encode_picture(np.zeros((384, 480), np.uint8), "JPEG")


def _stack(archives: ChestArchives) -> None:
    names = [f"imgs/00001/{number}.bmp" for number in range(32)]
    slices = [archives[BMP0][name] for name in names]
    archives[BMP0] |= dict(
        zip(names, [*slices[:12], slices[15], *slices[13:15], slices[12], *slices[16:]], strict=True)
    )


FAULTS: dict[str, tuple[Callable[[ChestArchives], None], str, dict[str, Any]]] = {
    "x and y exchanged": (_exchange, "nodule-evidence", {"scan_id": "7-1", "slice_thickness_mm": 1.25}),
    "10 mm off": (_move, "nodule-evidence", {"scan_id": "7-1", "slice_thickness_mm": 1.25}),
    "diameter doubled": (_double, "nodule-evidence", {"scan_id": "7-1", "slice_thickness_mm": 1.25}),
    "90 mm in both tables": (_far_too_large, "nodule-evidence", {"scan_id": "7-1", "slice_thickness_mm": 1.25}),
    "radius in the 5 mm table": (_radius, "nodule-evidence", {"scan_id": "7-2", "slice_thickness_mm": 5.0}),
    "another place in the 5 mm table": (_thick_place, "thickness-tables", {"scan_id": "7-1"}),
    "a row less in the 5 mm table": (_thick_row, "thickness-tables", {"scan_id": "9-1"}),
    "diameter of a stack": (_stack_diameter, "stack-diameters", {"case_id": "00001"}),
    "a slice of another patient": (_other_slice, "slice-identity", {"image_id": "7-1_016"}),
    "a slice turned": (_turned_slice, "slice-identity", {"image_id": "7-2_016"}),
    "a stack copied to validation": (_stack_copy, "turned-copies", {"case_id": "00001"}),
    "a stack copied in reverse order": (_reversed_stack, "turned-copies", {"case_id": "00001"}),
    "two slices of a scan exchanged": (_other_number, "slice-identity", {"image_id": "7-2_012"}),
    "a slice of another date": (_slice_of_another_date, "slice-identity", {"image_id": "7-1_016"}),
    "a blank slice": (_blank_slice, "picture-content", {"image_id": "7-1_016"}),
    "box moved": (_box, "box-evidence", {"scan_id": "7-1", "image_id": "7-1_016"}),
    "slices of a stack exchanged": (_stack, "slice-order", {"case_id": "00001"}),
    "intercept missing": (_voxels(lambda v: v + 1024), "hu-calibration", {"scan_id": "7-1"}),
    "5 mm without intercept": (_voxels(lambda v: v + 1024, THICK0), "both-thicknesses", {"scan_id": "7-1"}),
    "a slice repeated": (_voxels(lambda v: v[np.r_[:13, 12, 14:32]]), "slice-order", {"scan_id": "7-1"}),
    "mirrored voxels": (_voxels(lambda v: v[:, :, ::-1]), "nodule-evidence", {"scan_id": "7-1"}),
    "mirrored at 5 mm": (_voxels(lambda v: v[:, ::-1], THICK0), "both-thicknesses", {"scan_id": "7-1"}),
    "mask moved": (_voxels(lambda m: np.roll(m, 3, 2), MASKS), "mask-fit", {"scan_id": "7-1"}),
    "mask without a lung": (_voxels(lambda m: np.where(m == 4, 0, m), MASKS), "mask-fit", {"scan_id": "7-1"}),
    "labels exchanged": (_voxels(lambda m: np.where(m > 0, 7 - m, 0), MASKS), "mask-fit", {"scan_id": "7-1"}),
    "no lungs": (_voxels(lambda v: v * 0), "lung-size", {"scan_id": "7-1"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_flagged_by_name(flags, name) -> None:
    change, check, key = FAULTS[name]
    archives = ChestArchives()
    change(archives)
    found = [flag for flag in flags(archives) if flag["check"] == check and key.items() <= flag["key"].items()]
    assert found
    assert {"grade", "config", "split", "row", "annotation", "measured", "bound", "hint", "other"} <= set(found[0])
    assert found[0]["grade"] in ("warning", "error")
    if name == "x and y exchanged":
        assert found[0]["hint"] == "there is such a nodule if x and y are exchanged"
        assert found[0]["annotation"] == 0
    if check == "both-thicknesses":
        assert found[0]["other"]["key"]["slice_thickness_mm"] == 5.0


def test_a_made_mask_is_not_compared_with_what_it_was_made_by(tmp_path, build) -> None:
    archives = ChestArchives()
    FAULTS["mask moved"][0](archives)
    archives.write_tables()
    folder = build(archives.write(tmp_path / "in"), "det3d_1.25mm", keep_source_names=False).folder
    before = audit_build(open_build(folder), only=("masks", "computed"))
    assert [flag.check for flag in before.flags] == ["mask-fit"]

    def made(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["lung_mask_origin"] = "made" if row["scan_id"] == "7-1" else row["lung_mask_origin"]

    after = audit_build(open_build(alter(folder, "det3d_1.25mm", made)), only=("masks", "computed"))
    assert after.flags == ()
    measured = {check.name: check.measured for check in after.checks}
    assert "1 made" in measured["lung-mask-origin"]
    assert measured["mask-fit"].startswith("0 of")


def _crop(seed: int) -> np.ndarray:
    """Crops with the same structures and, by seed, other noise, as of neighbouring slices."""
    structures = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(128, 128)), 8)
    noise = np.random.default_rng(seed).normal(0, 2, structures.shape)
    grey: np.ndarray = (60 + 140 * (structures - structures.min()) / np.ptp(structures) + noise).astype(np.uint8)
    return grey


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda own, following: following, None),
        (lambda own, following: np.ascontiguousarray(np.rot90(own)), "two splits, rotated by 270 degrees"),
        (lambda own, following: np.clip(own[:, ::-1] * 1.3 + 6, 0, 255).astype(np.uint8), "two splits, mirrored"),
    ],
    ids=["the next slice", "rotated", "mirrored, brighter and clipped"],
)
def test_a_crop_of_the_next_slice_is_no_copy(flags, change, expected) -> None:
    archives = ChestArchives()
    folder = archives[CLS]
    for name in [name for name in folder if name.endswith(".bmp")]:
        del folder[name]
    folder["class_dataset/train/1/7_20180102_003_01.bmp"] = encode_picture(_crop(1), "BMP")
    folder["class_dataset/validate/1/7_20180102_004_02.bmp"] = encode_picture(change(_crop(1), _crop(2)), "BMP")
    found = [flag for flag in flags(archives, "cls_1.25mm") if flag["check"] == "turned-copies"]
    assert len(found) == (expected is not None)
    assert all(expected in flag["measured"] and flag["other"] for flag in found)


def test_slices_of_one_scan_under_two_patients_are_named_once(flags) -> None:
    archives = ChestArchives()
    for number in (14, 15, 17):
        archives.add_slice(FIRST, number)
    archives.set_scan(THIRD, other_chest())
    archives[DET2D][_slice_of(THIRD)] = archives[DET2D][_slice_of(FIRST)]
    found = [flag for flag in flags(archives, "det2d_1.25mm") if flag["check"] == "turned-copies"]
    assert len(found) == 1
    images = {found[0]["key"]["image_id"], found[0]["other"]["key"]["image_id"]}
    assert images == {"7-1_016", "9-1_016"}


def test_a_nodule_that_another_scan_shows_is_named(flags) -> None:
    archives = ChestArchives()
    archives.nodules[2][1:4] = SCANS[FIRST].center_world  # the row of patient 9 holds a place of patient 7
    archives.nodules[1][1:4] = (-70.0, 30.0, 0.0)
    found = {flag["key"]["scan_id"]: flag for flag in flags(archives, "det3d_1.25mm") if flag["annotation"] == 0}
    assert set(found) == {"7-2", "9-1"}
    assert found["9-1"]["other"] is None  # scans of other patients are not searched


# --- what is written --------------------------------------------------------------------------------------------------


@pytest.fixture
def faulty(tmp_path, build) -> Path:
    """A build with a moved nodule and a moved box."""
    archives = ChestArchives()
    _move(archives)
    _box(archives)
    archives.write_tables()
    folder = build(archives.write(tmp_path / "in"), "det2d_1.25mm", "det3d_1.25mm", keep_source_names=False).folder
    write_audit(folder, audit_build(open_build(folder)))
    return Path(folder)


def test_every_annotation_has_a_row_with_its_evidence(faulty) -> None:
    rows = pq.read_table(faulty / "audit" / "annotations.parquet").to_pylist()
    assert len(rows) == 6
    verdicts = {(row["config"], row["scan_id"]): row["verdict"] for row in rows}
    assert verdicts["det3d_1.25mm", "7-1"] == "off centre"
    assert verdicts["det3d_1.25mm", "9-1"] == "present"
    moved = next(row for row in rows if row["verdict"] == "off centre")
    assert moved["shift"] == pytest.approx(10, abs=2)
    assert moved["grade"] == "warning"


def test_the_page_draws_each_flagged_annotation_at_both_places(faulty) -> None:
    page = (faulty / "audit" / "index.html").read_text("utf-8")
    flagged = [
        flag
        for flag in json.loads((faulty / "audit.json").read_text("utf-8"))["flags"]
        if flag["annotation"] is not None
    ]
    assert len(flagged) == 2
    assert page.count("<article>") == 2
    assert page.count("<figure>") == 4
    assert "http" not in page  # nothing is loaded from a network
    for flag in flagged:
        assert flag["measured"].split(":")[0] in page


def test_a_part_of_the_audit_is_printed_and_not_written(cli, faulty) -> None:
    before = (faulty / "audit.json").read_bytes()
    done = cli("audit", faulty, "--only", "evidence", "--patient", "9")
    assert done.returncode == 0
    assert "0 flags" in done.stdout
    assert "not written" in done.stdout
    assert (faulty / "audit.json").read_bytes() == before
    document = json.loads(cli("audit", faulty, "--only", "evidence", "--patient", "7", "--json").stdout)
    assert {flag["key"]["patient_id"] for flag in document["flags"]} == {"7"}
    assert set(document["numbers"]) == {"evidence"}


def test_an_unknown_group_and_an_unknown_patient_are_refused(faulty) -> None:
    with pytest.raises(OptionError, match="one of dates"):
        audit_build(open_build(faulty), only=("evidences",))
    with pytest.raises(BuildFolderError, match="no row of the patient"):
        audit_build(open_build(faulty), patient="8")
    assert set(VOXELS) <= set(check_groups())


def test_without_the_extra_the_other_checks_run_and_the_output_says_so(faulty) -> None:
    code = f"""
import sys
sys.modules["scipy"] = None
from lung_nodule_ct.cli import main
sys.argv[1:] = ["audit", {str(faulty)!r}]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "voxels were not checked: pip install" in done.stdout
    document = json.loads((faulty / "audit.json").read_text("utf-8"))
    assert "evidence" not in document["numbers"]
    assert "rows" in document["numbers"]
    refused = subprocess.run(
        [sys.executable, "-c", code.replace(f"{str(faulty)!r}]", f"{str(faulty)!r}, '--only', 'evidence']")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1
    assert "[imaging]" in refused.stderr
