"""The report in a real browser: no errors, no requests, everything by keyboard, laptop and phone, light and dark."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from small_runs import photographs, searched, write_run, write_trial

from recipes import report

HOSTILE = "<img src=x onerror=alert(1)>"
RUNS = {"cheap": (30.0, 4, "quantization noise"), HOSTILE: (31.0, 8, "direct"), "worse": (29.5, 8, "direct")}
SIZES = {"laptop": (1280, 800), "phone": (390, 844)}


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on a sweep of three trials that are done, one that failed and one that waits."""
    folder = tmp_path_factory.mktemp("report")
    found, images = searched(folder / "search"), photographs(folder / "images")
    for name, (psnr, bits, method) in RUNS.items():
        write_run(write_trial(folder / "sweep", name, method=method, budget=2e7), found, images, psnr=psnr, bits=bits)
    write_trial(folder / "sweep", "broken", "failed", error=HOSTILE)
    write_trial(folder / "sweep", "later", "waiting")
    report.main([str(folder / "sweep"), "--images", "2"])
    return folder / "sweep" / "report" / "report.html"


Opened = Callable[..., Any]


@pytest.fixture
def opened(chromium: Any, page_file: Path) -> Iterator[Opened]:
    """Opens the page in a window of its own; what the browser complains of or asks for fails the test at its end."""
    complaints: list[str] = []
    contexts = []

    def open_page(size: str = "laptop", scheme: str = "light", file: Path = page_file, **settings: Any) -> Any:
        width, height = SIZES[size]
        context = chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, has_touch=size == "phone", **settings
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: complaints.append(request.url) if _leaves(request.url) else None)
        page.goto(file.as_uri())
        if settings.get("java_script_enabled", True):
            page.wait_for_selector("html[data-ready=yes]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints


def _leaves(address: str) -> bool:
    return not address.startswith(("data:", "file:"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_the_page_shows_everything_at_every_width_and_scheme(opened: Opened, size: str, scheme: str) -> None:
    page = opened(size, scheme)
    assert page.locator("#front-chart svg path[data-name]").count() == 3
    assert page.locator("#run-body .slider").count() == 2
    assert page.locator("#run-body .panels svg").count() >= 4 + 6  # curves, and every block
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    widest = "Math.max(...[...document.querySelectorAll('section')].map(one => one.getBoundingClientRect().right))"
    assert page.evaluate(widest) <= SIZES[size][0]
    decoded = "[...document.images].every(image => image.complete && image.naturalWidth > 0)"
    assert page.evaluate(decoded)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]")
    assert (background < 60) == (scheme == "dark")


def test_every_picture_and_chart_has_a_text(opened: Opened) -> None:
    page = opened()
    assert page.locator("img:not([alt])").count() == 0
    told = "[...document.querySelectorAll('svg.marks')].map(one => one.closest('[aria-label]')?.ariaLabel ?? '')"
    assert all(len(text) > 20 for text in page.evaluate(told))
    assert "31.00 dB" in page.locator("#front-text").text_content()
    assert "head_0" in page.locator(".drawing img").get_attribute("alt")
    unnamed = "[...document.querySelectorAll('select, input, button')].filter(one => !one.labels?.length"
    unnamed += " && !one.textContent.trim() && !one.getAttribute('aria-label')).length"
    assert page.evaluate(unnamed) == 0


def test_the_keyboard_alone_reaches_points_runs_sliders_and_tables(opened: Opened) -> None:
    page = opened()
    reached: set[str] = set()
    tell = "(e => e.dataset.name ? 'point' : e.type === 'range' ? 'slider' : e.closest('th') ? 'heading' :"
    tell += " e.className === 'name' ? 'run' : e.id || e.className || e.tagName)(document.activeElement)"
    for _ in range(120):
        page.keyboard.press("Tab")
        reached.add(page.evaluate(tell))
        if page.evaluate("document.activeElement.closest('#spaces summary') !== null"):
            break
    wanted = {"point", "slider", "heading", "run", "cost", "shown", "filter", "first", "second", "drawing", "SUMMARY"}
    assert wanted <= reached

    page.locator("path[data-name][tabindex='0']").focus()
    assert page.locator("#run-title").text_content() == f"Run {HOSTILE}"  # the best one is shown first
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert page.locator("#run-title").text_content() == "Run cheap"
    assert page.evaluate("document.activeElement.dataset.name") == "cheap"
    for key in ["ArrowRight", "ArrowLeft"] * 6:  # faster than charts are drawn
        page.keyboard.press(key)
    page.wait_for_function("document.querySelectorAll('#run-body .panels svg').length > 8")
    page.locator("input[type=range]").first.focus()
    page.keyboard.press("End")
    assert page.locator(".slider").first.evaluate("one => one.style.getPropertyValue('--cut')") == "100%"


def test_a_point_is_chosen_by_mouse_and_by_a_finger_beside_it(opened: Opened) -> None:
    page = opened()
    page.locator("path[data-name='worse']").click()
    assert page.locator("#run-title").text_content() == "Run worse"
    assert page.locator("#runs-table tr.chosen").get_attribute("data-name") == "worse"
    phone = opened("phone")
    box = phone.locator("path[data-name='cheap']").bounding_box()
    phone.touchscreen.tap(box["x"] - 8, box["y"] + box["height"] / 2)
    phone.wait_for_function("document.getElementById('run-title').textContent === 'Run cheap'")


def test_every_run_is_shown_also_those_that_have_not_ended(opened: Opened) -> None:
    page = opened()
    for name in [*RUNS, "broken", "later"]:
        page.locator("#shown").select_option(name)
        assert page.locator("#run-title").text_content() == f"Run {name}"
        page.wait_for_timeout(200)
    assert "waiting" in page.locator("#run-body").inner_text()


def test_a_search_without_an_evaluation_is_shown_without_a_front(opened: Opened, page_file: Path) -> None:
    run = page_file.parents[1] / "trials" / "cheap"
    copied = page_file.parents[2] / "searched"
    shutil.copytree(run, copied, ignore=shutil.ignore_patterns("evaluation.json", "train"))
    report.main([str(copied)])
    page = opened(file=copied / "report" / "report.html")
    assert page.locator("#front").count() == 0
    assert page.locator("#run-body .panels svg").count() >= 4 + 6 and page.locator(".drawing img").is_visible()
    assert "recipes/search.py --config again.yaml" in page.locator("#run-body").inner_text()


def test_the_table_sorts_and_filters(opened: Opened) -> None:
    page = opened()
    names = "[...document.querySelectorAll('#runs-table tbody tr')].filter(r => !r.hidden).map(r => r.dataset.name)"
    page.get_by_role("button", name="PSNR, dB").click()
    assert page.evaluate(names)[:3] == ["worse", "cheap", HOSTILE]  # those without a figure stay last
    page.get_by_role("button", name="PSNR, dB").click()
    assert page.evaluate(names)[:3] == [HOSTILE, "cheap", "worse"]
    page.locator("#filter").fill("direct done")
    assert set(page.evaluate(names)) == {HOSTILE, "worse"}


def test_two_runs_are_compared_by_what_differs_alone(opened: Opened) -> None:
    page = opened()
    page.locator("#first").select_option("cheap")
    page.locator("#second").select_option("worse")
    text = page.locator("#compare-body").inner_text()
    assert "4 bit" in text and "8 bit" in text and "29.5" in text
    assert "steps_per_epoch" not in text  # it is the same in both
    page.locator("#first").select_option("worse")
    assert page.locator("#compare-body").inner_text().count("Nothing differs.") == 3


def test_without_scripts_the_front_and_the_table_are_there(opened: Opened) -> None:
    page = opened(java_script_enabled=False)
    assert page.locator("#front-chart img").is_visible() and page.locator("#runs-table tbody tr").count() == 5
    assert not page.locator("#compare").is_visible()
