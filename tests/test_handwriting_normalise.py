import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from models.errors import InvalidInput
from models.handwriting.normalise import read_digit
from models.mnist import drawn_seven
from models.pictures import open_picture
from models.spec import Array

SEVEN = drawn_seven()


def likeness(field: Array) -> float:
    """Cosine between a field and the seven brought through the same pipeline from a clean page."""
    clean = read_digit(on_page(255, 0, 200))
    return float((field * 1.0 * clean).sum() / np.linalg.norm(field * 1.0) / np.linalg.norm(clean * 1.0))


def on_page(
    paper: int,
    ink: int,
    digit_size: int,
    page: tuple[int, int] = (400, 300),
    at: tuple[int, int] = (60, 40),
) -> Image.Image:
    """The seven written somewhere on a grey page."""
    mask = Image.fromarray(SEVEN).resize((digit_size, digit_size), Image.Resampling.BICUBIC)
    image = Image.new("L", page, paper)
    image.paste(ink, at, mask)
    return image


def test_a_grey_28x28_picture_with_light_ink_is_taken_as_it_is() -> None:
    assert (read_digit(Image.fromarray(SEVEN)) == SEVEN).all()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_sample_in_another_mode_or_dark_on_light_is_that_sample(mode: str) -> None:
    sample = Image.fromarray(read_digit(on_page(255, 0, 200)))  # fills the box and is centred, as MNIST's are
    for picture in (sample, ImageOps.invert(sample)):
        assert (read_digit(picture.convert(mode)) == np.asarray(sample)).all()


def test_light_ink_on_grey_is_not_taken_as_it_is() -> None:
    field = read_digit(Image.fromarray(np.maximum(SEVEN, 50)))
    assert field[0].max() == 0
    assert likeness(field) > 0.85


def through(image: Image.Image, kind: str, **options: object) -> Image.Image:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return Image.open(file)


def blotted(page: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """The page with a dark box on it."""
    copy = page.copy()
    ImageDraw.Draw(copy).rectangle(box, fill=60)
    return copy


def pictures() -> dict[str, Image.Image]:
    page = on_page(255, 0, 200)
    cream = Image.new("RGB", (400, 300), (245, 235, 205))
    cream.paste((60, 70, 190), (60, 40), Image.fromarray(SEVEN).resize((200, 200)))
    canvas = Image.new("RGBA", (280, 280), (0, 0, 0, 0))
    canvas.paste((0, 0, 0, 255), (0, 0), Image.fromarray(SEVEN).resize((280, 280)))
    light_canvas = Image.new("RGBA", (280, 280), (0, 0, 0, 0))
    light_canvas.paste((255, 255, 255, 255), (0, 0), Image.fromarray(SEVEN).resize((280, 280)))
    light = np.linspace(0.45, 1, 400)[None, :] * np.linspace(0.8, 1, 300)[:, None]
    uneven = Image.fromarray((np.asarray(on_page(250, 40, 200)) * light).astype(np.uint8))
    x, y = np.linspace(-1, 1, 400)[None, :], np.linspace(-1, 1, 300)[:, None]
    lamp = Image.fromarray(
        (np.asarray(on_page(235, 25, 150, at=(120, 90))) * (1 + 1.2 * (x * x + y * y)) ** -1.5).astype(np.uint8),
    )
    seven = Image.fromarray(SEVEN)
    cut = ImageOps.invert(seven.crop((8, 6, 22, 24)).resize((155, 200), Image.Resampling.BICUBIC))
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held sideways: rotate by 270 degrees to see it upright
    return {
        "inverted 28x28": ImageOps.invert(Image.fromarray(SEVEN)),
        "28x28 in colour": Image.fromarray(SEVEN).convert("RGB"),
        "dark on light": page,
        "light on dark": on_page(10, 240, 200),
        "tiny in a corner": on_page(255, 0, 40, at=(350, 250)),
        "large page": on_page(255, 0, 300, page=(3000, 2000), at=(2000, 300)),
        "coloured ink on cream": cream,
        "black pen on a transparent canvas": canvas,
        "white pen on a transparent canvas": light_canvas,
        "uneven light": uneven,
        "light of a lamp": lamp,
        "cut to the digit": cut,
        "page on a table": ImageOps.expand(page, 30, 90),
        "framed": ImageOps.expand(ImageOps.expand(page, 3, 0), 6, 255),
        "dark corner": blotted(page, (0, 0, 90, 60)),
        "specks of dust": blotted(blotted(page, (380, 280, 383, 283)), (5, 250, 8, 253)),
        "jpeg": through(page, "jpeg", quality=60),
        "palette": through(page.convert("P"), "gif"),
        "one bit": page.convert("1"),
        "16 bit": Image.fromarray(np.asarray(page).astype(np.uint16) * 257),
        "turned by its exif": through(page.transpose(Image.Transpose.ROTATE_90), "jpeg", exif=turned),
    }


@pytest.mark.parametrize("kind", pictures())
def test_any_other_picture_is_brought_into_that_form(kind: str) -> None:
    field = read_digit(pictures()[kind])
    assert field.shape == (28, 28)
    assert field.dtype == np.uint8
    assert likeness(field) > 0.85


def test_the_ink_fills_the_box_and_its_centre_of_mass_is_centred() -> None:
    field = read_digit(on_page(255, 0, 200)).astype(float)
    rows, columns = np.flatnonzero(field.max(axis=1) > 64), np.flatnonzero(field.max(axis=0) > 64)
    assert 18 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 20
    for axis in (0, 1):
        centre = (field.sum(axis=1 - axis) * np.arange(28)).sum() / field.sum()
        assert abs(centre - 13.5) <= 0.6


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "1", "P"])
@pytest.mark.parametrize("shade", [0, 255])
@pytest.mark.parametrize("size", [(28, 28), (300, 200), (1, 1), (1, 500)])
def test_a_blank_page_says_that_there_is_no_ink(mode: str, shade: int, size: tuple[int, int]) -> None:
    with pytest.raises(InvalidInput, match="No ink"):
        read_digit(Image.new("L", size, shade).convert(mode))


def test_a_wholly_transparent_canvas_has_no_ink() -> None:
    with pytest.raises(InvalidInput, match="No ink"):
        read_digit(Image.new("RGBA", (100, 100), (0, 0, 0, 0)))


def test_faint_noise_is_no_ink() -> None:
    noise = np.random.default_rng(0).normal(200, 4, (200, 200)).clip(0, 255).astype(np.uint8)
    with pytest.raises(InvalidInput, match="No ink"):
        read_digit(Image.fromarray(noise))


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "bmp", "gif"])
def test_a_truncated_picture_is_damaged(kind: str) -> None:
    file = io.BytesIO()
    on_page(255, 0, 200).convert("RGB").save(file, kind)
    content = file.getvalue()[: len(file.getvalue()) // 2]
    with pytest.raises(InvalidInput, match="Damaged"):
        read_digit(open_picture(content, 10**6))


def test_a_line_of_one_pixel_is_read() -> None:
    page = Image.new("L", (100, 100), 255)
    ImageDraw.Draw(page).line([(50, 20), (50, 80)], fill=0, width=3)
    assert read_digit(page)[14].max() > 100


def test_a_large_grey_jpeg_is_decoded_at_a_fraction_of_its_size() -> None:
    file = io.BytesIO()
    Image.fromarray(drawn_seven()).resize((1600, 1600)).save(file, "jpeg")
    picture = open_picture(file.getvalue(), 1600 * 1600)
    assert read_digit(picture).any()
    assert max(picture.size) < 1600
