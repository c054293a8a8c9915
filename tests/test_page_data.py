"""Browser test of the page's Data section: headless Chromium against a running service with its worker."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.fakes import running_server

pytestmark = pytest.mark.slow

REFUSED = 201  # one more than a page of the report
ROWS = 2_000


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_server({"TORCHLOOP_WORKER": "embedded"}) as url:
        yield url


def points(folder: Path) -> Path:
    """Write a file of ROWS points, label 1 below the line x + y = 0, and then REFUSED bad rows."""
    good = [(at * 37 % 401 / 100 - 2, at * 53 % 397 / 100 - 2) for at in range(ROWS)]
    lines = ["x,y,label", *(f"{x:.2f},{y:.2f},{int(x + y < 0)}" for x, y in good), *['"2,5",1.0,0'] * REFUSED]
    path = folder / "My points.csv"
    path.write_text("\n".join(lines))
    return path


def test_a_file_is_uploaded_its_report_read_and_a_model_trained_on_it(page: Page, url: str, tmp_path: Path) -> None:
    page.goto(f"{url}/#data/classifier")
    upload, newest = page.get_by_role("button", name="Upload", exact=True), page.locator(".job").first
    page.get_by_label("Name", exact=True).fill("other")
    upload.click()
    expect(page.get_by_role("alert").filter(has_text="Choose a file first")).to_be_visible()
    page.get_by_label("Name", exact=True).fill("")
    page.locator("#data-file").set_input_files(points(tmp_path))
    expect(page.get_by_label("Name", exact=True)).to_have_value("my-points")
    upload.click()
    expect(newest.locator("> summary .chip")).to_have_text("failed")
    expect(newest.locator(".trouble")).to_contain_text("refused")
    expect(newest.get_by_role("row", name="2001")).to_contain_text("Wrong sample")

    page.get_by_label("Share of rows that may be refused").fill("0.2")
    upload.click()
    expect(newest.locator("> summary")).to_contain_text("my-points@1")
    expect(newest.locator(".report")).to_contain_text(f"{ROWS + REFUSED} rows, {ROWS} good, {REFUSED} refused.")
    expect(newest.locator(".warnings")).to_contain_text("validation rows")
    rows = newest.locator(".rows tbody tr")
    expect(rows).to_have_count(200)
    expect(rows.first).to_contain_text(
        re.compile(r"2001.*x.*2,5.*Wrong sample: a sample must be numbers in shape \[2\]")
    )
    newest.get_by_role("button", name="More rows").click()
    expect(rows).to_have_count(REFUSED)
    expect(newest.get_by_role("button", name="More rows")).to_be_hidden()

    listed = row_of(page, "my-points@1")
    expect(listed).to_contain_text("2 labels")
    listed.get_by_role("button", name="Train on it").click()
    expect(page.get_by_label("train on")).to_have_value("my-points@1")
    page.get_by_label("epochs", exact=True).fill("1")
    page.get_by_label("make it live").select_option("always")
    page.get_by_role("button", name="Start training").click()
    expect(page.locator(".job > summary .chip")).to_have_text("succeeded")  # ingests are not in this list
    expect(page.locator(".job > summary")).to_contain_text("my-points@1")
    expect(page.locator(".job .facts")).to_contain_text("Dataset: my-points@1")

    page.get_by_role("link", name="Data").click()
    expect(listed).to_contain_text("version 2")
    grow(page, tmp_path)
    row_of(page, "my-points@2").get_by_role("button", name="Train on it").click()
    page.get_by_label("epochs", exact=True).fill("1")
    page.get_by_role("button", name="Start training").click()
    expect(page.locator(".job .gate-part").first).to_contain_text(re.compile(r"old rows: \d+ examples"))
    expect(page.locator(".job .gate-part").last).to_contain_text(re.compile(r"new rows: \d+ examples.*p = "))
    page.get_by_role("link", name="Data").click()
    listed.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator("#notices")).to_contain_text("my-points@2")  # the 409 says what has grown from it
    expect(listed).to_be_visible()
    grown = row_of(page, "my-points@2")
    grown.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(grown).to_have_count(0)


def row_of(page: Page, dataset: str) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=dataset))


def grow(page: Page, folder: Path) -> None:
    """Upload rows that my-points@1 does not have, as its child."""
    rows = [f"9.5,{at / 10},0" for at in range(60)]
    (folder / "more.csv").write_text("\n".join(["x,y,label", *rows]))
    page.locator("#data-file").set_input_files(folder / "more.csv")
    page.get_by_label("Name", exact=True).fill("my-points")
    page.get_by_label("Grows from").select_option("my-points@1")
    page.get_by_role("button", name="Upload", exact=True).click()
    expect(row_of(page, "my-points@2")).to_contain_text("my-points@1")


def test_an_upload_goes_on_at_the_offset_that_the_service_has(page: Page, url: str, tmp_path: Path) -> None:
    sent: list[int] = []

    def lose_the_answer(route: Route) -> None:
        sent.append(int(route.request.url.partition("offset=")[2]))
        if len(sent) != 2:
            return route.continue_()
        route.fetch()  # the second part arrives, and its answer is lost
        return route.abort()

    def in_small_parts(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), "part_bytes": 10_000})

    page.route("**/uploads/*?offset=*", lose_the_answer)
    page.route("**/datasets/resumed/uploads", in_small_parts)
    page.goto(f"{url}/#data/classifier")
    page.locator("#data-file").set_input_files(points(tmp_path))
    page.get_by_label("Name", exact=True).fill("resumed")
    page.get_by_label("Share of rows that may be refused").fill("0.2")
    page.get_by_role("button", name="Upload", exact=True).click()
    expect(row_of(page, "resumed@1")).to_be_visible()
    assert sent == list(range(0, points(tmp_path).stat().st_size, 10_000))  # each part once
    page.unroute_all(behavior="wait")


def test_a_model_whose_recipe_has_no_target_says_so(page: Page, url: str) -> None:
    def without_target(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json={"models": [{**one, "target": None} for one in answer.json()["models"]]})

    page.set_viewport_size({"width": 400, "height": 740})
    page.route("**/models", without_target)
    page.goto(f"{url}/#data/classifier")
    expect(page.locator(".heading")).to_contain_text("classifier learns no files: its recipe has no target")
    expect(page.get_by_role("button", name="Upload", exact=True)).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    page.get_by_role("link", name="Train").click()
    expect(page.get_by_role("button", name="Start training")).to_be_visible()
    expect(page.get_by_label("train on")).to_have_count(0)
    page.unroute_all(behavior="wait")


def test_with_keys_and_under_a_prefix_an_ingest_is_queued_and_cancelled(page: Page, tmp_path: Path) -> None:
    settings = {"TORCHLOOP_API_KEYS": "predict:p,train:t", "TORCHLOOP_ROOT_PATH": "/loop"}
    with running_server(settings) as url:
        page.goto(f"{url}/loop/#data/classifier")
        use_key(page, "p")
        expect(page.get_by_role("heading", name="Data of classifier")).to_be_visible()
        page.locator("#data-file").set_input_files(points(tmp_path))
        page.get_by_role("button", name="Upload", exact=True).click()
        expect(page.get_by_role("dialog")).to_contain_text("scope train")
        use_key(page, "t")
        card = page.locator(".job")
        expect(card.locator("> summary .chip")).to_have_text("queued")  # this service has no worker
        card.get_by_role("button", name="Cancel").click()
        expect(card.locator("> summary .chip")).to_have_text("cancelled")


def use_key(page: Page, key: str) -> None:
    page.get_by_label("Key", exact=True).fill(key)
    page.get_by_role("button", name="Use this key").click()
