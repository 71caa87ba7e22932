"""The page: the chosen rows of every config, their pictures, and the audit of the build.

It is one file: template, style, scripts and data joined, so that no text of the data can become markup.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Any, Final

from lung_nodule_ct.declaration.labels import PATHOLOGY
from lung_nodule_ct.declaration.manifest import GENERATOR
from lung_nodule_ct.declaration.published import SIZE_GROUPS
from lung_nodule_ct.declaration.schema import Flag, Integer, Real, Records
from lung_nodule_ct.errors import OutputError
from lung_nodule_ct.geometry.display import PRESETS, stretch_labels
from lung_nodule_ct.preview.pixels import KNOTS, encode, encode_lossless, shrink
from lung_nodule_ct.preview.samples import (
    ShownColumns,
    pathology_classes,
    records_with,
    samples,
    size_groups,
    size_name,
)
from lung_nodule_ct.preview.scans import PageScans, as_text, fill
from lung_nodule_ct.preview.selection import draw
from lung_nodule_ct.read.audit_report import read_audit
from lung_nodule_ct.system.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from lung_nodule_ct.preview.samples import SampledRow
    from lung_nodule_ct.preview.scans import OnProgress
    from lung_nodule_ct.preview.selection import Choice, Selection
    from lung_nodule_ct.read.build_folder import BuildFolder


_PICTURE_SIDE = 512
_LOSSLESS_SIDE = 128  # small pictures are stored without loss
# columns that the page shows in their own way; any other number or flag is listed with the picture
_COPIED: Final = ("fold", "timepoint", "num_timepoints", "days_since_first", "slice_thickness_mm", "augmented")
_NOT_LISTED: Final = (*_COPIED, "width", "height", "malignant")


@dataclass(frozen=True)
class Document:
    """The content of a page.

    Attributes:
        page: All content except the slices of the scans, as JSON values.
        slices: The pictures of the slices of each scan by its key, as JSON values; empty if a server has them.
        volumes: The row of each scan by its key.
    """

    page: Mapping[str, Any]
    slices: Mapping[str, Mapping[str, Any]]
    volumes: Mapping[str, SampledRow]


def collect_document(
    build: BuildFolder, max_bytes: int | None, seed: int, scale: float, choice: Choice, on_progress: OnProgress
) -> Document:
    """Read the content of the page. Pictures and volumes are read only of the rows that it shows.

    Args:
        build: The build.
        max_bytes: Maximum size of the content as text; ``None`` for a page whose slices a server has.
        seed: Seed of the draw of examples.
        scale: Number of examples, relative to the page of the default size.
        choice: What is shown in place of a sample of the scans.
        on_progress: Called for each picture and scan that was read.

    Raises:
        BuildFolderError: A shard or ``audit.json`` is damaged, or the build has no such patient or scan.
    """
    audit = read_audit(build.folder)
    selections = draw(build, scale, seed, choice)
    pictures = [selection for selection in selections if not selection.config.schema.has_voxels]
    items = {selection.config.name: list(_picture_items(build, selection, on_progress)) for selection in pictures}
    used = sum(len(item["picture"] or "") + 1000 for shown in items.values() for item in shown)
    left = None if max_bytes is None else max_bytes - used
    scans = PageScans(left)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        if left is not None:
            share = left / max(1, len(selections) - len(pictures))
            selections = [
                fill(build, selection, share, pool) if selection.config.schema.has_voxels else selection
                for selection in selections
            ]
        volumes = [selection for selection in selections if selection.config.schema.has_voxels]
        # longitudinal configs first: the scans that other configs share with them are then not read again
        for selection in sorted(volumes, key=lambda selection: not selection.config.longitudinal):
            scans.plan(selection)
        scans.read(build, pool, on_progress)
    for selection in volumes:
        items[selection.config.name] = [
            _item(selection, sampled, **({"scan": key} if (key := scans.key_of(sampled)) else {"picture": None}))
            for sampled in selection.rows
        ]
    page = {
        "generator": GENERATOR,
        "title": "lung_nodule_ct",  # not the name of the folder, which can contain anything
        "seed": seed,
        "choice": choice.text,
        "isServed": max_bytes is None,
        "splitBy": build.manifest["split_by"],
        "limit": build.limit,
        "knots": KNOTS,
        "windows": [
            {name: getattr(window, name) for name in ("name", "low", "high", "center", "width")} for window in PRESETS
        ],
        "classes": [{"name": entry.name, "letter": entry.letter, "malignant": entry.malignant} for entry in PATHOLOGY],
        "sizeGroups": [size_name(group) for group in SIZE_GROUPS],
        "configs": [
            {
                "name": selection.config.name,
                "summary": selection.config.summary,
                "longitudinal": selection.config.longitudinal,
                "totals": dict(selection.totals),
                "hasVolumes": selection.config.schema.has_voxels,
                "items": items[selection.config.name],
            }
            for selection in selections
        ],
        "scans": scans.described,
        "audit": audit and {"generator": audit.generator, "checks": [check.to_dict() for check in audit.checks]},
    }
    return Document(page, scans.slices, scans.rows)


def _item(selection: Selection, sampled: SampledRow, **more: Any) -> dict[str, Any]:
    """A row without its pictures, as JSON values."""
    row, schema = sampled.row, selection.config.schema
    listed = [column.name for column in schema.columns if isinstance(column.type, Flag | Integer | Real)]
    facts = {name: row[name] for name in listed if name not in _NOT_LISTED}
    return {
        "id": row.get("image_id") or row.get("case_id") or row.get("scan_id"),
        "split": sampled.split,
        "row": sampled.index,
        "classes": pathology_classes(schema, row),
        "sizes": size_groups(row),
        **{name: row[name] for name in _COPIED if name in row},
        **({"patient": row["patient_id"]} if "patient_id" in row else {}),
        **({"facts": facts} if facts else {}),
        **more,
    }


def _picture_items(build: BuildFolder, selection: Selection, on_progress: OnProgress) -> Iterator[dict[str, Any]]:
    """The rows of a config with pictures, or with neither pictures nor volumes."""
    config = selection.config
    if ShownColumns.of(config.schema).picture is None:
        yield from (_item(selection, sampled, picture=None) for sampled in selection.rows)
        return
    has_boxes = any(isinstance(column.type, Records) for column in config.schema.columns)
    chosen: defaultdict[str, list[int]] = defaultdict(list)
    for sampled in selection.rows:
        chosen[sampled.split].append(sampled.index)
    for done, sample in enumerate(samples(build, config.name, chosen), 1):
        pixels = sample.pixels
        if pixels.ndim == 3:  # a published picture with colours is shown in grey
            pixels = pixels.mean(axis=-1).astype(pixels.dtype)
        pixels, top = stretch_labels(pixels)
        height, width = pixels.shape
        lossless = max(pixels.shape) <= _LOSSLESS_SIDE or top is not None
        data = encode_lossless(pixels) if lossless else encode(shrink(pixels, _PICTURE_SIDE))
        more: dict[str, Any] = {} if top is None else {"stretchedFrom": top}
        if has_boxes:
            more["boxes"] = [entry["bbox"] for entry in records_with(sample.row, "bbox")]
        yield _item(selection, sample, picture=as_text(data), width=width, height=height, **more)
        on_progress(config.name, done, len(selection.rows))


MARK: Final = '<meta name="generator" content="lung_nodule_ct preview">'
"""The line that identifies a page as an output of this package."""

_SCRIPTS = (
    "dom.js",
    "marks.js",
    "windows.js",
    "volume.js",
    "zoom.js",
    "tools.js",
    "toolbar.js",
    "help.js",
    "pane.js",
    "side.js",
    "scan.js",
    "linking.js",
    "compare.js",
    "viewer.js",
    "gallery.js",
    "curve.js",
    "patients.js",
    "audit.js",
    "links.js",
    "main.js",
)
_HEAD_BYTES = 4096


def render_page(document: Document) -> str:
    """Return the HTML of the page.

    Texts of the data are only in JSON blocks, where ``<``, ``>`` and ``&`` are escaped, and the scripts set them as
    text. The content security policy of the page lets no other script run, and nothing be loaded except slices from
    the server of the page, if it has one.
    """
    style, script = _resource("page.css"), "\n".join(map(_resource, _SCRIPTS))
    served = "connect-src 'self'; " if document.page["isServed"] else ""
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_csp_hash(style)}'; script-src '{_csp_hash(script)}'; "
        f"{served}base-uri 'none'; form-action 'none'"
    )
    blocks = [("document", document.page), *document.slices.items()]
    return Template(_resource("page.html")).substitute(
        mark=MARK,
        policy=policy,
        title=escape(document.page["title"]),
        style=style,
        script=script,
        data="\n".join(
            f'<script type="application/json" id="{name}">{_json(content)}</script>' for name, content in blocks
        ),
    )


def check_output(out: Path) -> None:
    """Refuse to overwrite a file that is not a preview page.

    Raises:
        OutputError: ``out`` is a folder, or another file.
    """
    if not out.exists():
        return
    head = ""
    if out.is_file():
        with contextlib.suppress(OSError), out.open("rb") as file:
            head = file.read(_HEAD_BYTES).decode("utf-8", "replace")
    if MARK not in head:
        raise OutputError(
            f"the output {out} exists and is not a preview page",
            expected="a new file, or a page that an earlier preview wrote",
            got="a folder" if out.is_dir() else "another file",
            remedy="choose another --out",
        )


def write_page(page: str, out: Path) -> None:
    """Write the page atomically.

    Raises:
        OutputError: The page cannot be written.
    """
    try:
        write_atomically(out, page)
    except OSError as error:
        raise OutputError(f"the output {out} cannot be written: {error}") from error


def _resource(name: str) -> str:
    return (files("lung_nodule_ct.preview") / name).read_text("utf-8")


def _json(content: Any) -> str:
    """Return ASCII JSON that no HTML parser reads as markup."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def _csp_hash(inline: str) -> str:
    """Return the hash source of an inline block (CSP Level 3, 2.3.1)."""
    return f"sha256-{base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()}"
