"""Browser test of a trial on the page: headless Chromium against a running service."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Locator, Page, Route, expect

from service.app import create_app
from service.delivery.trials import Counts, Trial, Trials
from service.settings import Settings
from service.store.database import Store
from tests.fakes import LINE, ROOT, InProcess, save_line
from tests.line_versions import state
from tests.serving import no_recipes
from tests.sockets import listening
from tests.templates import migrated
from tests.trials import count, differ, err

pytestmark = pytest.mark.slow

SPECS = {"line": LINE}
PAUSED = (
    "Paused: lunch. Callers get the answers of version 1 only, and version 2 computes nothing meanwhile. "
    "The clock of the stage stands still."
)
SEEN = Counts(requests=360, samples=360, agreed=352, differed=8, latency=(0, 300, 60))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trials")


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """Version 1 is live, 2 and 3 are candidates."""
    save_line(folder / "shipped")
    migrated(folder / "store")
    settings = Settings(store=folder / "store", data=folder)
    app = create_app(settings, SPECS, folder / "shipped", no_recipes, partial(InProcess, SPECS))
    with listening(app) as ((_, port), _):
        url = f"http://127.0.0.1:{port}"
        for slope in (3, 4):
            assert httpx.post(f"{url}/models/line/versions", content=state(slope)).status_code == 201
        yield url


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    store = Store(folder / "store")
    yield store
    store.close()


def trial_of(store: Store) -> Trial:
    trial = Trials(store).of("line")
    assert trial is not None
    return trial


def meter(page: Page, name: str) -> Locator:
    return page.get_by_role("meter", name=name)


def confirm(page: Page, action: str, reason: str = "") -> None:
    page.get_by_role("button", name=action, exact=True).click()
    page.get_by_role("dialog").get_by_label("Reason, for the history").fill(reason)
    page.get_by_role("dialog").get_by_role("button", name=action).click()
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_trial_is_opened_watched_paused_and_rolled_back(page: Page, url: str, store: Store) -> None:
    page.goto(f"{url}/#versions/line")
    expect(page.get_by_role("region", name="Trial")).to_be_hidden()
    page.get_by_role("button", name="Trial: Version 2").click()
    dialog, chip = page.get_by_role("dialog"), page.locator(".trial > summary .chip")
    rows = dialog.get_by_role("listitem")
    expect(rows).to_have_count(3)
    rows.first.get_by_label("Kind").select_option("canary")
    rows.first.get_by_label("Share in percent").fill("10")
    dialog.get_by_role("button", name="Open the trial").click()
    expect(dialog.get_by_role("alert")).to_contain_text("shares must rise, not 0.1, 0.05, 0.25")  # and it stays
    rows.first.get_by_label("Kind").select_option("shadow")
    rows.last.get_by_label("Remove this stage").click()
    dialog.get_by_label("Header with the key").fill("X-User")
    dialog.get_by_label("Answered alike, at least").fill("90")
    dialog.get_by_role("button", name="Open the trial").click()
    expect(chip).to_have_text("shadow")
    stages = page.get_by_role("list", name="Stages").get_by_role("listitem")
    expect(stages).to_have_text([re.compile("1. shadow, 10 % ?now"), re.compile("2. canary, 5 % ?next")])

    trial = trial_of(store)
    for arm in ("shadow", "live"):
        count(trial, store, arm, SEEN)
    differ(trial, store, ["p1", "p2"])
    err(trial, store, "shadow", [1])
    expect(meter(page, "Stage 1: Samples")).to_have_attribute("aria-valuetext", "360 of 500")
    expect(meter(page, "errors: Evidence against it")).to_have_attribute("aria-valuetext", re.compile(r"\d, limit 100"))
    expect(meter(page, "agreement: Answered alike")).to_have_attribute("aria-valuetext", "97.8 %, at least 90.0 %")
    expect(page.get_by_text("0 of 1 minutes did not meet this.", exact=True)).to_be_visible()  # the rest is in the bars
    expect(page.get_by_role("row", name="p2")).to_contain_text(re.compile("p2 *1 *2"))
    expect(page.get_by_role("heading", name="8 of 360 samples were answered differently, the first 2")).to_be_visible()
    page.get_by_role("button", name="Trial: Version 3").click()
    expect(page.locator("#notices")).to_contain_text("A trial is open")

    page.get_by_role("button", name="Advance").focus()
    page.keyboard.press("Enter")
    expect(dialog).to_contain_text("The trial goes on with stage 2: canary, 5 %.")
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Advance")).to_be_focused()
    assert trial_of(store).stage == 0
    confirm(page, "Pause", "lunch")
    expect(chip).to_have_text("paused")
    expect(page.locator(".trial .next")).to_have_text(PAUSED)
    expect(page.locator(".history li").first).to_contain_text(
        re.compile("Trial of version 2: paused.*lunch", re.DOTALL)
    )
    confirm(page, "Resume")
    confirm(page, "Advance")
    expect(chip).to_have_text("canary")
    expect(page.get_by_role("status").filter(has_text="canary, stage 2 of 2")).to_have_count(1)
    err(trial_of(store), store, "candidate", range(10, 20))
    expect(chip).to_have_text("rolled back")
    expect(stages.last).to_contain_text("failed")
    expect(page.locator(".trial .next")).to_contain_text("Errors: keys with an error of one version only: 11 of the")
    expect(page.get_by_role("button", name="Abort")).to_be_hidden()
    expect(page.locator(".condition-name .chip").first).to_have_text("failed")


def test_the_stages_of_a_new_trial_are_edited_by_keyboard(page: Page, url: str) -> None:
    page.goto(f"{url}/#versions/line")
    page.get_by_role("button", name="Trial: Version 2").press("Enter")
    dialog = page.get_by_role("dialog")
    kinds, removes = dialog.get_by_label("Kind"), dialog.get_by_label("Remove this stage")
    add = dialog.get_by_role("button", name="Add a stage")
    expect(kinds.first).to_be_focused()
    add.press("Enter")
    expect(kinds).to_have_count(4)
    expect(kinds.last).to_be_focused()
    removes.first.press("Enter")
    expect(kinds.first).to_be_focused()
    removes.last.press("Enter")
    expect(kinds.last).to_be_focused()
    removes.last.press("Enter")
    removes.last.press("Enter")
    expect(kinds).to_have_count(0)
    expect(add).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Trial: Version 2")).to_be_focused()


def test_a_trial_of_another_client_appears_on_a_phone_and_ends_with_a_promotion(page: Page, url: str) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(f"{url}/#versions/line")
    expect(page.locator("tr.live")).to_contain_text("1")
    stages = [{"shadow": 1.0, "for": "PT1H"}, {"share": 0.5, "for": "P1DT12H", "samples": 1000}]
    body = {"version": 3, "stages": stages}
    assert httpx.post(f"{url}/models/line/trial", json=body).status_code == 201
    chip, last = page.locator(".trial > summary .chip"), page.get_by_role("list", name="Stages").locator("li").last
    expect(chip).to_have_text("shadow")
    expect(last).to_contain_text("at least 1 d 12 h and 1,000 samples")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    said = page.locator(".trial .next")
    words = "In a shadow version 3 computes 100 % of the requests again, and callers get the answers of version 1 only."
    expect(said).to_have_text(words)  # what its stage needs is said by its bars
    words = "At most one in 100 candidates that meet it gets so far by chance, however often one looks."
    expect(page.locator(".trial")).to_contain_text(words)
    assert httpx.post(f"{url}/models/line/trial/advance").status_code == 200
    expect(chip).to_have_text("canary")
    expect(said).to_contain_text("In a canary version 3 answers 50 % of the requests and version 1 the others.")
    page.get_by_role("button", name="Advance").click()
    expect(page.get_by_role("dialog")).to_contain_text("version 3 is loaded and goes live")
    page.get_by_role("dialog").get_by_role("button", name="Advance").click()
    expect(chip).to_have_text("promoted")
    expect(page.get_by_role("tab", name="line")).to_contain_text("v3")
    expect(page.locator("tr.live")).to_contain_text("3")


def test_captured_pictures_of_differing_samples_are_shown(page: Page, url: str, store: Store) -> None:
    def with_pictures(route: Route) -> None:
        answer = route.fetch()
        models = answer.json()["models"]
        route.fulfill(response=answer, json={"models": [{**one, "media_types": ["image/png"]} for one in models]})

    body = {"version": 2, "stages": [{"shadow": 1.0, "for": "PT1H"}]}
    httpx.post(f"{url}/models/line/trial/abort")
    assert httpx.post(f"{url}/models/line/trial", json=body).status_code == 201
    differ(trial_of(store), store, ["known", "forgotten"])
    page.route("**/models", with_pictures)
    page.route(
        "**/captures/known/0/picture.png", lambda route: route.fulfill(path=ROOT / "models/pretrained/seven.png")
    )
    page.goto(f"{url}/#versions/line")
    picture = page.get_by_role("img", name="Picture of known")
    picture.scroll_into_view_if_needed()
    expect(picture).not_to_have_js_property("naturalWidth", value=0)
    expect(page.get_by_role("row", name="forgotten")).to_contain_text("not captured")
    assert httpx.post(f"{url}/models/line/trial/abort").status_code == 200
    page.unroute_all(behavior="wait")


def test_a_job_whose_version_is_on_trial_leads_to_the_trial(page: Page, url: str) -> None:
    gate = {
        "decision": "kept",
        "metric": "mse",
        "candidate": 1.0,
        "live": 2.0,
        "reason": "trial t decides",
        "trial": "t",
    }
    job = {
        "id": "j", "kind": "train", "model": "line", "state": "succeeded", "version": 2, "gate": gate, "error": None,
        "attempt": 1, "dataset": None, "config": {}, "progress": None, "created_at": "2026-01-31T12:00:00.000Z",
        "started_at": None, "finished_at": "2026-01-31T12:00:09.000Z",
    }  # fmt: skip
    page.route("**/jobs?*", lambda route: route.fulfill(json={"jobs": [job], "cursor": None}))
    page.route("**/jobs/j", lambda route: route.fulfill(json=job))
    page.route("**/jobs/j/history", lambda route: route.fulfill(json={"points": []}))
    page.goto(f"{url}/#train/line")
    expect(page.locator(".job > summary")).to_contain_text("on trial")
    expect(page.locator(".job .gate")).to_contain_text("On trial: trial t decides")
    page.get_by_role("link", name="Show the trial").click()
    expect(page.locator("h1")).to_have_text("Versions of line")
    page.unroute_all(behavior="wait")
