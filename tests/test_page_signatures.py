"""Browser tests of the form for models with named inputs and outputs, and of colour pictures."""

import io
import re
import tarfile
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Page, expect
from torch import Tensor, nn

from models.checkpoints import state_dict
from models.checkpoints.record import Record
from models.outputs import Value, describe_values, values
from models.signature import Category
from models.spec import ModelSpec
from service.app import create_app
from service.settings import Settings
from tests.colours import COLOURS, painted
from tests.fakes import InProcess
from tests.serving import no_recipes
from tests.signatures import SIGNATURES, save, spot
from tests.sockets import listening
from tests.templates import migrated

pytestmark = pytest.mark.slow

PIXEL = """([selector, x, y]) => {
    const canvas = document.querySelector(selector);
    const [red, green, blue] = canvas.getContext("2d").getImageData(x * canvas.width, y * canvas.height, 1, 1).data;
    return [red, green, blue];
}"""


class Items(nn.Module):
    """A number for each item: int64 (N,) -> float32 (N, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = nn.Embedding(150, 1)
        self.numbers.weight.data[:, 0] = torch.arange(150.0)

    def forward(self, item: Tensor) -> Tensor:
        found: Tensor = self.numbers(item)
        return found


MANY = ModelSpec(
    summary="an item of many",
    network=Items,
    inputs={"item": Category([f"item {at}" for at in range(150)])},
    postprocess=values,
    describe=describe_values,
    prediction=Value,
    example=[{"item": "item 3"}],
)
DRAWN = {**COLOURS, "many": MANY}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service in this process."""
    folder = tmp_path_factory.mktemp("pretrained")
    for name in SIGNATURES:
        save(folder, name)
    for name, spec in DRAWN.items():
        sha256 = state_dict.save_weights(spec.network().state_dict(), folder / f"{name}.pt")
        state_dict.save_record(Record(model=name, sha256=sha256), folder / f"{name}.pt")
    specs = {**SIGNATURES, **DRAWN}
    settings = Settings(store=migrated(tmp_path_factory.mktemp("store")))
    app = create_app(settings, specs, folder, no_recipes, partial(InProcess, specs))
    with listening(app) as ((host, port), _):
        yield f"http://{host}:{port}"


def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def file_of(content: bytes) -> Any:
    return {"name": "photo.png", "mimeType": "image/png", "buffer": content}


def opened(page: Page, url: str, model: str) -> None:
    page.goto(f"{url}/#predict/{model}")
    expect(page.get_by_role("heading", name=f"Predict with {model}")).to_be_visible()


def predict(page: Page) -> None:
    page.get_by_role("button", name="Predict", exact=True).click()


def test_a_row_has_a_field_for_each_column(page: Page, url: str) -> None:
    opened(page, url, "table")
    age, sex, fare = (page.get_by_label(name, exact=True) for name in ("age", "sex", "fare"))
    expect(age).to_have_value("22")  # of the example
    expect(sex.locator("option")).to_have_text(["female", "male"])
    expect(fare).to_have_attribute("placeholder", "default: missing")
    expect(fare).to_have_accessible_description(re.compile("0 to 600; optional"))
    predict(page)
    expect(page.locator(".headline strong")).to_have_text(re.compile(r"^-?\d"))
    first = page.locator(".headline strong").inner_text()
    fare.fill("400")
    predict(page)
    expect(page.locator(".headline strong")).not_to_have_text(first)
    age.fill("500")
    assert age.evaluate("field => field.validity.rangeOverflow")
    age.fill("")
    assert age.evaluate("field => field.validity.valueMissing")
    assert fare.evaluate("field => field.validity.valid")


