"""The Hub README: the YAML that the Hub and ``datasets`` read, and the prose of ``card/`` with the build's own numbers."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import datasets
import yaml

from lung_nodule_ct.beside import record_beside
from lung_nodule_ct.spec.archives import RELEASES
from lung_nodule_ct.spec.configs import DEFAULT_CONFIG
from lung_nodule_ct.spec.published import CITATION, DOI
from lung_nodule_ct.spec.schema import Records
from lung_nodule_ct.spec.splits import SplitBy
from lung_nodule_ct.targets.features import built_schema, to_features

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from lung_nodule_ct.spec.schema import Column
    from lung_nodule_ct.targets.build import Build, BuildOptions, BuiltConfig

# the Creative Commons licences that the Hub knows by name: https://huggingface.co/docs/hub/repositories-licenses
_HUB_LICENCE = re.compile(r"cc0-1\.0|cc-by(?:-nc)?(?:-sa|-nd)?-[234]\.0")
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def write_card(folder: Path, build: Build) -> None:
    """Write ``README.md`` into a Hub folder.

    Args:
        folder: The Hub folder.
        build: What was built.
    """
    head = yaml.safe_dump(_metadata(build), sort_keys=False, allow_unicode=True, width=120)
    (folder / "README.md").write_text(f"---\n{head}---\n\n{_prose(build)}", encoding="utf-8")
    record_beside(folder, "README.md", by="card")


def dataset_info_of(config: BuiltConfig, options: BuildOptions) -> datasets.DatasetInfo:
    """What ``datasets`` wants to know of a built config."""
    splits = datasets.SplitDict()
    for split, rows in config.rows.items():
        size = sum(written.arrow_bytes for written in config.files if written.shard.split == split)
        splits.add(datasets.SplitInfo(split, num_bytes=size, num_examples=rows))
    return datasets.DatasetInfo(
        features=to_features(built_schema(config.plan.config, keep_source_names=options.keep_source_names)),
        splits=splits,
        download_size=sum(written.file_bytes for written in config.files),
        dataset_size=sum(written.arrow_bytes for written in config.files),
    )


def _metadata(build: Build) -> dict[str, Any]:
    built = build.configs
    total = sum(rows for config in built.values() for rows in config.rows.values())
    default = DEFAULT_CONFIG.name if DEFAULT_CONFIG.name in built else next(iter(built), None)
    return {
        "pretty_name": "Cross spatio-temporal pathology-based lung nodule CT",
        **_licence_metadata(build),
        "annotations_creators": ["expert-generated"],
        "source_datasets": ["original"],
        "task_categories": list(dict.fromkeys(config.plan.config.task for config in built.values())),
        "size_categories": [next((name for limit, name in _SIZES if total < limit), "1M<n<10M")],
        "tags": ["medical", "radiology", "ct", "chest", "lung-nodule", "pathology", "longitudinal", "biology"],
        "configs": [
            {
                "config_name": name,
                **({"default": True} if name == default else {}),
                "data_files": [{"split": split, "path": f"data/{name}/{split}-*.parquet"} for split in config.rows],
            }
            for name, config in built.items()
        ],
        "dataset_info": [
            # what push_to_hub itself writes
            {"config_name": name, **dataset_info_of(config, build.options)._to_yaml_dict()}
            for name, config in built.items()
        ],
    }


def _prose(build: Build) -> str:
    built, options, report = build.configs, build.options, build.report
    shared = {
        f"{name}, {pair}": count for name, config in built.items() for pair, count in config.shared_patients.items()
    }
    by_patient = options.split_by is SplitBy.PATIENT
    return Template(_template()).substitute(
        doi=DOI,
        citation=CITATION,
        repository="USER/lung_nodule_ct",
        records=", ".join(f"[{RELEASES[0].record(part)}]({RELEASES[0].url(part)})" for part in "AB"),
        licence=_licence_text(build),
        configs=_table(("config", "an example is", "examples"), _config_rows(built)),
        columns="\n\n".join(_columns_of(name, config, options) for name, config in built.items()),
        figures=_table(("figure", "this build", "preprint", "published version"), _figure_rows(report["figures"])),
        findings=_table(("finding", "grade", "cases", "meaning"), _finding_rows(report["summary"])),
        shared=", ".join(f"{count} in {pair}" for pair, count in shared.items() if count) or "none in this build",
        splits_note=(
            "Split by patient: folds 0 to 2 are train, 3 is validation, 4 is test; no patient stands in two splits."
            if by_patient
            else "Splits are those that the authors published; what no list names is in `unassigned`."
        ),
        privacy=(
            "This build keeps the source names, so **it spells those dates**."
            if options.keep_source_names
            else "They did not leave the builder: scans carry their rank in time and the days since the patient's first scan."
        ),
    )


def _licences(build: Build) -> list[str]:
    """The licences of all records, none where one of them is not known: it is never assumed."""
    known = [record.licence for record in build.records if record.licence]
    return sorted(set(known)) if known and len(known) == len(build.records) else []


def _licence_metadata(build: Build) -> dict[str, str]:
    licences = _licences(build)
    if not licences:
        return {"license": "unknown"}
    if len(licences) == 1 and _HUB_LICENCE.fullmatch(licences[0]):
        return {"license": licences[0]}
    return {"license": "other", "license_name": " and ".join(licences)}


def _licence_text(build: Build) -> str:
    if not _licences(build):
        return "Unknown to this build: read it on the records before you use or share the data."
    named = ", ".join(f"{record.doi or record.number}: {record.licence}" for record in build.records)
    return f"As the records have it ({named})."


def _template() -> str:
    packaged = files("lung_nodule_ct") / "card" / "README.md"
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(__file__).parents[2] / "card" / "README.md").read_text(encoding="utf-8")  # in a checkout


def _config_rows(built: Mapping[str, BuiltConfig]) -> Iterator[tuple[str, ...]]:
    for name, config in built.items():
        rows = ", ".join(f"{split} {count:,}" for split, count in config.rows.items())
        yield f"`{name}`", f"{config.plan.config.example}. {config.plan.config.summary}", rows


def _columns_of(name: str, config: BuiltConfig, options: BuildOptions) -> str:
    schema = built_schema(config.plan.config, keep_source_names=options.keep_source_names)
    rows = [row for column in schema.columns for row in _column_rows("", column)]
    return f"<details><summary><code>{name}</code></summary>\n\n{_table(('column', 'meaning'), rows)}\n\n</details>"


def _column_rows(prefix: str, column: Column) -> Iterator[tuple[str, str]]:
    yield f"`{prefix}{column.name}`", column.doc + (", or null" if column.nullable else "")
    if isinstance(column.kind, Records):
        for field in column.kind.fields:
            yield from _column_rows(f"{prefix}{column.name}[].", field)


def _figure_rows(figures: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    for entry in figures:
        numbers = (entry[name] for name in ("here", "preprint", "published"))
        yield entry["figure"], *("" if number is None else f"{number:,}" for number in numbers)


def _finding_rows(findings: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    for code, entry in findings.items():
        yield f"`{code}`", entry["grade"], f"{entry['count']:,}", entry["meaning"]


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
