"""A build as one self-contained HTML page: it needs no server and no network, and contains no date.

On the command line: ``lung-nodule-ct preview build/lung_nodule_ct``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lung_nodule_ct.errors import BuildFolderError, OutputError
from lung_nodule_ct.preview.page import check_output, collect_document, render_page, write_page
from lung_nodule_ct.preview.selection import Choice
from lung_nodule_ct.preview.server import PreviewServer
from lung_nodule_ct.read.sidecars import add_sidecars

if TYPE_CHECKING:
    from lung_nodule_ct.preview.scans import OnProgress
    from lung_nodule_ct.read.build_folder import BuildFolder

PREVIEW_PAGE: Final = "preview.html"
DEFAULT_MAX_MB: Final = 25
_FIXED_BYTES = 150_000  # template, style, scripts and structure


@dataclass(frozen=True)
class PreviewOptions:
    """Options of a page.

    Attributes:
        max_mb: Maximum size of the page in units of 1,000,000 bytes. A larger page shows more examples and finer
            slices.
        seed: Seed of the draw of examples. The same build and options give the same page.
        choice: The patients or scans that are shown; by default a sample of all.
    """

    max_mb: float = DEFAULT_MAX_MB
    seed: int = 0
    choice: Choice = field(default_factory=Choice)

    def __post_init__(self) -> None:
        if not 1 <= self.max_mb <= 500:
            raise ValueError(
                f"max_mb: expected 1 to 500, because a browser holds the page in memory, got {self.max_mb}"
            )


@dataclass(frozen=True)
class Preview:
    """A page that was written.

    Attributes:
        path: Path of the page.
        num_bytes: Size of the page.
        shown: Number of examples on the page, by config.
        totals: Number of examples in the build, by config.
    """

    path: Path
    num_bytes: int
    shown: dict[str, int]
    totals: dict[str, int]


def serve_preview(
    build: BuildFolder, options: PreviewOptions | None = None, on_progress: OnProgress | None = None, port: int = 0
) -> PreviewServer:
    """Return a server of the page with full volumes, which only this machine can reach. Nothing is written.

    Args:
        build: The build, from :func:`lung_nodule_ct.read.build_folder.open_build`.
        options: Seed and what is shown.
        on_progress: As for :func:`write_preview`.
        port: Port of the server; 0 for any that is free.

    Raises:
        BuildFolderError: The build has no examples, or no such patient or scan, or a shard or ``audit.json`` is damaged.
        OutputError: The port is in use.
    """
    _require_examples(build)
    options = options or PreviewOptions()
    scale = options.max_mb / DEFAULT_MAX_MB
    report = on_progress or (lambda *_: None)
    return PreviewServer(build, collect_document(build, None, options.seed, scale, options.choice, report), port)


def write_preview(
    build: BuildFolder,
    out: Path | None = None,
    options: PreviewOptions | None = None,
    on_progress: OnProgress | None = None,
) -> Preview:
    """Write the page of a build.

    Args:
        build: The build, from :func:`lung_nodule_ct.read.build_folder.open_build`.
        out: The file to write; by default ``preview.html`` in the folder of the build. An earlier page is replaced.
        options: Size, seed and what is shown.
        on_progress: Called with the name of a config, the number of rows that are read, and the number of rows to read.

    Raises:
        BuildFolderError: The build has no examples, or no such patient or scan, or a shard or ``audit.json`` is damaged.
        OutputError: ``out`` is another file, it cannot be written, or the page does not fit the maximum size.
    """
    _require_examples(build)
    options = options or PreviewOptions()
    target = build.folder / PREVIEW_PAGE if out is None else out
    check_output(target)
    limit = int(options.max_mb * 1e6)
    document = collect_document(
        build,
        limit - _FIXED_BYTES,
        options.seed,
        options.max_mb / DEFAULT_MAX_MB,
        options.choice,
        on_progress or (lambda *_: None),
    )
    page = render_page(document)
    num_bytes = len(page.encode())
    if num_bytes > limit:
        raise OutputError(
            "the page does not fit its maximum size",
            expected=f"at most {limit:,} bytes",
            got=f"{num_bytes:,}",
            remedy="allow a larger page with --max-mb",
        )
    if target.parent.resolve() == build.folder.resolve():
        with add_sidecars(build.folder, by="preview") as stage:
            write_page(page, stage / target.name)
    else:
        write_page(page, target)
    configs = document.page["configs"]
    return Preview(
        path=target,
        num_bytes=num_bytes,
        shown={config["name"]: len(config["items"]) for config in configs},
        totals={config["name"]: sum(config["totals"].values()) for config in configs},
    )


def _require_examples(build: BuildFolder) -> None:
    if not any(sum(splits.values()) for splits in build.configs.values()):
        raise BuildFolderError(f"{build.folder} has no examples to show", expected="a build with at least one example")
