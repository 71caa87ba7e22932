"""The tables of the paper's baselines, the published scores next to ours: Markdown, CSV and JSON. Without JAX."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from lung_nodule_ct.declaration.labels import SplitBy
from lung_nodule_ct.declaration.manifest import to_json
from lung_nodule_ct.declaration.published import BASELINES, HOMEPAGE
from lung_nodule_ct.errors import TrainingError
from lung_nodule_ct.system.files import write_atomically
from lung_nodule_ct.train.models import NETWORKS
from lung_nodule_ct.train.recipes import EPOCHS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from lung_nodule_ct.declaration.published import Baseline
    from lung_nodule_ct.read.build_folder import BuildFolder

TABLES_JSON: Final = "baselines.json"
TABLES_MARKDOWN: Final = "baselines.md"
_FORMAT_VERSION: Final = 1
_PAPER: Final = "paper"
_SOURCES: Final = {str(SplitBy.PUBLISHED): "ours, published split", str(SplitBy.PATIENT): "ours, split by patient"}


@dataclass(frozen=True)
class BaselineRow:
    """A network on a split: its scores, or why there are none.

    Attributes:
        network: Name of the network.
        split_by: ``published`` or ``patient``.
        steps: Number of steps of its run; ``None`` if it is not known.
        protocol_steps: Number of steps of the paper's number of epochs; ``None`` if it is not known.
        problem: Why there are no scores; ``None`` if there are.
        draws: The number of bootstrap samples for the intervals.
        rows: Number of validation examples.
        patients: Number of their known patients.
        scores: ``value``, ``low`` and ``high`` of each score.
    """

    network: str
    split_by: str
    steps: int | None = None
    protocol_steps: int | None = None
    problem: str | None = None
    draws: int | None = None
    rows: int | None = None
    patients: int | None = None
    scores: dict[str, dict[str, float | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if bool(self.scores) == bool(self.problem):
            raise ValueError(f"{self.network}, {self.split_by}: a row has either scores or a problem")

    @classmethod
    def untrained(cls, network: str, split_by: str) -> BaselineRow:
        """The row of a network that no command has trained."""
        return cls(network, split_by, problem="not trained")

    @property
    def remark(self) -> str:
        """What a reader must know before the scores are compared with the paper's."""
        if self.problem is not None:
            return self.problem
        short = self.steps != self.protocol_steps
        steps = f"{self.steps:,} steps" + (f", not the paper's {self.protocol_steps:,}" if short else "")
        return f"{steps}; {self.rows:,} examples of {self.patients:,} known patients"


@dataclass(frozen=True)
class _Table:
    """A table of the paper: its number, what it is of, its scores and the decimals that it prints."""

    number: int
    task: str
    config: str
    names: dict[str, str]
    decimals: int

    def published(self, network: str | None) -> Baseline | None:
        known = {name: entry.baseline for name, entry in NETWORKS.items()}
        return next((entry for entry in BASELINES if entry.model == known.get(network or "")), None)

    def without_network(self) -> list[Baseline]:
        """The paper's rows that no network here has."""
        known = {network.baseline for network in NETWORKS.values()}
        return [entry for entry in BASELINES if entry.config == self.config and entry.model not in known]


_TABLES: Final = (
    _Table(1, "classification", "cls_1.25mm", {"accuracy": "ACC", "quadratic_kappa": "QWK"}, 4),
    _Table(2, "detection", "det2d_1.25mm", {name: name for name in ("AP", "AP50", "AP75", "APs", "APm", "APl")}, 3),
)


def table_lines(rows: Sequence[BaselineRow]) -> Iterator[dict[str, Any]]:
    """Yield the lines of both tables: for each network the paper's scores, ours on the published split, ours by patient.

    A line has ``table``, ``network``, ``baseline`` (the name in the paper), ``variant``, ``source``, ``steps``, ``protocol_steps``, ``rows``,
    ``patients``, ``draws``, ``scores`` and ``remark``. What is not known is ``None``.
    """
    for table in _TABLES:
        for name, network in NETWORKS.items():
            if network.task != table.task:
                continue
            shared = {"table": table.number, "network": name, "baseline": network.baseline, "variant": network.variant}
            yield shared | _paper_line(table, table.published(name))
            for row in rows:
                if row.network == name:
                    counts = {key: value for key, value in asdict(row).items() if key in _COUNTS}
                    scores = {key: row.scores.get(key, _UNKNOWN) for key in table.names}
                    yield shared | counts | {"source": _SOURCES[row.split_by], "scores": scores, "remark": row.remark}
        for baseline in table.without_network():
            shared = {"table": table.number, "network": None, "baseline": baseline.model, "variant": None}
            line = _paper_line(table, baseline)
            yield shared | line | {"remark": f"{line['remark']}; there is no such network here".removeprefix("; ")}


