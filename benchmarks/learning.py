"""Does each task learn? Made-up patients with known truth, a small model each, through the command line.

    python -m benchmarks.learning [--patients 60] [--only cls ...]

Prints seconds and scores on patients that were not trained on, beside the least that counts as learnt.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
_SMALL = ("--model.width", "16", "--optim.learning-rate", "3e-3")
_SLICES = (*_SMALL, "--steps", "200", "--batch-size", "8", "--model.blocks", "1", "1", "1")
_NODULES = (*_SMALL, "--steps", "200", "--batch-size", "8", "--model.blocks", "1", "1", "--model.patch", "2")
_CUBES = ("--input.size", "16", "16", "16", "--input.spacing-mm", "3", "3", "3")
_PATCHES = ("--input.size", "16", "32", "32", "--input.spacing-mm", "2", "2", "2")

#: Recipe and options, the score, and the least it must reach (the most, of an error).
TASKS = {
    "cls": (
        (
            "cls_1.25mm",
            *_SMALL,
            "--steps",
            "150",
            "--batch-size",
            "32",
            "--input.size",
            "32",
            "32",
            "--model.blocks",
            "1",
            "1",
        ),
        "accuracy",
        0.8,
    ),
    "det2d": (("det2d_1.25mm", *_SLICES), "AP50", 0.8),
    "det2d-retina": (("det2d_1.25mm-retina", *_SLICES), "AP50", 0.8),
    "det3d": (("det3d_1.25mm", *_SLICES[:-1], *_PATCHES), "CPM", 0.7),
    "longitudinal": (("longitudinal", *_NODULES, *_CUBES), "malignant_AUC", 0.8),
    "longitudinal-single": (("longitudinal-single", *_NODULES, *_CUBES), "malignant_AUC", None),
}


def main() -> None:
    """Generate, build, train and judge each task, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=60)
    parser.add_argument("--only", nargs="*", choices=TASKS, default=list(TASKS))
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    from lesions import write_lesions  # type: ignore[import-not-found]

    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        source = write_lesions(root / "source", options.patients)
        configs = ("cls_1.25mm", "det2d_1.25mm", "det3d_1.25mm", "longitudinal")
        _run("build", *configs, "--source", source, "--format", "arrow", "--out", root / "build")
        for name in options.only:
            arguments, score, least = TASKS[name]
            start = time.perf_counter()
            _run("train", *arguments, "--data", root / "build", "--out", root / name)
            seconds = time.perf_counter() - start
            document = json.loads(_run("evaluate", root / name, "--data", root / "build", "--json"))
            scores = ", ".join(
                f"{key} {entry['value']:.3f}" for key, entry in document["scores"].items() if entry["value"] is not None
            )
            reached = document["scores"][score]["value"]
            verdict = (
                "no aim" if least is None else f"{'learnt' if reached >= least else 'NOT learnt'}, aim {score} {least}"
            )
            print(f"{name}: {seconds:.0f} s, {document['rows']} examples: {scores} ({verdict})", flush=True)


def _run(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "lung_nodule_ct.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
