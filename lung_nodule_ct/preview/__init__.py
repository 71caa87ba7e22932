"""A build as one self-contained page to look at: no server, no network, no patient's date.

lung-nodule-ct preview build/lung_nodule_ct
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lung_nodule_ct.errors import BuildFolderError, OutputError
from lung_nodule_ct.preview.document import collect_document
from lung_nodule_ct.preview.page import check_out, render_page, write_page
from lung_nodule_ct.read.sidecars import add_sidecars

if TYPE_CHECKING:
    from lung_nodule_ct.preview.document import Advance
    from lung_nodule_ct.read.build_folder import BuildFolder

PAGE: Final = "preview.html"
DEFAULT_MAX_MB: Final = 25
_OWN_BYTES = 150_000  # template, style, code and structure


@dataclass(frozen=True)
class PreviewOptions:
    """How a page is made.

    Attributes:
        max_mb: What it may weigh at most, in units of 1,000,000 bytes. It shows more examples and finer slices in proportion.
        seed: Of the draw of examples; the same build and seed give the same page.
    """

    max_mb: float = DEFAULT_MAX_MB
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.max_mb <= 500:
            raise ValueError(f"max_mb: expected 1 to 500, as browsers have to hold the page, got {self.max_mb}")


@dataclass(frozen=True)
class Preview:
    """A page that was written.

    Attributes:
        path: Where.
        num_bytes: What it weighs.
        shown: The examples that it shows, by config.
        totals: Those of the build, by config.
    """

    path: Path
    num_bytes: int
    shown: dict[str, int]
    totals: dict[str, int]


def write_preview(
    build: BuildFolder, out: Path | None = None, options: PreviewOptions | None = None, advance: Advance | None = None
) -> Preview:
    """Write the page of a build.

    Args:
        build: The build, as :func:`lung_nodule_ct.read.build_folder.open_build` gives it.
        out: The file; ``preview.html`` in the build's folder by default. An earlier page of ours is replaced.
        options: Size and seed.
        advance: Is told what is read, how many are done, and of how many.

    Raises:
        BuildFolderError: The build has no examples, a shard is damaged, or its ``audit.json`` is none.
        OutputError: ``out`` is something else, cannot be written, or the page cannot be so small.
    """
    if not any(sum(splits.values()) for splits in build.configs.values()):
        raise BuildFolderError(f"{build.folder} has no examples to show", expected="a build with at least one example")
    chosen = options or PreviewOptions()
    target = build.folder / PAGE if out is None else out
    inside = target.parent.resolve() == build.folder.resolve()
    check_out(target)
    limit = int(chosen.max_mb * 1e6)
    document = collect_document(
        build, limit - _OWN_BYTES, chosen.seed, chosen.max_mb / DEFAULT_MAX_MB, advance or (lambda *_: None)
    )
    page = render_page(document)
    if len(page.encode()) > limit:
        raise OutputError(
            "the page does not fit",
            expected=f"at most {limit:,} bytes",
            got=f"{len(page.encode()):,}",
            remedy="give it more with --max-mb",
        )
    if inside:
        with add_sidecars(build.folder, by="preview") as stage:
            write_page(page, stage / target.name)
    else:
        write_page(page, target)
    configs = document.page["configs"]
    return Preview(
        path=target,
        num_bytes=len(page.encode()),
        shown={config["name"]: len(config["items"]) for config in configs},
        totals={config["name"]: sum(config["totals"].values()) for config in configs},
    )