_COUNTS: Final = ("steps", "protocol_steps", "rows", "patients", "draws")
_UNKNOWN: Final = {"value": None, "low": None, "high": None}


def _paper_line(table: _Table, baseline: Baseline | None) -> dict[str, Any]:
    published = dict(baseline.scores) if baseline else {}
    missing = [label for name, label in table.names.items() if name not in published]
    return dict.fromkeys(_COUNTS) | {
        "source": _PAPER,
        "scores": {name: {"value": published.get(name), "low": None, "high": None} for name in table.names},
        "remark": f"not published: {', '.join(missing)}" if missing else "",
    }


def read_rows(folder: Path) -> list[BaselineRow]:
    """The rows that an earlier command has written to a folder; none if there are none.

    Raises:
        TrainingError: They cannot be read.
    """
    path = folder / TABLES_JSON
    if not path.is_file():
        return []
    try:
        document = json.loads(path.read_text("utf-8"))
        if document["format_version"] != _FORMAT_VERSION:
            raise ValueError(f"format version {document['format_version']}, not {_FORMAT_VERSION}")
        return [BaselineRow(**row) for row in document["rows"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{path} cannot be read: {error}",
            remedy="move it elsewhere; the same command makes it again from the finished runs",
        ) from error


def write_tables(folder: Path, rows: Sequence[BaselineRow], build: BuildFolder) -> None:
    """Write ``baselines.json``, ``baselines.md`` and one CSV file per table."""
    lines = list(table_lines(rows))
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "format_version": _FORMAT_VERSION,
        "published": HOMEPAGE,
        "epochs": EPOCHS,
        "source": build.manifest["source"],
        "rows": [asdict(row) for row in rows],
        "lines": lines,
    }
    write_atomically(folder / TABLES_JSON, to_json(document))
    write_atomically(folder / TABLES_MARKDOWN, "\n".join(_markdown(lines)) + "\n")
    for table in _TABLES:
        write_atomically(folder / f"table{table.number}_{table.task}.csv", _csv(table, lines))


def _csv(table: _Table, lines: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    columns = ["network", "baseline", "variant", "source", *_COUNTS]
    parts = {"value": "", "low": "_low", "high": "_high"}
    writer = csv.writer(text, lineterminator="\n")
    names = [f"{name}{suffix}" for name in table.names for suffix in parts.values()]
    writer.writerow([*columns, *names, "remark"])
    for line in lines:
        if line["table"] == table.number:
            scores = [line["scores"][name][part] for name in table.names for part in parts]
            writer.writerow([*(line[column] for column in columns), *scores, line["remark"]])
    return text.getvalue()


def _markdown(lines: Sequence[dict[str, Any]]) -> Iterator[str]:
    draws = sorted({line["draws"] for line in lines} - {None})
    yield "# The paper's baselines\n"
    yield f"Published figures: Tables 1 and 2 of {HOMEPAGE}. They have no intervals, and an empty cell was not published."
    yield f"Protocol: {' and '.join(f'{count} epochs of {task}' for task, count in EPOCHS.items())}. The paper states"
    yield "nothing else of its training, nor which variants it used, so the other options are ours.\n"
    yield "The published split has slices of one patient in training and validation, so the paper's figures and ours on this split"
    yield "are too high by an unknown amount. The split by patient has no patient in both."
    if draws:
        yield f"Intervals: 95 %, by bootstrap over patients ({', '.join(map(str, draws))} samples). Scores are of the validation split."
    for table in _TABLES:
        yield f"\n## Table {table.number}: {table.task}, `{table.config}`\n"
        yield f"| network | scores | {' | '.join(table.names.values())} | remark |"
        yield "|---" * (len(table.names) + 3) + "|"
        for line in lines:
            if line["table"] == table.number:
                first = line["source"] == _PAPER
                variant = f" ({line['variant']})" if line["variant"] else ""
                cells = [format_cell(line["scores"][name], table.decimals) for name in table.names]
                remark = line["remark"].replace("|", "\\|")
                yield f"| {line['baseline'] + variant if first else ''} | {line['source']} | {' | '.join(cells)} | {remark} |"


def format_cell(score: dict[str, float | None], decimals: int, *, interval: bool = True) -> str:
    """A score with its interval, if it has one; empty if it is not known."""
    if score["value"] is None:
        return ""
    text = f"{score['value']:.{decimals}f}"
    if score["low"] is None or score["high"] is None or not interval:
        return text
    return f"{text} ({score['low']:.{decimals}f} to {score['high']:.{decimals}f})"
