"""Does each recipe learn? ``lung-nodule-ct train RECIPE --check``: made-up patients with known truth, a small model each.

    python -m benchmarks.learning [--only RECIPE ...] [--steps N]

Prints the seconds that each check took, data and compiling included, and all scores with their 95 % intervals on examples that were
not trained on, beside what the recipe must reach.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.harness import OURS, run_measured
from lung_nodule_ct.train.evaluation import read_scores
from lung_nodule_ct.train.expected_scores import EXPECTED_SCORES
from lung_nodule_ct.train.pages import interval, shown


def main() -> None:
    """Check each recipe in a process of its own, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=EXPECTED_SCORES, default=list(EXPECTED_SCORES))
    parser.add_argument("--steps", type=int, help="fewer than the check has, to see that it runs")
    options = parser.parse_args()
    changes = [] if options.steps is None else ["--steps", str(options.steps)]
    failed = []
    print(f"{'recipe':<20}{'wall s':>7}{'CPU s':>7}{'examples':>9}  scores")
    for name in options.only:
        with tempfile.TemporaryDirectory() as scratch:
            run = Path(scratch) / name
            command = [OURS, "train", name, "--check", "--out", run]
            try:
                measured = run_measured([*command, *changes])
            except RuntimeError as error:
                failed.append(name)
                print(f"{name:<20}failed\n{error}", flush=True)
                continue
            (judged,) = read_scores(run)
        for place, (score, entry) in enumerate(judged["scores"].items()):
            numbers = f"{measured.wall:7.0f}{measured.cpu:7.0f}{judged['rows']:9}"
            head = f"{name:<20}{numbers}" if place == 0 else " " * 43
            aim = (
                f", aim {EXPECTED_SCORES[name].least}"
                if score == EXPECTED_SCORES[name].score and EXPECTED_SCORES[name].least is not None
                else ""
            )
            print(f"{head}  {score} {shown(entry['value'])} ({interval(entry)}){aim}", flush=True)
    if failed:
        raise SystemExit(f"not learnt: {', '.join(failed)}")


if __name__ == "__main__":
    main()
