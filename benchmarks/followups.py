"""Measure registration, tracks and volumes on generated patients, where the truth is known.

    python -m benchmarks.followups registration [--patients 20]
    python -m benchmarks.followups tracks [--patients 12]
    python -m benchmarks.followups volumes [--patients 4]
    python -m benchmarks.followups cost
    python -m benchmarks.followups registration --build FOLDER

``registration`` maps three nodules of each patient to a follow-up (shift, rotation, breath, and a smooth deformation of 1 to 7 mm), and to
the follow-up of the patient before, which must be refused. ``tracks`` links two nodules among four decoys per scan over three scans.
``volumes`` measures twelve nodules among vessels in two scans. ``cost`` registers a pair of 512 x 512 x 160 voxels. With ``--build``, the
scans of a build of ``det3d_1.25mm`` are registered, each with the other scans of its patient and with those of other patients.
"""

from __future__ import annotations

import argparse
import math
import resource
import time
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.harness import argument_parser
from lung_nodule_ct import imaging
from lung_nodule_ct.imaging import Scan
from lung_nodule_ct.read.build_folder import open_build
from lung_nodule_ct.testing.followups import FollowUp, Lesion, Warp, make_followups

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lung_nodule_ct.imaging import Registration

DENSITIES = (30.0, -450.0)


def random_warp(random: np.random.Generator, least: float, most: float) -> Warp:
    """A follow-up in another position and another breath."""
    shift, turn = random.uniform(-25, 25, 3).tolist(), random.uniform(-6, 6, 3).tolist()
    scale = random.uniform(0.95, 1.05, 3).tolist()
    seed = int(random.integers(1_000_000))
    return Warp(tuple(shift), tuple(turn), tuple(scale), float(random.uniform(least, most)), seed)


def random_place(
    random: np.random.Generator, taken: list[NDArray[np.float64]], depth: float
) -> tuple[float, float, float]:
    """A place in the lungs, not near the heart, at least 26 mm from the others."""
    while True:
        x, y, z = random.uniform(-34, 34), random.uniform(-50, 50), random.uniform(-depth, depth)
        place = np.array([random.choice([-1, 1]) * 74 + x, y - 4, z])
        in_lung = (x / 48) ** 2 + (y / 69) ** 2 < 1
        near_heart = ((place[0] - 14) / 61) ** 2 + ((place[1] + 22) / 55) ** 2 < 1
        if in_lung and not near_heart and all(np.linalg.norm(place - other) > 26 for other in taken):
            taken.append(place)
            return float(place[0]), float(place[1]), float(place[2])


def scan_of(followup: FollowUp) -> Scan:
    """A follow-up as a scan with its nodules."""
    return Scan.from_row(followup.row("1", 0))


