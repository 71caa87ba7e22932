"""Train a small model on synthetic patients with each recipe, by ``lung-nodule-ct train RECIPE --check``.

    python -m benchmarks.learning [--only RECIPE ...] [--steps N]

Prints wall and CPU seconds of each check, which generates its data and compiles the step, and all scores on held-out
examples, with 95 % intervals and the minimum that the recipe must reach.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.harness import PROGRAM, argument_parser, measure_command
from lung_nodule_ct.train.evaluation import read_scores
from lung_nodule_ct.train.expected_scores import EXPECTED_SCORES
from lung_nodule_ct.train.pages import format_interval, format_value


def main() -> None:
    """Run each check in a separate process and print the scores."""
    parser = argument_parser(__doc__)
    parser.add_argument("--only", nargs="*", choices=EXPECTED_SCORES, default=list(EXPECTED_SCORES))
    parser.add_argument("--steps", type=int, help="number of steps, to test with fewer than the check has")
    options = parser.parse_args()
    steps = [] if options.steps is None else ["--steps", str(options.steps)]
    failed = []
    print(f"{'recipe':<20}{'wall s':>7}{'CPU s':>7}{'examples':>9}  scores")
    for name in options.only:
        expected = EXPECTED_SCORES[name]
        with tempfile.TemporaryDirectory() as scratch:
            run = Path(scratch) / name
            try:
                measured = measure_command([PROGRAM, "train", name, "--check", "--out", run, *steps])
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
        raise SystemExit(f"these recipes failed or did not reach the minimum: {', '.join(failed)}")


if __name__ == "__main__":
    main()
