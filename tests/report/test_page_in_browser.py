"""The report in a real browser: sorting, cells, dark mode, narrow screens, print, keyboard.

Skips, and says so, where Chromium and its driver are not installed.
"""

import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dr_cli.report import page, reading
from tests.builders.runs import write_pictures, write_run

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="the browser tests need chromium and chromedriver"
)
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update"
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("report") / "runs"
    write_pictures(write_run(runs / "resnet18", seed=0, qwk=0.6))
    write_run(runs / "resnet50-pretrained", seed=1, qwk=0.7, arch="resnet50", pretrained=True)
    write_run(runs / "a-run-with-a-name-that-is-rather-too-long-for-a-phone", seed=2, qwk=0.5)
    file = runs / "report.html"
    file.write_text(page.render(reading.collect([runs])), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in QUIET.split():
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser: Any, report: Path) -> Any:
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    _width(browser, 1280)
    browser.get(report.as_uri())
    return browser


def _width(browser: Any, pixels: int) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": pixels, "height": 900, "deviceScaleFactor": 1, "mobile": False},
    )


def _overflow(browser: Any) -> int:
    root = "document.documentElement"
    return browser.execute_script(f"return {root}.scrollWidth - {root}.clientWidth")


def _runs(browser: Any) -> list[str]:
    rows = browser.find_elements("css selector", "table.sortable tbody th a")
    return [row.text for row in rows]


def test_opens_without_a_word_on_the_console(opened: Any) -> None:
    assert opened.title.startswith("Diabetic retinopathy grading")
    assert opened.get_log("browser") == []


def test_the_example_opens(opened: Any) -> None:
    opened.get((Path(__file__).parents[2] / "examples" / "report.html").as_uri())
    assert opened.get_log("browser") == []
    empty = "return [...document.images].filter(img => !img.naturalWidth).length"
    assert opened.execute_script(empty) == 0
    assert _overflow(opened) <= 0


def test_sorting(opened: Any) -> None:
    [heading] = [
        button
        for button in opened.find_elements("css selector", "table.sortable thead button")
        if button.text == "QWK"
    ]
    heading.click()
    assert [name[:8] for name in _runs(opened)] == ["a-run-wi", "resnet18", "resnet50"]
    heading.send_keys("\n")
    assert [name[:8] for name in _runs(opened)] == ["resnet50", "resnet18", "a-run-wi"]
    sorted_by = opened.find_elements("css selector", "th[aria-sort]")
    assert [(th.text[:3], th.get_attribute("aria-sort")) for th in sorted_by] == [
        ("QWK", "descending")
    ]


def test_a_cell_opens_its_images_by_keyboard(opened: Any, report: Path) -> None:
    cell = opened.find_element("css selector", "table.confusion button")
    listed = opened.find_element("id", cell.get_attribute("popovertarget"))
    assert not listed.is_displayed()
    cell.send_keys("\n")
    assert listed.is_displayed()
    assert len(listed.find_elements("css selector", "li")) == int(cell.text)
    assert ".jpg" in listed.text
    webdriver.ActionChains(opened).send_keys(webdriver.Keys.ESCAPE).perform()
    assert not listed.is_displayed()


def _contrast(browser: Any) -> float:
    """The lowest contrast between the ink and the ground of a confusion cell or of the page."""
    return browser.execute_script("""
      const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
      const light = colour => {
        canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
        const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map(v => v / 255)
          .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      return Math.min(...[document.body, ...document.querySelectorAll(
        ".confusion td, .use, .warning, .sortable thead th, .tag, tr.best th"
      )].map(e => {
        let ground = e;
        while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)")
          ground = ground.parentElement;
        const [x, y] = [light(getComputedStyle(e).color),
                        light(getComputedStyle(ground).backgroundColor)];
        return (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05);
      }));
    """)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_schemes_can_be_read(opened: Any, scheme: str) -> None:
    opened.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    ground = opened.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 29)"}[scheme]
    assert _contrast(opened) >= 4.5  # WCAG 2.2 AA, small text


def test_pictures_stand_side_by_side(opened: Any) -> None:
    _unfold(opened)
    for pixels in (390, 1280):
        _width(opened, pixels)
        pairs = opened.execute_script("""
          return [...document.querySelectorAll(".pair")].map(pair => [...pair.children].map(
            img => [img.complete && img.naturalWidth, img.offsetTop, img.offsetWidth]));
        """)
        assert len(pairs) == 13
        for (seen, top, width), (other, same_top, same_width) in pairs:
            assert (seen, other) == (32, 32)  # decoded: the page's policy lets them through
            assert (top, width) == (same_top, same_width)
            assert width > 130


