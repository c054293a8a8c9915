"""Explanations: autograd in a process of its own, which has torch, so that no web process needs it.

It is started by the first request, which so takes seconds longer, and ends when nobody asked for a while.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from models.checkpoints.record import Record
from models.messages import packed, unpacked
from models.spec import Array, Method
from service.errors import Conflict, DeadlineExceeded, Invalid, QueueFull, ServiceError
from service.execution.on_demand import Standby
from service.execution.process import Child, StartChild

WAITING = 32  # requests, with the one in hand
_IDLE_S = 60.0
_START_S = 60.0  # for a child that must be started first, on a busy machine
_SILENCE_S = 120.0  # after which a child is taken for dead


class Explainer:
    """Has attributions computed, one request after the other; the event loop never waits for them."""

    def __init__(self, timeout_s: float, start_child: StartChild = Child) -> None:
        self._timeout_s = timeout_s
        self._standby = Standby(start_child, answer_s=_SILENCE_S, idle_s=_IDLE_S)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="explainer")
        self._waiting = 0

    async def attributions(
        self,
        model: str,
        path: Path,
        record: Record,
        samples: Array,
        method: Method,
    ) -> tuple[Array, Array]:
        """Outputs (N, k) and attributions (N, ...) of samples (N, ...), by the checkpoint at `path`, an absolute one.

        Raises QueueFull, DeadlineExceeded, Conflict where the checkpoint is broken, Invalid where the network has no
        gradient.
        """
        if self._waiting >= WAITING:
            raise QueueFull
        order = {
            "op": "explain",
            "model": model,
            "path": str(path),
            "record": asdict(record),
            "samples": packed(samples),
            "method": method,
        }
        timeout_s = self._timeout_s + (0 if self._standby.warm else _START_S)
        self._waiting += 1
        try:
            async with asyncio.timeout(timeout_s):
                answer = await asyncio.get_running_loop().run_in_executor(self._thread, self._standby.do, order)
        except TimeoutError as err:
            raise DeadlineExceeded(f"no explanation within {timeout_s:g} s: send less at once, or later") from err
        finally:
            self._waiting -= 1
        if answer is None:
            raise ServiceError("the process that explains gave no answer; the next request starts it again")
        if answer["kind"] != "result":
            kind = {"No gradient": Invalid, "Broken checkpoint": Conflict}.get(answer["title"], ServiceError)
            raise kind(f"{model} cannot be explained: {answer['detail']}")
        return unpacked(answer["outputs"]), unpacked(answer["attributions"])

    def close(self) -> None:
        """End the process, after the order in hand."""
        self._thread.shutdown(cancel_futures=True)
        self._standby.close()
