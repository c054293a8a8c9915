"""Answers of servers that are not Torchloop: each ends in a TorchloopError that names the way out."""

from typing import Any

import httpx
import pytest

from service.client import BadArgument, Client, NotTorchloop, Refused
from tests.client_calls import answering, calls_of
from tests.each import each_holds

ANSWERS = [
    (200, "text/html", b"<html>Log in</html>"), (200, "application/json", b"[]"), (200, "application/json", b"{}"),
    (200, "application/json", b'{"status": "ok"}'), (200, "application/json", b"null"), (200, "", b""),
    (200, "application/json", b'"text"'), (200, "application/json", b"\xff\xfe"),
    (200, "application/json", b"[" * 99_999),
    (204, "", b""), (304, "", b""), (200, "application/json", b'{"models": 5, "predictions": 5, "versions": null}'),
]  # fmt: skip


@pytest.mark.parametrize(("status", "kind", "content"), ANSWERS)
def test_an_answer_of_another_server_is_never_a_result(status: int, kind: str, content: bytes) -> None:
    client = answering(httpx.Response(status, content=content, headers={"content-type": kind} if kind else {}))
    fields = {"predictions", "models", "versions"} if b'"models"' in content else set()
    for call in calls_of(client)[:24]:
        try:
            found = call()
        except NotTorchloop as err:
            assert "check the URL" in str(err)  # noqa: PT017 - each call must raise it, or find its field
        else:
            assert fields & set(found)


@pytest.mark.parametrize("model", [{"name": "m", "body_schema": 5}, {"name": "m", "signature": [], "body_schema": {}}])
def test_an_odd_description_of_a_model_is_an_answer_of_another_server(model: Any) -> None:
    with pytest.raises(NotTorchloop if model["body_schema"] else BadArgument):
        answering(httpx.Response(200, json=model)).predict("m", ["no such file"])


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_names_its_target_without_the_query(status: int) -> None:
    headers = {"location": "https://login.example/page?token=secret"}
    client = answering(httpx.Response(status, headers=headers))
    for call in calls_of(client):
        with pytest.raises(NotTorchloop, match=r"redirects to https://login\.example/page: name the service's own URL"):
            call()


@pytest.mark.many
@pytest.mark.parametrize("status", [400, 401, 403, 404, 407, 413, 418, 429, 500, 502, 503, 504, 599])
@pytest.mark.parametrize("kind", ["text/html", "application/json", "application/problem+json"])
def test_an_error_of_another_server_is_an_error_of_its_status(status: int, kind: str) -> None:
    def check(content: bytes) -> None:
        client = answering(httpx.Response(status, content=content, headers={"content-type": kind}))
        for call in calls_of(client):
            with pytest.raises(Refused) as refused:
                call()
            assert refused.value.status == status
            if kind != "application/problem+json":
                assert "check http://host" in str(refused.value)

    each_holds(
        check, [b"<html>Bad gateway</html>", b"", b'{"detail": "x"}', b"\xff", b'{"title": 5, "detail": {"a": []}}']
    )


@pytest.mark.parametrize(
    "content",
    [
        b"event: state\ndata: {}\n\n", b"id: x\nevent: state\ndata: {}\n\n", b"id: 1\nevent: state\ndata: {\n\n",
        b"id: 1\nevent: state\ndata: []\n\n", b"id: 1\nevent: state\ndata: " + b"[" * 99_999 + b"\n\n",
        b"id: 1\nevent: state\ndata: 5\n\n",
    ],
)  # fmt: skip
def test_an_odd_event_is_an_error(content: bytes) -> None:
    client = answering(httpx.Response(200, content=content, headers={"content-type": "text/event-stream"}))
    with pytest.raises(NotTorchloop, match="event"):
        list(client.events("j"))


def test_the_stream_of_an_ended_job_may_be_empty() -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        return (
            httpx.Response(204)
            if request.url.path.endswith("/events")
            else httpx.Response(200, json={"state": "failed"})
        )

    assert list(Client("http://host", transport=httpx.MockTransport(handle)).events("j")) == []
