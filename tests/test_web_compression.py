"""Content-Encoding, within a limit."""

import pytest

from service.errors import Malformed, TooLarge, UnsupportedMediaType
from service.web.compression import accepted as coding_for
from service.web.compression import deflate, inflate


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_coding_is_undone_within_its_limit(coding: str) -> None:
    packed = deflate(bytes(1000), coding)
    assert inflate(packed, coding, 1000) == bytes(1000)
    with pytest.raises(TooLarge, match="999 bytes"):
        inflate(packed, coding, 999)
    for broken in (b"", b"junk", packed[:-1], packed + b"x", packed + packed):
        with pytest.raises(Malformed):
            inflate(broken, coding, 10_000)


def test_an_unknown_content_coding_is_rejected_with_the_supported_ones() -> None:
    for coding in ("br", "zstd", "gzip, gzip", "x" * 1000):
        with pytest.raises(UnsupportedMediaType) as caught:
            inflate(b"", coding, 10)
        assert caught.value.headers == {"Accept-Encoding": "gzip, deflate"}


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
