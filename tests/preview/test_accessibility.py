"""The rules of axe on every tab and on the viewer, and what they do not cover."""

from __future__ import annotations

import json
import shutil

import chromium
import pytest
from preview_page import open_scan

from lung_nodule_ct.preview import write_preview
from lung_nodule_ct.read.build_folder import open_build

LONG = "a-name-without-spaces-" * 8
CHECKS = [
    {
        "name": verdict,
        "title": f"Check {verdict}",
        "verdict": verdict,
        "measured": LONG,
        "expected": "1",
        "detail": LONG,
    }
    for verdict in ("pass", "warn", "fail", "unknown")
]


@pytest.fixture(scope="module")
def audited(build, tmp_path_factory):
    """The page of a build with an audit."""
    folder = tmp_path_factory.mktemp("audited")
    shutil.copytree(build.folder, folder / "build")
    audit = {"format_version": 1, "generator": "lung_nodule_ct 0.1.0", "checks": CHECKS, "numbers": {}}
    (folder / "build" / "audit.json").write_text(json.dumps(audit))
    return write_preview(open_build(folder / "build"), folder / "page.html").path


@pytest.fixture(scope="module")
def violations():
    """A function that returns the rules that a tab does not follow."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")

    def found(tab) -> list[str]:
        response = axe.Axe().run(tab).response
        return [f"{rule['id']}: {node['html'][:200]}" for rule in response["violations"] for node in rule["nodes"]]

    return found


SCREENS = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 840}, "has_touch": True},
}


@pytest.mark.parametrize("screen", SCREENS)
def test_every_tab_and_the_viewer_follow_the_rules_of_axe(browser, build, audited, violations, screen):
    found: dict[str, list[str]] = {}
    with chromium.opened(browser, audited, **SCREENS[screen]) as tab:
        for name in [*build.configs, "audit"]:
            tab.get_by_role("tab", name=name).click()
            found[name] = violations(tab)
            cards = tab.locator("[role=tabpanel]:not([hidden]) .card")
            if name == "audit":
                continue
            cards.first.click()
            found[f"{name}, viewer"] = violations(tab)
            if tab.locator(".help").count():
                tab.keyboard.press("?")
                found[f"{name}, keys"] = violations(tab)
            if tab.locator("#compare").is_visible():
                tab.locator("#compare").select_option(index=1)
                found[f"{name}, two scans"] = violations(tab)
            tab.keyboard.press("Escape")
    assert {place: rules for place, rules in found.items() if rules} == {}
    assert any("two scans" in place for place in found)
    assert any("keys" in place for place in found)


def test_axe_finds_a_fault(browser, audited, violations):
    """The check above can fail."""
    with chromium.opened(browser, audited) as tab:
        tab.evaluate("document.querySelector('.card').replaceChildren()")
        assert any(rule.startswith("button-name") for rule in violations(tab))


def test_the_landmarks_contain_the_page(browser, audited):
    with chromium.opened(browser, audited) as tab:
        assert [tab.get_by_role(role).count() for role in ("banner", "main", "contentinfo")] == [1, 1, 1]
        assert tab.get_by_role("main").get_by_role("tablist").count() == 1
        open_scan(tab, "det3d_1.25mm", 0)
        dialog = tab.get_by_role("dialog")
        assert dialog.get_attribute("aria-labelledby") == "viewer-title"
        for plane in ("axial", "coronal", "sagittal"):
            assert dialog.get_by_role("region", name=f"{plane} plane").count() == 1


def test_the_audit_is_readable_on_a_phone(browser, audited):
    """Nothing is cut off to the right, and the columns keep their heads and their roles."""
    with chromium.opened(browser, audited, viewport={"width": 390, "height": 840}) as tab:
        tab.get_by_role("tab", name="audit").click()
        panel = tab.get_by_role("tabpanel", name="audit")
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        widths = panel.locator(".scroll").evaluate("element => [element.scrollWidth, element.clientWidth]")
        assert widths[0] <= widths[1]
        assert panel.get_by_role("row").count() == len(CHECKS) + 1
        assert panel.get_by_role("cell").count() == 5 * len(CHECKS)
        assert panel.get_by_role("columnheader").all_inner_texts()[2] == "Measured"
        head = panel.get_by_role("cell").nth(2).evaluate("cell => getComputedStyle(cell, '::before').content")
        assert "Measured" in head
