"""Browser tests of the Audit section and of corrections: headless Chromium against a running service."""

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from models.mnist import drawn_seven
from service.settings import Key
from tests.audited import answered, audited, told
from tests.serving import png
from tests.signatures import spot
from tests.waiting import until

pytestmark = pytest.mark.slow

SEVEN = {"content": png(drawn_seven()), "headers": {"content-type": "image/png"}}
KEYS = tuple(Key(scope=scope, secret=scope) for scope in ("predict", "train", "admin"))
MANY = [f"label {at}" for at in range(12)]  # of a model
UNSURE, SURE = [0.1, -0.1], [3.0, 2.5]  # points of the classifier


def example(page: Page) -> Locator:
    return page.get_by_role("region", name="Label answers")


def opened(page: Page, url: Any, model: str) -> None:
    page.goto(f"{str(url).rstrip('/')}/#audit/{model}")
    expect(page.get_by_role("heading", name=f"Audit of {model}")).to_be_visible()


def news(page: Page) -> Locator:
    return page.locator(".news")


def press(page: Page, key: str) -> None:
    """Press a key where the focus is, once an example waits for it."""
    expect(page.locator(".sample")).to_be_visible()
    page.keyboard.press(key)


def test_a_picture_is_labelled_with_a_key_and_the_answer_is_shown_after_it(page: Page, tmp_path: Path) -> None:
    with audited(tmp_path, "mnist") as client:
        prediction = answered(client, "mnist", **SEVEN)
        opened(page, client.base_url, "mnist")
        picture = example(page).get_by_role("img", name="Captured picture")
        expect(picture).to_be_visible()
        assert picture.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [28, 28]
        expect(example(page)).to_contain_text("The file was not kept as it came")
        expect(example(page)).not_to_contain_text("answered")
        expect(example(page)).to_be_focused()
        press(page, "3")
        expect(news(page)).to_contain_text(re.compile(r"Saved: 3\. Version 1 answered 7 \(\d.* %\) wrong"))
        expect(page.locator(".example")).to_contain_text("Version 1 has no captured answer without a label.")
        accuracy = page.get_by_role("region", name="Accuracy of version 1")
        expect(accuracy.get_by_role("meter", name="Labelled")).to_have_attribute(
            "aria-valuetext", "1 of 1 captured answers (100 %)"
        )
        expect(accuracy).to_contain_text(re.compile(r"0 % right, between 0 % and 79\.3 % with 95 % confidence"))
        assert told(client, prediction) == [(3, "audit", True)]

        page.keyboard.press("Backspace")
        expect(page.get_by_role("button", name="3", exact=True)).to_have_attribute("aria-pressed", "true")
        expect(news(page)).to_contain_text("it replaces 3, which stays in the history")
        press(page, "7")
        expect(news(page)).to_contain_text("right")
        expect(accuracy).to_contain_text("100 % right, between 20.7 % and 100 %")
        assert told(client, prediction) == [(3, "audit", False), (7, "audit", True)]


def test_the_least_sure_answer_comes_first_and_its_label_is_not_counted(page: Page, tmp_path: Path) -> None:
    with audited(tmp_path, "classifier") as client:
        sure = answered(client, "classifier", json={"inputs": [SURE]})
        unsure = answered(client, "classifier", json={"inputs": [UNSURE]})
        opened(page, client.base_url, "classifier")
        page.get_by_label("Order").select_option("least sure first")
        expect(example(page)).to_contain_text("These labels do not count in the accuracy")
        expect(page.locator(".sample")).to_contain_text("0.1, -0.1")
        label = page.get_by_role("button", name="1", exact=True)
        label.click()
        expect(page.locator(".sample")).to_contain_text("3, 2.5")
        expect(label).to_be_focused()  # the next label is where the last one was
        assert (told(client, unsure), told(client, sure)) == ([(1, "audit", True)], [])
        found = client.get("/models/classifier/versions/1/accuracy").json()
        assert (found["captured"], found["labelled"]) == (2, 0)
        listed = client.get("/models/classifier/captures?unlabelled=true").json()["captures"]
        assert [one["id"] for one in listed] == [sure]


