"""The HTML page in a real browser: self-contained, safe, sortable, dark, narrow."""

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess

import pytest

from edgeq.report import conversion, run
from edgeq.report.elements import Html, element
from edgeq.report.html import render

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--disable-dev-shm-usage",
)
PROBE = """
<script>
const column = (table, place) => [...table.tBodies[0].rows].map((row) => row.cells[place].textContent);
const sorted = (table, place) => {
  table.tHead.rows[0].cells[place].querySelector("button").click();
  return column(table, place);
};
const layers = [...document.querySelectorAll("table")].at(-1);
const found = {
  up: sorted(layers, 3), down: sorted(layers, 3), names: sorted(layers, 1),
  sort: layers.tHead.rows[0].cells[1].getAttribute("aria-sort"),
  scripts: document.scripts.length, wide: document.documentElement.scrollWidth, window: innerWidth,
  paper: getComputedStyle(document.body).backgroundColor, drawings: document.querySelectorAll("svg").length,
  requests: performance.getEntriesByType("resource").length,
};
document.title = "found:" + JSON.stringify(found);
</script>
"""


def browse(page, folder, *flags):
    """The DOM that a browser makes of a page."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine (apt-get install chromium)")
    file = folder / "page.html"
    file.write_text(page, "utf-8")
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", *flags, "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def probe(page, folder, *flags):
    """What a script sees that is let in for the test alone."""
    open_page = re.sub(r"<meta http-equiv[^>]*>", "", page).replace("</body>", f"{PROBE}</body>")
    title = re.search(r"<title>found:(.*?)</title>", browse(open_page, folder, *flags), re.S)
    return json.loads(html.unescape(title.group(1)))


def test_nothing_is_requested(conversion_figures, run_figures):
    for document in (conversion.document(conversion_figures), run.document(run_figures)):
        page = render(document)
        assert "http:" not in page
        assert "https:" not in page
        assert re.findall(r'(?:src|href)="([^"]*)"', page) == ["data:,"]
        assert "url(" not in page
        assert "@import" not in page
        assert "default-src 'none'" in html.unescape(page)


def test_user_texts_are_escaped(conversion_figures, run_figures):
    for document in (conversion.document(conversion_figures), run.document(run_figures)):
        page = render(document)
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert" in page
        assert page.count("<script>") == 1


def test_elements_escape_what_is_no_markup():
    assert element("p", "a<b", Html("<br>"), title='"x"') == '<p title="&quot;x&quot;">a&lt;b<br></p>'
    assert element("td", "", data_order="1", hidden=True, class_=None) == '<td data-order="1" hidden></td>'
    assert element("rect", x=1.0, y=2.345) == '<rect x="1" y="2.35"/>'


def test_tables_sort_by_number_and_unknown_comes_last(conversion_figures, tmp_path):
    found = probe(render(conversion.document(conversion_figures)), tmp_path, "--window-size=1100,900")
    levels = [float(text.removesuffix(" dB")) for text in found["up"] if text != "–"]
    assert levels == sorted(levels)
    assert found["up"][-1] == "–"
    assert [text for text in found["down"] if text != "–"] == [
        f"{level:.1f} dB" for level in reversed(levels)
    ]
    assert found["sort"] == "ascending"
    assert found["scripts"] == 2
    assert found["drawings"] == 1
    assert found["requests"] == 0


def test_phone_and_dark(conversion_figures, run_figures, tmp_path):
    papers = {}
    for name, flags in (
        ("light", ()),
        ("dark", ("--blink-settings=preferredColorScheme=0", "--force-dark-mode")),
    ):
        folder = tmp_path / name
        folder.mkdir()
        found = probe(
            render(conversion.document(conversion_figures)), folder, "--window-size=400,900", *flags
        )
        papers[name] = found["paper"]
        assert found["wide"] <= found["window"] <= 500
    assert papers["light"] != papers["dark"]


def test_the_policy_stops_other_scripts_and_lets_ours_run(conversion_figures, tmp_path):
    page = render(conversion.document(conversion_figures))
    evil = page.replace("</body>", "<script>document.title = 'taken'</script></body>")
    assert "<title>taken</title>" not in browse(evil, tmp_path)


def test_the_page_runs_its_own_script(conversion_figures, tmp_path):
    """The policy's digest fits: sorting needs the script, so its listener must be there under the policy."""
    page = render(conversion.document(conversion_figures))
    folded = re.sub(r"<script>.*</script>", "<script>document.title = 'other'</script>", page, flags=re.S)
    assert "<title>other</title>" not in browse(folded, tmp_path)
    script = re.search(r"<script>(.*?)</script>", page, re.S).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in html.unescape(page)
