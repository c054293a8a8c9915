"""Content-Encoding, within a limit."""

import gzip
import os
import zlib
from collections.abc import Callable

import pytest

from service.errors import Malformed, TooLarge, UnsupportedMediaType
from service.web.compression import MAX_MEMBERS, Inflating, coding_of, deflate, inflate
from service.web.compression import accepted as coding_for

CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    " GZip": gzip.compress,
    "identity, gzip": gzip.compress,
    "deflate": zlib.compress,
    "x-deflate": lambda content: deflate(content, "deflate"),
    "DEFLATE,": lambda content: zlib.compress(content, wbits=-15),
}


@pytest.mark.parametrize("header", CODINGS)
def test_a_coding_is_undone_within_its_limit(header: str) -> None:
    coding = coding_of(header)
    assert coding
    packed = CODINGS[header](bytes(1000))
    assert inflate(packed, coding, 1000) == bytes(1000)
    with pytest.raises(TooLarge, match="999 bytes"):
        inflate(packed, coding, 999)
    for broken in (b"", b"junk", packed[:-1], packed + b"x", packed + bytes(9)):
        with pytest.raises(Malformed):
            inflate(broken, coding, 10_000)
    if coding == "deflate":  # a zlib stream is one (RFC 1950)
        with pytest.raises(Malformed, match="follows the deflate stream"):
            inflate(packed + packed, coding, 10_000)


PARTS = [[b"a", b"b"], [b"", b"", b"end"], [b"x" * 5000, b"", bytes(range(256)) * 1000], [b"1234"] * 1000]


@pytest.mark.parametrize("parts", PARTS, ids=["short", "empty", "long", "many"])
def test_the_members_of_a_gzip_body_are_read_one_after_the_other(parts: list[bytes]) -> None:
    """RFC 1952, section 2.2: as `cat a.gz b.gz`, bgzip and pigz write them."""
    packed, content = b"".join(map(gzip.compress, parts)), b"".join(parts)
    assert inflate(packed, "gzip", len(content)) == content
    with pytest.raises(TooLarge, match=f"larger than {len(content) - 1} bytes"):
        inflate(packed, "gzip", len(content) - 1)
    for length in (1, 5, 10, len(packed) - 1):
        with pytest.raises(Malformed):
            inflate(packed[:-length], "gzip", len(content))


@pytest.mark.parametrize("rest", [b"x", b"\0", bytes(512), b"\x1f", b"\x1f\x8b", b"\x1f\x8b\x09", b"\n", b"junk" * 99])
def test_what_follows_the_last_member_is_refused(rest: bytes) -> None:
    packed = gzip.compress(b"a") + gzip.compress(b"b") + rest
    with pytest.raises(Malformed, match=r"follows the gzip stream|cut off"):
        inflate(packed, "gzip", 100)


def test_the_number_of_members_is_limited() -> None:
    empty = gzip.compress(b"")
    assert inflate(empty * MAX_MEMBERS, "gzip", 0) == b""
    with pytest.raises(Malformed, match=f"more than {MAX_MEMBERS} gzip members"):
        inflate(empty * (MAX_MEMBERS + 1), "gzip", 0)


def streamed(packed: bytes, coding: str, limit: int, size: int, most: int) -> bytes:
    """What comes of a body that arrives in pieces of `size` bytes, and is read in pieces of at most `most`."""
    stream = Inflating(coding, limit, "send less")
    pieces: list[bytes] = []
    for at in range(0, len(packed), size):
        stream.add(packed[at : at + size])
        while piece := stream.read(most):
            pieces.append(piece)
    stream.end()
    assert max(map(len, pieces), default=0) <= most
    return b"".join(pieces)


@pytest.mark.parametrize("most", [1, 64, 1000, 10**6])
@pytest.mark.parametrize("size", [1, 2, 7, 4096, 10**6])
def test_a_body_is_read_as_it_arrives(size: int, most: int) -> None:
    parts = [b"", b"ab", bytes(5000), bytes(range(256)) * 8]
    content = b"".join(parts)
    for packed, coding in (
        (b"".join(map(gzip.compress, parts)), "gzip"),
        (zlib.compress(content), "deflate"),
        (zlib.compress(content, wbits=-15), "deflate"),
    ):
        assert streamed(packed, coding, len(content), size, most) == content
        with pytest.raises(TooLarge, match=f"larger than {len(content) - 1} bytes when it is unpacked: send less"):
            streamed(packed, coding, len(content) - 1, size, most)
        with pytest.raises(Malformed, match="cut off"):
            streamed(packed[:-1], coding, len(content), size, most)
        with pytest.raises(Malformed, match=f"follows the {coding} stream"):
            streamed(packed + b"x", coding, len(content), size, most)


@pytest.mark.parametrize("size", [1, 100, 257, 258, 259, 1000, 4000])
def test_output_that_zlib_holds_without_input_is_read(size: int) -> None:
    """A raw stream has nothing behind its last block."""
    for most in (1, 10, 100, 1000):
        assert streamed(zlib.compress(bytes(size), wbits=-15), "deflate", size, 4096, most) == bytes(size)


def test_a_damaged_stream_is_not_called_another_one() -> None:
    packed = gzip.compress(b"a" * 1000)
    damaged = packed[:-6] + b"\0" + packed[-5:]
    for body in (damaged, packed + damaged):
        with pytest.raises(Malformed, match="the gzip stream of the body is damaged: send it again"):
            streamed(body, "gzip", 10_000, 5, 100)


def test_a_large_body_may_have_as_many_members_as_its_size_allows() -> None:
    large = gzip.compress(os.urandom(2 * 4096))
    count = MAX_MEMBERS + 1
    assert len(streamed(large * count, "gzip", 10**9, 10**6, 10**6)) == 2 * 4096 * count


@pytest.mark.parametrize("size", [0, 1, 10, 100, 5000])
@pytest.mark.parametrize("level", range(10))
def test_deflate_is_read_with_and_without_the_header_of_zlib(level: int, size: int) -> None:
    for fill in (b"\0", b"x", b"\xff", bytes(range(256))):
        content = (fill * size)[:size]
        for wbits in (15, 12, 9, -15, -12, -9):
            assert inflate(zlib.compress(content, level, wbits), "deflate", size) == content


def test_another_coding_is_refused_and_the_error_names_those_that_are_read() -> None:
    for header in ("br", "zstd", "compress", "gzip, gzip", "gzip, deflate", "x-br", "x" * 1000):
        with pytest.raises(UnsupportedMediaType) as caught:
            coding_of(header)
        assert caught.value.headers == {"Accept-Encoding": "gzip, deflate"}


@pytest.mark.parametrize("header", ["", "identity", " Identity ,", ",,"])
def test_no_coding_is_none(header: str) -> None:
    assert coding_of(header) is None


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        ("", None),
        ("identity", None),
        ("br, zstd, *", None),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("deflate, GZIP;q=0.5", "gzip"),
        ("gzip;q=0, deflate", "deflate"),
        ("gzip; q=0.000", None),
        ("gzip;q=0.01", "gzip"),
        (",;q=,", None),
    ],
)
def test_an_answer_is_encoded_only_as_the_caller_accepts(header: str, coding: str | None) -> None:
    assert coding_for(header) == coding
