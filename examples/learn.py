"""The whole loop: a wrong answer is corrected, learnt, tried and promoted; then the same picture is answered rightly.

It leaves mnist with a version that knows small digits only: use a store of its own, or promote version 1 again.
"""

import io
import os
import time
from itertools import count
from typing import Any

import httpx
from PIL import Image, ImageDraw

HTTP = httpx.Client(base_url=os.environ.get("TORCHLOOP_URL", "http://127.0.0.1:8000"), timeout=60)


def call(method: str, path: str, **sent: Any) -> Any:
    return HTTP.request(method, path, **sent).raise_for_status().json()


def train(**order: Any) -> Any:
    job = call("POST", "/train", json={"model": "mnist", "config": {"epochs": 6}, **order})
    while (job := call("GET", f"/jobs/{job['id']}"))["state"] in ("queued", "running"):
        time.sleep(0.2)
    assert job["state"] == "succeeded", job["error"]
    return job


def ask(number: int) -> Any:
    """Send a picture of a 1 with a foot, each a little different."""
    x, y = number % 7, number % 5
    page = Image.new("L", (280, 280))
    one = [(100 - x, 100 + y), (140, 60 - y), (140, 225), (90 - y, 225), (195 + x, 225)]
    ImageDraw.Draw(page).line(one, fill=255, width=22, joint="curve")
    page.save(file := io.BytesIO(), "PNG")
    answer = call("POST", "/predict/mnist", content=file.getvalue(), headers={"Content-Type": "image/png"})
    return {"id": answer["id"], "version": answer["version"], "label": answer["predictions"][0]["label"]}


def answer_of(version: int) -> Any:
    while (answer := ask(0))["version"] != version:
        time.sleep(0.1)  # each web process follows a promotion within two seconds
    return answer


answer_of(train(dataset="digits@1", promote="always")["version"])  # a first version, of 1,257 small digits
call("PUT", "/models/mnist/capture", json={"rate": 1.0})
time.sleep(2)  # until all web processes capture
answers = [ask(number) for number in range(30)]
print("answered:", answers[0])
told = {"feedback": [{"id": answer["id"], "truth": 1} for answer in answers]}
while any(one["matched"] != "captured" for one in call("POST", "/models/mnist/feedback", json=told)["results"]):
    time.sleep(0.2)  # until the captures are written
job = train(dataset="digits@1", feedback={"since": "PT1H", "weight": 20}, promote="never")
print("trained:", {"version": job["version"], "dataset": job["dataset"]})
# "promote": "trial" opens one of 30 minutes by itself; this one is short
stages = [{"shadow": 1.0, "for": "PT1S", "samples": 60}, {"share": 0.5, "for": "PT1S", "samples": 30}]
trial = call("POST", "/models/mnist/trial", json={"version": job["version"], "stages": stages})
for number in count():  # callers, by whose requests it is judged
    ask(number)
    if (trial := call("GET", "/models/mnist/trial"))["state"] not in ("shadow", "canary"):
        break
print("trial:", trial["state"])
print("answered:", answer_of(job["version"]))
