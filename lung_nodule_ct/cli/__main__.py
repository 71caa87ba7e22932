"""``python -m lung_nodule_ct.cli``."""

from lung_nodule_ct.cli import main

main()
