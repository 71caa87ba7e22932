"""Synthetic data in the published layout, with known truth, for tests and benchmarks of this package and of yours.

- :mod:`~lung_nodule_ct.testing.phantoms`: chests as CT volumes with lung masks, and lesions of six textures.
- :mod:`~lung_nodule_ct.testing.followups`: scans of one patient at several dates, with known warps and growth.
- :mod:`~lung_nodule_ct.testing.archives`: writers of members and zip archives, and all fourteen archives in miniature.
- :mod:`~lung_nodule_ct.testing.synthetic_archives`: archives of patients whose lesions a model can learn.
- :mod:`~lung_nodule_ct.testing.lung_blocks`: blocks of lung with vessels and walls, as hard negatives for a detector.
- :mod:`~lung_nodule_ct.testing.inserted_nodules`: irregular nodules to put into phantoms or real scans.
- :mod:`~lung_nodule_ct.testing.hard_archives`: archives of scans with inserted nodules.
- :mod:`~lung_nodule_ct.testing.strategies`: strategies for Hypothesis, which only this module needs.
"""
