"""The page in a real browser: nothing is loaded, nothing complains, everything is seen on wide and narrow windows."""

from __future__ import annotations

import os
import shutil

import pytest
from made_results import make_run, settings

from unet_pipeline.report.report import report

pytestmark = pytest.mark.slow

NARROW, WIDE = 375, 1280
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )
    if path is None:
        reason = "no Chromium on the PATH: install it to look at the page in a browser"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=path, headless=True, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    model, stacks, config = make_run(folder, settings(evaluate={"isbi": True}))
    report(model, stacks, config, folder / "report.html")
    return (folder / "report.html").as_uri()


@pytest.fixture
def visit(browser, address):
    """Open the page in a window of some width; returns the page, what it asked for, and what the console said."""
    contexts = []

    def opened(width):
        context = browser.new_context(viewport={"width": width, "height": 900})
        contexts.append(context)
        page, requests, messages = context.new_page(), [], []
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: messages.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.goto(address)
        page.wait_for_load_state("networkidle")
        return page, requests, messages

    yield opened
    for context in contexts:
        context.close()


def test_nothing_is_loaded_and_nothing_complains(visit, address):
    _, requests, messages = visit(WIDE)
    assert [url for url in requests if not url.startswith("data:")] == [address]
    assert messages == []


@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_every_picture_is_seen(visit, width):
    page, _, _ = visit(width)
    page.evaluate("() => document.querySelectorAll('details').forEach(d => d.open = true)")
    images = page.evaluate(
        """() => [...document.images].map(i => {const b = i.getBoundingClientRect();
        return [i.complete, i.naturalWidth, i.naturalHeight, b.left, b.width, b.height]})"""
    )
    assert len(images) == 30
    for complete, natural_width, natural_height, left, shown_width, shown_height in images:
        assert complete
        assert natural_width > 0
        assert shown_width >= 200
        assert 0 <= left <= left + shown_width <= width
        assert shown_height / shown_width == pytest.approx(natural_height / natural_width, rel=0.02)


@pytest.mark.parametrize("width", [320, NARROW, 768, WIDE])
def test_the_page_fits_the_window(visit, width):
    page, _, _ = visit(width)
    page.evaluate("() => document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    outside = page.evaluate(
        """width => [...document.querySelectorAll('main *, header *')].filter(e => !e.closest('.scroll'))
        .filter(e => e.getBoundingClientRect().right > width + 1).map(e => e.outerHTML.slice(0, 80))""",
        width,
    )
    assert outside == []


def test_wide_tables_scroll_in_their_own_box(visit):
    page, _, _ = visit(NARROW)
    boxes = page.evaluate("[...document.querySelectorAll('.scroll')].map(e => [e.scrollWidth, e.clientWidth])")
    assert any(inside > shown for inside, shown in boxes)
    assert all(shown <= NARROW for _, shown in boxes)


@pytest.mark.parametrize(("width", "columns"), [(NARROW, 2), (WIDE, 7)])
def test_the_flow_lies_on_wide_windows_and_stands_on_narrow_ones(visit, width, columns):
    page, _, _ = visit(width)
    boxes = page.evaluate(
        """() => [...document.querySelectorAll('.flow li')].map(e => e.getBoundingClientRect())
        .map(b => [b.x, b.y, b.right, b.bottom])"""
    )
    assert len(boxes) == 9
    for i, (x, y, right, bottom) in enumerate(boxes):
        assert all(right <= a or c <= x or bottom <= b or d <= y for a, b, c, d in boxes[:i])
    style = "getComputedStyle(document.querySelector('.flow')).gridTemplateColumns"
    assert len(page.evaluate(style).split()) == columns


@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_letters_are_large_enough(visit, width):
    """At least 9 px where they are seen."""
    page, _, _ = visit(width)
    page.evaluate("() => document.querySelectorAll('details').forEach(d => d.open = true)")
    sizes = page.evaluate(
        """() => [...document.querySelectorAll('body *')].filter(e => e.checkVisibility() &&
        [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())).map(e => {
        return parseFloat(getComputedStyle(e).fontSize)})"""
    )
    assert len(sizes) > 200
    assert min(sizes) >= 9


def test_links_lead_to_their_place(visit):
    page, _, _ = visit(WIDE)
    page.locator("nav a", has_text="small").click()
    assert page.evaluate("Math.abs(document.querySelector(location.hash).getBoundingClientRect().top) < 60")


def test_paper_shows_all_panels(visit):
    page, _, _ = visit(720)
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") <= 720
    assert not page.locator("nav").is_visible()
    assert page.evaluate("[...document.querySelectorAll('.panels img')].every(i => i.width > 100)")
