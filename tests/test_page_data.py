"""Browser test of the page's Data section: headless Chromium against a running service with its worker."""

import base64
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.dataset_files import digit, png, write_zip
from tests.fakes import running_server

pytestmark = pytest.mark.slow

REFUSED = 201  # one more than a page of the report
ROWS = 2_000
NONE = "\N{EN DASH}"


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
    chosen = tmp_path / "earlier.csv"
    chosen.write_text("x,y,label\n")
    page.get_by_label("Name", exact=True).fill("")
    page.locator("#data-file").set_input_files(chosen)
    expect(page.get_by_label("Name", exact=True)).to_have_value("earlier")
    page.locator("#data-file").set_input_files(points(tmp_path))
    expect(page.get_by_label("Name", exact=True)).to_have_value("my-points")
    upload.click()
    expect(newest.locator("> summary .chip")).to_have_text("failed")
    expect(newest.locator(".trouble")).to_contain_text("refused")
    expect(newest.get_by_role("row", name="2001")).to_contain_text("Wrong sample")

    page.get_by_label("Share of rows that may be refused").fill("0.2")
    upload.click()
    expect(newest.locator("> summary")).to_contain_text("my-points@1")
    expect(newest.locator(".report")).to_contain_text(f"{ROWS + REFUSED:,} rows, {ROWS:,} good, {REFUSED} refused.")
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
    compare(page)
    train_on_both(page)
    listed.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator("#notices")).to_contain_text("my-points@2")  # the 409 says what has grown from it
    expect(listed).to_be_visible()
    grown = row_of(page, "my-points@2")
    grown.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(grown).to_have_count(0)


def row_of(page: Page, dataset: str) -> Locator:
    return page.locator(f'tr[data-dataset="{dataset}"]')


def grow(page: Page, folder: Path) -> None:
    """Upload rows that my-points@1 does not have, as its child."""
    rows = [f"9.5,{at / 10},0" for at in range(60)]
    (folder / "more.csv").write_text("\n".join(["x,y,label", *rows]))
    page.locator("#data-file").set_input_files(folder / "more.csv")
    page.get_by_label("Name", exact=True).fill("my-points")
    page.get_by_label("Grows from").select_option("my-points@1")
    page.get_by_role("button", name="Upload", exact=True).click()
    expect(row_of(page, "my-points@2")).to_contain_text("my-points@1")


def train_on_both(page: Page) -> None:
    """Train on my-points@2: the gate tells old from new rows."""
    row_of(page, "my-points@2").get_by_role("button", name="Train on it").click()
    page.get_by_label("epochs", exact=True).fill("1")
    page.get_by_role("button", name="Start training").click()
    expect(page.locator(".job .gate-part").first).to_contain_text(re.compile(r"old rows: \d+ examples"))
    expect(page.locator(".job .gate-part").last).to_contain_text(re.compile(r"new rows: \d+ examples.*p = "))
    page.get_by_role("link", name="Data").click()


def compare(page: Page) -> None:
    """Choose both versions by the keyboard, and read the differences."""
    for dataset in ("my-points@1", "my-points@2"):
        page.get_by_label(f"Compare {dataset}").focus()
        page.keyboard.press("Space")
    compared = page.get_by_role("region", name="Comparison")
    facts = compared.get_by_role("region", name="Counts and origin")
    for name, left, right in [
        ("Rows of the file", f"{ROWS + REFUSED:,}", "60"),
        ("Added", f"{ROWS:,}", "60"),
        ("Refused", str(REFUSED), "0"),
        ("Grown from", NONE, "my-points@1"),
    ]:
        expect(facts.get_by_role("row", name=name).get_by_role("cell")).to_have_text([left, right])
    labels = compared.get_by_role("region", name="Examples by label and split")
    expect(labels.locator("tbody tr").first.get_by_role("cell").last).to_have_text("+60")
    expect(labels.locator("tbody tr").last.get_by_role("cell").last).to_have_text("0")
    expect(compared).to_contain_text("Both have the same schema.")
    expect(compared.locator(".warnings")).to_have_count(2)
    page.get_by_label("Compare my-points@2").uncheck()
    expect(compared).to_have_count(0)


def described(version: int, **values: Any) -> dict[str, Any]:
    """Return version `version` of a dataset, as the service describes it."""
    counts = {"train": 80, "validation": 10, "test": 10}
    return {
        "dataset": f"old@{version}",
        "built_in": False,
        "sha256": str(version) * 64,
        "format": "csv",
        "created_at": "2026-01-01T00:00:00Z",
        "job": "0" * 32,
        "parent": None,
        "schema": {"x": {"kind": "number", "low": 0}},
        "examples": counts,
        "by_label": {"cat": counts},
        "rows": 100,
        "rejected": 0,
        "duplicates": 0,
        "conflicting_labels": 0,
        "added": 100,
        "warnings": [],
        "trained": [],
        **values,
    }


