"""The report in a real browser: phone and desktop, light and dark, and printed."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onetrunk.data.task import Task
from onetrunk.report.report import report as write_report
from tests.helpers.runs import make_run, opening
from tests.helpers.small import DENSE, domain

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM or not DRIVER, reason="no Chromium with its driver here"),
]
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
EVIL = ("<script>document.title='gone'</script>", '"><img src=http://evil.example/x.png>', "c")

MEASURE = """
const box = e => e.getBoundingClientRect();
const wide = document.documentElement.clientWidth;
const inside = e => { for (let p = e.parentElement; p; p = p.parentElement)
  if (getComputedStyle(p).overflowX === 'auto') return true; return false; };
const drawn = [...document.querySelectorAll('figure, img, svg:not(.defs), table')]
  .filter(e => !e.closest('details:not([open])'));
return {
  overflow: document.documentElement.scrollWidth - wide,
  empty: drawn.filter(e => box(e).width < 1 || box(e).height < 1)
    .map(e => e.outerHTML.slice(0, 90)),
  out: drawn.filter(e => (box(e).right > wide + 1 || box(e).left < -1) && !inside(e))
    .map(e => e.outerHTML.slice(0, 90)),
  beyond: [...document.querySelectorAll('.stacked svg.strip, .stacked td')]
    .filter(e => box(e).right > wide + 1).length,
  broken: [...document.images].filter(i => !i.complete || !i.naturalWidth).length,
  counts: Object.fromEntries(['figure', 'img', 'svg.map', 'svg.panel', 'table.heat', 'svg.strip']
    .map(s => [s, document.querySelectorAll(s).length])),
  paper: getComputedStyle(document.body).backgroundColor,
  marks: document.querySelectorAll('svg.map use').length
    - [...document.querySelectorAll('svg.map use')].filter(e => box(e).width < 1).length,
  title: document.title,
  // names of columns are rotated, so that their width is the height of their letters
  smallest: Math.min(...[...document.querySelectorAll('svg text')].map(
    e => e.hasAttribute('transform') ? box(e).width : box(e).height)),
  scripts: document.scripts.length,
};
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a report with every section: maps, hostile names, several domains."""
    root = tmp_path_factory.mktemp("report")
    evil = Task("classify", "classify", EVIL)
    domains = [domain("evil", evil), domain("rooms", *DENSE, seed=2)]
    domains += [domain(f"a-domain-with-a-long-name-{i}", seed=i) for i in range(3, 8)]
    errors = {d.name: 20.0 for d in domains}
    make_run(root / "shop", domains, errors, images=300)
    make_run(root / "alone", domains, errors, sharing="none", images=300)
    others = [make_run(root / f"run-{i}", domains, errors, images=300, model=False) for i in "ab"]

    with opening(domains):
        return write_report([root / "shop", *others], root / "alone", root / "report.html")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Return a fresh Chromium that logs its console and its requests."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER)) as driver:
        driver.set_page_load_timeout(60)
        yield driver


def show(browser: Any, page: Path, width: int, scheme: str, media: str = "screen") -> None:
    """Load the page anew at this width and in this scheme."""
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(page.as_uri())


def requests(browser: Any) -> list[str]:
    """Return the requested addresses, without the images inside the page."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    urls = [params["request"]["url"] for params in sent]
    return [url for url in urls if not url.startswith("data:")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_nothing_is_cut_off_or_requested(
    browser: Any, report: Path, width: int, scheme: str
) -> None:
    show(browser, report, width, scheme)
    found = browser.execute_script(MEASURE)
    assert browser.get_log("browser") == []
    assert requests(browser) == [report.as_uri()]
    assert found["overflow"] <= 0
    assert found["empty"] == []
    assert found["out"] == []
    assert width > 600 or found["beyond"] == 0  # every column of the scores is on a phone's screen
    assert found["broken"] == 0
    assert found["scripts"] == 0 and found["title"].endswith("one network or N?")
    counts = found["counts"]
    assert counts["svg.map"] == 2 and found["marks"] > 100
    assert counts["svg.panel"] == 2 * (6 + 3)
    assert counts["table.heat"] == 5
    assert counts["svg.strip"] == 4 + 9  # an axis for each unit
    assert counts["img"] > 50
    assert found["smallest"] >= 8  # pixels: letters in charts are legible on a phone
    assert found["paper"] == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 27)")


def test_a_name_that_is_markup_stays_text(browser: Any, report: Path) -> None:
    show(browser, report, 1400, "light")
    text = browser.execute_script("return document.body.innerText")
    assert EVIL[0] in text and EVIL[1] in text


def test_printed_pages_are_white_and_nothing_scrolls(browser: Any, report: Path) -> None:
    show(browser, report, 718, "dark", "print")  # A4 without its margins
    assert browser.execute_script(MEASURE)["overflow"] <= 0
    scrolling = browser.execute_script(
        "return [...document.querySelectorAll('.scroll, pre')].filter(e =>"
        " ['auto', 'scroll', 'hidden'].includes(getComputedStyle(e).overflowX)).length"
    )
    assert scrolling == 0
    ink = browser.execute_script("return getComputedStyle(document.body).color")
    assert ink == "rgb(21, 24, 28)"
    printed = browser.execute_cdp_cmd(
        "Page.printToPDF", {"preferCSSPageSize": True, "printBackground": True}
    )
    assert base64.b64decode(printed["data"])[:5] == b"%PDF-"
