"""Heads that another server on the way may read differently (request smuggling)."""

from collections.abc import Sequence

from httptools import HttpRequestParser


def fault_in_head(headers: Sequence[tuple[bytes, bytes]], version: str) -> tuple[int, str, str] | None:
    """Return status, title and detail of the refusal of a head; None if it may be answered.

    The parser has refused the other faults already: two lengths, a length and chunks, line breaks in fields.
    """
    hosts = 0
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"transfer-encoding" and value.strip().lower() != b"chunked":  # RFC 9112, section 6.1
            return 501, "Not implemented", "send Transfer-Encoding: chunked alone; compress with Content-Encoding: gzip"
    if hosts > 1 or (hosts == 0 and version == "1.1"):  # RFC 9112, section 3.2
        return 400, "Malformed request", f"a request needs one Host header; this one has {hosts or 'none'}"
    return None


def head_without_upgrade(parser: HttpRequestParser, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Serialize the head that a parser has parsed: no value holds a line break, so the framing stays the same."""
    method, version = parser.get_method(), parser.get_http_version().encode()
    fields = [b"%b: %b\r\n" % (name, value) for name, value in headers if name != b"upgrade"]
    return b"".join([b"%b %b HTTP/%b\r\n" % (method, target, version), *fields, b"\r\n"])
