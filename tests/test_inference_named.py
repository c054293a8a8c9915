"""Bodies of named inputs: .npz, .npy and forms as rows, bounded and without pickles."""

import io
import tracemalloc
import zipfile
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from models.coding import array_input, picture_input
from models.entries import MAX_SAMPLES
from models.errors import InvalidInput, MalformedInput, TooManySamples
from models.signature import Category, Number, Text
from models.spec import ModelSpec
from service.inference import named
from tests.signatures import DENOISER, HEADS, SERIES, SIAMESE, TABLE, TEXT

MANY = 2**20


@dataclass(frozen=True)
class Sent:
    """A field of a form."""

    name: str
    content: bytes
    is_file: bool = False


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def test_an_npz_file_has_an_array_for_each_input() -> None:
    rows = named.from_npz(npz(age=[22.0, 38.0], sex=["male", "female"]), MANY)
    assert rows == [{"age": 22, "sex": "male"}, {"age": 38, "sex": "female"}]


def test_bytes_are_texts_in_utf8() -> None:
    assert named.from_npz(npz(review=np.array(["é".encode()])), MANY) == [{"review": "é"}]


def test_other_bytes_are_files_of_pictures() -> None:
    assert named.from_npz(npz(photo=np.array([b"\xff\xfe1"])), MANY) == [{"photo": b"\xff\xfe1"}]


def test_arrays_of_several_axes_stay_arrays() -> None:
    (row,) = named.from_npz(npz(series=np.ones((1, 3, 2))), MANY)
    assert row["series"].shape == (3, 2)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"\x93NUMPY", "not an .npz file", id="npy"),
        pytest.param(b"", "not an .npz file", id="empty"),
        pytest.param(npz(age=[1.0])[:-30], "damaged", id="cut"),
        pytest.param(b"PK\x03\x04" + b"x" * 50, "damaged", id="noise"),
    ],
)
def test_a_body_that_is_no_npz_file_is_malformed(content: bytes, said: str) -> None:
    with pytest.raises(MalformedInput, match=said):
        named.from_npz(content, MANY)


def test_an_archive_that_unpacks_to_too_much_is_refused_before_it_is_unpacked() -> None:
    content = npz(series=np.zeros((1, MANY)))
    assert len(content) < MANY // 100
    with pytest.raises(InvalidInput, match="at most 1048576 in 1024 are read"):
        named.from_npz(content, MANY)


