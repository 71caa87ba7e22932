"""The preview page: how long it takes to write, and how fast it is in headless Chromium on a scan of 300 slices.

    python -m benchmarks.preview [--slices 300] [--scans 2000] [--build FOLDER]

Generates a scan of 512 x 512 voxels a slice, builds it, writes its page, opens it, and prints the time from the click to the
first slice, and the frames a second of scrolling, once while the slices are still being decoded and once when all are ready.
Then the page of many small scans, for time and memory, and of a build of yours where one is named.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.archives import write_source
from benchmarks.harness import OURS, folder_bytes, in_a_process_of_its_own, run_measured

# From the click to the frame after the one that drew the slice.
OPEN = """async () => {
  const frame = () => new Promise(requestAnimationFrame);
  const start = performance.now();
  document.querySelector(".card").click();
  while (!document.querySelector(".pane.axial output")?.textContent) await frame();
  await frame();
  return performance.now() - start;
}"""

# A notch of the wheel every frame, up and down the scan; which frames showed another slice, and how long each took.
SCROLL = """async (frames) => {
  const stage = document.querySelector(".pane.axial .stage"), output = document.querySelector(".pane.axial output");
  const input = document.querySelector(".pane.axial input");
  const gaps = [];
  let direction = -1, last = output.textContent, before = await new Promise(requestAnimationFrame);
  const start = before;
  let changed = 0;
  for (let n = 0; n < frames; n += 1) {
    if (Number(input.value) === Number(input.max)) direction = 1;
    if (Number(input.value) === 0) direction = -1;
    await new Promise((resolve) => setTimeout(resolve)); // input comes before a frame, not within one
    stage.dispatchEvent(new WheelEvent("wheel", { deltaY: 100 * direction, cancelable: true }));
    const now = await new Promise(requestAnimationFrame);
    gaps.push(now - before);
    before = now;
    if (output.textContent !== last) { changed += 1; last = output.textContent; }
  }
  gaps.sort((a, b) => a - b);
  return { slices: changed / (before - start) * 1000, frames: frames / (before - start) * 1000,
    p99: gaps[Math.floor(0.99 * gaps.length)], worst: gaps.at(-1) };
}"""

# From the start of the navigation to the first thumbnail that could be drawn.
LOADED = """async () => { await document.querySelector(".card img").decode(); return performance.now(); }"""


def main() -> None:
    """Generate, build, write, drive, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--scans", type=int, default=2000)
    parser.add_argument("--build", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        page = root / "page.html"
        single = build_of(root / "single", 1, (options.slices, 512, 512))
        write(f"1 scan of {options.slices} slices", single, page)
        drive(page)
        many = build_of(root / "many", options.scans, (24, 64, 64))
        write(f"{options.scans:,} scans of 24 slices", many, page)
        if options.build:
            write(str(options.build), options.build, page)


def build_of(root: Path, volumes: int, shape: tuple[int, int, int]) -> Path:
    """A build of generated scans."""
    source = in_a_process_of_its_own(write_source, root / "source", volumes, shape)
    run_measured([OURS, "build", "det3d_1.25mm", "--source", source, "--out", root / "build"])
    return root / "build"


def write(what: str, build: Path, page: Path) -> None:
    """Write a page and say what it took."""
    taken = run_measured([OURS, "preview", build, "--out", page])
    print(
        f"{what} ({folder_bytes(build) / 1e6:,.0f} MB): {taken.wall:.1f} s wall, {taken.cpu:.1f} s CPU, "
        f"{taken.peak_mb:,.0f} MB peak, page {page.stat().st_size / 1e6:.1f} MB"
    )


def drive(page: Path) -> None:
    """Open the page and scroll."""
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        print("no Chromium on this machine: the page is not driven")
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": 1400, "height": 900})
        tab.goto(page.as_uri())
        print(f"  first thumbnail {tab.evaluate(LOADED):.0f} ms after the navigation began")
        print(f"  first slice {tab.evaluate(OPEN):.0f} ms after the click")
        width, height = tab.evaluate("shown.view.scan.size")
        print(f"  {tab.evaluate('shown.view.scan.slices.length')} slices of {width} x {height} pixels in the page")
        say("while slices are decoded", tab.evaluate(SCROLL, 120))
        tab.wait_for_function("() => shown.view.volume.ready === shown.view.volume.pictures.length", timeout=120_000)
        say("all slices ready", tab.evaluate(SCROLL, 600))
        browser.close()


def say(when: str, measured: dict[str, Any]) -> None:
    """One line on scrolling."""
    print(
        f"  scrolling, {when}: {measured['slices']:.0f} slices/s in {measured['frames']:.0f} frames/s, "
        f"99 % of frames within {measured['p99']:.0f} ms, longest {measured['worst']:.0f} ms"
    )


if __name__ == "__main__":
    main()
