"""Inputs of the client's calls: everything that a caller may pass is sent, or refused with a BadArgument."""

import array
import asyncio
import io
import itertools
import json
from collections import UserList, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from starlette.testclient import TestClient

from models.mnist import drawn_seven
from service.client import AsyncClient, BadArgument, Client
from service.client.errors import Invalid
from service.client.inputs import body
from tests.serving import BASE_URL, npy, over, png, serving

MODES = [
    "1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16",
    "I;16B", "I;16L", "I;16N",
]  # fmt: skip
# EXIF orientation -> the transposition of an upright picture that a camera in this position stores.
STORED = {
    1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}  # fmt: skip


def upright() -> Image.Image:
    """A grey picture with four different quarters, wider than high."""
    quarters = np.kron(np.array([[0, 255, 0], [255, 255, 0]], np.uint8), np.ones((20, 20), np.uint8))
    return Image.fromarray(quarters)


def in_mode(picture: Image.Image, mode: str) -> Image.Image:
    if mode == "LAB":
        lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(picture.convert("RGB"), rgb, lab, outputMode="LAB")
        assert converted is not None
        return converted
    if mode in {"La", "RGBa"}:
        return picture.convert({"La": "LA", "RGBa": "RGBA"}[mode]).convert(mode)
    if mode == "PA":
        return picture.convert("P").convert("PA")
    if mode == "HSV":
        return picture.convert("RGB").convert("HSV")
    if mode.startswith("I;16"):
        pixels = np.asarray(picture).astype(">u2" if mode == "I;16B" else "<u2" if mode != "I;16N" else "=u2")
        return Image.frombytes(mode, picture.size, pixels.tobytes())
    return picture.convert(mode)


def with_orientation(picture: Image.Image, orientation: int) -> Image.Image:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.info["exif"] = exif.tobytes()
    return picture


def sent_pixels(picture: Image.Image) -> Any:
    sent = Image.open(io.BytesIO(body(picture)["content"]))
    assert sent.format == "PNG"
    assert not sent.getexif()
    return np.asarray(sent.convert("L") if not sent.mode.startswith("I") else sent).astype(int)


@pytest.mark.many
@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("mode", MODES)
def test_a_pillow_image_of_any_mode_is_sent_upright(mode: str, orientation: int) -> None:
    turn = STORED[orientation]
    stored = upright() if turn is None else upright().transpose(turn)
    picture = with_orientation(in_mode(stored, mode), orientation)
    before = picture.copy()
    assert np.abs(sent_pixels(picture) - np.asarray(upright())).max() <= 3
    assert (picture.mode, picture.size, picture.info) == (before.mode, before.size, before.info)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_opened_photo_is_sent_as_turned_as_its_file(kind: str) -> None:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    upright().convert("RGB").transpose(Image.Transpose.ROTATE_90).save(file, kind, exif=exif)
    opened = [Image.open(io.BytesIO(file.getvalue())) for _ in range(3)]
    for picture in (opened[0], opened[1].convert("L"), opened[2].copy()):
        pixels = sent_pixels(picture)
        assert pixels.shape == (40, 60)
        assert np.abs(pixels - np.asarray(upright())).mean() < 10


@pytest.mark.parametrize(
    "exif", [b"", b"Exif\0\0", b"Exif\0\0II+\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"?" * 40, "text"]
)
def test_damaged_exif_spoils_no_picture(exif: Any) -> None:
    picture = upright()
    picture.info["exif"] = exif
    assert (sent_pixels(picture) == np.asarray(upright())).all()


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P", "I", "I;16"])
@pytest.mark.parametrize("transparency", [0, (0, 0, 0), b"\0\xff", "odd", None, 3.5, (1,)])
def test_odd_transparency_spoils_no_picture(mode: str, transparency: Any) -> None:
    picture = in_mode(upright(), mode)
    picture.info["transparency"] = transparency
    assert body(picture)["content"].startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("values", "mode", "sent"),
    [
        ([[0, 255]], "I", "L"), ([[0, 256]], "I", "I;16"), ([[0.2, 254.6]], "F", "L"), ([[0.0, 900.0]], "F", "I;16"),
        ([[0.0, 0.0]], "F", "L"),
    ],
)  # fmt: skip
def test_grey_levels_of_32_bits_are_sent_in_8_or_16(values: Any, mode: str, sent: str) -> None:
    picture = Image.fromarray(np.array(values, np.int32 if mode == "I" else np.float32))
    assert picture.mode == mode
    pixels = np.asarray(Image.open(io.BytesIO(body(picture)["content"])))
    assert pixels.dtype == (np.uint8 if sent == "L" else np.uint16)
    assert (pixels == np.rint(values)).all()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.array([[0.0, 1.0]], np.float32), "multiply them by 255"), (np.array([[0.5, np.nan]], np.float32), "NaN"),
        (np.array([[np.inf, 1.0]], np.float32), "infinite"), (np.array([[-1, 5]], np.int32), "grey levels"),
        (np.array([[0, 70_000]], np.int32), "grey levels"), (np.array([[-3.0, 5.0]], np.float32), "grey levels"),
    ],
)  # fmt: skip
def test_values_that_are_no_grey_levels_are_refused(values: Any, says: str) -> None:
    with pytest.raises(BadArgument, match=says):
        body(Image.fromarray(values))


