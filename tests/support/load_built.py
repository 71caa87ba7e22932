"""Load every config of a build, prepared and streamed, with the installed version of ``datasets``.

Usage: python load_built.py FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import datasets
import numpy as np


def main() -> None:
    """Fail if prepared and streamed rows differ, or if their number differs from the manifest."""
    folder = Path(sys.argv[1])
    manifest = json.loads((folder / "build.json").read_text())
    for config, entry in manifest["configs"].items():
        loaded = datasets.load_dataset(str(folder), config)
        streamed = datasets.load_dataset(str(folder), config, streaming=True)
        assert {split: len(rows) for split, rows in loaded.items()} == entry["rows"], config
        for split, prepared in loaded.items():
            both = [prepared, streamed[split]]
            if "image" in prepared.column_names:
                assert prepared[0]["image"].size[0] > 0
                both = [rows.cast_column("image", datasets.Image(decode=False)) for rows in both]
            for row, other in zip(*both, strict=True):
                assert row == other, config
                if "volume" in row:
                    dtype = "u1" if "case_id" in row else "<i2"
                    np.frombuffer(row["volume"]["bytes"], dtype).reshape(row["volume"]["shape"])
    if (folder / "data" / "preview").is_dir():  # the preview is then the default config
        assert list(datasets.load_dataset(str(folder))) == ["preview"]
        shown = datasets.load_dataset(str(folder), "preview", split="preview", streaming=True)
        assert all(row["image"].size[0] > 0 and row["config"] in manifest["configs"] for row in shown)
    print(f"datasets {datasets.__version__}: {len(manifest['configs'])} configs load")


if __name__ == "__main__":
    main()
