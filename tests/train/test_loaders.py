"""Volumes and decoded rows in loaders of the JAX world: grain with worker processes, and JAX arrays."""

from __future__ import annotations

import numpy as np
import pytest

import lung_nodule_ct

jax = pytest.importorskip("jax")
grain = pytest.importorskip("grain")
voxel_totals = pytest.importorskip("voxel_totals")  # imports grain

pytestmark = pytest.mark.train

THIN = "det3d_1.25mm"


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", ["loaded", "arrow"])
def test_volumes_are_a_source_of_grain(dummy, dummy_build, tmp_path, kind, workers) -> None:
    views = (
        lung_nodule_ct.volumes(lung_nodule_ct.load(THIN, source=dummy, split="train", cache_dir=tmp_path))
        if kind == "loaded"
        else lung_nodule_ct.volumes(dummy_build(kind), config=THIN)
    )
    loader = grain.DataLoader(
        data_source=views,
        sampler=grain.samplers.IndexSampler(len(views), grain.sharding.NoSharding(), shuffle=False, num_epochs=1),
        operations=[voxel_totals.Total()],
        worker_count=workers,
    )
    if workers:
        from absl import flags

        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # the workers of grain read flags
    assert list(map(int, loader)) == [int(voxel_totals.total(view)) for view in views]


def test_decoded_rows_are_jax_arrays(dummy, tmp_path) -> None:
    scans = lung_nodule_ct.load(THIN, source=dummy, split="train", cache_dir=tmp_path)
    row = scans.with_transform(lung_nodule_ct.decoded("jax"))[0]
    assert isinstance(row["volume"], jax.Array)
    assert (np.asarray(row["volume"]) == lung_nodule_ct.volumes(scans)[0].array).all()
    assert row["spacing"].tolist() == scans[0]["spacing"]
