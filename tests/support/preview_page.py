"""The preview page in Chromium: builds to show, and what a reader does on the page."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
from PIL import Image

from lung_nodule_ct.declaration.configs import CONFIGS
from lung_nodule_ct.read.build_folder import open_build


def build_into(source: Path, out: Path, *configs: str, layout: str = "parquet"):
    from lung_nodule_ct.sources.resolve import open_folder
    from lung_nodule_ct.targets.build import build_folder
    from lung_nodule_ct.targets.options import BuildOptions

    chosen = [CONFIGS[name] for name in configs or CONFIGS]
    build_folder(chosen, open_folder(source), out, BuildOptions(format=layout, keep_source_names=True))
    return open_build(out)


def document_of(page: Path) -> dict:
    """Return the data of the page without the slices."""
    return json.loads(re.search(r'<script type="application/json" id="document">(.*?)</script>', page.read_text())[1])


def rows_of(build, config: str) -> list[dict]:
    return [
        {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in row.items()}
        | {"split": split}
        for split in build.splits(config)
        for row in build.rows(config, split)
    ]


def open_tab(tab, name: str):
    tab.get_by_role("tab", name=name).click()
    return tab.get_by_role("tabpanel", name=name)


def open_scan(tab, config: str, number: int) -> None:
    open_tab(tab, config).locator(".card").nth(number).click()
    tab.locator(".pane.axial output", has_text="of").wait_for()


def shown_slice(tab, plane: str = "axial") -> int:
    return int(re.search(r"[xyz] = (\d+)$", tab.locator(f".pane.{plane} output").inner_text())[1])


def until_slice(tab, index: int, plane: str = "axial") -> None:
    tab.wait_for_function(
        "([plane, index]) => document.querySelector(`.pane.${plane} output`).textContent.match(/= (\\d+)/)[1] == index",
        arg=[plane, index],
    )


def shown_pixels(tab, plane: str) -> np.ndarray:
    """Return the grey values of a canvas."""
    url = tab.evaluate("plane => document.querySelector(`.pane.${plane} canvas`).toDataURL()", plane)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("L")).astype(int)


def until_ready(tab) -> None:
    tab.wait_for_function("() => shown.view.volume.ready === shown.view.volume.pictures.length")
    tab.wait_for_function("() => !shown.view.frame")
