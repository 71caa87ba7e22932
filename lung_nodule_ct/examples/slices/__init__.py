"""The kind ``slice``: slices with their 2D nodule boxes (``det2d_1.25mm``)."""

from typing import Final

from lung_nodule_ct.examples.family import Family
from lung_nodule_ct.examples.slices.example import make_slice
from lung_nodule_ct.examples.slices.plan import plan_slices

SLICES: Final = Family(plan_slices, make_slice)
