"""Made-up patients with known truth: lesions of six textures, sizes by the paper's distribution, malignant ones that grow.

``write_lesions(folder, patients)`` writes them as archives in the published layout; a build of them is what learning is tested on.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image
from tiny import CLS, CT0, CT1, DET2D, NODULES, THICK_NODULES, TinySource, mhd, table, voc

DATES = ("20180102", "20190304")
SPACING = 2.0
SHAPE = (24, 48, 48)
SIZES = ((4, 10, 0.4033), (10, 20, 0.3978), (20, 30, 0.1437), (30, 36, 0.0552))
"""Low and high diameter in mm, and the share of the nodules (the paper's; nothing below 4 mm or above 36 mm is made)."""


def draw_diameter(random: np.random.Generator) -> float:
    """A diameter in mm."""
    low, high, _ = SIZES[random.choice(len(SIZES), p=np.array([s for *_, s in SIZES]) / sum(s for *_, s in SIZES))]
    return float(random.uniform(low, high))


def lesion(kind: int, distance: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Density 0 to 1 of a lesion of one of six textures, by the distance from its centre in radii; any shape."""
    inside = np.clip((1.05 - distance) * 8, 0, 1)
    core = np.clip((0.55 - distance) * 8, 0, 1)
    match kind:
        case 0:  # solid
            return inside * 0.85
        case 1:  # part-solid
            return inside * 0.35 + core * 0.5
        case 2:  # ground glass
            return inside * 0.35
        case 3:  # with a cavity
            return (inside - core) * 0.85
        case 4:  # speckled
            return inside * (random.random(distance.shape) < 0.5) * 0.8
        case _:  # with a calcified core
            return inside * 0.55 + np.clip((0.35 - distance) * 8, 0, 1) * 0.45


def blob(
    kind: int, shape: tuple[int, ...], center: np.ndarray, radius: float, random: np.random.Generator
) -> np.ndarray:
    """Density 0 to 1 with noise and a lesion; centre and radius in pixels, in array order."""
    axes = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    distance = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(axes, center, strict=True))) / radius
    return np.clip(0.12 + random.normal(0, 0.04, shape) + lesion(kind, distance, random), 0, 1)


def encoded(density: np.ndarray, form: str) -> bytes:
    """A grey picture."""
    buffer = io.BytesIO()
    Image.fromarray((density * 255).astype(np.uint8)).save(buffer, form)
    return buffer.getvalue()


def write_lesions(folder: Path, patients: int, seed: int = 0) -> Path:
    """Write archives of so many patients with two scans each: crops, slices with boxes, 1.25 mm volumes. Every fifth is for validation."""
    random = np.random.default_rng(seed)
    source = TinySource()
    thick = source[THICK_NODULES]["annotations.csv"]
    for name in source:
        if "5mm" not in name.replace("1.25mm", ""):
            source[name] = {}
    rows, lists = [], {"train": "", "val": ""}
    for number in range(100, 100 + patients):
        kind, first = int(random.integers(6)), draw_diameter(random)
        where = random.uniform(0.35, 0.65, 3)
        growth = random.uniform(1.3, 1.6) if kind < 4 else random.uniform(0.9, 1.05)
        for date, diameter in zip(DATES, (first, first * growth), strict=True):
            name, part = f"{number}_{date}", "validate" if number % 5 == 0 else "train"
            center, radius = where * SHAPE, diameter / 2 / SPACING
            volume = blob(kind, SHAPE, center, radius, random) * 1000 - 950
            source[CT0 if number % 2 else CT1] |= mhd(
                name, volume.astype(np.int16), spacing=(SPACING,) * 3, origin=(0, 0, 0)
            )
            x, y, z = center[::-1] * SPACING
            rows.append(f"{name},{x},{y},{z},{diameter}")
            for crop in range(2):
                picture = blob(kind, (32, 32), random.uniform(14, 18, 2), max(radius * 1.2, 5), random)
                source[CLS][f"class_dataset/{part}/{kind + 1}/{name}_{crop:03}_01.bmp"] = encoded(picture, "BMP")
            middle, reach = random.uniform(24, 72, 2), max(radius * 1.5, 5)
            source[DET2D][f"JPEGImages/{name}_001.jpg"] = encoded(blob(kind, (96, 96), middle, reach, random), "JPEG")
            y, x = middle
            box = [round(v) for v in (x - reach, y - reach, x + reach + 1, y + reach + 1)]
            source[DET2D][f"Annotations/{name}_001.xml"] = voc(box, filename=f"{name}_001.jpg", size=(96, 96))
            lists["train" if part == "train" else "val"] += f"{name}_001\n"
    for name, text in lists.items():
        source[DET2D][f"ImageSets/Main/{name}.txt"] = text.encode()
    source[NODULES]["annotations.csv"] = table("seriesuid,coordX,coordY,coordZ,diameter_mm", *rows)
    source[THICK_NODULES]["annotations.csv"] = thick
    return source.write(folder)
