"""The application when more wait than may wait."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from models.outputs import values
from models.spec import Array
from tests.fakes import LINE, save_line
from tests.problems import is_problem
from tests.serving import serving
from tests.waiting import until


def test_a_full_queue_gives_429_on_every_route_and_answers_waiting_requests(tmp_path: Path) -> None:
    save_line(tmp_path)
    go_on = threading.Event()
    go_on.set()

    def slow(outputs: Array) -> Array:
        assert go_on.wait(60)
        return values(outputs)

    spec = replace(LINE, postprocess=slow)
    with serving(tmp_path, {"line": spec}, backend="eager", queue_limit=1) as client, ThreadPoolExecutor(2) as pool:

        def waiting(count: int) -> bool:
            return f"torchloop_waiting_requests {count}.0" in client.get("/metrics").text

        def ask() -> int:
            return client.post("/predict/line", json={"inputs": [[1]]}).status_code

        go_on.clear()
        computed = pool.submit(ask)
        until(lambda: 'torchloop_batch_size_count{model="line"} 1.0' in client.get("/metrics").text and waiting(0))
        waits = pool.submit(ask)
        until(lambda: waiting(1))
        refused = client.post("/predict/line", json={"inputs": [[1]]})
        assert is_problem(refused, 429, "try again in a second")
        assert refused.headers["Retry-After"] == "1"
        infer = {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 1], "data": [1]}]}
        refused = client.post("/v2/models/line/infer", json=infer)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        assert client.get("/models").status_code == 200
        go_on.set()
        assert (computed.result(60), waits.result(60)) == (200, 200)
        assert ask() == 200
        assert 'torchloop_requests_total{model="line",status="429"} 2.0' in client.get("/metrics").text
