"""Examples made ahead of who writes them: threads inflate while another compresses or writes (all of it outside the GIL).

The number of voxel buffers is fixed, one a thread and one for the example that is being written; that bounds the memory,
whatever the number of volumes.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from lung_nodule_ct.examples.plan import build_example

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from lung_nodule_ct.examples.family import Example, Unit
    from lung_nodule_ct.sources.source import Opened
    from lung_nodule_ct.system.memory import Scratch


def examples_ahead(
    units: Sequence[Unit], opened: Opened, scratch: Callable[[], Scratch], builders: int, *, keep_metadata: bool
) -> Generator[tuple[Unit, Example], None, None]:
    """The examples of some units in their order. The voxels of one are valid until the next is taken.

    Args:
        units: What to make.
        opened: The archives that are open.
        scratch: Gives one place for voxels after the other, as many as there are examples at once.
        builders: Threads that make examples ahead; 0: each is made when it is asked for.
        keep_metadata: Whether metadata of pictures stay although they spell a calendar date.

    Raises:
        MemberError: A member is damaged.
    """
    make = partial(build_example, keep_metadata=keep_metadata)
    if not builders:
        own = scratch()
        for unit in units:
            yield unit, make(unit, opened, own)
        return
    coming = iter(units)
    pending: deque[tuple[Unit, Scratch, Future[Example]]] = deque()
    with ThreadPoolExecutor(builders) as pool:
        try:
            for unit in islice(coming, builders + 1):
                own = scratch()
                pending.append((unit, own, pool.submit(make, unit, opened, own)))
            while pending:
                unit, own, future = pending.popleft()
                yield unit, future.result()
                for following in islice(coming, 1):
                    pending.append((following, own, pool.submit(make, following, opened, own)))
        finally:
            for _, _, future in pending:
                future.cancel()
