"""Measure how long writing a preview page takes, and how fast the page opens and scrolls in headless Chromium.

    python -m benchmarks.preview [--slices 300] [--scans 2000] [--build FOLDER]

Builds a synthetic scan (slices of 512 x 512 voxels), writes its page and opens it. Prints milliseconds to the first
thumbnail and from the click to the first slice, and slices and frames per second while scrolling, first during decoding
and then with all slices decoded. Then writes the pages of many small scans and, with ``--build``, of a build of your
own, and prints time and memory. If that build has patients with two scans, two linked scans are scrolled as well.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.archives import write_source
from benchmarks.harness import (
    PROGRAM,
    argument_parser,
    build_command,
    folder_bytes,
    measure_command,
    run_in_new_process,
)

# Milliseconds from the click to the frame after the one that drew the first slice.
OPEN = """async () => {
  const frame = () => new Promise(requestAnimationFrame);
  const start = performance.now();
  document.querySelector(".card").click();
  while (!document.querySelector(".pane.axial output")?.textContent) await frame();
  await frame();
  return performance.now() - start;
}"""

# Scrolls up and down by one step of the mouse wheel per frame. Returns new slices and frames per second, and the 99th
# percentile and maximum of the milliseconds between frames.
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
    await new Promise((resolve) => setTimeout(resolve)); // browsers deliver input between frames
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

# Milliseconds from the start of the navigation to the first decoded thumbnail.
LOADED = """async () => { await document.querySelector(".card img").decode(); return performance.now(); }"""


def main() -> None:
    """Build synthetic scans, write their pages, measure the first one in Chromium, and print the results."""
    parser = argument_parser(__doc__)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--scans", type=int, default=2000)
    parser.add_argument("--build", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        page = root / "page.html"
        single = build_of(root / "single", 1, (options.slices, 512, 512))
        write_page(f"1 scan of {options.slices} slices", single, page)
        measure_page(page)
        many = build_of(root / "many", options.scans, (24, 64, 64))
        write_page(f"{options.scans:,} scans of 24 slices", many, page)
        if options.build:
            write_page(str(options.build), options.build, page)
            measure_linked_scans(page)


def build_of(root: Path, volumes: int, shape: tuple[int, int, int]) -> Path:
    """Build synthetic scans of the given shape (z, y, x), and return the folder of the build."""
    source = run_in_new_process(write_source, root / "source", volumes, shape)
    measure_command(build_command(source, "--out", root / "build"))
    return root / "build"


def write_page(title: str, build: Path, page: Path) -> None:
    """Write the page of a build, and print its size and the time and memory that writing took."""
    run = measure_command([PROGRAM, "preview", build, "--out", page])
    print(
        f"{title} ({folder_bytes(build) / 1e6:,.0f} MB): {run.wall:.1f} s wall, {run.cpu:.1f} s CPU, "
        f"{run.peak_mb:,.0f} MB peak, page {page.stat().st_size / 1e6:.1f} MB"
    )


@contextmanager
def opened(page: Path) -> Iterator[Any]:
    """Open the page in Chromium; ``None`` if Chromium was not found."""
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        print("Chromium was not found: the page is not measured")
        yield None
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": 1400, "height": 900})
        tab.goto(page.as_uri())
        yield tab
        browser.close()


def measure_page(page: Path) -> None:
    """Open the page in Chromium, open its first scan, scroll through it, and print the times."""
    with opened(page) as tab:
        if tab is None:
            return
        print(f"  first thumbnail {tab.evaluate(LOADED):.0f} ms after the start of the navigation")
        print(f"  first slice {tab.evaluate(OPEN):.0f} ms after the click")
        width, height = tab.evaluate("shown.view.scan.size")
        print(f"  {tab.evaluate('shown.view.scan.slices.length')} slices of {width} x {height} pixels in the page")
        print_scrolling("during decoding", tab.evaluate(SCROLL, 120))
        tab.wait_for_function("() => shown.view.volume.ready === shown.view.volume.pictures.length", timeout=120_000)
        print_scrolling("all slices decoded", tab.evaluate(SCROLL, 600))


def measure_linked_scans(page: Path) -> None:
    """Scroll two linked scans of the first patient with two scans, and print the times."""
    with opened(page) as tab:
        if tab is None:
            return
        pair = tab.evaluate(
            """() => {
              for (const { list } of sections.filter((section) => section.list)) {
                const index = list().findIndex((_, number) => comparable(list(), number).length);
                if (index >= 0) { openViewer(list(), index, { other: comparable(list(), index)[0] }); return true; }
              }
              return false;
            }"""
        )
        if not pair:
            print("  no patient has two scans on the page")
            return
        decoded = "() => shown.view.sides.every(({ volume }) => volume.ready === volume.pictures.length)"
        tab.wait_for_function(decoded, timeout=120_000)
        sizes = tab.evaluate("shown.view.sides.map(({ volume }) => `${volume.width} x ${volume.height} pixels`)")
        print_scrolling(f"two linked scans of {' and '.join(sizes)}", tab.evaluate(SCROLL, 300))


def print_scrolling(state: str, result: dict[str, Any]) -> None:
    """Print the result of ``SCROLL``."""
    print(
        f"  scrolling, {state}: {result['slices']:.0f} slices/s, {result['frames']:.0f} frames/s, "
        f"99 % of frames within {result['p99']:.0f} ms, longest {result['worst']:.0f} ms"
    )


if __name__ == "__main__":
    main()
