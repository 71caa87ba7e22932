"""The text of a card: ``README.md`` with the YAML for the Hub and ``datasets``, and the prose and numbers of a build.

Everything comes from a finished build: ``build.json``, ``findings.json`` and, if there is one, ``audit.json``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import yaml

from lung_nodule_ct.declaration.configs import DEFAULT_CONFIG
from lung_nodule_ct.declaration.labels import SplitBy
from lung_nodule_ct.declaration.manifest import VolumeCodec
from lung_nodule_ct.declaration.published import CITATION
from lung_nodule_ct.declaration.schema import Records, Voxels
from lung_nodule_ct.publish.preview_config import PREVIEW, PREVIEW_SCHEMA, PREVIEW_SPLIT, PREVIEW_SUMMARY, PreviewShard
from lung_nodule_ct.publish.prose import (
    TAGS,
    TITLE,
    build_facts,
    escape,
    fill,
    licences,
    markdown_table,
    prose_of,
    record_links,
    warnings,
)
from lung_nodule_ct.read.build_folder import read_build
from lung_nodule_ct.read.sidecars import record_sidecar
from lung_nodule_ct.system.progress import readable_size
from lung_nodule_ct.targets.columns import InfoOfConfig

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from lung_nodule_ct.declaration.schema import Column
    from lung_nodule_ct.read.audit_report import AuditReport
    from lung_nodule_ct.read.build_folder import BuildFolder

CARD: Final = "README.md"
CARD_COMMAND: Final = "card"
PLACEHOLDER: Final = "USER/lung_nodule_ct"

# The Creative Commons licences with a name on the Hub: https://huggingface.co/docs/hub/repositories-licenses
_HUB_LICENCE = re.compile(r"cc0-1\.0|cc-by(?:-nc)?(?:-sa|-nd)?-[234]\.0")
# What the code of a card loads, as _loading writes it.
_LOADED: Final = re.compile(r"""(load_dataset\(")([^"\s]+)(")""")
_EMPTY_FOLD = re.compile(r"<details><summary>[^\n]*</summary>\s*</details>")
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))

# How a volume becomes an array: the import, and a line of code.
_VOLUME_READERS: Final = {
    VolumeCodec.RAW: (
        "import numpy as np",
        'volume = np.frombuffer(scan["{column}"]["bytes"], "{dtype}").reshape(scan["{column}"]["shape"])',
    ),
    VolumeCodec.B2ND: (
        "import blosc2",
        'volume = blosc2.ndarray_from_cframe(scan["{column}"]["bytes"])[:]',
    ),
}
_VOLUME_NOTES: Final = {
    VolumeCodec.RAW: 'A volume is stored as raw little-endian voxels with their shape: `"<i2"` reads int16 columns, `"u1"` uint8 columns.',
    VolumeCodec.B2ND: "A volume is stored as a blosc2 frame (b2nd), which `pip install blosc2` reads; `[10:42, :, :]` decodes only what it touches.",
}


class CardPicture(NamedTuple):
    """A picture of a card: its path in the build, and one sentence about its content."""

    path: str
    alt: str


def card_text(
    build: BuildFolder,
    preview: PreviewShard | None = None,
    pictures: Iterable[CardPicture] = (),
    audit: AuditReport | None = None,
    plots: Iterable[CardPicture] = (),
    repository: str = PLACEHOLDER,
) -> str:
    """Return the content of ``README.md``.

    Args:
        build: A finished Parquet build.
        preview: The shard of the config ``preview``, which becomes the default config.
        pictures: Pictures of examples.
        audit: The audit of this build.
        plots: The plots of the audit.
        repository: The repository on the Hub that the code of the card loads.

    Raises:
        BuildFolderError: ``findings.json`` is missing or damaged.
    """
    head = yaml.safe_dump(_metadata(build, preview), sort_keys=False, allow_unicode=True, width=120)
    pictures = tuple(pictures)
    shown = f"{_volume_config(build)}.png"
    first = sorted(pictures, key=lambda picture: not picture.path.endswith(f"/{shown}"))[:1]
    facts = {
        **build_facts(build),
        **prose_of(build),
        **warnings(build),
        "citation": CITATION,
        "licence": _licence_text(build),
        "loading": _loading(build, repository),
        "volumes": _volumes(build),
        "picture": _gallery(first),
        "pictures": _gallery(picture for picture in pictures if picture not in first),
        "configs": markdown_table(("config", "one example is", "examples", "size"), _config_rows(build, preview)),
        "splits_note": _splits_note(build),
        "columns": "\n\n".join(_columns(build, preview)),
        "figures": markdown_table(
            ("figure", "this build", "preprint", "published version", "agrees with", "counted"),
            _figure_rows(build.report["figures"]),
        ),
        "findings": markdown_table(("finding", "grade", "cases", "meaning"), _finding_rows(build.report["summary"])),
        "audit": "" if audit is None else _audit_text(audit, plots),
    }
    body = re.sub(r"\n{3,}", "\n\n", _EMPTY_FOLD.sub("", fill("README", facts)))
    return f"---\n{head}---\n\n{body}"


