"""Load every config of a built folder, prepared and streamed, with whatever ``datasets`` this interpreter has.

python load_built.py FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import datasets
import numpy as np


def main() -> None:
    """Fail where a row differs between the two ways, or a count from the manifest."""
    folder = Path(sys.argv[1])
    manifest = json.loads((folder / "build.json").read_text())
    for config, entry in manifest["configs"].items():
        loaded = datasets.load_dataset(str(folder), config)
        streamed = datasets.load_dataset(str(folder), config, streaming=True)
        assert {split: len(own) for split, own in loaded.items()} == entry["rows"], config
        for split, own in loaded.items():
            pairs = [own, streamed[split]]
            if "image" in own.column_names:
                assert own[0]["image"].size[0] > 0
                pairs = [each.cast_column("image", datasets.Image(decode=False)) for each in pairs]
            for row, other in zip(*pairs, strict=True):
                assert row == other, config
                if "volume" in row:
                    dtype = "u1" if "case_id" in row else "<i2"
                    np.frombuffer(row["volume"]["bytes"], dtype).reshape(row["volume"]["shape"])
    if (folder / "data" / "preview").is_dir():  # the card's own config is then the default
        assert list(datasets.load_dataset(str(folder))) == ["preview"]
        shown = datasets.load_dataset(str(folder), "preview", split="preview", streaming=True)
        assert all(row["image"].size[0] > 0 and row["config"] in manifest["configs"] for row in shown)
    print(f"datasets {datasets.__version__}: {len(manifest['configs'])} configs load")


if __name__ == "__main__":
    main()
