"""The charts of drift on the page: headless Chromium, with answers of the service made up."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from service.app import create_app
from service.settings import Settings
from tests.fakes import LINE, InProcess, save_line
from tests.serving import no_recipes
from tests.sockets import listening
from tests.templates import migrated

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = save_line(tmp_path_factory.mktemp("line")).parent
    specs = {"line": LINE}
    settings = Settings(store=migrated(folder / "store"))
    app = create_app(settings, specs, folder, no_recipes, partial(InProcess, specs))
    with listening(app) as ((_, port), _):
        yield f"http://127.0.0.1:{port}/#versions/line"


def feature(name: str, kind: str, psi: float, *, drifted: bool = False, bounds: bool = True) -> dict[str, Any]:
    shares = [(0.0, 0.2), (0.5, 0.1), (0.5, 0.7), (0.0, 0.0)]
    edges = [(None, 0.0), (0.0, 1.0), (1.0, 2.0), (None, None)] if bounds else [(None, None)] * 4
    bins = [
        {"name": f"bin {at}", "low": low, "high": high, "reference": one, "window": other}
        for at, ((low, high), (one, other)) in enumerate(zip(edges, shares, strict=True))
    ]
    counts = {"samples": 800, "reference_samples": 5000, "psi": psi, "limit": 0.05, "halves": []}
    return {"name": name, "kind": kind, "drifted": drifted, "bins": bins, **counts}


FOUND = {
    "model": "line",
    "version": 1,
    "window": "1h",
    "since": "2026-11-27T02:00:00.000Z",
    "until": "2026-11-27T03:00:00.000Z",
    "state": "drift",
    "samples": 800,
    "confidence": {"reference": 0.99, "window": 0.8},
    "features": [feature("size", "feature", 0.01), feature("label", "answer", 0.4, drifted=True, bounds=False)],
}


def test_reference_and_window_are_drawn_over_each_other_the_worst_first(page: Page, url: str) -> None:
    asked: list[str] = []

    def answer(route: Route) -> None:
        asked.append(route.request.url.partition("?")[2])
        route.fulfill(json=FOUND)

    page.route("**/drift?*", answer)
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(url)
    charts = page.locator(".hist")
    expect(charts).to_have_count(2)
    expect(charts.first).to_contain_text("answers: label")
    expect(charts.first).to_contain_text("PSI 0.4, limit 0.05")
    label = "answers: label: PSI 0.4, limit 0.05. Changed most: bin 1, from 50.0 % to 10.0 %"
    expect(charts.first.get_by_role("img")).to_have_attribute("aria-label", label)
    for side in ("reference", "window"):
        expect(charts.nth(1).locator(f"rect.{side}")).to_have_count(3)  # without the empty bin
    expect(page.locator(".drift-state")).to_contain_text("no longer like the data")
    expect(page.locator(".drift-card .legend")).to_contain_text("now, beyond the limit")
    expect(page.get_by_role("link", name="label some answers")).to_have_attribute("href", "#audit/line")
    expect(page.locator(".drift-state")).to_contain_text("Mean confidence 80.0 %, on the validation split 99.0 %")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360

    shares = charts.nth(1).get_by_role("region", name="Shares of size")
    expect(shares).to_be_hidden()
    charts.nth(1).get_by_text("Shares", exact=True).click()
    expect(shares).to_contain_text("bin 0")
    page.get_by_label("Window").select_option("the last 7 days")
    expect(shares).to_be_visible()
    assert asked[0] == "window=1h"
    assert asked[-1] == "window=7d"
    page.unroute_all(behavior="wait")


def test_a_version_without_a_reference_says_why(page: Page, url: str) -> None:
    page.goto(url)
    expect(page.locator(".drift-state")).to_contain_text("Version 1 of line has nothing that drift could be measured")
    expect(page.get_by_role("link", name="label some answers")).to_be_hidden()
    expect(page.locator(".drift-card .legend")).to_be_hidden()
    expect(page.locator(".hist")).to_have_count(0)
