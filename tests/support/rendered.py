"""Render a card: GitHub-flavoured Markdown to an HTML page, and the page in headless Chromium."""

from __future__ import annotations

import subprocess
from pathlib import Path

from markdown_it import MarkdownIt

_STYLE = """
body { font: 16px/1.5 -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; max-width: 860px; margin: 24px auto; color: #1f2328 }
img { max-width: 100% } table { border-collapse: collapse; display: block; overflow: auto } tr { border-top: 1px solid #d1d9e0 }
th, td { border: 1px solid #d1d9e0; padding: 6px 13px } tr:nth-child(2n) { background: #f6f8fa }
h1, h2 { border-bottom: 1px solid #d1d9e0; padding-bottom: .3em } pre { background: #f6f8fa; padding: 16px; overflow: auto }
code { background: #818b981f; padding: .2em .4em; border-radius: 6px; font-size: 85% } pre code { background: none; padding: 0 }
"""


def render(card: str) -> str:
    """Return the body of the card as an HTML page."""
    body = card.split("\n---\n", 1)[1]
    html = MarkdownIt("gfm-like", {"html": True}).render(body)
    return f"<!doctype html><meta charset=utf-8><title>card</title><style>{_STYLE}</style>{html}"


def chromium(browser: str, page: Path, profile: Path, *arguments: str) -> str:
    """Return what a headless browser prints for a local page."""
    flags = (
        "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --disable-quic --hide-scrollbars"
    )
    command = [browser, *flags.split(), f"--user-data-dir={profile}", *arguments, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
