"""Browser tests of the web page: headless Chromium against a running service."""

import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from service.app import create_app
from service.settings import Settings
from tests.fakes import ROOT, InProcess, running_server
from tests.serving import no_recipes
from tests.signatures import SIGNATURES, save
from tests.sockets import listening
from tests.templates import migrated

pytestmark = pytest.mark.slow

SEVEN = [(0.28, 0.24), (0.5, 0.23), (0.73, 0.24), (0.62, 0.48), (0.52, 0.64), (0.45, 0.82)]
PIXELS = """(selector) => {
    const canvas = document.querySelector(selector);
    const all = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    return Array.from(all).filter((_, at) => at % 4 === 0);
}"""
MODEL = """
from functools import partial

import numpy as np

from models.outputs import Value, describe_values, values
from models.spec import Entry, ModelSpec, by_name

SPEC = ModelSpec(
    summary="the sum of two numbers",
    network=partial(by_name("models.networks:Perceptron"), features=2, outputs=1),
    entry=Entry(shape=(2,), dtype=np.dtype(np.float32)),
    postprocess=values,
    describe=describe_values,
    prediction=Value,
    example=np.array([[0.25, 0.5]], dtype=np.float32),
)
"""
KEYED = {"TORCHLOOP_API_KEYS": "predict:p,admin:boss"}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_server({"TORCHLOOP_WORKER": "embedded"}) as url:
        yield url


def draw(page: Page, points: list[tuple[float, float]]) -> None:
    """One stroke on the pad, in 0..1 of its side."""
    box = page.locator("#pad").bounding_box()
    assert box is not None
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=6)
    page.mouse.up()


def test_a_drawn_seven_is_read_as_seven(page: Page, url: str) -> None:
    page.goto(url)
    draw(page, SEVEN)
    expect(page.locator("#label")).to_have_text("7")
    expect(page.locator(".meta")).to_contain_text("version 1")
    expect(page.locator(".meta")).to_contain_text("ms in the service")
    page.wait_for_function("""() => {
        const seen = document.querySelector("#seen").getContext("2d").getImageData(0, 0, 28, 28).data;
        return seen.some((level, at) => at % 4 === 0 && level > 200);
    }""")
    page.get_by_role("button", name="Clear").click()
    expect(page.locator(".headline")).to_have_text("Draw something")


def test_the_documentation_is_shown_under_its_content_security_policy(page: Page, url: str) -> None:
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(f"{url}/docs")
    expect(page.locator(".opblock").first).to_be_visible()
    page.locator("#operations-jobs-page_jobs_get").click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table tbody .response-col_status").first).to_contain_text("200")
    assert not [text for text in said if "Content Security Policy" in text or "Refused" in text]


def test_a_picture_and_the_keyboard_do_as_well(page: Page, url: str) -> None:
    page.goto(url)
    page.locator("#file").set_input_files(ROOT / "models" / "pretrained" / "seven.png")
    expect(page.locator("#label")).to_have_text("7")
    page.get_by_role("tab", name="mnist").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="regressor")).to_have_attribute("aria-selected", "true")
    expect(page.locator(".plot .curve")).to_be_visible()
    page.keyboard.press("Home")
    page.get_by_role("application").press("ArrowLeft")
    expect(page.locator("#label")).to_have_text("0")


def test_an_answer_is_explained_on_request(page: Page, url: str) -> None:
    page.goto(f"{url}/#predict/regressor")
    wanted, method, words = page.get_by_label("Explain the answer"), page.get_by_label("Method"), page.locator(".why")
    expect(method).to_be_hidden()
    wanted.check()
    expect(words).to_contain_text(re.compile(r"the answer changes by \+1\.\d+ per unit of the input"))
    expect(page.locator(".plot .legend")).to_contain_text("slope")
    method.select_option("integrated gradients")
    expect(words).to_contain_text(re.compile(r"the answer gains \+0\.\d+ from the input"))
    expect(page.locator(".plot .legend")).not_to_contain_text("slope")

    page.goto(f"{url}/#predict/classifier")
    wanted.check()
    expect(words).to_contain_text(re.compile(r"the logit of label 0 changes by \+\d.* x, \+\d.* y"))

    page.goto(f"{url}/#predict/mnist")
    expect(wanted).to_be_hidden()  # there is no answer yet
    draw(page, SEVEN)
    wanted.check()
    expect(words).to_contain_text("Influence of each pixel on the answer 7")
    expect(page.get_by_role("img", name="Saliency")).to_be_visible()
    expect(method).to_have_value("integrated_gradients")  # of pictures: a plain gradient looks like noise
    levels = page.evaluate(PIXELS, ".grid-picture")
    assert max(levels) > 200
    assert min(levels) < 20
    page.get_by_role("button", name="Clear").click()
    expect(wanted).to_be_hidden()