def error(found: Registration, place: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    """Distance of the mapped place from the true one in mm; NaN if the scans are unregistered."""
    mapped = found.map(place)
    return math.nan if mapped is None else float(np.linalg.norm(mapped - truth))


def report(name: str, errors: list[float]) -> None:
    """Print how exact the accepted fits are, and how many were refused."""
    known = np.array([value for value in errors if math.isfinite(value)])
    if not known.size:
        print(f"{name}: {len(errors)} fits, all refused")
        return
    print(
        f"{name}: {len(errors)} fits, {len(errors) - known.size} refused; of the others median {np.median(known):.2f} mm, "
        f"largest {known.max():.1f} mm, within 2.5 mm {(known <= 2.5).mean():.1%}, beyond 10 mm {(known > 10).sum()}"
    )


def measure_registration(patients: int) -> None:
    """Errors at nodules, right and wrong pairs."""
    bands: dict[str, list[list[float]]] = {"deformation 1 to 4 mm": [[], []], "deformation 4 to 7 mm": [[], []]}
    accepted = wrong = 0
    previous: tuple[Scan, NDArray[np.float64]] | None = None
    for number in range(patients):
        random = np.random.default_rng(number)
        taken: list[NDArray[np.float64]] = []
        sizes = random.uniform(6, 16, 3)
        lesions = [
            Lesion(random_place(random, taken, 34), (float(size), float(size * random.uniform(0.8, 1.5))))
            for size in sizes
        ]
        least = 1.0 if number % 2 else 4.0
        scans = make_followups((0, 200), lesions, (Warp(), random_warp(random, least, least + 3)), seed=number)
        fixed, moving = (imaging.prepare_scan(scan_of(scan)) for scan in scans)
        whole = imaging.register(fixed, moving)
        errors = bands["deformation 1 to 4 mm" if number % 2 else "deformation 4 to 7 mm"]
        for one, two in zip(fixed.scan.nodules, moving.scan.nodules, strict=True):
            place, truth = np.array(one["center_world"]), np.array(two["center_world"])
            near = imaging.refine(fixed, moving, whole, place, diameter_mm=one["diameter_mm"])
            errors[0].append(error(whole, place, truth))
            errors[1].append(error(near, place, truth))
        if previous is not None:
            other, places = previous
            lungs = imaging.register(other, moving)
            for place in places:
                wrong += 1
                accepted += imaging.refine(other, moving, lungs, place).is_registered
        previous = fixed.scan, np.array([nodule["center_world"] for nodule in fixed.scan.nodules])
    for name, (of_lungs, near_nodule) in bands.items():
        report(f"{name}, lungs", of_lungs)
        report(f"{name}, around the nodule", near_nodule)
    print(f"other patients with the same lungs: {accepted} of {wrong} neighbourhoods accepted")


def measure_tracks(patients: int) -> None:
    """Links and whole tracks of two nodules among four decoys per scan."""
    links = right = whole = wrong = sure = 0
    for number in range(patients):
        random = np.random.default_rng(number + 1000)
        taken: list[NDArray[np.float64]] = []
        lesions = []
        for _ in range(2):
            size = random.uniform(6, 16)
            sizes = (size, size * random.uniform(0.8, 1.4), size * random.uniform(0.7, 1.7))
            lesions.append(Lesion(random_place(random, taken, 40), sizes, float(random.choice(DENSITIES))))
        for decoy in range(12):
            only = tuple(float(random.uniform(4, 20)) if scan == decoy % 3 else None for scan in range(3))
            lesions.append(Lesion(random_place(random, taken, 40), only, float(random.choice(DENSITIES))))
        warps = (Warp(), random_warp(random, 2, 5), random_warp(random, 2, 5))
        rows = []
        for index, scan in enumerate(make_followups((0, 200, 420), lesions, warps, seed=number)):
            row = scan.row("1", index)
            for nodule in row["nodules"]:  # annotated by hand
                nodule["center_world"] = tuple(np.add(nodule["center_world"], random.normal(0, 1, 3)))
            rows.append(row)
        scans = [[track for track in imaging.track_nodules(rows) if track.timepoint == index] for index in range(3)]
        for later in (1, 2):
            for index, track in enumerate(scans[later]):
                expected = scans[later - 1][index].track_id if index < 2 else None
                is_right = index < 2 and track.track_id is not None and track.track_id == expected
                links += index < 2
                right += is_right
                is_wrong = track.event == "continued" and not is_right
                wrong += is_wrong
                sure += is_wrong and (track.track_confidence or 0) >= 0.9
        whole += sum(len({scan[index].track_id for scan in scans} - {None}) == 1 for index in range(2))
    print(
        f"links: {right} of {links} right ({right / links:.1%}), {wrong} wrong, {sure} of these with a confidence of 0.9"
    )
    print(f"whole tracks: {whole} of {2 * patients} right")


def measure_volumes(patients: int) -> None:
    """Volumes and doubling times of nodules among vessels."""
    errors, doublings, refused = [], [], 0
    for number in range(patients):
        random = np.random.default_rng(number + 2000)
        taken: list[NDArray[np.float64]] = []
        lesions = []
        for _ in range(12):
            size = random.uniform(5, 18)
            sizes = (size, size * random.uniform(1.3, 2.2) ** (1 / 3))
            lesions.append(Lesion(random_place(random, taken, 24), sizes, float(random.choice(DENSITIES))))
        warps = (Warp(), Warp((3.3, 2.2, 1.1), (2.0, 1.0, 3.0)))
        scans = make_followups((0, 200), lesions, warps, shape=(64, 260, 400), spacing=(0.8, 0.8, 1.25), seed=number)
        found = [
            [imaging.measure_nodule(scan, nodule).volume_mm3 for nodule in scan.nodules] for scan in map(scan_of, scans)
        ]
        for lesion, before, after in zip(lesions, *found, strict=True):
            sizes = [math.pi / 6 * (diameter or 0) ** 3 for diameter in lesion.diameters_mm]
            for volume, size in zip((before, after), sizes, strict=True):
                refused += volume is None
                if volume is not None:
                    errors.append(volume.value / size - 1)
            if before is not None and after is not None and after.value > before.value:
                doublings.append(math.log(sizes[1] / sizes[0]) / math.log(after.value / before.value) - 1)
    off = np.abs(errors)
    print(
        f"volumes: {len(off)} and {refused} refused; within 10 % {(off <= 0.1).mean():.1%}, median {np.median(errors):+.1%}"
    )
    late = np.abs(doublings)
    print(f"doubling times: {len(late)}, within 20 % {(late <= 0.2).mean():.1%}")


def measure_cost() -> None:
    """CPU seconds and memory of a pair of 512 x 512 x 160 voxels."""
    lesion = Lesion((74.0, 20.0, 0.0), (9.0, 12.0))
    warps = (Warp(), random_warp(np.random.default_rng(2), 3, 5))
    scans = make_followups((0, 200), [lesion], warps, shape=(160, 512, 512), spacing=(0.7, 0.7, 1.25), seed=3)
    fixed, moving = (imaging.prepare_scan(scan_of(scan)) for scan in scans)
    start = time.process_time()
    found = imaging.register(fixed, moving)
    lungs = time.process_time()
    nodule = fixed.scan.nodules[0]
    near = imaging.refine(fixed, moving, found, nodule["center_world"], diameter_mm=9.0)
    end = time.process_time()
    place, truth = np.array(nodule["center_world"]), np.array(moving.scan.nodules[0]["center_world"])
    print(f"register: {lungs - start:.1f} CPU s, {error(found, place, truth):.1f} mm at the nodule")
    print(f"refine: {end - lungs:.1f} CPU s, {error(near, place, truth):.1f} mm")
    print(
        f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB, the making of the scans included"
    )


def measure_build(folder: str) -> None:
    """Pairs of scans of a build: those of one patient, and those of two."""
    build = open_build(folder)
    rows = build.rows("det3d_1.25mm", "train", [column.name for column in build.columns("det3d_1.25mm")])
    scans = [(row["patient_id"], row["scan_id"], imaging.prepare_scan(Scan.from_row(row))) for row in rows]
    for (patient, name, fixed), (other, other_name, moving) in permutations(scans, 2):
        nodule, target = fixed.scan.nodules[0], moving.scan.nodules[0]
        whole = imaging.register(fixed, moving)
        near = imaging.refine(fixed, moving, whole, nodule["center_world"], diameter_mm=nodule["diameter_mm"])
        place, truth = np.array(nodule["center_world"]), np.array(target["center_world"])
        if patient != other:
            print(f"{name} {other_name}: other patient; {near.reason or 'ACCEPTED'}")
        else:
            shown = near.reason or f"{error(near, place, truth):.1f} mm"
            print(
                f"{name} {other_name}: lungs {whole.reason or f'{error(whole, place, truth):.1f} mm'}, nodule {shown}"
            )


def main() -> None:
    """Run one of the measurements."""
    parser = argument_parser(__doc__)
    parser.add_argument("what", choices=["registration", "tracks", "volumes", "cost"])
    parser.add_argument("--patients", type=int, default=12)
    parser.add_argument("--build")
    arguments: argparse.Namespace = parser.parse_args()
    if arguments.build:
        measure_build(arguments.build)
    elif arguments.what == "cost":
        measure_cost()
    else:
        {"registration": measure_registration, "tracks": measure_tracks, "volumes": measure_volumes}[arguments.what](
            arguments.patients
        )


if __name__ == "__main__":
    main()
