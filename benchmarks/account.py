"""Check that the account of a build is exact on archives that were bent at random.

    python -m benchmarks.account [--cases 10000] [--seed 0]

Every case is one config whose archives were changed in up to eight ways. All examples are made, nothing is written. Prints how many
cases could be built, how many an error refused, and how many files and rows were accounted for, and by what. The first case whose
account is not exact is printed and ends the run with exit code 1.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.harness import argument_parser


def main() -> None:
    """Check the cases and print the counts."""
    from hypothesis import HealthCheck, Phase, given, seed, settings

    from lung_nodule_ct.testing.bent_archives import BentArchives, bent_archives

    parser = argument_parser(__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    started = time.process_time()

    @seed(options.seed)
    @settings(
        max_examples=options.cases,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(bent_archives())
    def check(case: BentArchives) -> None:
        with tempfile.TemporaryDirectory() as folder:
            counts.update(account_of(case, Path(folder)))

    check()
    cases = counts["built"] + counts["refused"]
    print(f"{cases:,} cases in {time.process_time() - started:.0f} s CPU: {counts['built']:,} built, ", end="")
    print(f"{counts['refused']:,} refused with an error")
    items = {name: count for name, count in counts.items() if name not in ("built", "refused")}
    print(f"{sum(items.values()):,} files and rows:", ", ".join(f"{count:,} {name}" for name, count in items.items()))


def account_of(case: object, folder: Path) -> Counter[str]:
    """Build a case in memory, check its account, and return the number of items by what became of them.

    Raises:
        AssertionError: An item is not accounted for, or accounted for twice.
    """
    from lung_nodule_ct.declaration.configs import get_config
    from lung_nodule_ct.errors import LungNoduleCTError
    from lung_nodule_ct.examples.account import Fate, make_account
    from lung_nodule_ct.examples.family import Example, Reading
    from lung_nodule_ct.examples.plan import family_of, make_plan
    from lung_nodule_ct.sources.resolve import open_folder
    from lung_nodule_ct.sources.source import ArchivePool
    from lung_nodule_ct.system.memory import BufferPool
    from lung_nodule_ct.testing.bent_archives import BentArchives

    if not isinstance(case, BentArchives):
        raise TypeError(f"expected bent archives, got {case!r}")
    source = open_folder(case.write(folder))
    try:
        plan = make_plan(get_config(case.config), source)
        with ArchivePool() as archives:
            reading = Reading(archives, BufferPool())
            by_unit = [(unit, family_of(plan.config).make(unit, reading)) for unit in plan.units]
    except LungNoduleCTError:
        return Counter(refused=1)
    made = [example for _, examples in by_unit for example in examples if isinstance(example, Example)]
    left_out = [
        unit.members[0] for unit, examples in by_unit if not any(isinstance(each, Example) for each in examples)
    ]
    account = make_account(plan, [member for example in made for member in example.read], len(made), left_out)
    if account.num_vanished or account.num_lost:
        raise AssertionError(f"{case}: {account.findings}")
    for archive in account.archives:
        if sum(archive.files.values()) != case.num_files(archive.archive):
            raise AssertionError(f"{case}: {archive}")
    return Counter({str(fate): account.count(fate) for fate in Fate}) + Counter(built=1)


if __name__ == "__main__":
    main()
