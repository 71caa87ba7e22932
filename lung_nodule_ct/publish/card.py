"""The card: ``README.md`` with the YAML that the Hub and ``datasets`` read, and the prose of ``card/`` with a build's numbers.

All of it comes from a finished build (``build.json``, ``findings.json`` and, where there is one, ``audit.json``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml

from lung_nodule_ct.declaration.archives import RELEASES
from lung_nodule_ct.declaration.configs import DEFAULT_CONFIG
from lung_nodule_ct.declaration.labels import PATHOLOGY, SplitBy
from lung_nodule_ct.declaration.published import CITATION, DOI
from lung_nodule_ct.declaration.schema import Records
from lung_nodule_ct.publish.preview_config import PREVIEW, PREVIEW_SCHEMA, PREVIEW_SPLIT, PREVIEW_SUMMARY, PreviewShard
from lung_nodule_ct.publish.text import escape, fill, sections, table
from lung_nodule_ct.read.build_folder import read_build
from lung_nodule_ct.read.sidecars import record_sidecar
from lung_nodule_ct.targets.hub_features import InfoOfConfig

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from lung_nodule_ct.declaration.schema import Column
    from lung_nodule_ct.read.audit_report import AuditReport
    from lung_nodule_ct.read.build_folder import BuildFolder

CARD: Final = "README.md"
PLACEHOLDER: Final = "USER/lung_nodule_ct"
TITLE: Final = "Cross spatio-temporal pathology-based lung nodule CT"
TAGS: Final = ("medical", "radiology", "ct", "chest", "lung-nodule", "pathology", "longitudinal", "biology")

# the Creative Commons licences that the Hub knows by name: https://huggingface.co/docs/hub/repositories-licenses
_HUB_LICENCE = re.compile(r"cc0-1\.0|cc-by(?:-nc)?(?:-sa|-nd)?-[234]\.0")
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


@dataclass(frozen=True)
class Shown:
    """A picture of the card.

    Attributes:
        path: Where it stands in the build.
        alt: What it shows, in a sentence.
    """

    path: str
    alt: str


def card_text(
    build: BuildFolder,
    preview: PreviewShard | None = None,
    pictures: Iterable[Shown] = (),
    audit: AuditReport | None = None,
    plots: Iterable[Shown] = (),
    repository: str = PLACEHOLDER,
) -> str:
    """The content of ``README.md``.

    Args:
        build: A finished build of Parquet.
        preview: The shard of the ``preview`` config, which is then the default.
        pictures: What to show.
        audit: What an audit of this build found.
        plots: Its plots.
        repository: Where it shall stand on the Hub.

    Raises:
        BuildFolderError: ``findings.json`` is missing or damaged.
    """
    head = yaml.safe_dump(_metadata(build, preview), sort_keys=False, allow_unicode=True, width=120)
    prose = prose_of(build)
    facts = {
        **_facts(build),
        **prose,
        "citation": CITATION,
        "repository": repository,
        "licence": _licence_text(build),
        "volume_reader": _VOLUME_READERS[build.manifest.get("volume_codec", "raw")],
        "pictures": _gallery(pictures),
        "configs": table(("config", "an example is", "examples", "size"), _config_rows(build, preview)),
        "splits_note": _splits_note(build),
        "columns": "\n\n".join(_columns(build, preview)),
        "figures": table(
            ("figure", "this build", "preprint", "published version", "agrees with", "counted"),
            _figure_rows(build.report["figures"]),
        ),
        "findings": table(("finding", "grade", "cases", "meaning"), _finding_rows(build.report["summary"])),
        "audit": "" if audit is None else _audit_text(audit, plots),
    }
    body = re.sub(r"\n{3,}", "\n\n", fill("README", facts))
    return f"---\n{head}---\n\n{body}"


_VOLUME_READERS = {
    "raw": """A volume is raw little-endian voxels and a shape; one line reads it, without any package of ours:

