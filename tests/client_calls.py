"""Every call of the client, over an answer made up."""

import os
from collections.abc import Callable
from typing import Any

import httpx

from service.client import Client

GOOD = httpx.Response(200, json={"models": []})


def answering(answer: httpx.Response | Exception, url: str = "http://host", **options: Any) -> Client:
    def handle(request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return Client(url, transport=httpx.MockTransport(handle), retries=0, **options)


def calls_of(client: Client) -> list[Callable[[], Any]]:
    return [
        client.models, client.nodes, lambda: client.model("m"), lambda: client.versions("m"),
        lambda: client.version("m", 1),
        lambda: client.predict("m", [[1]]), lambda: client.predict_picture("m", [[1]]),
        lambda: client.predict_arrays("m", [[1]]), lambda: client.predict("m", ["text"]),
        lambda: client.explain("m", [[1]]), lambda: client.submit("m"),
        lambda: client.train("m", wait=True), lambda: client.job("j"), client.jobs, lambda: client.cancel("j"),
        lambda: client.job_history("j"), lambda: client.plot("j"), lambda: client.promote("m", 1),
        lambda: client.rollback("m"), lambda: client.promotions("m"), lambda: client.register("m", b"x"),
        lambda: client.download("m", 1), lambda: client.save("m", 1, os.devnull), lambda: client.follow("j"),
        lambda: list(client.events("j")), lambda: list(client.events(follow=False)),
        lambda: client.datasets.list("m"), lambda: client.datasets.get("m", "d@1"),
        lambda: client.datasets.report("m", "d@1"), lambda: client.datasets.delete("m", "d@1"),
        lambda: client.capture("m"), lambda: client.set_capture("m", 0.5), lambda: client.captures("m"),
        lambda: client.erase_captures("m", key="a"), lambda: client.send_feedback("m", [{}]),
        lambda: client.feedback("i", 7), lambda: client.accuracy("m", 1), lambda: client.prediction("i"),
        lambda: client.replay("i"),
        lambda: client.trial("m"), lambda: client.trial_by_id("t"), lambda: client.open_trial("m", 1),
        lambda: client.advance_trial("m"), lambda: client.pause_trial("m"), lambda: client.resume_trial("m"),
        lambda: client.abort_trial("m"), lambda: list(client.trial_events("t")),
        lambda: client.datasets.state("u"), lambda: client.datasets.upload("m", "d", __file__),
    ]  # fmt: skip