def test_an_error_is_shown_next_to_the_field_that_it_names(page: Page, url: str) -> None:
    opened(page, url, "text")
    review = page.get_by_label("review", exact=True)
    review.fill(" ")
    predict(page)
    expect(page.locator(".field .trouble")).to_have_text("No words: the text has no words")
    expect(review).to_have_attribute("aria-invalid", "true")
    expect(review).to_be_focused()
    expect(page.locator(".answer .trouble")).to_be_hidden()
    review.fill("good film")
    predict(page)
    expect(page.locator("#label")).to_have_text(re.compile("positive|negative"))
    expect(page.locator(".field .trouble")).to_be_hidden()


def test_a_text_has_a_counter_of_characters(page: Page, url: str) -> None:
    opened(page, url, "text")
    review = page.get_by_label("review", exact=True)
    review.fill("语" + "\U0001f600" * 199)
    expect(page.locator(".counter")).to_have_text("200 of at most 200 characters")
    assert review.evaluate("field => field.validity.valid")
    review.fill("x" * 201)
    expect(page.locator(".counter.over")).to_be_visible()
    assert not review.evaluate("field => field.validity.valid")


def test_series_of_any_length_are_json(page: Page, url: str) -> None:
    opened(page, url, "tagger")
    steps = page.get_by_label("steps", exact=True)
    expect(steps).to_have_accessible_description(re.compile("JSON, any numbers; -100 to 100"))
    steps.fill("[1, 2, 3, 4, 5]")
    predict(page)
    expect(page.get_by_role("region", name="tags").locator(".value")).to_have_text(re.compile(r"^(-?[\d.]+, ){4}"))
    for given, said in (("[1, 2", "Not valid JSON"), ("", "Missing value"), ("[1, 500]", "between -100 and 100")):
        steps.fill(given)
        predict(page)
        expect(page.locator(".field .trouble")).to_contain_text(said)


def test_each_named_output_has_its_block_and_labels_are_on_the_bars(page: Page, url: str) -> None:
    opened(page, url, "heads")
    predict(page)
    kind, size = (page.get_by_role("region", name=name, exact=True) for name in ("kind", "size"))
    expect(kind.locator(".name")).to_have_text(["cat", "dog"])
    expect(kind.locator(".best")).to_have_count(1)
    expect(size.locator(".value")).to_have_text(re.compile(r"^-?\d"))
    expect(page.get_by_label("Explain the answer")).to_be_visible()


def test_each_picture_has_a_pad(page: Page, url: str) -> None:
    opened(page, url, "siamese")
    page.get_by_role("button", name="Example").click()
    predict(page)
    expect(page.locator(".headline strong")).to_have_text(re.compile(r"^\d"))
    page.get_by_role("button", name="Clear").last.click()
    predict(page)
    expect(page.locator(".field").last.locator(".trouble")).to_contain_text("Missing picture: draw one")
    expect(page.locator(".field").first.locator(".trouble")).to_be_hidden()
    box = page.locator("#input-right-pad").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 4)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    predict(page)
    expect(page.locator(".headline strong")).to_have_text(re.compile(r"^\d"))
    page.locator("#input-left-file").set_input_files(file_of(b"dear sir"))
    predict(page)
    expect(page.locator(".field").first.locator(".trouble")).to_contain_text("picture")


def test_a_picture_answer_is_shown_as_a_picture(page: Page, url: str) -> None:
    opened(page, url, "denoiser")
    page.locator("#input-picture-file").set_input_files(file_of(png(spot(100))))
    predict(page)
    expect(page.get_by_role("img", name="The picture clean")).to_be_visible()
    assert page.evaluate(PIXEL, [".picture", 0, 0]) == [50, 50, 50]


