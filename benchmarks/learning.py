"""Run ``lung-nodule-ct train RECIPE --check`` for each recipe: train a small model on synthetic patients.

    python -m benchmarks.learning [--only RECIPE ...] [--steps N]

Prints the seconds of each check, including data and compilation, and all scores with their 95 % intervals on examples
that were not trained on, with the score that the recipe must reach.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.harness import OURS, run_measured
from lung_nodule_ct.train.evaluation import read_scores
from lung_nodule_ct.train.pages import format_interval, format_value
from lung_nodule_ct.train.recipes import EXPECTED_SCORES


def main() -> None:
    """Run each check in a process of its own and print the scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=EXPECTED_SCORES, default=list(EXPECTED_SCORES))
    parser.add_argument("--steps", type=int, help="fewer steps than the check has, to see that it runs")
    options = parser.parse_args()
    changes = [] if options.steps is None else ["--steps", str(options.steps)]
    failed = []
    print(f"{'recipe':<20}{'wall s':>7}{'CPU s':>7}{'examples':>9}  scores")
    for name in options.only:
        expected = EXPECTED_SCORES[name]
        with tempfile.TemporaryDirectory() as scratch:
            run = Path(scratch) / name
            command = [OURS, "train", name, "--check", "--out", run]
            try:
                measured = run_measured([*command, *changes])
            except RuntimeError as error:
                failed.append(name)
                print(f"{name:<20}failed\n{error}", flush=True)
                continue
            (document,) = read_scores(run)
        for position, (score, entry) in enumerate(document["scores"].items()):
            figures = f"{measured.wall:7.0f}{measured.cpu:7.0f}{document['rows']:9}"
            head = f"{name:<20}{figures}" if position == 0 else " " * 43
            has_minimum = score == expected.score and expected.minimum is not None
            minimum = f", minimum {expected.minimum}" if has_minimum else ""
            print(f"{head}  {score} {format_value(entry['value'])} ({format_interval(entry)}){minimum}", flush=True)
    if failed:
        raise SystemExit(f"these recipes did not learn: {', '.join(failed)}")


if __name__ == "__main__":
    main()