```python
import numpy as np

volume = np.frombuffer(scan["volume"]["bytes"], "<i2").reshape(
    scan["volume"]["shape"]
)  # z, y, x; uint8 in masks and det3d_bmp
```""",
    "b2nd": """A volume is a blosc2 frame (b2nd); one line opens it (`pip install blosc2`), and what is sliced is decoded:

```python
import blosc2

volume = blosc2.ndarray_from_cframe(scan["volume"]["bytes"])  # z, y, x
patch = volume[10:42, 100:196, 100:196]  # a NumPy array
```""",
}


def prose_of(build: BuildFolder) -> dict[str, str]:
    """The sections of ``card/`` with what this build knows, in Markdown."""
    return sections(_facts(build))


def licences(build: BuildFolder) -> list[str]:
    """The licences of all records, none where one of them is not known: it is never assumed."""
    records = build.manifest["records"]
    known = [record["licence"] for record in records if record["licence"]]
    return sorted(set(known)) if known and len(known) == len(records) else []


def _facts(build: BuildFolder) -> dict[str, str]:
    shared = {
        f"{name}, {pair}": count
        for name, pairs in build.report["shared_patients"].items()
        for pair, count in pairs.items()
    }
    return {
        "doi": DOI,
        "records": ", ".join(
            f"[{escape(number)}]({url}){f' (DOI {escape(doi)})' if doi else ''}" for number, url, doi in _records(build)
        ),
        "classes": ", ".join(
            f"{entry.folder} {entry.name} ({'malignant' if entry.malignant else 'benign'})" for entry in PATHOLOGY
        ),
        "shared": ", ".join(f"{count} in {pair}" for pair, count in shared.items() if count) or "none in this build",
        "dates": (
            "This build keeps the source names, so **it spells those dates**."
            if build.manifest["keep_source_names"]
            else "They did not leave the builder: scans carry their rank in time and the days since the patient's first scan."
        ),
    }


def _records(build: BuildFolder) -> list[tuple[str, str, str | None]]:
    """Number, address and DOI of the records that the archives are of; of the published release where that is not known."""
    own = [
        (str(record["number"]), f"https://zenodo.org/records/{int(record['number'])}", record["doi"])
        for record in build.manifest["records"]
    ]
    return own or [(str(RELEASES[0].record(part)), RELEASES[0].url(part), None) for part in "AB"]


def _metadata(build: BuildFolder, preview: PreviewShard | None) -> dict[str, Any]:
    total = sum(rows for splits in build.configs.values() for rows in splits.values())
    default = DEFAULT_CONFIG.name if DEFAULT_CONFIG.name in build.configs else next(iter(build.configs))
    configs: list[dict[str, Any]] = [
        {
            "config_name": name,
            "data_files": [{"split": split, "path": f"data/{name}/{split}-*.parquet"} for split in splits],
        }
        for name, splits in build.configs.items()
    ]
    infos = [(name, _info(build, name)) for name in build.configs]
    if preview is not None:
        default = PREVIEW
        configs.insert(0, {"config_name": PREVIEW, "data_files": [{"split": PREVIEW_SPLIT, "path": preview.path}]})
        size = (PREVIEW_SPLIT, preview.arrow_bytes, preview.file_bytes)
        infos.insert(0, (PREVIEW, InfoOfConfig(PREVIEW_SCHEMA.columns, {PREVIEW_SPLIT: preview.rows}, [size])))
    for config in configs:
        if config["config_name"] == default:
            config["default"] = True
    return {
        "pretty_name": TITLE,
        **_licence_metadata(build),
        "annotations_creators": ["expert-generated"],
        "source_datasets": ["original"],
        "task_categories": list(dict.fromkeys(build.config(name).task for name in build.configs)),
        "size_categories": [next((name for limit, name in _SIZES if total < limit), "1M<n<10M")],
        "tags": list(TAGS),
        "configs": configs,
        # what push_to_hub itself writes
        "dataset_info": [{"config_name": name, **info.to_yaml()} for name, info in infos],
    }


def _info(build: BuildFolder, name: str) -> InfoOfConfig:
    files = build.manifest["configs"][name]["files"]
    return InfoOfConfig(
        build.columns(name),
        build.configs[name],
        [(file["split"], file["arrow_bytes"], file["bytes"]) for file in files],
    )


def _licence_metadata(build: BuildFolder) -> dict[str, str]:
    known = licences(build)
    if not known:
        return {"license": "unknown"}
    if len(known) == 1 and _HUB_LICENCE.fullmatch(known[0]):
        return {"license": known[0]}
    return {"license": "other", "license_name": " and ".join(known), "license_link": _records(build)[0][1]}


def _licence_text(build: BuildFolder) -> str:
    if not licences(build):
        return "Unknown to this build: read it on the records before you use or share the data."
    named = ", ".join(
        f"{escape(str(record['doi'] or record['number']))}: {escape(record['licence'])}"
        for record in build.manifest["records"]
    )
    return f"As the records have it ({named})."


def _splits_note(build: BuildFolder) -> str:
    if SplitBy(build.manifest["split_by"]) is SplitBy.PATIENT:
        return "Split by patient: folds 0 to 2 are train, 3 is validation, 4 is test; no patient stands in two splits."
    return "Splits are those that the authors published; what no list names is in `unassigned`."


def _config_rows(build: BuildFolder, preview: PreviewShard | None) -> Iterator[tuple[str, ...]]:
    if preview is not None:
        yield f"`{PREVIEW}`", f"one picture. {PREVIEW_SUMMARY}", f"{preview.rows:,}", _size(preview.file_bytes)
    for name, splits in build.configs.items():
        rows = ", ".join(f"{escape(split)} {count:,}" for split, count in splits.items())
        size = sum(file["bytes"] for file in build.manifest["configs"][name]["files"])
        yield f"`{name}`", f"{build.config(name).example}. {build.config(name).summary}", rows, _size(size)


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def _columns(build: BuildFolder, preview: PreviewShard | None) -> Iterator[str]:
    if preview is not None:
        yield _columns_of(PREVIEW, PREVIEW_SCHEMA.columns)
    for name in build.configs:
        yield _columns_of(name, build.columns(name))


def _columns_of(name: str, columns: Iterable[Column]) -> str:
    rows = [row for column in columns for row in _column_rows("", column)]
    return f"<details><summary><code>{name}</code></summary>\n\n{table(('column', 'meaning'), rows)}\n\n</details>"


def _column_rows(prefix: str, column: Column) -> Iterator[tuple[str, str]]:
    yield f"`{prefix}{column.name}`", column.doc + (", or null" if column.nullable else "")
    if isinstance(column.type, Records):
        for field in column.type.fields:
            yield from _column_rows(f"{prefix}{column.name}[].", field)


def _figure_rows(figures: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    for entry in figures:
        numbers = (entry[name] for name in ("here", "preprint", "published"))
        shown = ("" if number is None else f"{number:,}" for number in numbers)
        yield escape(entry["figure"]), *shown, entry["agrees_with"] or "", escape(entry["counted"])


def _finding_rows(findings: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    for code, entry in findings.items():
        yield f"`{code}`", escape(entry["grade"]), f"{entry['count']:,}", escape(entry["meaning"])


def _audit_text(audit: AuditReport, plots: Iterable[Shown]) -> str:
    rows = [
        (escape(check.title), escape(check.verdict), escape(check.measured), escape(check.expected or ""))
        for check in audit.checks
    ]
    return f"## Audit\n\n{table(('check', 'verdict', 'measured', 'expected'), rows)}\n\n{_gallery(plots)}"


def _gallery(pictures: Iterable[Shown]) -> str:
    return "\n\n".join(f"![{escape(picture.alt)}]({picture.path})\n*{escape(picture.alt)}*" for picture in pictures)


def write_first_card(folder: Path) -> None:
    """Write the card of a build that is about to appear, without pictures or preview; ``lung-nodule-ct card`` adds them.

    Args:
        folder: The build: shards, ``build.json`` and ``findings.json``.
    """
    (folder / CARD).write_text(card_text(read_build(folder)), encoding="utf-8")
    record_sidecar(folder, CARD, by="card")