def test_pictures_and_their_answers_are_in_colour_and_optional_fields_take_their_defaults(page: Page, url: str) -> None:
    opened(page, url, "studio")
    gain, mood, title = (page.get_by_label(name, exact=True) for name in ("gain", "mood", "title"))
    expect(mood.locator("option")).to_have_text(["(default: dim)", "dim", "bright"])
    expect(mood).to_have_value("")  # null in the example
    expect(gain).to_have_attribute("placeholder", "default: 1.5")
    gain.fill("")
    title.fill("")
    page.locator("#input-photo-file").set_input_files(file_of(png(painted(100, 20, 40))))
    predict(page)
    expect(page.get_by_role("img", name="The picture brighter")).to_be_visible()
    assert page.evaluate(PIXEL, ["#input-photo-pad", 0.5, 0.5]) == [100, 20, 40]
    assert page.evaluate(PIXEL, [".picture", 0, 0]) == [150, 30, 60]
    expect(page.get_by_role("region", name="tint").locator(".best .name")).to_have_text("red")
    mood.select_option("bright")
    predict(page)
    page.wait_for_function(f"() => ({PIXEL})(['.picture', 0, 0])[0] === 250")


def seen(page: Page, condition: str) -> None:
    """Wait until the first pixel of the network's input is as wanted: it is asked for after the answer."""
    page.wait_for_function(
        f"at => {{ const [red, green, blue] = ({PIXEL})(at); return {condition}; }}", arg=["#seen", 0, 0]
    )


def test_the_networks_input_of_a_colour_picture_is_in_colour(page: Page, url: str) -> None:
    opened(page, url, "rgb")
    page.get_by_role("button", name="Example").click()
    expect(page.locator("#label")).to_have_text("0")
    assert page.evaluate(PIXEL, ["#pad", 0.5, 0.5]) == [200, 30, 60]
    seen(page, "red === 255")  # centred numbers are scaled to the whole range
    assert max(page.evaluate(PIXEL, ["#seen", 0, 0])[1:]) < 100
    half = Image.fromarray(np.array([[[10, 200, 30]] * 8, [[30, 40, 220]] * 8], np.uint8))
    page.locator("#file").set_input_files(file_of(png(half)))
    expect(page.locator("#label")).to_have_text(re.compile("[12]"))
    seen(page, "green > 200 && Math.max(red, blue) < 60")


def test_categories_that_the_list_of_models_leaves_out_are_offered(page: Page, url: str) -> None:
    opened(page, url, "many")
    item = page.get_by_label("item", exact=True)
    expect(item.locator("option")).to_have_count(150)
    item.select_option("item 149")
    predict(page)
    expect(page.locator(".output")).to_contain_text("149")


def test_a_sample_may_be_written_as_json(page: Page, url: str) -> None:
    opened(page, url, "table")
    page.get_by_role("button", name="JSON").click()
    expect(page.get_by_label("Body")).to_have_value(re.compile(r'\{"age":22,"sex":"male","fare":null\}'))
    predict(page)
    expect(page.get_by_label("Predictions")).to_contain_text('"value"')
    page.get_by_label("Body").fill('{"inputs": [{"age": 22, "sex": "femal"}]}')
    predict(page)
    expect(page.get_by_role("alert").filter(has_text="'femal' is none of")).to_be_visible()
    page.get_by_role("button", name="Form").click()
    expect(page.get_by_label("age", exact=True)).to_have_value("22")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen_is_never_scrolled_sideways(page: Page, url: str, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 360, "height": 740})
    for model in (*SIGNATURES, *DRAWN):
        opened(page, url, model)
        page.get_by_role("button", name="Example").first.click()
        if model != "rgb":
            predict(page)
        expect(page.locator(".meta")).to_contain_text("version 1")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, model


def test_a_version_with_artifacts_is_downloaded_with_them(page: Page, url: str) -> None:
    for model, name, members in (("text", "text-1.tar", ["text-1.pt", "text-1.json"]), ("table", "table-1.pt", [])):
        page.goto(f"{url}/#versions/{model}")
        with page.expect_download() as saved:
            page.get_by_role("button", name="Download").click()
        assert saved.value.suggested_filename == name
        if members:
            with tarfile.open(saved.value.path()) as archive:
                assert archive.getnames() == members
