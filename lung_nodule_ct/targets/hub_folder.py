"""The Hub-ready folder: Parquet shards, a card with the YAML that the Hub reads, the findings, and a manifest."""

from __future__ import annotations

import multiprocessing
import signal
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.errors import LungNoduleCTError, OutputError, StrictError
from lung_nodule_ct.figures import Comparison, compare_figures
from lung_nodule_ct.findings import Finding, Grade
from lung_nodule_ct.plan import Plan, make_plan
from lung_nodule_ct.report import report_document, same_pixels, shared_patients, to_json
from lung_nodule_ct.spec.splits import SplitBy
from lung_nodule_ct.targets.card import write_card
from lung_nodule_ct.targets.shards import PARTIAL_SUFFIX, Shard, Written, plan_shards, write_shard
from lung_nodule_ct.targets.staging import staged_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from lung_nodule_ct.plan.units import Unit
    from lung_nodule_ct.source.folder import Source
    from lung_nodule_ct.spec.configs import Config

MANIFEST = "build.json"
FINDINGS = "findings.json"
GENERATOR = f"lung_nodule_ct {version('lung_nodule_ct')}"


@dataclass(frozen=True)
class BuildOptions:
    """How to build.

    Attributes:
        split_by: The published splits, or leak-free ones by patient.
        keep_source_names: Add the column ``source_name``, which may spell dates.
        strict: Refuse to finish where a finding is of error grade.
        num_proc: Processes that write shards.
    """

    split_by: SplitBy = SplitBy.PUBLISHED
    keep_source_names: bool = False
    strict: bool = False
    num_proc: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "split_by", SplitBy(self.split_by))
        if self.num_proc < 1:
            raise ValueError(f"num_proc: expected at least 1, got {self.num_proc}")


@dataclass(frozen=True)
class BuiltConfig:
    """What was built of one config.

    Attributes:
        plan: What was to be done.
        files: What was written.
        findings: Of the plan and of the examples.
        shared_patients: Patients that two splits share, by pair of splits.
    """

    plan: Plan
    files: tuple[Written, ...]
    findings: tuple[Finding, ...]
    shared_patients: dict[str, int]

    @property
    def rows(self) -> dict[str, int]:
        """Examples by split."""
        rows = dict.fromkeys(self.plan.splits, 0)
        for written in self.files:
            rows[written.shard.split] += written.rows
        return rows


@dataclass(frozen=True)
class Build:
    """A finished build.

    Attributes:
        folder: Where it stands.
        configs: What was built, by config name; a config without any example is not there.
        findings: By config, those without an example included.
    """

    folder: Path
    configs: dict[str, BuiltConfig]
    findings: dict[str, tuple[Finding, ...]]


class Progress:
    """What a build tells of its progress; this one tells nobody."""

    def begin(self, config: str, packed_bytes: int, units: int) -> None:
        """A config begins: so much is to be read."""

    def advance(self, config: str, packed_bytes: int) -> None:
        """One unit is done."""

    def end(self, config: str) -> None:
        """A config is done."""


def build_hub_folder(
    configs: Sequence[Config],
    source: Source,
    target: Path,
    options: BuildOptions | None = None,
    progress: Progress | None = None,
) -> Build:
    """Build some configs into one folder that ``load_dataset`` opens and the Hub shows.

    Args:
        configs: What to build.
        source: The archives.
        target: The folder. It appears when everything is written; a build of ours that stands there is replaced.
        options: How to build.
        progress: Is told how far it is.

    Raises:
        ArchiveNotFoundError: An archive that a config reads is missing.
        ArchiveError: An archive is no zip archive, or breaks a limit.
        MemberError: A member is damaged.
        StrictError: A strict build met a finding of error grade.
        OutputError: The folder cannot be written.
    """
    options, progress = options or BuildOptions(), progress or Progress()
    with staged_folder(target, marker=MANIFEST) as stage:
        plans = [make_plan(config, source, options.split_by) for config in configs]
        built: dict[str, BuiltConfig] = {}
        findings: dict[str, tuple[Finding, ...]] = {}
        for plan in plans:
            name = plan.config.name
            shards = plan_shards(plan, keep_source_names=options.keep_source_names)
            progress.begin(name, sum(unit.packed_bytes for unit in plan.units), len(plan.units))
            files = sorted(_write(shards, stage, options, progress), key=lambda written: shards.index(written.shard))
            progress.end(name)
            findings[name] = _all_findings(plan, files)
            if files:
                built[name] = BuiltConfig(plan, tuple(files), findings[name], shared_patients(plan))
        figures = compare_figures({plan.config.name: plan for plan in plans})
        for comparison in figures:
            if comparison.finding is not None:
                findings[comparison.config] += (comparison.finding,)
        if options.strict:
            _refuse_errors(findings)
        _finish(stage, built, findings, figures, source, options)
    return Build(target, built, findings)