def test_a_form_is_shown_if_the_list_refers_to_its_schema(page: Page, url: str) -> None:
    def shortened(route: Route) -> None:
        answer = route.fetch()
        models = answer.json()["models"]
        for model in models:
            model["hyperparameters"] = {"$ref": f"models/{model['name']}#/hyperparameters"}
        route.fulfill(response=answer, json={"models": models})

    page.route("**/models", shortened)
    page.goto(f"{url}/#train/regressor")
    expect(page.get_by_label("epochs", exact=True)).to_have_value("100")
    expect(page.get_by_role("button", name="Start training")).to_be_enabled()
    page.unroute_all(behavior="wait")


def test_named_inputs_are_explained_each(page: Page, tmp_path: Path) -> None:
    models = {name: SIGNATURES[name] for name in ("heads", "table", "text")}
    for name in models:
        save(tmp_path, name)
    settings = Settings(store=migrated(tmp_path / "store"))
    with listening(create_app(settings, models, tmp_path, no_recipes, partial(InProcess, models))) as ((_, port), _):
        for name, said in (
            ("table", r"the answer changes by \S+ per unit of age, \S+ per unit of fare\.$"),
            ("heads", r"the answer changes by \S+ per unit of samples, number 1, .* samples, number 3\.$"),
            ("text", r"text cannot be explained: review: a text has no gradient"),
        ):
            page.goto(f"http://127.0.0.1:{port}/#predict/{name}")
            page.get_by_label("Explain the answer").check()
            page.get_by_role("button", name="Predict").click()
            expect(page.locator(".why")).to_contain_text(re.compile(said))


def test_the_form_says_what_a_hyperparameter_may_be(page: Page, url: str) -> None:
    page.goto(f"{url}/#train/regressor")
    epochs = page.get_by_label("epochs", exact=True)
    expect(epochs).to_have_value("100")
    expect(epochs).to_have_accessible_description("passes over the training data; 1 to 10000")
    expect(page.get_by_label("momentum", exact=True)).to_have_accessible_description(
        re.compile("at least 0, less than 1"),
    )
    expect(page.get_by_label("seed", exact=True)).to_have_accessible_description(re.compile("at least 0$"))


def test_an_invalid_picture_shows_an_error(page: Page, url: str, tmp_path: Path) -> None:
    page.goto(url)
    (tmp_path / "letter.png").write_text("dear sir")
    page.locator("#file").set_input_files(tmp_path / "letter.png")
    expect(page.get_by_role("alert").filter(has_text="No picture")).to_be_visible()


def test_a_job_is_watched_goes_live_and_is_rolled_back(page: Page, url: str) -> None:
    page.goto(f"{url}/#train/regressor")
    page.get_by_label("epochs", exact=True).fill("0")
    page.get_by_role("button", name="Start training").click()
    expect(page.locator(".job")).to_have_count(0)  # the browser says what is wrong with it
    page.get_by_label("epochs", exact=True).fill("20")
    page.get_by_label("make it live").select_option("always")
    page.get_by_role("button", name="Start training").click()
    expect(page.locator(".job .gate")).to_contain_text("Promoted")
    expect(page.locator(".job > summary .chip")).to_have_text("succeeded")
    expect(page.locator(".job .curve").first).to_be_visible()
    expect(page.get_by_role("tab", name="regressor")).to_contain_text("v2")

    page.get_by_role("link", name="Versions").click()
    expect(page.locator("tr.live")).to_contain_text("2")
    for number in (1, 2):
        page.get_by_label(f"Compare version {number}").check()
    expect(page.get_by_role("heading", name="version 1 and version 2")).to_be_visible()
    expect(page.locator(".compare .key")).to_have_text(["version 2", "version 2"])  # version 1 has no curve
    page.get_by_role("button", name="Roll back").click()
    page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
    expect(page.get_by_role("tab", name="regressor")).to_contain_text("v1")
    expect(page.locator(".history")).to_contain_text("Rolled back to version 1")


