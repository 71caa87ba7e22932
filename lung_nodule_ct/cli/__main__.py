"""``python -m lung_nodule_ct.cli``, the spelling of earlier versions."""

from lung_nodule_ct.cli import main

main()
