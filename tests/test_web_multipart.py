"""Plain forms are split at once: into the same parts as by the general parser, or not at all."""

import random

import pytest

from models.errors import InvalidInput
from service.errors import ServiceError
from service.web import multipart

PARTS = [
    b'Content-Disposition: form-data; name="a"; filename="7.png"\r\nContent-Type: image/png\r\n\r\n\x89PNG\r\n\x1a',
    b'content-disposition: form-data; name="b"\r\n\r\na text',
    b'Content-Disposition: form-data; name="c"; filename=""\r\n\r\n',
    b"X: 1\r\nContent-Disposition: form-data; name=\"d\"; filename*=UTF-8''x\r\n\r\n--b\r\n--bo\r\n\r\n",
]
BITS = [
    b"\r\n",
    b"\r",
    b"\n",
    b"--",
    b"--bo",
    b"--bound",
    b"\r\n--bound",
    b"\r\n--bound--",
    b":",
    b" ",
    b"\t",
    b"\xff",
    b"a: b\r\n",
]


def form(parts: list[bytes]) -> bytes:
    return b"".join(b"--bound\r\n" + part + b"\r\n" for part in parts) + b"--bound--\r\n"


def outcome(content: bytes) -> object:
    """The fields of a form, or the error."""
    try:
        return multipart.fields("multipart/form-data; boundary=bound", content)
    except (ServiceError, InvalidInput) as err:
        return type(err), str(err)


def changed(content: bytes, chance: random.Random) -> bytes:
    """The form with some pieces removed, inserted or repeated."""
    for _ in range(chance.randint(0, 3)):
        at, size = chance.randrange(len(content) + 1), chance.randint(0, 3)
        content = content[:at] + chance.choice([b"", *BITS, content[at : at + 30]]) + content[at + size :]
    return content


@pytest.mark.slow
def test_a_changed_form_gives_the_same_outcome_as_the_general_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(17)  # noqa: S311
    forms = [changed(form(chance.choices(PARTS, k=chance.randint(1, 3))), chance) for _ in range(4000)]
    plain = sum(multipart.plain_parts(b"bound", content) is not None for content in forms)
    assert 1000 < plain < 3500
    quickly = [outcome(content) for content in forms]
    monkeypatch.setattr(multipart, "plain_parts", lambda *_: None)
    for content, found in zip(forms, quickly, strict=True):
        assert found == outcome(content), content


@pytest.mark.parametrize(
    "parts",
    [[PARTS[0]] * 17, [PARTS[0] + bytes(65_536)], [b"X-Name: 1\r\n" * 9 + b"\r\n"]],
    ids=["many", "large", "heads"],
)
def test_large_forms_are_left_to_the_general_parser(parts: list[bytes]) -> None:
    assert multipart.plain_parts(b"bound", form(parts)) is None
    assert multipart.plain_parts(b"x" * 71, form(PARTS)) is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"--other\r\n", "not separated by the boundary of its Content-Type"),
        (b"--boundX\r\n", "not separated by the boundary of its Content-Type"),
        (b"--bound\nContent-Disposition: form-data; name=f\n\nx\n--bound--\n", "its lines do not end in CRLF"),
        (b"--bound\r\nbad header\r\n\r\nx\r\n--bound--", "the headers of a part are malformed or too many"),
        (
            b"--bound\r\n" + b"X: y\r\n" * 3000 + b"\r\nx\r\n--bound--",
            "the headers of a part are malformed or too many",
        ),
    ],
    ids=["other boundary", "longer boundary", "line feeds", "header", "headers"],
)
def test_a_form_that_cannot_be_parsed_is_refused_in_plain_words(content: bytes, words: str) -> None:
    with pytest.raises(ServiceError, match=words):
        multipart.files("multipart/form-data; boundary=bound", content)


@pytest.mark.parametrize("name", ["version", "segment", "method", "output"])
def test_a_parameter_of_the_query_in_a_form_of_pictures_is_refused(name: str) -> None:
    text = f'Content-Disposition: form-data; name="{name}"\r\n\r\n3'.encode()
    with pytest.raises(InvalidInput, match=f"write it into the address, as \\?{name}=VALUE"):
        multipart.files("multipart/form-data; boundary=bound", form([PARTS[0], text]))
    assert [field.name for field in multipart.fields("multipart/form-data; boundary=bound", form([text]))] == [name]


def test_other_text_fields_beside_pictures_are_ignored() -> None:
    assert len(multipart.files("multipart/form-data; boundary=bound", form([PARTS[0], PARTS[1]]))) == 1
