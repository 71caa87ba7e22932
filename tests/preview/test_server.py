"""The page with full volumes, from a server on this machine."""

from __future__ import annotations

import http.client
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager

import numpy as np
import pytest
from preview_page import open_scan, rows_of, shown_pixels, shown_slice, until_ready

from lung_nodule_ct.errors import BuildFolderError, OutputError
from lung_nodule_ct.geometry.display import MEDIASTINAL
from lung_nodule_ct.preview import PreviewOptions, serve_preview
from lung_nodule_ct.preview.selection import Choice


@contextmanager
def _serving(build, **options):
    server = serve_preview(build, **options)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.close()
    thread.join()


@pytest.fixture(scope="module")
def server(build):
    with _serving(build) as started:
        yield started


def _get(url: str, **headers: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_the_slices_are_those_of_the_build_in_display_order(build, server):
    from lung_nodule_ct.geometry.display import Orientation
    from lung_nodule_ct.geometry.frame import Frame

    sizes = {}
    for number in range(40):
        status, content = _get(f"{server.url}volume/scan-{number}/0")
        if status == 200:
            sizes[number] = content
    rows = [row for name in ("longitudinal", "det3d_1.25mm", "det3d_5mm") for row in rows_of(build, name)]
    shown = {Orientation.from_frame(Frame.from_row(row)).volume(row["volume"])[0].tobytes() for row in rows}
    greys = {row["volume"][0].tobytes() for row in rows_of(build, "det3d_bmp_1.25mm")}
    assert set(sizes.values()) == shown | greys
    assert {row["direction"][0] == 1 for row in rows} == {True, False}
    masks = [_get(f"{server.url}mask/scan-{number}/0")[0] for number in sizes]
    assert set(masks) == {200, 404}  # a scan without a mask has none


@pytest.mark.parametrize("path", ["", "volume/scan-0/0", "nothing"])
def test_head_answers_as_get_without_content(server, path):
    answers = []
    for method in ("GET", "HEAD"):
        connection = http.client.HTTPConnection(server.url.split("/")[2])
        connection.request(method, f"/{path}")
        with connection.getresponse() as response:
            answers.append((response.status, response.getheader("Content-Length"), response.read()))
        connection.close()
    (status, length, content), head = answers
    assert head == (status, length, b"")
    assert length == str(len(content))


@pytest.mark.parametrize(
    "path",
    [
        "build.json",
        "../build.json",
        "..%2fbuild.json",
        "volume/../../build.json",
        "volume/scan-0/..%2f0",
        "volume/scan-0/99999",
        "volume/scan-0/-1",
        "volume/scan-999/0",
        "volume/scan-0/0?x",
        "volume/scan-0/" + "9" * 40,
        "mask/scan-0/",
        "%00",
    ],
)
def test_there_is_nothing_else_to_read(server, path):
    assert _get(server.url + path) == (404, b"")


def test_only_this_machine_is_answered(server):
    """A website cannot read from the server under a name of its own (DNS rebinding), and no other machine reaches it."""
    assert server.url.startswith("http://127.0.0.1:")
    for host in ("example.org", "", "127.0.0.1", "example.org:80"):
        assert _get(server.url, Host=host) == (421, b"")
    port = server.url.split(":")[-1].strip("/")
    assert _get(server.url, Host=f"localhost:{port}")[0] == 200
    with pytest.raises(urllib.error.HTTPError, match="501"):
        urllib.request.urlopen(urllib.request.Request(server.url, data=b"x", method="POST"))


def test_the_viewer_shows_full_hounsfield_units(browser, build, server):
    rows = rows_of(build, "det3d_1.25mm")
    number, row = next(
        (n, row) for n, row in enumerate(rows) if row["direction"][0] == 1 and row["lung_mask"] is not None
    )
    session = browser.new_context(viewport={"width": 1280, "height": 860})
    tab = session.new_page()
    errors: list[str] = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    tab.set_default_timeout(8000)
    tab.goto(server.url)
    open_scan(tab, "det3d_1.25mm", number)
    until_ready(tab)
    tab.get_by_role("radio", name="mediastinal").check()
    tab.wait_for_function("() => !shown.view.frame")
    index = shown_slice(tab)
    assert np.abs(shown_pixels(tab, "axial") - MEDIASTINAL.to_grey(row["volume"][index])).max() <= 1
    x, y, z = tab.evaluate("shown.view.at")
    tab.mouse.move(2, 2)
    value = re.search(r": (\N{MINUS SIGN}?\d+) HU$", tab.locator(".pane.axial .under").text_content())[1]
    assert int(value.replace("\N{MINUS SIGN}", "-")) == row["volume"][z, y, x]
    before = shown_pixels(tab, "axial")
    tab.get_by_label("lung mask").check()
    tab.wait_for_function("() => shown.view.volume.labels && !shown.view.frame")
    changed = shown_pixels(tab, "axial") != before
    inside = row["lung_mask"][index] > 0
    assert changed[inside].mean() > 0.9
    assert not changed[~inside].any()
    assert "as in the build, from the server" in tab.locator(".about").inner_text()
    session.close()
    assert errors == []


def test_a_server_that_was_stopped_is_reported(browser, build):
    session = browser.new_context()
    tab = session.new_page()
    tab.set_default_timeout(8000)
    with _serving(build) as started:
        tab.goto(started.url)
    tab.get_by_role("tab", name="det3d_1.25mm").click()
    tab.locator("[role=tabpanel]:not([hidden]) .card").first.click()
    tab.get_by_role("toolbar").get_by_text("Is the server of the page still running?").wait_for()
    session.close()


def test_the_choice_of_scans_applies(build):
    with _serving(build, options=PreviewOptions(choice=Choice(scans=("27-1",)))) as started:
        page = _get(started.url)[1].decode()
        assert '"27-1"' in page
        assert '"12-1"' not in page
    with pytest.raises(BuildFolderError, match="no scan '99'"):
        serve_preview(build, PreviewOptions(choice=Choice(scans=("99",))))


def test_a_port_in_use_is_refused(build, server):
    port = int(server.url.split(":")[-1].strip("/"))
    with pytest.raises(OutputError, match=f"port {port} cannot be used"):
        serve_preview(build, port=port)


def test_the_command_serves_until_it_is_interrupted(build, cli):
    command = [sys.executable, "-m", "lung_nodule_ct", "preview", str(build.folder), "--scan", "27-1", "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        url = process.stdout.readline().split()[0]
        assert _get(url)[0] == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    done = cli("preview", build.folder, "--serve", "--out", "page.html")
    assert (done.returncode, "writes no page" in done.stderr) == (2, True)