def test_a_job_is_cancelled_and_one_that_fails_says_why(page: Page, url: str) -> None:
    page.goto(f"{url}/#train/classifier")
    epochs, start = page.get_by_label("epochs", exact=True), page.get_by_role("button", name="Start training")
    newest = page.locator(".job").first
    epochs.fill("10000")
    start.click()
    expect(newest.locator(".curve").first).to_be_visible()
    newest.get_by_role("button", name="Cancel").click()
    expect(newest.locator("> summary .chip")).to_have_text("cancelled")

    page.goto(f"{url}/#train/regressor")
    page.get_by_label("lr", exact=True).fill("100")
    page.get_by_label("activation").select_option(label="softplus")
    start.click()
    expect(newest.locator("> summary .chip")).to_have_text("failed")
    expect(newest.locator(".trouble")).to_contain_text("no longer finite")
    expect(newest.locator(".curve").first).to_be_visible()
    for labels in newest.locator("svg").all():  # over tens of powers of ten
        assert 2 <= labels.locator(".tick.y").count() <= 8

    newest.get_by_role("button", name="Picture of the run").click()
    picture = page.get_by_role("button", name="full size")
    picture.press("Enter")
    box, screen = picture.bounding_box(), page.viewport_size
    assert box is not None
    assert screen is not None
    assert box["width"] > screen["width"]
    page.get_by_role("button", name="Close").click()
    expect(picture).to_have_count(0)


def test_a_narrow_screen_is_never_scrolled_sideways(page: Page, url: str) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    for section in ("predict", "train", "versions", "data", "audit"):
        for model in ("classifier", "mnist", "regressor"):
            page.goto(f"{url}/#{section}/{model}")
            expect(page.locator("h1")).to_contain_text(model)
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, f"{section}/{model}"


def test_on_a_narrow_screen_each_version_is_a_list_of_its_figures(page: Page, url: str) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(f"{url}/#versions/mnist")
    live = page.locator("tr.live")
    expect(live).to_contain_text("1")
    download, choice = live.get_by_role("button", name="Download"), live.get_by_role("checkbox")
    for shown in (live.locator(".number").first, download, choice):
        box = shown.bounding_box()
        assert box is not None
        assert 0 <= box["x"] <= box["x"] + box["width"] <= 360
    label = "getComputedStyle(document.querySelector('tr.live .number'), '::before').content"
    assert page.evaluate(label) == "attr(data-label)" or "accuracy" in page.evaluate(label)
    assert page.evaluate("document.querySelector('.scroll.card').scrollWidth") <= 360


