"""Build the Hub repository from the downloaded archives: all six configs, in the folder that is uploaded as it stands.

python builders/build_hub.py ARCHIVES [FOLDER]
"""

from __future__ import annotations

import sys

from lung_nodule_ct.cli import main

if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    source, out = sys.argv[1], sys.argv[2] if len(sys.argv) == 3 else "build/lung_nodule_ct"
    sys.argv = ["lung-nodule-ct", "build", "--all", "--source", source, "--out", out]
    main()