def _write(shards: Sequence[Shard], stage: Path, options: BuildOptions, progress: Progress) -> Iterator[Written]:
    if not shards:
        return
    workers = min(options.num_proc, len(shards))
    name = shards[0].config
    if workers == 1:
        for shard in shards:
            yield _attempt(shard, stage, lambda unit: progress.advance(name, unit.packed_bytes))
        return
    # Spawned, not forked: pyarrow has threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_leave_interrupts_to_the_parent) as pool:
        futures = {pool.submit(_attempt, shard, stage): shard for shard in shards}
        try:
            for future in as_completed(futures):
                written = future.result()
                progress.advance(name, sum(unit.packed_bytes for unit in written.shard.units))
                yield written
        except BrokenProcessPool as error:
            raise OutputError(
                "a worker process was killed, most likely for want of memory", remedy="build with a smaller --num-proc"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _attempt(shard: Shard, stage: Path, on_unit: Callable[[Unit], None] = lambda _: None) -> Written:
    try:
        return write_shard(shard, stage, on_unit)
    except LungNoduleCTError:
        raise
    except OSError as error:
        raise OutputError(f"{shard.path} cannot be written: {error}") from error


def _all_findings(plan: Plan, files: Iterable[Written]) -> tuple[Finding, ...]:
    files = list(files)
    own = [finding for written in files for finding in written.findings]
    return (*plan.findings, *own, *same_pixels(entry for written in files for entry in written.pixels))


def _refuse_errors(findings: dict[str, tuple[Finding, ...]]) -> None:
    errors = [finding for own in findings.values() for finding in own if finding.grade is Grade.ERROR]
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise StrictError(
            f"a strict build met a finding of error grade{more}: {errors[0]}",
            remedy="nothing was written; build without --strict to have the rest and the report",
        )


def _finish(
    stage: Path,
    built: dict[str, BuiltConfig],
    findings: dict[str, tuple[Finding, ...]],
    figures: Sequence[Comparison],
    source: Source,
    options: BuildOptions,
) -> None:
    """Write what stands beside the shards, then give them their names."""
    document = report_document(
        findings,
        generator=GENERATOR,
        verbatim=options.keep_source_names,
        extra={
            "shared_patients": {name: config.shared_patients for name, config in built.items()},
            "figures": [comparison.to_dict() for comparison in figures],
        },
    )
    (stage / FINDINGS).write_text(to_json(document), encoding="utf-8")
    (stage / MANIFEST).write_text(to_json(_manifest(built, source, options)), encoding="utf-8")
    write_card(stage, built, document, options)
    for config in built.values():
        for written in config.files:
            path = stage / written.shard.path
            path.with_name(path.name + PARTIAL_SUFFIX).rename(path)


def _manifest(built: dict[str, BuiltConfig], source: Source, options: BuildOptions) -> dict[str, Any]:
    roles = {role for config in built.values() for role in config.plan.config.roles}
    return {
        "format_version": 1,
        "generator": GENERATOR,
        "split_by": str(options.split_by),
        "keep_source_names": options.keep_source_names,
        "source": source.fingerprints(roles),
        "configs": {
            name: {
                "rows": config.rows,
                "files": [
                    {"path": f.shard.path, "rows": f.rows, "bytes": f.file_bytes, "sha256": f.sha256}
                    for f in config.files
                ],
            }
            for name, config in built.items()
        },
    }
