"""Build the repository for the Hugging Face Hub: all configs as Parquet with a card, in a folder that can be uploaded.

python builders/build_hub.py ARCHIVES [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

from lung_nodule_ct import CONFIGS, LungNoduleCTError
from lung_nodule_ct.publish.card import write_first_card
from lung_nodule_ct.sources.resolve import open_source
from lung_nodule_ct.system.progress import BuildProgressBar
from lung_nodule_ct.targets.build import build_folder


def build_hub(archives: str, folder: Path) -> None:
    """Build all configs from a folder of archives.

    Raises:
        LungNoduleCTError: An archive is missing or damaged, or the folder cannot be written.
    """
    configs = list(CONFIGS.values())
    with BuildProgressBar() as progress:
        build_folder(configs, open_source(archives, configs), folder, progress=progress, add_files=write_first_card)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    try:
        build_hub(sys.argv[1], Path(sys.argv[2] if len(sys.argv) == 3 else "build/lung_nodule_ct"))
    except LungNoduleCTError as error:
        sys.exit(f"error: {error}")
