"""How much disk and time a build takes, estimated from its plan before voxels are read.

The constants were measured (docs/speed.md, docs/scale.md) on one core, with scans of 512 x 512 x 160 and masks of 42 MB as compressed in the
archives, and with JPEG slices of 100 kB. Another machine takes half or twice the time; the size is that of similar scans.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lung_nodule_ct.declaration.manifest import Format, VolumeCodec
from lung_nodule_ct.system.progress import LONG_BYTES, LONG_S, readable_size, readable_time

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lung_nodule_ct.examples.plan import Plan


@dataclass(frozen=True, slots=True)
class Rate:
    """What becomes of a byte that is compressed in the archives.

    Attributes:
        written: Bytes on the disk.
        seconds: CPU time.
    """

    written: float
    seconds: float


PICTURES: Final = Rate(1.05, 3.5 / 60e6)
CACHE: Final = Rate(126 / 42, 0.41 / 42e6)
"""The cache of ``datasets``, with volumes."""
_VOLUMES: Final = {
    Format.PARQUET: Rate(48 / 42, 0.73 / 42e6),
    Format.ARROW: Rate(126 / 42, 0.29 / 42e6),
    Format.TFRECORD: Rate(126 / 42, 0.41 / 42e6),
    Format.ARRAY_RECORD: Rate(48 / 42, 0.73 / 42e6),
}
_B2ND: Final = Rate(34 / 42, 0.6 / 42e6)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a build takes.

    Attributes:
        packed_bytes: Bytes to read, as compressed in the archives.
        disk_bytes: Bytes to write.
        seconds: Time on this machine.
        computes: Whether masks, tracks or key slices are computed as well, for which there is no estimate.

    Example:
        >>> print(Estimate(13_800_000_000, 15_770_000_000, 240.0))
        14 GB to read, about 16 GB to write: about 4 minutes
    """

    packed_bytes: int
    disk_bytes: int
    seconds: float
    computes: bool = False

    @property
    def is_long(self) -> bool:
        """Whether it should be announced."""
        return self.seconds >= LONG_S or self.disk_bytes >= LONG_BYTES

    def __str__(self) -> str:
        more = ", and more for what is computed from the voxels" if self.computes else ""
        return (
            f"{readable_size(self.packed_bytes)} to read, about {readable_size(self.disk_bytes)} to write: "
            f"about {readable_time(self.seconds)}{more}"
        )


def volume_rate(format_: Format, codec: VolumeCodec = VolumeCodec.RAW) -> Rate:
    """Return the rate of volumes in a format."""
    return _B2ND if codec is VolumeCodec.B2ND else _VOLUMES[format_]


def estimate(plans: Iterable[Plan], volumes: Rate, num_proc: int = 1, *, computes: bool = False) -> Estimate:
    """Estimate what some plans take.

    Args:
        plans: The plans.
        volumes: The rate of volumes in the format of the build.
        num_proc: Number of workers. Those without a core of their own do not count.
        computes: Whether something is computed from the voxels.
    """
    packed = written = 0
    seconds = 0.0
    for plan in plans:
        rate = volumes if plan.config.schema.has_voxels else PICTURES
        own = sum(unit.packed_bytes for unit in plan.units)
        packed += own
        written += round(own * rate.written)
        seconds += own * rate.seconds
    return Estimate(packed, written, seconds / max(1, min(num_proc, os.cpu_count() or 1)), computes)
