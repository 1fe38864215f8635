"""The site in a real browser: errors, requests, equations, widths, keyboard, accessibility, search.

Every page is opened once, at 1440 pixels, and then narrowed to 390; what was seen is kept in a file
that both workers of a run read. Skipped by name where there is no chromium.
"""

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.docs.conftest import once, serving

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="no chromium"),
    pytest.mark.skipif(find_spec("selenium") is None, reason="no selenium"),
]

WIDTHS = (1440, 390)
BROWSERS = 2
SAMPLES = (
    "index.html",
    "start/generate.html",
    "theory/matrices.html",
    "rules/inverse.html",
    "verify/ci.html",
    "_generated/validation/derive_speed.html",
    "_generated/api/errors.html",
    "_generated/proofs/inverse.html",
    "search.html",
)
"""A page of each kind, for the slow check of accessibility; light and dark."""

RAW_MATHEMATICS = r"""
const found = [];
const walk = document.createTreeWalker(document.querySelector("article") || document.body,
                                       NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const parent = walk.currentNode.parentElement;
  if (parent.closest("pre, code, script, style, mjx-container")) continue;
  if (/\$\$|\\\(|\\\[|\\frac|\\begin\{/.test(walk.currentNode.data)) {
    found.push(walk.currentNode.data.trim().slice(0, 60));
  }
}
for (const span of document.querySelectorAll(".math")) {
  if (!span.querySelector("mjx-container")) found.push("not typeset: " + span.textContent);
}
for (const wrong of document.querySelectorAll("mjx-merror, [data-mml-node=merror]")) {
  found.push("error: " + wrong.textContent.slice(0, 60));
}
return found;
"""


AUDIT = """
const [rules, done] = arguments;
const page = {include: [["html"]], exclude: [["mjx-container"]]};
axe.run(page, {runOnly: rules, resultTypes: ["violations"]}).then(r => done(r.violations.map(
  v => v.id + ": " + v.nodes.slice(0, 3).map(n => n.html.slice(0, 160)).join(" | "))));
"""


def axe_core() -> str:
    """axe-core's source, from the package that carries it; empty where there is none."""
    spec = find_spec("axe_core_python")
    if spec is None:
        return ""
    return Path(spec.origin).with_name("axe.min.js").read_text(encoding="utf-8")


EVERYTHING = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "cat.keyboard", "cat.semantics"]
CONTRAST = {"type": "rule", "values": ["color-contrast"]}