def test_versions_with_other_inputs_and_labels_are_compared(page: Page, url: str) -> None:
    found = [
        described(1, reference={"ink": [0.5, 2]}),
        described(2, schema={"x": {"kind": "number", "low": -1}, "y": {"kind": "text"}}, reference={"ink": [0.25, 2]}),
        described(3, by_label={"cat": {"train": 80, "test": 20}, "a dog": {"train": 3}}, warnings=["a dog is rare"]),
    ]
    page.route("**/models/classifier/datasets", lambda route: route.fulfill(json={"datasets": found}))
    page.set_viewport_size({"width": 400, "height": 740})
    page.goto(f"{url}/#data/classifier")
    boxes = [page.get_by_label(f"Compare old@{version}") for version in (1, 2, 3)]
    boxes[0].check()
    boxes[1].check()
    compared = page.get_by_role("region", name="Comparison")
    expect(compared.get_by_role("region", name="Schema").locator("tbody tr")).to_contain_text(["0-1", f"{NONE}text"])
    expect(compared.get_by_role("region", name="Reference statistics").get_by_role("cell")).to_have_text(
        ["0.5, 2", "0.25, 2"]
    )
    boxes[2].check()
    expect(boxes[0]).not_to_be_checked()
    expect(compared.get_by_role("heading", name="old@2 and old@3")).to_be_visible()
    dog = compared.get_by_role("row", name="a dog").get_by_role("cell")
    expect(dog).to_have_text([NONE, "3 / 0 / 0", "+3"])
    expect(row_of(page, "old@3").locator("summary")).to_have_text("1")  # warnings
    row_of(page, "old@3").locator("summary").click()
    expect(row_of(page, "old@3").locator(".warnings")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    page.unroute_all(behavior="wait")


def pictures(folder: Path) -> Path:
    """Write a zip of 40 pictures that the model takes for digits, and 3 that it refuses; one of these is no picture."""
    files = {f"{number % 2}/{number}.png": png(digit(number)) for number in range(40)}
    return write_zip(
        folder / "Strokes.zip", {**files, **{f"cat/{at}.png": png(digit(at)) for at in (1, 2)}, "cat/3.png": b"?"}
    )


def drop(page: Page, file: Path) -> None:
    """Drag a file into the page, and drop it."""
    content = base64.b64encode(file.read_bytes()).decode()
    script = """([content, name]) => {
        const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
        const transfer = new DataTransfer();
        transfer.items.add(new File([bytes], name));
        return transfer;
    }"""
    transfer = page.evaluate_handle(script, [content, file.name])
    place = page.locator(".drop")
    place.dispatch_event("dragover", {"dataTransfer": transfer})
    expect(place).to_have_class("drop over")
    place.dispatch_event("drop", {"dataTransfer": transfer})
    expect(place).to_have_class("drop")


def is_drawn(picture: Locator) -> None:
    """Bring a thumbnail into view, which loads it."""
    picture.scroll_into_view_if_needed()
    expect(picture).to_have_js_property("naturalWidth", 28)


def test_a_dropped_zip_shows_its_refused_rows_and_examples_as_pictures(page: Page, url: str, tmp_path: Path) -> None:
    page.goto(f"{url}/#data/mnist")
    drop(page, pictures(tmp_path))
    expect(page.get_by_label("Name", exact=True)).to_have_value("strokes")
    upload, newest = page.get_by_role("button", name="Upload", exact=True), page.locator(".job").first
    upload.click()
    expect(newest.locator("> summary .chip")).to_have_text("failed")
    refused = newest.get_by_role("list", name="Refused pictures").get_by_role("listitem")
    expect(refused).to_have_count(3)
    is_drawn(refused.first.get_by_role("img", name="refused row 41"))
    expect(refused.first).to_contain_text("Unknown label: 'cat' is none of")
    expect(refused.last).to_contain_text("no picture")

    page.get_by_label("Share of rows that may be refused").fill("0.1")
    upload.click()
    expect(newest.locator("> summary")).to_contain_text("strokes@1")
    expect(newest.get_by_role("list", name="Examples of 1").get_by_role("img")).to_have_count(8)
    page.set_viewport_size({"width": 390, "height": 740})
    page.get_by_role("button", name="Report: strokes@1").click()
    report = page.get_by_role("region", name="Report", exact=True)
    expect(report).to_be_focused()
    is_drawn(report.get_by_role("img", name="an example of 0").first)
    counts = report.get_by_role("table", name="Examples of strokes@1")
    expect(counts.get_by_role("row", name="all").get_by_role("cell").last).to_have_text("40")
    expect(counts.get_by_role("row", name="9").get_by_role("cell").last).to_have_text("0")
    shares = (
        counts.locator("tbody tr")
        .first.locator(".split")
        .evaluate_all("all => all.map((one) => parseFloat(one.style.width))")
    )
    assert sum(shares) == pytest.approx(100)  # 20 of each label: the longest bars
    is_drawn(report.get_by_role("img", name="refused row 42"))
    expect(report.get_by_role("button", name="More rows")).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def in_small_parts(route: Route) -> None:
    answer = route.fetch()
    route.fulfill(response=answer, json={**answer.json(), "part_bytes": 10_000})


def begin_and_reload(page: Page, file: Path, name: str) -> None:
    """Upload two parts of a file and reload the page while the third is on its way."""
    held: list[Route] = []

    def hold_the_third(route: Route) -> None:
        if route.request.url.endswith("offset=20000"):
            held.append(route)
        else:
            route.continue_()

    page.route("**/uploads/*?offset=*", hold_the_third)
    page.route(f"**/datasets/{name}/uploads", in_small_parts)
    page.locator("#data-file").set_input_files(file)
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Share of rows that may be refused").fill("0.2")
    page.get_by_role("button", name="Upload", exact=True).click()
    expect(page.get_by_role("progressbar", name="Upload")).to_have_js_property("value", 20_000 / file.stat().st_size)
    while not held:  # the bar moves before the next part is sent
        page.wait_for_timeout(10)
    page.reload()
    page.unroute_all(behavior="ignoreErrors")


def test_an_upload_goes_on_after_a_reload_when_the_same_file_is_chosen(page: Page, url: str, tmp_path: Path) -> None:
    file, other = points(tmp_path), tmp_path / "other" / "My points.csv"
    other.parent.mkdir()
    other.write_bytes(file.read_bytes().replace(b"0.00", b"0.01"))  # the same name and size
    os.utime(other, (1e9, 1e9))
    page.goto(f"{url}/#data/classifier")
    begin_and_reload(page, file, "reloaded")
    waiting = page.get_by_role("list", name="Unfinished uploads")
    expect(waiting).to_contain_text("My points.csv for reloaded: 20 kB of 28.4 kB have arrived.")
    chosen = page.locator("#data-file")
    chosen.set_input_files(other)
    expect(page.get_by_role("button", name="Upload", exact=True)).to_be_visible()
    chosen.set_input_files(file)
    expect(page.get_by_label("Name", exact=True)).to_have_value("reloaded")
    expect(page.get_by_label("Share of rows that may be refused")).to_have_value("0.2")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "PUT" else None)
    page.get_by_role("button", name="Go on with the upload").click()
    expect(row_of(page, "reloaded@1")).to_be_visible()
    assert [address.partition("offset=")[2] for address in sent] == ["20000"]
    expect(waiting).to_be_hidden()
    assert page.evaluate("Object.values(localStorage).filter((one) => one.includes('reloaded'))") == []
    expect(page.get_by_role("button", name="Upload", exact=True)).to_be_enabled()