def test_a_member_that_declares_less_than_it_has_is_not_unpacked() -> None:
    size = 64 * MANY
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("series.npy", bytes(size))
    content = file.getvalue().replace(size.to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    tracemalloc.start()
    with pytest.raises(MalformedInput, match="damaged"):
        named.from_npz(content, MANY)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MANY


def test_an_archive_of_too_many_members_is_refused() -> None:
    with pytest.raises(InvalidInput, match="Too large"):
        named.from_npz(npz(**{f"a{i}": 1 for i in range(1100)}), 16 * MANY)


def test_other_compressions_are_refused() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("age.npy", b"x")
    with pytest.raises(MalformedInput, match="stored or deflated"):
        named.from_npz(file.getvalue(), MANY)


def test_pickled_arrays_are_refused() -> None:
    with pytest.raises(InvalidInput, match="arrays of Python objects are refused"):
        named.from_npz(npz(age=np.array([None])), MANY)


@pytest.mark.parametrize("dtype", ["M8[ns]", "M8[D]", "m8[ns]"])
def test_dates_are_not_read_as_numbers(dtype: str) -> None:
    with pytest.raises(InvalidInput, match="send numbers, for example the days since a date"):
        named.from_npz(npz(age=np.array([20_000], dtype)), MANY)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"age": [1.0, 2.0], "sex": ["male"]}, r"age \[2\], sex \[1\]"),
        ({"age": 1.0}, r"age \[\]"),
        ({}, "no arrays"),
    ],
    ids=["counts", "no axis", "nothing"],
)
def test_arrays_that_do_not_belong_together_are_named(arrays: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        named.from_npz(npz(**arrays), MANY)


def test_there_are_some_samples_but_not_too_many() -> None:
    with pytest.raises(InvalidInput, match="no samples"):
        named.from_npz(npz(age=np.zeros(0)), MANY)
    with pytest.raises(TooManySamples):
        named.from_npz(npz(age=np.zeros(MAX_SAMPLES + 1)), MANY)


def test_a_npy_file_is_the_one_input_of_numbers() -> None:
    file = io.BytesIO()
    np.save(file, np.ones((2, 3, 2)))
    rows = named.from_npy(file.getvalue(), SERIES)
    assert [row["series"].shape for row in rows] == [(3, 2), (3, 2)]
    assert [array_input(spec) for spec in (SERIES, DENOISER, TABLE, TEXT)] == ["series", "picture", None, None]
    file = io.BytesIO()
    np.save(file, np.float32(1))
    with pytest.raises(InvalidInput, match="no axes"):
        named.from_npy(file.getvalue(), SERIES)


@pytest.mark.parametrize(
    ("spec", "pictures", "multipart", "npy"),
    [
        (TABLE, False, False, False),
        (TEXT, False, False, False),
        (SERIES, False, False, True),
        (HEADS, False, False, True),
        (SIAMESE, False, True, False),
        (DENOISER, True, True, True),
    ],
    ids=["table", "text", "series", "heads", "siamese", "denoiser"],
)
def test_media_types_follow_from_the_inputs(spec: ModelSpec, pictures: bool, multipart: bool, npy: bool) -> None:
    found = named.media_types(spec)
    assert ("image/png" in found, "multipart/form-data" in found, "application/x-npy" in found) == (
        pictures,
        multipart,
        npy,
    )
    assert {"application/json", "application/x-npz"} <= set(found)


def test_a_picture_is_a_body_if_all_other_inputs_are_optional() -> None:
    inputs = {**DENOISER.inputs, "strength": Number(0, 1, default=0.5)}
    assert picture_input(replace(DENOISER, inputs=inputs)) == "picture"
    required = {**inputs, "strength": Number(0, 1)}
    example = [{**DENOISER.example[0], "strength": 1}]
    assert picture_input(replace(DENOISER, inputs=required, example=example)) is None
    assert picture_input(SIAMESE) is None


def test_a_form_repeats_the_fields_in_the_order_of_the_samples() -> None:
    fields = [Sent("left", b"1", True), Sent("right", b"2", True), Sent("right", b"4", True), Sent("left", b"3", True)]
    assert named.from_form(fields, SIAMESE) == [{"left": b"1", "right": b"2"}, {"left": b"3", "right": b"4"}]


def test_text_fields_are_numbers_categories_and_texts() -> None:
    inputs = {**TABLE.inputs, "level": Category([1, 2], default=1), "note": Text(default="none")}
    spec = replace(TABLE, inputs=inputs, encode=lambda sample: sample)
    sent = {"age": b"22", "sex": b"male", "fare": b" ", "level": b"2", "note": "é".encode()}
    fields = [Sent(name, content) for name, content in sent.items()]
    assert named.from_form(fields, spec) == [{"age": 22, "sex": "male", "fare": None, "level": 2, "note": "é"}]
    assert named.from_form([Sent("age", b"twenty")], spec) == [{"age": "twenty"}]
    with pytest.raises(InvalidInput, match="age: the field is not a text"):
        named.from_form([Sent("age", b"\xff")], spec)


def test_the_only_picture_of_a_form_may_have_any_name_and_company() -> None:
    fields = [Sent("submit", b"send"), Sent("file", b"1", True)]
    assert named.from_form(fields, DENOISER) == [{"picture": b"1"}]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ([Sent("left", b"1", True)] * 2 + [Sent("right", b"2", True)], "left 2 times, right 1 times"),
        ([], "the form has no field"),
        ([Sent("middle", b"1", True)], "a field 'middle'; the fields are left, right"),
    ],
    ids=["counts", "empty", "unknown"],
)
def test_a_form_whose_fields_do_not_belong_together_says_so(fields: list[Sent], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        named.from_form(fields, SIAMESE)