def start():
    """A browser that reaches this machine and nothing else."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--disable-dev-shm-usage",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_page_load_timeout(60)
    return driver


def resize(driver, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def open_page(driver, url: str) -> None:
    """Go there, and wait until the equations are typeset."""
    driver.get(url)
    for _ in range(400):
        if driver.execute_script("return document.documentElement.dataset.typeset === 'yes'"):
            return
        time.sleep(0.05)
    raise TimeoutError(f"{url} was not typeset within 20 s")


def requests(driver) -> list[str]:
    """The addresses that were asked for since this was last called."""
    entries = [json.loads(e["message"])["message"] for e in driver.get_log("performance")]
    sent = [e for e in entries if e["method"] == "Network.requestWillBeSent"]
    return [e["params"]["request"]["url"] for e in sent]


def look(driver, address: str, page: str) -> dict:
    """What is seen of a page."""
    resize(driver, WIDTHS[0])
    try:
        open_page(driver, f"{address}/{page}")
        seen = {"page": page, "raw": driver.execute_script(RAW_MATHEMATICS), "widths": {}}
        for width in WIDTHS:
            resize(driver, width)
            seen["widths"][str(width)] = driver.execute_script(
                "return document.documentElement.scrollWidth"
            )
        audited = page in SAMPLES or not page.startswith("_generated/")
        if audited and (rules := axe_core()):
            resize(driver, WIDTHS[0])
            driver.execute_script(rules)
            seen["barriers"] = driver.execute_async_script(AUDIT, EVERYTHING)
    except Exception as error:  # one page must not hide what the others show
        seen = {"page": page, "raw": [repr(error)], "widths": {}}
    seen["console"] = [e["message"] for e in driver.get_log("browser") if e["level"] != "INFO"]
    seen["requests"] = [u for u in requests(driver) if not u.startswith((address, "data:"))]
    return seen


def crawl(pages: list[str], address: str) -> list[dict]:
    driver = start()
    try:
        return [look(driver, address, page) for page in pages]
    finally:
        driver.quit()


@pytest.fixture(scope="session")
def seen(site, tmp_path_factory):
    """What was seen of every page of the site."""
    pages = sorted(str(p.relative_to(site)) for p in site.rglob("*.html"))
    pages = [p for p in pages if not p.startswith("_static")]

    def make(folder: Path):
        with serving(site) as address, ThreadPoolExecutor(BROWSERS) as pool:
            parts = pool.map(lambda i: crawl(pages[i::BROWSERS], address), range(BROWSERS))
            records = [record for part in parts for record in part]
        (folder / "seen.json").write_text(json.dumps(records))

    return json.loads((once(tmp_path_factory, "seen", make) / "seen.json").read_text())


@pytest.fixture(scope="module")
def driver():
    made = start()
    yield made
    made.quit()


def test_every_page_was_seen(seen, site):
    assert {"index.html", "rules/adamw.html", "search.html"} <= {s["page"] for s in seen}
    assert len(seen) > 100


def test_no_page_has_a_console_error(seen):
    assert {s["page"]: s["console"] for s in seen if s["console"]} == {}


def test_no_page_makes_a_request_off_the_machine(seen):
    assert {s["page"]: s["requests"] for s in seen if s["requests"]} == {}


def test_every_equation_is_typeset(seen):
    assert {s["page"]: s["raw"] for s in seen if s["raw"]} == {}


@pytest.mark.parametrize("width", WIDTHS)
def test_no_page_scrolls_sideways(seen, width):
    assert {s["page"]: s["widths"] for s in seen if s["widths"].get(str(width)) != width} == {}


def test_a_raw_equation_and_a_foreign_request_would_be_seen(driver, tmp_path):
    """The negative control of the crawl."""
    (tmp_path / "index.html").write_text(
        "<html data-typeset='yes'><article>$$ x $$ <span class='math'>\\(y\\)</span>"
        "<div style='width: 3000px'>wide</div></article>"
        "<img src='http://example.org/a.png'><script>undefined_name()</script></html>"
    )
    with serving(tmp_path) as address:
        found = look(driver, address, "index.html")
    assert len(found["raw"]) >= 2
    assert found["requests"] == ["http://example.org/a.png"]
    assert any("undefined_name" in message for message in found["console"])
    assert found["widths"]["390"] > 390


def test_a_step_of_the_derivation_opens_by_keyboard(driver, address):
    from selenium.webdriver.common.keys import Keys

    open_page(driver, f"{address}/rules/adamw.html")
    step = driver.find_element("css selector", "details.sd-dropdown")
    assert step.get_attribute("open") is None
    summary = step.find_element("css selector", "summary")
    driver.execute_script("arguments[0].focus()", summary)
    driver.switch_to.active_element.send_keys(Keys.ENTER)
    assert step.get_attribute("open") is not None
    assert step.find_element("css selector", "mjx-container").is_displayed()


def test_the_steps_are_reached_by_the_tab_key(driver, address):
    from selenium.webdriver.common.keys import Keys

    open_page(driver, f"{address}/rules/inverse.html")
    driver.execute_script("document.querySelector('details.sd-dropdown summary').focus()")
    first = driver.switch_to.active_element
    first.send_keys(Keys.TAB)
    second = driver.switch_to.active_element
    assert second.tag_name == "summary"
    assert second.text.startswith("2. ")
    assert first.text.startswith("1. ")


def test_search_finds_coupling(driver, address):
    driver.get(f"{address}/search.html?q=coupling")
    for _ in range(400):
        if "Search finished" in driver.find_element("css selector", "#search-results").text:
            break
        time.sleep(0.05)
    links = driver.find_elements("css selector", "#search-results li a")
    titles = [link.text for link in links]
    assert "Coupling and inversion: two biases of one batch" in titles, titles
    assert "AdamW (torch)" in titles, titles


needs_axe = pytest.mark.skipif(not axe_core(), reason="no axe-core-python")


@needs_axe
def test_every_page_that_is_written_by_hand_or_by_a_rule_is_accessible(seen):
    """axe-core: WCAG 2.1 A and AA, landmarks, keyboard. MathJax's own output is left to MathJax.

    Pages written from results and docstrings are sampled: their tables are long, and all alike.
    """
    assert sum("barriers" in s for s in seen) > 60
    assert {s["page"]: s["barriers"] for s in seen if s.get("barriers")} == {}


@needs_axe
def test_pages_of_every_kind_have_contrast_in_the_dark(driver, address):
    wrong = {}
    for page in SAMPLES:
        open_page(driver, f"{address}/{page}")
        driver.execute_script(axe_core())
        driver.execute_script("document.body.dataset.theme = 'dark'")
        if found := driver.execute_async_script(AUDIT, CONTRAST):
            wrong[page] = found
    assert wrong == {}


@needs_axe
def test_bad_contrast_and_a_missing_landmark_would_be_seen(driver, tmp_path):
    script = axe_core()
    (tmp_path / "index.html").write_text(
        "<html data-typeset='yes'><title>t</title><main><p style='color: #ccc'>pale</p>"
        "<img src='data:,'></main></html>"
    )
    with serving(tmp_path) as address:
        open_page(driver, f"{address}/index.html")
        driver.execute_script(script)
        found = " ".join(driver.execute_async_script(AUDIT, EVERYTHING))
    assert "color-contrast" in found
    assert "image-alt" in found
    assert "html-has-lang" in found
