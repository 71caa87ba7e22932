"""``python -m lung_nodule_ct``."""

from lung_nodule_ct.cli import main

main()