def loaded_repositories(text: str) -> set[str]:
    """Return the repositories that the code of a card loads."""
    return {name for _, name, _ in _LOADED.findall(text)}


def with_repository(text: str, repository: str) -> str:
    """Return a card whose code loads another repository."""
    return _LOADED.sub(lambda match: match[1] + repository + match[3], text)


def write_first_card(folder: Path) -> None:
    """Write the card of a new build, without pictures and preview, which ``lung-nodule-ct card`` adds later.

    Args:
        folder: The build: shards, ``build.json`` and ``findings.json``.
    """
    (folder / CARD).write_text(card_text(read_build(folder)), encoding="utf-8")
    record_sidecar(folder, CARD, by=CARD_COMMAND)


def _metadata(build: BuildFolder, preview: PreviewShard | None) -> dict[str, Any]:
    """The YAML at the top of the card."""
    default = PREVIEW if preview else _default_config(build)
    total = sum(rows for splits in build.configs.values() for rows in splits.values())
    configs: list[dict[str, Any]] = [
        {
            "config_name": name,
            "data_files": [{"split": split, "path": f"data/{name}/{split}-*.parquet"} for split in splits],
        }
        for name, splits in build.configs.items()
    ]
    infos = [(name, _info(build, name)) for name in build.configs]
    if preview is not None:
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
        # as push_to_hub writes it
        "dataset_info": [{"config_name": name, **info.to_yaml()} for name, info in infos],
    }


def _default_config(build: BuildFolder) -> str:
    return DEFAULT_CONFIG.name if DEFAULT_CONFIG.name in build.configs else next(iter(build.configs))


def _info(build: BuildFolder, name: str) -> InfoOfConfig:
    files = [(file["split"], file["arrow_bytes"], file["bytes"]) for file in build.files(name)]
    return InfoOfConfig(build.columns(name), build.configs[name], files)


def _licence_metadata(build: BuildFolder) -> dict[str, str]:
    known = licences(build)
    if not known:
        return {"license": "unknown"}
    if len(known) == 1 and _HUB_LICENCE.fullmatch(known[0]):
        return {"license": known[0]}
    return {"license": "other", "license_name": " and ".join(known), "license_link": record_links(build)[0].url}


def _licence_text(build: BuildFolder) -> str:
    if not licences(build):
        return "Unknown to this build. Read it on the pages of the records before you use or share the data."
    by_record = ", ".join(
        f"{escape(str(record['doi'] or record['number']))}: {escape(record['licence'])}"
        for record in build.manifest["records"]
    )
    return f"As the records state it ({by_record})."


def _loading(build: BuildFolder, repository: str) -> str:
    """Code that loads the default config, streams one with volumes, and reads a volume."""
    default, volumes = _default_config(build), _volume_config(build)
    imports, lines = ["from datasets import load_dataset"], []
    if default != volumes:
        lines.append(f'examples = load_dataset("{repository}", "{default}", split="{build.splits(default)[0]}")')
    if volumes is not None:
        split = build.splits(volumes)[0]
        column = next(column for column in build.columns(volumes) if isinstance(column.type, Voxels))
        is_ct = column.type == Voxels("int16")
        needed, reader = _VOLUME_READERS[_codec(build)]
        imports.insert(0, needed)
        lines += [
            f'scans = load_dataset("{repository}", "{volumes}", split="{split}", streaming=True)',
            f"scan = next(iter(scans))  # its volume has the axes z, y, x{', in HU' if is_ct else ''}",
            reader.format(column=column.name, dtype="<i2" if is_ct else "u1"),
        ]
    return "\n".join([*imports, "", *lines])