def test_two_windows_do_not_replace_each_others_label_unasked(page: Page, tmp_path: Path) -> None:
    with audited(tmp_path, "mnist") as client:
        prediction = answered(client, "mnist", **SEVEN)
        other = page.context.new_page()
        for one in (page, other):
            opened(one, client.base_url, "mnist")
            expect(one.locator(".sample")).to_be_visible()
        press(page, "7")
        expect(news(page)).to_contain_text("Saved: 7")
        other.bring_to_front()
        press(other, "1")
        expect(example(other).get_by_role("alert")).to_contain_text("was labelled 7 in another window meanwhile")
        expect(other.get_by_role("button", name="7", exact=True)).to_have_attribute("aria-pressed", "true")
        assert told(client, prediction) == [(7, "audit", True)]
        press(other, "1")
        expect(news(other)).to_contain_text("Saved: 1")
        expect(other.locator(".labelling > .trouble")).to_be_empty()
        assert told(client, prediction) == [(7, "audit", False), (1, "audit", True)]


def test_values_are_written_and_several_outputs_are_told_together(page: Page, tmp_path: Path) -> None:
    with audited(tmp_path, "line", "heads") as client:
        value = answered(client, "line", json={"inputs": [[2.0]]})
        opened(page, client.base_url, "line")
        field = page.get_by_label("The right value")
        expect(field).to_be_focused()
        page.keyboard.type("5.5")
        page.keyboard.press("Enter")
        expect(news(page)).to_contain_text("Saved: 5.5. Version 1 answered 5 off by 0.5")
        assert told(client, value) == [(5.5, "audit", True)]

        both = answered(client, "heads", json={"inputs": [{"samples": [1.0, 2.0, 3.0]}]})
        opened(page, client.base_url, "heads")
        expect(page.locator(".inputs")).to_contain_text("samples[1,2,3]")
        page.get_by_label("kind").select_option("dog")
        page.get_by_label("size").fill("2")
        page.get_by_role("button", name="Save", exact=True).first.click()
        expect(news(page)).to_contain_text("Saved: kind dog, size 2.")
        assert told(client, both) == [({"kind": "dog", "size": 2}, "audit", True)]


def test_a_text_is_shown_as_text_and_labelled_by_the_first_letter(page: Page, tmp_path: Path) -> None:
    markup = "<img src=x onerror=\"document.title='owned'\"> a good film"
    with audited(tmp_path, "text") as client:
        prediction = answered(client, "text", json={"inputs": [markup]}, headers={"X-Prediction-Key": "<b>order 7</b>"})
        opened(page, client.base_url, "text")
        expect(page.locator(".sample .text")).to_have_text(markup)
        expect(page.locator(".sample")).to_contain_text("key <b>order 7</b>")
        assert page.locator(".sample img, .sample b").count() == 0
        press(page, "p")
        expect(news(page)).to_contain_text("Saved: positive")
        assert told(client, prediction) == [("positive", "audit", True)]


def test_answers_without_labels_are_said_to_be_labelled_by_the_api(page: Page, tmp_path: Path) -> None:
    with audited(tmp_path, "denoiser") as client:
        answered(client, "denoiser", files={"picture": ("a.png", png_of_spot())})
        opened(page, client.base_url, "denoiser")
        expect(example(page).get_by_role("img", name="Captured picture, picture")).to_be_visible()
        said = "The answers of denoiser are arrays, which this page cannot label. Send the right array of clean (8 x 8"
        expect(example(page)).to_contain_text(said)
        press(page, "1")
        press(page, "ArrowRight")
        expect(page.locator(".example")).to_contain_text("than the 1 that you skipped")


def png_of_spot() -> bytes:
    import numpy as np  # noqa: PLC0415

    return png(np.asarray(spot(40)))


