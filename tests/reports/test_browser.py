"""The report in a real browser: a mouse and a keyboard, a wide and a narrow window, light and dark, and paper."""

import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from consistency_lab.reports.html import report

_SPEC = importlib.util.spec_from_file_location("browser_of_tests", Path(__file__).with_name("browser.py"))
driver = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(driver)

LOOK = """(() => {
  const section = document.querySelector(".comparison");
  const pictures = (selector) => [...section.querySelectorAll(selector)].map((canvas) => canvas.toDataURL());
  return {
    moving: pictures("canvas[data-moves]"), still: pictures("canvas:not([data-moves])"),
    now: section.querySelector(".now").textContent,
    said: section.querySelector(".time").getAttribute("aria-valuetext"),
    metrics: [...section.querySelectorAll(".panel")].filter((panel) => panel.offsetParent).map((panel) => panel.dataset.metric),
    checked: [...section.querySelectorAll(".switch input:checked")].map((radio) => radio.value),
  };
})()"""


@pytest.fixture(scope="module")
def page(results, tmp_path_factory):
    return report(results.everything(3, samples=12), tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if driver.PROGRAM is None:
        pytest.skip("no chromium on this machine")
    browser = driver.Browser(tmp_path_factory.mktemp("browser") / "profile")
    yield browser
    browser.close()


@pytest.fixture(params=[(1280, False), (390, True)], ids=["wide light", "narrow dark"])
def opened(request, browser, page):
    width, dark = request.param
    browser.open(page.as_uri(), width, dark)
    yield browser
    # Whatever a test did: no error, no complaint, nothing fetched but the page.
    assert browser.happened("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded") == []
    fetched = [event["request"]["url"] for event in browser.happened("Network.requestWillBeSent")]
    assert [url for url in fetched if not url.startswith("data:")] == [page.as_uri()]


def test_the_arrow_keys_move_the_slider_and_change_the_gallery(opened):
    end = opened.ask(LOOK)
    assert end["now"] == end["said"] == "t = 0.00, log-SNR = ∞, the final image"
    opened.ask("document.querySelector('.time').focus()")
    for _ in range(4):
        opened.press("ArrowLeft", 37)
    middle = opened.ask(LOOK)
    assert middle["now"] == middle["said"]
    assert opened.ask("document.querySelector('.time').value") == str(10 - 4)
    # The data mean is the same at every time; every other row changes.
    changed = [a != b for a, b in zip(end["moving"], middle["moving"], strict=True)]
    assert changed == [True] * (5 * 8) + [False] * 8
    assert middle["still"] == end["still"]
    opened.press("End", 35)
    assert opened.ask(LOOK)["moving"] == end["moving"]
    assert len(set(end["moving"])) > 8


def test_the_mouse_moves_the_slider_too(opened):
    end = opened.ask(LOOK)
    opened.click(".time")
    middle = opened.ask(LOOK)
    assert opened.ask("document.querySelector('.time').value") == "5"
    assert middle["now"] != end["now"]
    assert middle["moving"] != end["moving"]


def test_the_metric_switch_changes_every_panel_and_every_switch(opened):
    first = opened.ask(LOOK)
    assert set(first["metrics"]) == set(first["checked"]) == {"mse"}
    opened.click('.switch input[value="cosine"]')
    other = opened.ask(LOOK)
    assert set(other["metrics"]) == {"cosine"}
    assert other["checked"] == ["cosine"] * 4
    assert len(other["metrics"]) == len(first["metrics"]) == 5


def test_the_pixels_are_saved_as_numpy_reads_them(browser, page, results):
    keep = "const make = URL.createObjectURL; URL.createObjectURL = (blob) => { window.saved = blob; return make.call(URL, blob); };"
    script = browser.send("Page.addScriptToEvaluateOnNewDocument", source=keep)["identifier"]
    browser.open(page.as_uri(), 1280)
    browser.send("Page.removeScriptToEvaluateOnNewDocument", identifier=script)
    assert browser.ask("document.querySelector('.pixels').offsetParent !== null")
    bytes_ = bytes(browser.ask("saved.arrayBuffer().then((buffer) => [...new Uint8Array(buffer)])"))
    images = results.comparison(3, samples=12)["images"].transpose("model", "t", "shown", "row", "column", "channel")
    np.testing.assert_array_equal(np.load(io.BytesIO(bytes_)), images)


def test_the_page_is_as_wide_as_the_window(opened):
    assert opened.ask("document.documentElement.scrollWidth <= innerWidth")


WHERE = """new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => {
  const marked = [...document.querySelectorAll(".contents [aria-current]")];
  const box = document.querySelector(".contents").getBoundingClientRect(), link = marked[0].getBoundingClientRect();
  const inside = link.left >= box.left - 1 && link.right <= box.right + 1;
  done({marked: marked.map((each) => each.hash), seen: inside && box.top >= 0 && box.top < 60});
})))"""


def test_the_contents_stay_in_sight_and_mark_where_the_reader_is(opened):
    hashes = opened.ask("[...document.querySelectorAll('.contents a')].map((link) => link.hash)")
    assert opened.ask(WHERE)["marked"] == hashes[:1]
    for each in hashes[1:-2]:
        opened.ask(f"document.querySelector('{each}').scrollIntoView()")
        found = opened.ask(WHERE)
        assert found == {"marked": [each], "seen": True}
    opened.ask("scrollTo(0, document.body.scrollHeight)")
    assert opened.ask(WHERE)["marked"] == hashes[-1:]


def test_key_numbers_fit_into_the_window(opened):
    for boxes in (".scroll:has(.numbers)", ".panel .drawing:has(svg[aria-label^='consistency score at t'])"):
        shown = f'[...document.querySelectorAll("{boxes}")].filter((box) => box.offsetParent)'
        assert opened.ask(f"{shown}.length") > 0
        assert opened.ask(f"{shown}.every((box) => box.scrollWidth <= box.clientWidth)")


def test_the_keyboard_stops_at_what_moves_sideways_alone(opened):
    boxes = "[...document.querySelectorAll('.scroll, .drawing')].filter((box) => box.offsetParent)"
    right = opened.ask(f"{boxes}.every((box) => (box.scrollWidth > box.clientWidth) === box.hasAttribute('tabindex'))")
    assert right
    moving = opened.ask(f"{boxes}.filter((box) => box.hasAttribute('tabindex')).length")
    assert (moving > 5) == (opened.ask("innerWidth") < 600)


def test_colours_follow_the_system(browser, page):
    lightness = []
    for dark in (False, True):
        browser.open(page.as_uri(), 800, dark)
        lightness.append(imread(io.BytesIO(browser.screenshot()))[..., :3].mean())
    assert lightness[0] > 0.8
    assert lightness[1] < 0.3


def test_it_prints(browser, page):
    browser.open(page.as_uri(), 1280)
    assert browser.pdf().startswith(b"%PDF")
    browser.send("Emulation.setEmulatedMedia", media="print")
    hidden = "[...document.querySelectorAll('.switch, .play, .time, nav')].every((each) => !each.offsetParent)"
    assert browser.ask(hidden)
    shown = (
        "[...document.querySelectorAll('.comparison svg')].filter((each) => each.getBoundingClientRect().width).length"
    )
    assert browser.ask(shown) > 0
