"""``audit/index.html``: the checks, and every flag with what is there and what the table claims. One file, without network."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING, Final

from PIL import Image

from lung_nodule_ct.declaration.findings import Grade
from lung_nodule_ct.errors import printable
from lung_nodule_ct.read.audit_report import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lung_nodule_ct.audit.views import Mark, View
    from lung_nodule_ct.read.audit_report import Check, Flag

MAX_PICTURES: Final = 300
"""Flagged annotations that are drawn; the others are listed. 300 take about 5 MB."""
MAX_ROWS: Final = 2000

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { margin: 0 auto; max-width: 75rem; padding: 1rem; background: light-dark(#f7f8fa, #101418); color: light-dark(#17202a, #e8edf2); }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
h3 { font-size: 1rem; margin: 0; overflow-wrap: anywhere; }
a { color: light-dark(#005a94, #56b4e9); }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid light-dark(#d3d9e0, #333d48); overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
.pass { color: light-dark(#00724f, #2bc197); } .warn, .warning { color: light-dark(#8a5a00, #f0b429); }
.fail, .error { color: light-dark(#b34700, #ff8f4d); }
.pass, .warn, .warning, .fail, .error { font-weight: 600; }
.flags { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(34rem, 100%), 1fr)); gap: 1rem; }
article { background: light-dark(#fff, #1a2027); border: 1px solid light-dark(#d3d9e0, #333d48); border-radius: 8px; padding: .8rem; }
article p { margin: .3rem 0; overflow-wrap: anywhere; }
.views { display: flex; flex-wrap: wrap; gap: .6rem; margin-top: .5rem; }
figure { margin: 0; width: 15rem; max-width: 100%; } figcaption { font-size: .85rem; }
svg { width: 100%; height: auto; display: block; border-radius: 4px; } image { image-rendering: auto; }
"""


def audit_page(title: str, checks: Sequence[Check], flags: Sequence[Flag], views: Mapping[int, Sequence[View]]) -> str:
    """The page as HTML.

    Args:
        title: Its heading.
        checks: All checks.
        flags: All flags.
        views: The pictures of a flag, by its number.
    """
    worst_first = sorted(range(len(flags)), key=lambda number: flags[number].grade is not Grade.ERROR)
    drawn = [number for number in worst_first if views.get(number)][:MAX_PICTURES]
    listed = [flag for number, flag in enumerate(flags) if number not in set(drawn)]
    errors = sum(flag.grade is Grade.ERROR for flag in flags)
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{len(flags):,} flags: {errors:,} errors, {len(flags) - errors:,} warnings. The same as data: "
        '<a href="../audit.json">audit.json</a>, <a href="annotations.parquet">annotations.parquet</a> (one row per annotation).</p>',
    ]
    if drawn:
        parts += [
            "<h2>Flagged annotations</h2>",
            "<p>Slices in the lung window, as stored. Orange: the annotation. Blue dashed: where, or how large, it is by its voxels.</p>",
            '<div class="flags">',
            *(_article(flags[number], views[number]) for number in drawn),
            "</div>",
        ]
    if listed:
        parts += ["<h2>Flagged rows</h2>", _flags_table(listed)]
    parts += ["<h2>Checks</h2>", _checks_table(checks)]
    return _document(title, parts)


def _document(title: str, parts: Iterable[str]) -> str:
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _article(flag: Flag, views: Sequence[View]) -> str:
    number = "" if flag.annotation is None else f", annotation {flag.annotation}"
    lines = [
        f"<h3>{_text(f'{flag.row}{number}')}</h3>",
        f'<p><span class="{flag.grade}">{flag.grade}</span> {_text(flag.measured)}. Expected: {_text(flag.bound)}.</p>',
    ]
    if flag.hint is not None:
        lines.append(f"<p>Hint: {_text(flag.hint)}.</p>")
    lines += ['<div class="views">', *map(_figure, views), "</div>"]
    return "<article>" + "".join(lines) + "</article>"


def _figure(view: View) -> str:
    height, width = view.pixels.shape
    picture = io.BytesIO()
    Image.fromarray(view.pixels).save(picture, "PNG")
    data = base64.b64encode(picture.getvalue()).decode()
    place = "" if view.slice is None else f", slice {view.slice}"
    marks = "".join(map(_ellipse, view.marks))
    caption = _text(view.caption + place)
    return (
        f'<figure><svg viewBox="0 0 {width} {height}" role="img" aria-label="{caption}">'
        f'<image width="{width}" height="{height}" href="data:image/png;base64,{data}"/>{marks}</svg>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _ellipse(mark: Mark) -> str:
    (x, y), (rx, ry) = mark.centre, mark.half_sizes
    style = 'stroke="#56b4e9" stroke-dasharray="5 4"' if mark.measured else 'stroke="#e69f00"'
    return (
        f'<ellipse cx="{x + 0.5:.1f}" cy="{y + 0.5:.1f}" rx="{rx:.1f}" ry="{ry:.1f}" fill="none" {style} '
        'stroke-width="2" vector-effect="non-scaling-stroke"/>'
    )


def _flags_table(flags: Sequence[Flag]) -> str:
    rows = []
    for flag in flags[:MAX_ROWS]:
        number = "" if flag.annotation is None else f", annotation {flag.annotation}"
        other = "" if flag.other is None else f" and {flag.other}"
        hint = "" if flag.hint is None else f" Hint: {flag.hint}."
        rows.append(
            f'<tr><td><span class="{flag.grade}">{flag.grade}</span></td><td>{_text(flag.check)}</td>'
            f"<td>{_text(f'{flag.row}{number}{other}')}</td><td>{_text(f'{flag.measured}.{hint}')}</td><td>{_text(flag.bound)}</td></tr>"
        )
    more = f"<p>{len(flags) - MAX_ROWS:,} more are in audit.json.</p>" if len(flags) > MAX_ROWS else ""
    head = "<tr><th>grade</th><th>check</th><th>row</th><th>measured</th><th>expected</th></tr>"
    return f'<div class="scroll" tabindex="0"><table>{head}{"".join(rows)}</table></div>{more}'


def _checks_table(checks: Sequence[Check]) -> str:
    rows = "".join(
        f'<tr><td><span class="{check.verdict}">{check.verdict}</span></td><td>{_text(check.title)}</td>'
        f"<td>{_text(check.measured)}</td><td>{_text(check.expected or '')}</td></tr>"
        for check in checks
        if check.verdict is not Verdict.UNKNOWN
    )
    head = "<tr><th>verdict</th><th>check</th><th>measured</th><th>expected</th></tr>"
    return f'<div class="scroll" tabindex="0"><table>{head}{rows}</table></div>'


def _text(text: str) -> str:
    return escape(printable(text))