def test_several_nodes_are_listed_with_the_version_that_each_answers_with(page: Page, url: str) -> None:
    found = httpx.get(f"{url}/nodes").json()
    other = {"address": "10.0.0.6:8000", "state": "silent", "loaded": {"mnist": None}}
    page.goto(f"{url}/#versions/mnist")
    expect(page.locator("tr.live")).to_be_visible()
    expect(page.get_by_role("region", name="Nodes")).to_be_hidden()  # this service is alone
    nodes = [*found["nodes"], {**found["nodes"][0], **other}]
    page.route("**/nodes", lambda route: route.fulfill(json={**found, "nodes": nodes}))
    rows = page.get_by_role("region", name="Nodes").locator("tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text(re.compile(rf"{urlsplit(url).netloc}.*serving"))
    expect(rows.first.get_by_role("cell").nth(1)).to_have_text("1")
    expect(rows.last).to_contain_text(re.compile(r"10\.0\.0\.6:8000.*silent.*\u2013"))
    page.route(
        "**/promote", lambda route: route.fulfill(json={"live": 1, "previous": 1, "waiting_for": ["10.0.0.6:8000"]})
    )
    page.route("**/versions", lambda route: route.fulfill(json={"versions": [version_of(url)]}))
    page.evaluate("location.hash = '#versions/regressor'")
    page.get_by_role("button", name="Promote").click()
    page.get_by_role("dialog").get_by_role("button", name="Promote").click()
    expect(page.locator("#notices")).to_contain_text("Not yet everywhere: 10.0.0.6:8000.")
    page.unroute_all(behavior="wait")


def version_of(url: str) -> dict[str, Any]:
    """Version 1 of the regressor, as if it were not live."""
    return {**httpx.get(f"{url}/models/regressor/versions/1").json(), "live": False}


def test_the_dialog_of_a_section_is_closed_when_the_section_changes(page: Page, url: str) -> None:
    page.goto(f"{url}/#versions/mnist")
    expect(page.locator("tr.live")).to_be_visible()
    page.evaluate("""() => {
        import("./page/dialogs.js").then(async ({ confirmed }) => {
            window.answer = await confirmed("Make version 2 live?", "", "Promote");
        });
    }""")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.evaluate("location.hash = '#versions/regressor'")
    expect(page.locator("h1")).to_contain_text("regressor")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.wait_for_function("window.answer === false")


def test_a_service_that_is_silent_at_the_start_is_said_to_be(page: Page, url: str) -> None:
    page.route("**/models", lambda _: None)  # neither answered nor refused
    page.route("**/health/live", lambda _: None)
    page.goto(url)
    expect(page.locator("#offline")).to_contain_text("does not answer")
    expect(page.locator("#state")).to_have_text("Offline")
    page.unroute_all()
    expect(page.locator("#offline")).to_be_hidden()
    expect(page.locator("#state")).to_have_text("Ready")
    expect(page.locator("h1")).to_be_visible()


def test_another_server_at_the_address_is_said_to_be(page: Page, url: str) -> None:
    page.route("**/models", lambda route: route.fulfill(status=200, content_type="text/html", body="<p>a portal"))
    page.goto(url)
    expect(page.locator("#notices")).to_contain_text("The answer is not from Torchloop")


def test_a_wrong_key_and_a_missing_scope_ask_for_another_key(page: Page) -> None:
    with running_server(KEYED) as url:
        page.goto(f"{url}/#versions/regressor")
        for key, said in (("wrong", "not valid for this service"), ("p", "")):
            page.get_by_label("Key", exact=True).fill(key)
            page.get_by_role("button", name="Use this key").click()
            if said:
                expect(page.get_by_role("dialog")).to_contain_text(said)
                expect(page.get_by_label("Key", exact=True)).to_have_value("")
        expect(page.locator("tr.live")).to_be_visible()
        assert page.evaluate("sessionStorage.getItem('torchloop.key')") == "p"
        page.get_by_role("button", name="Metrics").click()  # a link would send no key
        expect(page.get_by_role("dialog")).to_contain_text("torchloop_loaded_version")
        page.get_by_role("button", name="Close").click()
        page.get_by_role("button", name="API documentation").click()
        expect(page.get_by_role("dialog")).to_contain_text(f"curl -H 'Authorization: Bearer KEY' {url}/openapi.json")
        with page.expect_download() as saved:
            page.get_by_role("link", name="Save openapi.json").click()
        assert "openapi" in saved.value.path().read_text()
        page.get_by_role("button", name="Close").click()
        page.goto(f"{url}/#train/regressor")
        page.get_by_role("button", name="Start training").click()
        expect(page.get_by_role("dialog")).to_contain_text("scope train")
        page.get_by_label("Key", exact=True).fill("boss")
        page.get_by_role("button", name="Use this key").click()
        expect(page.locator(".job .chip")).to_have_text("queued")


def test_a_lost_connection_is_shown_until_the_service_responds(page: Page, tmp_path: Path) -> None:
    settings = {"TORCHLOOP_STORE": str(tmp_path)}
    with running_server(settings) as url:
        page.goto(url)
        expect(page.locator("#state")).to_have_text("Ready")
    expect(page.locator("#offline")).to_contain_text("does not answer")
    with running_server({**settings, "TORCHLOOP_PORT": str(urlsplit(url).port)}):
        expect(page.locator("#offline")).to_be_hidden()
        expect(page.locator("#state")).to_have_text("Ready")
        draw(page, SEVEN)
        expect(page.locator("#label")).to_have_text("7")


def test_a_fourth_model_has_its_tab_without_a_changed_file(page: Page, tmp_path: Path) -> None:
    for folder in ("models", "training", "service"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "models" / "adder.py").write_text(MODEL)
    (tmp_path / "models" / "broken.py").write_text("import nosuchmodule\nSPEC = 1\n")
    with running_server({}, cwd=tmp_path) as url:
        page.goto(f"{url}/#predict/adder")
        expect(page.get_by_role("tab", name="adder")).to_have_attribute("aria-selected", "true")
        expect(page.get_by_label("Body")).to_have_value('{"inputs": [\n  [0.25,0.5]\n]}')
        page.get_by_role("button", name="Predict").click()
        expect(page.get_by_role("alert").filter(has_text="no live version")).to_be_visible()
        page.get_by_role("tab", name="broken fault").click()
        for section in ("Train", "Versions", "Predict"):
            page.get_by_role("link", name=section).click()
            expect(page.get_by_role("heading", name="broken cannot be used")).to_be_visible()
        expect(page.get_by_role("alert").filter(has_text="models/broken.py: line 1: ModuleNotFound")).to_be_visible()
        expect(page.get_by_role("tab")).to_have_count(5)
