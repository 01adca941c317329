"""Pages in a real browser: everything is shown, nothing overflows, nothing is loaded, nothing is logged."""

import os
import shutil
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
needs_browser = pytest.mark.skipif(
    not os.access(CHROMIUM, os.X_OK), reason="chromium is not installed: apt-get install chromium"
)
LARGEST = 3_000_000
# What a browser knows of a page that was drawn: pictures that did not load, figures without size, widths, words.
LOOK = """() => {
  const root = document.documentElement, edge = root.clientWidth + 1
  const inside = element => { for (let e = element; e; e = e.parentElement) if (e.className === 'scroll') return true }
  return {
    pictures: document.querySelectorAll('img, svg').length,
    unloaded: [...document.images].filter(each => !each.complete || !each.naturalWidth).length,
    unnamed: [...document.querySelectorAll('img:not([alt]), img[alt=""], svg:not([aria-label])')].length,
    empty: [...document.querySelectorAll('img, svg[role=img]')].filter(each => {
      const box = each.getBoundingClientRect()
      return box.width < 20 || box.height < 10
    }).length,
    wide: root.scrollWidth - root.clientWidth,
    beyond: [...document.querySelectorAll('body *')]
      .filter(each => !inside(each) && !each.closest('svg') && each.getBoundingClientRect().right > edge)
      .map(each => each.outerHTML.slice(0, 90)),
    links: [...document.querySelectorAll('nav a')]
      .filter(each => !document.querySelector(each.getAttribute('href'))).length,
    ink: getComputedStyle(document.body).color, paper: getComputedStyle(document.body).backgroundColor,
    small: [...document.querySelectorAll('svg text')].filter(each => each.getBoundingClientRect().height < 6).length,
    scripts: document.scripts.length,
  }
}"""


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def brightness(colour):
    return sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(",")))


def look(browser, file, width, scheme):
    """Open a page offline; return what is seen of it, and what it logged and asked for."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    page, heard = context.new_page(), []
    page.on("console", lambda message: heard.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: heard.append(f"error: {error}"))
    page.on("request", lambda request: heard.append(request.url))
    page.goto(file.as_uri(), wait_until="load")
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    seen = page.evaluate(LOOK)
    context.close()
    return seen, [each for each in heard if each != file.as_uri() and not each.startswith("data:")]


@needs_browser
@pytest.mark.parametrize("name", ["images", "rows", pytest.param("sequences", marks=pytest.mark.slow)])
def test_a_page_is_whole_on_a_desk_and_on_a_phone_by_day_and_by_night(name, browser, request):
    run, source = request.getfixturevalue(name)
    file: Path = run.report(source=source)
    assert file.stat().st_size < LARGEST
    for width, scheme in ((1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")):
        seen, heard = look(browser, file, width, scheme)
        ink, paper = brightness(seen.pop("ink")), brightness(seen.pop("paper"))
        assert (ink < 200 and paper > 600) if scheme == "light" else (ink > 500 and paper < 150)
        assert seen.pop("pictures") > 6
        faults = {what: value for what, value in seen.items() if value}
        assert (faults, heard) == ({}, []), (width, scheme)


@needs_browser
def test_the_look_sees_what_is_wrong(browser, tmp_path):
    """A page with each fault once: what the test above asserts can fail."""
    file = tmp_path / "bad.html"
    file.write_text(
        "<!DOCTYPE html><html><body><nav><a href='#nowhere'>x</a></nav><img src='data:image/png;base64,AAAA' alt='x'>"
        "<img src='http://127.0.0.1:9/a.png'><div style='width: 3000px'>wide</div><svg width=3 height=3></svg>"
        "<script>console.log('hello'); nothing()</script></body></html>"
    )
    seen, heard = look(browser, file, 390, "light")
    assert seen["unloaded"] == 2
    assert seen["unnamed"] == 2
    assert seen["wide"] > 2000
    assert len(seen["beyond"]) >= 1
    assert (seen["links"], seen["scripts"]) == (1, 1)
    assert "console: hello" in heard
    assert any("nothing is not defined" in each for each in heard)
    assert "http://127.0.0.1:9/a.png" in heard
