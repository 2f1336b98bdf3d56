"""The report in a real browser, Debian's chromium or Chrome, without a driver.

A script at the end of a copy of the page plays the reader and leaves what it saw in the document, for ``--dump-dom``.
"""

import html
import json
import re
import shutil
import subprocess

import pytest

from consistency_lab.reports.html import report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
    "--enable-logging=stderr",
]
# A request that got out would fail and be reported.
FLAGS.append("--host-resolver-rules=MAP * ~NOTFOUND")

WATCH = """<script>
window.seen = [];
addEventListener("error", (event) => seen.push(String(event.message || event.target.tagName)), true);
addEventListener("unhandledrejection", (event) => seen.push(String(event.reason)));
document.addEventListener("securitypolicyviolation", (event) => seen.push(event.blockedURI));
const complain = console.error;
console.error = (...words) => { seen.push(words.join(" ")); complain(...words); };
</script>"""

READER = """<script>
const section = document.querySelector(".comparison");
const pictures = (selector) => [...section.querySelectorAll(selector)].map((canvas) => canvas.toDataURL());
const panels = () => [...section.querySelectorAll(".panel")].filter((panel) => panel.offsetParent);
const checked = () => [...section.querySelectorAll(".switch input:checked")].map((radio) => radio.value);
const look = () => ({
  moving: pictures("canvas[data-moves]"), still: pictures("canvas:not([data-moves])"),
  now: section.querySelector(".now").textContent, said: slider.getAttribute("aria-valuetext"),
  metrics: panels().map((panel) => panel.dataset.metric), checked: checked(),
});
const slider = section.querySelector(".time");
const end = look();
slider.focus();
slider.value = 2;
slider.dispatchEvent(new Event("input", {bubbles: true}));
const middle = look();
section.querySelector('.switch input[value="cosine"]').click();
const other = look();
slider.value = slider.max;
slider.dispatchEvent(new Event("input", {bubbles: true}));
const back = look();
const fits = document.documentElement.scrollWidth <= innerWidth;
const fetched = performance.getEntriesByType("resource").map((entry) => entry.name);
const resources = fetched.filter((name) => !name.startsWith("data:"));
const result = document.createElement("pre");
result.id = "result";
const focused = document.activeElement === slider;
result.textContent = JSON.stringify({end, middle, other, back, fits, resources, seen, focused});
document.body.append(result);
</script>"""


@pytest.fixture(scope="module", params=[1280, 500], ids=["wide", "narrow"])
def seen(request, results, tmp_path_factory):
    if BROWSER is None:
        pytest.skip("no chromium on this machine")
    folder = tmp_path_factory.mktemp("browser")
    page = report(results.everything(3, samples=12), folder / "report.html")
    text = page.read_text(encoding="utf-8").replace("<head>", f"<head>{WATCH}").replace("</body>", f"{READER}</body>")
    page.write_text(text, encoding="utf-8")
    command = [
        BROWSER,
        *FLAGS,
        f"--user-data-dir={folder / 'profile'}",
        f"--window-size={request.param},900",
        "--dump-dom",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    return {
        **json.loads(html.unescape(found[1])),
        "console": [line for line in done.stderr.splitlines() if "CONSOLE" in line],
    }


def test_the_slider_moves_the_gallery_and_nothing_else(seen):
    end, middle, back = seen["end"], seen["middle"], seen["back"]
    assert end["now"] == end["said"] == "t = 0.00, log-SNR = ∞, the final image"
    assert middle["now"] == middle["said"] != end["now"]
    # The data mean is the same at every time; every other row changes.
    changed = [a != b for a, b in zip(end["moving"], middle["moving"], strict=True)]
    assert changed == [True] * (5 * 8) + [False] * 8
    assert middle["still"] == end["still"]
    assert back["moving"] == end["moving"]
    assert len(set(end["moving"])) > 8


def test_the_metric_switch_changes_every_panel_and_every_switch(seen):
    assert set(seen["end"]["metrics"]) == {"mse"}
    assert set(seen["end"]["checked"]) == {"mse"}
    assert set(seen["other"]["metrics"]) == {"cosine"}
    assert seen["other"]["checked"] == ["cosine"] * 4
    assert len(seen["other"]["metrics"]) == len(seen["end"]["metrics"]) == 5


def test_no_error_and_no_request(seen):
    assert seen["seen"] == []
    assert seen["console"] == []
    assert seen["resources"] == []


def test_the_page_fits_the_window_and_the_slider_takes_the_keyboard(seen):
    assert seen["fits"]
    assert seen["focused"]