def test_pictures_that_cannot_be_read_are_refused() -> None:
    closed = Image.open(io.BytesIO(png(drawn_seven())))
    closed.close()
    cut = Image.open(io.BytesIO(png(drawn_seven())[:60]))
    for picture in (closed, cut, Image.new("L", (0, 5)), Image.new("RGB", (0, 0))):
        with pytest.raises(BadArgument, match="picture"):
            body(picture)


SEVEN = drawn_seven()


@pytest.fixture(scope="module")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with serving(store=tmp_path_factory.mktemp("store")) as app:
        yield app


@pytest.fixture
def client(mnist: TestClient) -> Iterator[Client]:
    with Client(BASE_URL, transport=over(mnist)) as client:
        yield client


def generator() -> Iterator[Any]:
    yield SEVEN


def frame(values: Any) -> Any:
    """As a table of pandas: rows by to_numpy, and no array of its own."""
    return SimpleNamespace(to_numpy=lambda: np.asarray(values))


ONE_SEVEN: Mapping[str, Callable[[], Any]] = {
    "bytes": lambda: png(SEVEN),
    "bytearray": lambda: bytearray(png(SEVEN)),
    "memoryview": lambda: memoryview(png(SEVEN)),
    "memoryview of every second byte": lambda: memoryview(b"".join(bytes([b, 0]) for b in png(SEVEN)))[::2],
    "array of bytes": lambda: array.array("B", png(SEVEN)),
    "BytesIO": lambda: io.BytesIO(png(SEVEN)),
    "BufferedReader": lambda: io.BufferedReader(io.BytesIO(npy(SEVEN[None]))),
    "npy bytes": lambda: npy(SEVEN[None]),
    "json bytes": lambda: json.dumps({"inputs": [SEVEN.tolist()]}).encode(),
    "json bytes of a list": lambda: b"\n" + json.dumps([SEVEN.tolist()]).encode(),
    "list of bytes": lambda: [png(SEVEN)],
    "tuple of BytesIO": lambda: (io.BytesIO(png(SEVEN)),),
    "generator of pictures": lambda: (Image.fromarray(SEVEN) for _ in range(1)),
    "dict": lambda: {"inputs": [SEVEN.tolist()]},
    "array": lambda: SEVEN[None],
    "Fortran order": lambda: np.asfortranarray(SEVEN[None]),
    "every second": lambda: np.stack([SEVEN, SEVEN])[::2],
    "list of arrays": lambda: [SEVEN],
    "generator of arrays": generator,
    "iterator": lambda: iter([SEVEN.tolist()]),
    "map": lambda: map(np.ndarray.tolist, [SEVEN]),
    "deque": lambda: deque([SEVEN.tolist()]),
    "UserList": lambda: UserList([SEVEN.tolist()]),
    "dict values": {"a": SEVEN}.values,
    "object array": lambda: SEVEN[None].astype(object),
    "list of NumPy rows": lambda: [list(SEVEN)],
    "list of NumPy scalars": lambda: [[list(row) for row in SEVEN]],
    "list of Decimal": lambda: [[[Decimal(int(value)) for value in row] for row in SEVEN]],
    "list of Fraction": lambda: [[[Fraction(int(value)) for value in row] for row in SEVEN]],
    "ranges inside": lambda: [[SEVEN[0].tolist(), *(map(int, row) for row in SEVEN[1:])]],
    "memoryview of an array": lambda: SEVEN[None].data,
    "memoryview of floats": lambda: SEVEN[None].astype(np.float64).data,
    "masked array without a mask": lambda: np.ma.MaskedArray(SEVEN[None]),
    "tensor": lambda: torch.tensor(SEVEN[None]),
    "list of tensors": lambda: [torch.tensor(SEVEN)],
    "sparse tensor": lambda: torch.tensor(SEVEN[None]).to_sparse(),
    "tensors inside": lambda: [list(torch.tensor(SEVEN).float().requires_grad_())],
    "frame": lambda: frame(SEVEN[None]),
}