def test_capture_is_off_until_a_rate_is_saved_and_other_settings_stay(page: Page, tmp_path: Path) -> None:
    with audited(tmp_path, "line", rate=None) as client:
        client.put("/models/line/capture", json={"rate": 0, "max_bytes": 12345, "days": 2})
        opened(page, client.base_url, "line")
        capture = page.get_by_role("region", name="Capture")
        expect(capture).to_contain_text("Nothing is kept of requests")
        expect(page.locator(".example")).to_contain_text("Nothing is captured yet: choose a rate")
        capture.get_by_text("Change the settings").click()
        rate = capture.get_by_label("rate")
        rate.fill("1.5")
        capture.get_by_role("button", name="Save").click()
        assert client.get("/models/line/capture").json()["rate"] == 0  # the browser says what is wrong with it
        rate.fill("1")
        capture.get_by_label("max examples").fill("50")
        capture.get_by_label("originals").check()
        capture.get_by_role("button", name="Save").click()
        expect(page.locator("#notices")).to_contain_text("All requests of line are captured from now on.")
        expect(capture).to_contain_text("Picture files are kept as they came")
        expect(capture).to_contain_text("A sample goes after 2 d, or above 50 samples or 12.3 kB")
        expect(rate).to_be_hidden()
        found = client.get("/models/line/capture").json()
        assert [found[name] for name in ("rate", "days", "max_bytes", "max_examples", "originals")] == [
            1, 2, 12345, 50, True,
        ]  # fmt: skip
        answered(client, "line", json={"inputs": [[2.0]]})
        page.get_by_role("button", name="Look again").click()
        expect(page.locator(".sample")).to_contain_text("2")


def test_a_key_without_the_scope_is_told_which_one_it_takes(page: Page, tmp_path: Path) -> None:
    with audited(tmp_path, "line", rate=None, api_keys=KEYS) as client:
        client.headers["Authorization"] = "Bearer admin"
        client.put("/models/line/capture", json={"rate": 1})
        answered(client, "line", json={"inputs": [[2.0]]})
        page.add_init_script(
            "sessionStorage.getItem('torchloop.key') || sessionStorage.setItem('torchloop.key', 'predict')"
        )
        opened(page, client.base_url, "line")
        expect(page.locator(".example")).to_contain_text("they need a key of scope train")
        expect(page.get_by_role("region", name="Capture")).to_contain_text("All requests are kept")
        expect(page.get_by_role("dialog")).to_have_count(0)  # nothing was asked for unasked
        page.get_by_role("button", name="Enter another key").click()
        use(page, "train")
        expect(page.locator(".sample")).to_contain_text("2")
        page.get_by_text("Change the settings").click()
        page.get_by_label("rate").fill("0.5")
        page.get_by_role("region", name="Capture").get_by_role("button", name="Save").click()
        expect(page.get_by_role("dialog")).to_contain_text("scope admin")
        use(page, "admin")
        until(lambda: client.get("/models/line/capture").json()["rate"] == 0.5)


def use(page: Page, key: str) -> None:
    page.get_by_label("Key", exact=True).fill(key)
    page.get_by_role("button", name="Use this key").click()
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_what_is_erased_meanwhile_takes_no_label_and_says_so(page: Page, tmp_path: Path) -> None:
    with audited(tmp_path, "mnist") as client:
        ids = [answered(client, "mnist", **SEVEN) for _ in range(3)]
        opened(page, client.base_url, "mnist")
        expect(page.locator(".captured img:visible")).to_have_count(1)
        first = page.locator(".sample code").inner_text()
        for prediction in ids:
            assert client.delete("/models/mnist/captures", params={"id": prediction}).json()["erased"] == 1
        press(page, "7")
        expect(example(page).get_by_role("alert")).to_contain_text("was erased: it takes no feedback. Choose again, or")
        assert told(client, first) == []
        press(page, "ArrowRight")
        press(page, "ArrowRight")  # its picture was loaded before, that of the third was not
        expect(example(page).get_by_role("alert")).to_contain_text("This sample is gone: it was erased")
        expect(page.get_by_role("button", name="7", exact=True)).to_be_disabled()
        page.get_by_role("button", name="Skip").click()
        expect(page.locator(".example")).to_contain_text("that you skipped")
        page.get_by_role("button", name="Show them again").click()
        expect(page.locator(".example")).to_contain_text("No answer is captured yet")