@pytest.mark.parametrize("pixels", [390, 1280])
def test_no_sideways_scrolling(opened: Any, pixels: int) -> None:
    _width(opened, pixels)
    assert _overflow(opened) <= 0


def test_print_on_a4_has_no_overflow(opened: Any) -> None:
    _width(opened, 688)  # 182 mm, A4 less its margins, in CSS pixels
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    opened.execute_script("dispatchEvent(new Event('beforeprint'))")
    unfolded = opened.find_elements("css selector", "details[open]")
    assert len(unfolded) == 3 * 3 + 1  # figures, charts and the making of each run; the pairs
    asked = opened.find_elements("css selector", ".ask")
    assert len(asked) > 9
    assert not any(one.is_displayed() for one in asked)
    assert _overflow(opened) <= 0
    cut = opened.execute_script(
        "return [...document.querySelectorAll('.wide')].filter(e => e.scrollWidth > 690).length"
    )
    assert cut == 0
    opened.execute_script("dispatchEvent(new Event('afterprint'))")
    assert len(opened.find_elements("css selector", "details[open]")) == 2  # of the best run


@pytest.mark.parametrize(("pixels", "most"), [(1280, 6_000), (390, 13_000)])
def test_three_runs_are_not_too_long(opened: Any, pixels: int, most: int) -> None:
    _width(opened, pixels)
    assert opened.execute_script("return document.documentElement.scrollHeight") < most


def test_the_contents_lead_everywhere_from_the_best_run_down(opened: Any) -> None:
    links = opened.find_elements("css selector", "nav a")
    assert [link.text[:8] for link in links] == [
        "Summary", "Comparis", "resnet50", "resnet18", "a-run-wi", "Model ca"
    ]  # fmt: skip
    for link in links:
        target = link.get_attribute("href").partition("#")[2]
        assert opened.find_element("id", target).tag_name == "h2"


def test_no_chart_stands_alone_in_half_a_row(opened: Any) -> None:
    _unfold(opened)
    rows = opened.execute_script("""
      return [...document.querySelectorAll(".charts")].map(box => {
        const rows = {};
        for (const figure of box.children) {
          const {top, width} = figure.getBoundingClientRect();
          rows[top] = (rows[top] ?? 0) + width / box.clientWidth;
        }
        return Object.values(rows);
      });
    """)
    assert len(rows) == 4
    assert min(min(row) for row in rows) > 0.9


def test_no_two_texts_of_a_chart_overlap(opened: Any) -> None:
    """The learning rate's title stood on its ticks at 390 px."""
    for pixels in (390, 1280):
        _width(opened, pixels)
        _unfold(opened)
        found = opened.execute_script("""
          const overlap = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
            && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3;
          return [...document.querySelectorAll(".chart")].flatMap(chart => {
            const texts = [...chart.querySelectorAll("text")];
            const boxes = texts.map(text => text.getBoundingClientRect());
            return texts.flatMap((text, i) => texts.slice(i + 1)
              .filter((_, j) => overlap(boxes[i], boxes[i + 1 + j]))
              .map(other => `${text.textContent} on ${other.textContent}`));
          });
        """)
        assert found == []


def test_a_cut_table_says_that_it_scrolls(opened: Any) -> None:
    told = "return getComputedStyle(document.querySelector('.wide'), '::before').content"
    assert opened.execute_script(told) == "none"
    _width(opened, 390)
    opened.execute_script("dispatchEvent(new Event('resize'))")
    assert "scrolls sideways" in opened.execute_script(told)


def _unfold(browser: Any) -> None:
    browser.execute_script("for (const x of document.querySelectorAll('.part')) x.open = true")


def test_every_control_has_a_name(opened: Any) -> None:
    nodes = opened.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = {"button", "link", "image", "region", "dialog", "table"}
    nameless = [
        json.dumps(node)
        for node in nodes
        if not node.get("ignored")
        and node.get("role", {}).get("value") in roles
        and not node.get("name", {}).get("value")
    ]
    assert nameless == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(opened: Any, scheme: str) -> None:
    package = importlib.util.find_spec("axe_core_python")
    if package is None:
        pytest.skip("axe-core-python is not installed")
    axe = Path(str(package.origin)).with_name("axe.min.js").read_text(encoding="utf-8")
    opened.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    opened.execute_script("for (const x of document.querySelectorAll('details')) x.open = true")
    opened.execute_script("document.querySelector('[popover]').showPopover()")
    opened.execute_script(axe)
    found = opened.execute_async_script("axe.run().then(arguments[0])")
    told = [(v["id"], v["nodes"][0]["html"]) for v in found["violations"]]
    assert told == []
    assert len(found["passes"]) > 20