@pytest.mark.many
@pytest.mark.parametrize("kind", ONE_SEVEN)
def test_every_kind_of_input_is_read(client: Client, kind: str) -> None:
    (prediction,) = client.predict("mnist", ONE_SEVEN[kind]())["predictions"]
    assert prediction["label"] == 7


def test_paths_of_every_kind_are_read(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    contents = {
        "s.png": png(SEVEN),
        "S.NPY": npy(SEVEN[None]),
        "s.json": b' {"inputs": [%s]}' % str(SEVEN.tolist()).encode(),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with (tmp_path / name).open("rb") as file:
            for item in (
                tmp_path / name, str(tmp_path / name), f"~/{name}", Path("~") / name, [Path("~") / name], file,
                SimpleNamespace(read=lambda at=tmp_path / name: at.read_bytes()),
            ):  # fmt: skip
                assert client.predict("mnist", item)["predictions"][0]["label"] == 7


REGRESSOR_INPUTS: Mapping[str, Any] = {
    "floats of float16": np.array([[0.5]], np.float16), "float64": np.array([[0.5]]),
    "longdouble": np.array([[0.5]], np.longdouble),
    "big endian": np.array([[0.5]], ">f4"), "integers": np.array([[1]]),
    "bfloat16": torch.tensor([[0.5]], dtype=torch.bfloat16),
    "float8": torch.tensor([[0.5]]).to(torch.float8_e4m3fn), "requires grad": torch.tensor([[0.5]], requires_grad=True),
    "range inside": [range(1)], "arrays inside": [array.array("f", [0.5])], "numpy inside": [[np.float32(0.5)]],
    "tuples": ((0.5,),), "matrix": np.array([[0.5]]).view(np.matrix), "huge integer": [[10**30]],
    "range of arrays": [np.arange(1)],
}  # fmt: skip


@pytest.mark.parametrize("kind", REGRESSOR_INPUTS)
def test_numbers_of_every_type_are_sent(client: Client, kind: str) -> None:
    assert "value" in client.predict("regressor", REGRESSOR_INPUTS[kind])["predictions"][0]


async def endless_later() -> AsyncIterator[int]:
    yield 1


class Slow:
    """An open file of an asynchronous library."""

    async def read(self) -> bytes:
        return b""


circle: list[Any] = []
circle.append(circle)
deep: Any = 1
for _ in range(100_000):
    deep = [deep]
MASKED = np.ma.MaskedArray([[1.0, 2.0]], mask=[[False, True]])

REFUSED: Mapping[str, tuple[Callable[[], Any], str]] = {
    "None": (lambda: None, "NoneType is not a list"),
    "number": (lambda: 0.5, "float is not a list"),
    "Decimal": (lambda: Decimal("0.5"), "Decimal is not a list"),
    "bool": (lambda: True, "bool is not a list"),
    "object": (object, "object is not a list"),
    "class": (lambda: Image.Image, "class Image is not a list"),
    "NumPy scalar": (lambda: np.float32(0.5), "no dimension"),
    "array without dimension": (lambda: np.array(0.5), "no dimension"),
    "dict": (lambda: {"a": 1}, "dict"),
    "empty dict": (dict, "dict"),
    "set": (lambda: {1.0}, "a set has no order"),
    "set inside": (lambda: [{1.0}], r"inputs\[0\] .* a value of type set"),
    "asynchronous generator": (endless_later, "asynchronous"),
    "endless": (lambda: itertools.repeat([1.0]), "1,000,000"),
    "circle": (lambda: circle, "nested more than 64 deep"),
    "deep": (lambda: deep, "nested more than 64 deep"),
    "NaN": (lambda: [[0.5], [0.1, float("nan")]], r"inputs\[1\]\[1\] cannot be sent as JSON: nan is not"),
    "inf": (lambda: [[float("-inf")]], r"inputs\[0\]\[0\] .*: -inf is"),
    "Decimal NaN": (lambda: [[Decimal("NaN")]], r"inputs\[0\]\[0\] .*: NaN is"),
    "signalling NaN": (lambda: [[Decimal("sNaN")]], r"inputs\[0\]\[0\] .*: sNaN is"),
    "NumPy NaN inside": (lambda: [[np.float32("nan")]], r"inputs\[0\]\[0\] .*: nan is"),
    "NaN in objects": (lambda: np.array([[0.5], [np.nan]], object), r"inputs\[1\]\[0\] .*: nan is"),
    "too large": (lambda: [[Fraction(10**400)]], r"inputs\[0\]\[0\] .*: 1000"),
    "integer of 5,000 digits": (lambda: [[10**5000]], r"inputs"),
    "complex": (lambda: [[1j]], "complex"),
    "surrogate inside": (lambda: [["\ud800"]], r"inputs\[0\]\[0\] .* valid Unicode"),
    "bytes inside": (lambda: [[b"1"]], "bytes"),
    "masked": (lambda: MASKED, r"masked at \[0, 1\]"),
    "list of masked": (lambda: [MASKED], "masked"),
    "masked inside": (lambda: [[MASKED]], "masked"),
    "ragged arrays": (lambda: [np.ones(2), np.ones(3)], r"sample 0 has \(2,\), sample 1 has \(3,\)"),
    "fields": (lambda: np.zeros(3, [("a", "f4"), ("b", "i4")]), "fields"),
    "meta tensor": (lambda: torch.empty(1, 1, device="meta"), "Tensor cannot be read"),
    "text file": (lambda: io.StringIO("0.5"), 'mode "rb"'),
    "text of another kind of file": (lambda: SimpleNamespace(read=lambda: "0.5"), 'mode "rb"'),
    "numbers of a file": (lambda: SimpleNamespace(read=lambda: 5), "gives int"),
    "asynchronous file": (Slow, "await"),
    "empty bytes": (lambda: b"", "empty"),
    "empty bytearray": (bytearray, "empty"),
    "empty file": (io.BytesIO, "seek"),
    "pictures and numbers": (lambda: [png(SEVEN), SEVEN], "sample 1 is of type ndarray, sample 0 is a file"),
    "numbers and pictures": (lambda: [[1.0], Image.fromarray(SEVEN)], "sample 0 is of type list"),
    "null character": (lambda: "a\0b", "not a path"),
    "surrogate": (lambda: "\ud800", "cannot be opened|not a path"),
    "long path": (lambda: "x" * 5000, "cannot be opened"),
    "URL": (lambda: "https://host/x.png", "fetch it"),
    "home of another": (lambda: "~nobody-of-this-name/x", "not a path"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_inputs_are_refused_by_one_line(kind: str) -> None:
    make, says = REFUSED[kind]
    with pytest.raises(BadArgument, match=says) as refused:
        body(make())
    assert len(str(refused.value)) < 500
    assert "\n" not in str(refused.value)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    with (tmp_path / "empty.png").open() as text, (tmp_path / "new").open("wb") as writing:
        closed = (tmp_path / "empty.png").open("rb")
        closed.close()
        for item, says in (
            (tmp_path, "is a folder: name the files in it"), (tmp_path / "empty.png", "empty.png is empty"),
            (tmp_path / "no.png", r"no.png cannot be opened \(No such file"), ([tmp_path / "no.png", b"x"], "no.png"),
            (text, r'text mode: open it with mode "rb"'), (closed, "closed file"), (writing, "cannot be read"),
        ):  # fmt: skip
            with pytest.raises(BadArgument, match=says):
                body(item)


def test_one_sample_without_its_list_is_refused_with_the_way_out(client: Client) -> None:
    for model, sample in (("mnist", SEVEN), ("mnist", SEVEN.tolist()), ("regressor", [0.5]), ("regressor", range(1))):
        with pytest.raises(Exception, match="a single sample") as refused:
            client.predict(model, sample)
        assert type(refused.value).__name__ == "Invalid"


def test_the_asynchronous_client_reads_the_same(mnist: TestClient) -> None:
    async def ask() -> Any:
        async with AsyncClient(BASE_URL, transport=over(mnist)) as client:
            with pytest.raises(Invalid, match="mnist has no output 'colour'"):
                await client.explain("mnist", [SEVEN], output="colour")
            return await client.explain("mnist", iter([SEVEN]))

    assert len(asyncio.run(ask())["explanations"]) == 1