def test_the_original_is_shown_if_it_is_kept_and_each_width_has_room(page: Page, tmp_path: Path) -> None:
    with audited(tmp_path, "mnist", rate=None, root_path="/loop") as client:
        client.put("/models/mnist/capture", json={"rate": 1, "originals": True})
        large = png(drawn_seven().repeat(10, 0).repeat(10, 1))
        answered(client, "mnist", content=large, headers={"content-type": "image/png"})
        page.set_viewport_size({"width": 360, "height": 740})
        opened(page, f"{client.base_url}/loop", "mnist")
        original = example(page).get_by_role("img", name="as it came")
        expect(original).to_be_visible()
        assert original.evaluate("image => image.naturalWidth") == 280
        expect(example(page).get_by_role("img", name="as the model reads it")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        press(page, "7")
        expect(news(page)).to_contain_text("right")


def test_each_label_has_a_key_of_its_own(page: Page, tmp_path: Path) -> None:
    with audited(tmp_path, "line") as client:
        page.goto(str(client.base_url))
        labels = [[0, 1, 2], ["cat", "Dog"], [True, False], ["red", "rose"], [10, 20, 30], ["a", "a"], MANY]
        script = """(labels) => import("./page/truth.js").then(({ keysOf }) => labels.map(keysOf))"""
        keys = page.evaluate(script, labels)
        assert keys == [
            ["0", "1", "2"], ["c", "d"], ["t", "f"], ["1", "2"], ["1", "2", "3"], ["1", "2"], [*"1234567890", "", ""],
        ]  # fmt: skip


def test_the_accuracy_of_each_part_of_the_window_is_drawn_with_its_interval(page: Page, tmp_path: Path) -> None:
    def worse(route: Route) -> None:
        found = route.fetch().json()
        for point, value in zip(found["points"], (0.9, 0.7), strict=False):
            point["accuracy"] = {"value": value, "low": value - 0.1, "high": value + 0.1, "labelled": 9}
        found["accuracy"] = {"value": 0.8, "low": 0.7, "high": 0.9, "labelled": 18}
        found["corrections"] = {"count": 3, "right": 1}
        route.fulfill(json=found)

    with audited(tmp_path, "line") as client:
        page.route("**/accuracy?*", worse)
        opened(page, client.base_url, "line")
        card = page.get_by_role("region", name="Accuracy of version 1")
        label = "Share of right answers: estimate ends at 0.7, interval from ends at 0.6, to ends at 0.8"
        expect(card.get_by_role("img", name=label)).to_be_visible()
        expect(card.get_by_role("img", name="80.0 %, between 70.0 % and 90.0 %")).to_be_visible()
        expect(card).to_contain_text("Not counted: 3 corrections")
        page.get_by_label("Requests of").select_option("the last day")
        expect(card).to_contain_text("hours from now")
        page.unroute_all(behavior="wait")


def test_a_wrong_answer_is_corrected_where_it_is_shown(page: Page, tmp_path: Path) -> None:
    with audited(tmp_path, "classifier") as client:
        page.goto(f"{client.base_url}/#predict/classifier")
        panel = page.get_by_role("region", name="Correction")
        panel.get_by_role("button", name="Wrong? Correct it").click()
        with page.expect_request(lambda request: request.method == "POST" and "feedback" in request.url) as sent:
            panel.get_by_role("button", name="1", exact=True).click()
        expect(panel).to_contain_text("Saved as a correction: 1.")
        expect(panel.get_by_role("button", name="Wrong? Correct it")).to_be_focused()
        body: Any = sent.value.post_data_json
        prediction = body["feedback"][0]["id"]
        until(lambda: client.get(f"/predictions/{prediction}").status_code == 200)
        assert told(client, prediction) == [(1, "correction", True)]

        client.put("/models/classifier/capture", json={"rate": 0})
        page.get_by_role("application").press("ArrowLeft")
        expect(panel).not_to_contain_text("Saved")  # another answer
        panel.get_by_role("button", name="Wrong? Correct it").click()
        panel.get_by_role("button", name="1", exact=True).click()
        expect(panel).to_contain_text("Its sample was not captured, so the model cannot learn from it.")
