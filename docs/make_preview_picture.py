"""Take the screenshot ``docs/preview.png``: the scan viewer of the preview page on a phantom, in headless Chromium.

Run ``python -m docs.make_preview_picture``. It needs playwright and Chromium.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from benchmarks.preview import build_of
from lung_nodule_ct.preview import write_preview
from lung_nodule_ct.read.build_folder import open_build

SHAPE = (200, 512, 512)


def main() -> None:
    """Build a phantom, open its page, and save a screenshot."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        page = write_preview(open_build(build_of(Path(scratch), 1, SHAPE))).path
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": 1180, "height": 660}, color_scheme="dark")
        tab.goto(page.as_uri())
        tab.locator(".card").first.click()
        tab.wait_for_function("() => shown.view.volume?.ready === shown.view.volume?.pictures.length")
        picture = Image.open(io.BytesIO(tab.screenshot()))
        palette = picture.convert("RGB").quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        palette.save(Path(__file__).with_name("preview.png"), optimize=True)
        browser.close()


if __name__ == "__main__":
    main()
