"""Measurements of images: lungs, evidence of a nodule at a place, calibration, orientation, order of slices.

Needs the extra ``imaging`` (SciPy, scikit-image, SimpleITK). The modules of this room are pure functions of arrays; the audit
(:mod:`lung_nodule_ct.audit`) applies them to a build.
"""

from __future__ import annotations
