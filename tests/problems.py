"""Assertion on error answers: problem documents of RFC 9457."""

import re
from typing import Any


def is_problem(response: Any, status: int, words: str = "") -> bool:
    body = response.json()
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert body.keys() == {"type", "title", "status", "detail"}
    assert body["status"] == status
    assert re.search(words, f"{body['title']} {body['detail']}"), body
    assert "Traceback" not in response.text
    assert "/" not in re.sub(r"\w+/[\w.*+-]+|(GET|POST) /[\w/]+", "", body["detail"]) or "/docs" in body["detail"]
    return True
