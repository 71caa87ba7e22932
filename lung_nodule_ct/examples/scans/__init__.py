"""The kind ``scan``: CT volumes with geometry, lung masks, nodules and timepoints (``det3d_*``, ``longitudinal``)."""

from typing import Final

from lung_nodule_ct.examples.family import Family
from lung_nodule_ct.examples.scans.example import make_scan
from lung_nodule_ct.examples.scans.plan import plan_scans

SCANS: Final = Family(plan_scans, make_scan)