def _codec(build: BuildFolder) -> VolumeCodec:
    return VolumeCodec(build.manifest.get("volume_codec", VolumeCodec.RAW))


def _volumes(build: BuildFolder) -> str:
    """How volumes are stored, and their coordinates; empty if the build has no volumes."""
    config = _volume_config(build)
    if config is None:
        return ""
    note = _VOLUME_NOTES[_codec(build)]
    return f"{note}\n\n{fill('coordinates', {})}" if build.config(config).schema.has_frame else note


def _volume_config(build: BuildFolder) -> str | None:
    """The first config with volumes, preferably one with world coordinates."""
    configs = [build.config(name) for name in build.configs if build.config(name).schema.has_voxels]
    return next((config.name for config in sorted(configs, key=lambda config: not config.schema.has_frame)), None)


def _splits_note(build: BuildFolder) -> str:
    if SplitBy(build.manifest["split_by"]) is SplitBy.PATIENT:
        return "Splits are by patient, without overlap: folds 0 to 2 are train, 3 is validation, 4 is test."
    return "Splits are those that the authors published. Examples that no published list names are in `unassigned`."


def _config_rows(build: BuildFolder, preview: PreviewShard | None) -> Iterator[tuple[str, ...]]:
    if preview is not None:
        yield f"`{PREVIEW}`", f"one picture. {PREVIEW_SUMMARY}", f"{preview.rows:,}", readable_size(preview.file_bytes)
    for name, splits in build.configs.items():
        rows = ", ".join(f"{escape(split)} {count:,}" for split, count in splits.items())
        size = sum(file["bytes"] for file in build.files(name))
        yield f"`{name}`", f"{build.config(name).example}. {build.config(name).summary}", rows, readable_size(size)


def _columns(build: BuildFolder, preview: PreviewShard | None) -> Iterator[str]:
    if preview is not None:
        yield _columns_of(PREVIEW, PREVIEW_SCHEMA.columns)
    for name in build.configs:
        yield _columns_of(name, build.columns(name))


def _columns_of(name: str, columns: Iterable[Column]) -> str:
    rows = [row for column in columns for row in _column_rows("", column)]
    return f"<details><summary><code>{name}</code></summary>\n\n{markdown_table(('column', 'meaning'), rows)}\n\n</details>"


def _column_rows(prefix: str, column: Column) -> Iterator[tuple[str, str]]:
    yield f"`{prefix}{column.name}`", column.doc + (", or null" if column.nullable else "")
    if isinstance(column.type, Records):
        for field in column.type.fields:
            yield from _column_rows(f"{prefix}{column.name}[].", field)


def _figure_rows(figures: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    for entry in figures:
        numbers = (entry[name] for name in ("here", "preprint", "published"))
        cells = ("" if number is None else f"{number:,}" for number in numbers)
        yield escape(entry["figure"]), *cells, entry["agrees_with"] or "", escape(entry["counted"])


def _finding_rows(findings: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    for code, entry in findings.items():
        yield f"`{code}`", escape(entry["grade"]), f"{entry['count']:,}", escape(entry["meaning"])


def _audit_text(audit: AuditReport, plots: Iterable[CardPicture]) -> str:
    rows = [
        (escape(check.title), escape(check.verdict), escape(check.measured), escape(check.expected or ""))
        for check in audit.checks
    ]
    table = markdown_table(("check", "verdict", "measured", "expected"), rows)
    return f"<details><summary>Audit</summary>\n\n{table}\n\n{_gallery(plots)}\n\n</details>"


def _gallery(pictures: Iterable[CardPicture]) -> str:
    return "\n\n".join(f"![{escape(picture.alt)}]({picture.path})\n*{escape(picture.alt)}*" for picture in pictures)