def test_an_unfinished_upload_is_discarded_or_forgotten(page: Page, url: str, tmp_path: Path) -> None:
    page.goto(f"{url}/#data/classifier")
    for name in ("discarded", "expired"):
        begin_and_reload(page, points(tmp_path), name)
    waiting = page.get_by_role("list", name="Unfinished uploads").get_by_role("listitem")
    expect(waiting).to_have_count(2)
    kept = page.evaluate("Object.values(localStorage).flatMap((one) => Object.values(JSON.parse(one)))")
    (removed,) = [one["upload"] for one in kept if one["name"] == "expired"]
    assert page.request.delete(f"{url}/uploads/{removed}").ok
    page.reload()
    expect(waiting).to_have_count(1)  # the service does not have the other one
    waiting.get_by_role("button", name="Discard").click()
    page.get_by_role("dialog").get_by_role("button", name="Discard").click()
    expect(waiting).to_have_count(0)
    (discarded,) = [one["upload"] for one in kept if one["name"] == "discarded"]
    assert page.request.get(f"{url}/uploads/{discarded}").status == 404


def test_an_upload_goes_on_at_the_offset_that_the_service_has(page: Page, url: str, tmp_path: Path) -> None:
    sent: list[int] = []

    def lose_the_answer(route: Route) -> None:
        sent.append(int(route.request.url.partition("offset=")[2]))
        if len(sent) != 2:
            return route.continue_()
        route.fetch()  # the second part arrives, and its answer is lost
        return route.abort()

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
