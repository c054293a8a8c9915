"""Explanations by autograd, in the torch subprocess, so that no web process imports torch.

The first request starts the subprocess and takes seconds longer; it stops after a while without requests.
"""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from models.checkpoints.record import Record
from models.messages import Explain, Explained, Failed, FailureKind
from models.samples import Batch
from models.spec import Method
from service.errors import Conflict, DeadlineExceeded, Invalid, QueueFull, ServiceError
from service.execution.on_demand import Standby
from service.execution.process import Child, StartChild

WAITING = 32  # requests, with the one in hand
_IDLE_S = 60.0
_START_S = 60.0  # for a child that must be started first, on a busy machine
_SILENCE_S = 120.0  # after which a child is considered dead
_ERRORS: Mapping[FailureKind, type[ServiceError]] = {
    FailureKind.GRADIENT: Invalid,
    FailureKind.CHECKPOINT: Conflict,
}


class Explainer:
    """Has attributions computed, one request after the other, without blocking the event loop."""

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
        samples: Batch,
        method: Method,
        inputs: Sequence[str] = (),
        output: str = "",
    ) -> tuple[Batch, Batch]:
        """Outputs and attributions of samples, by the checkpoint at `path`, an absolute one.

        `inputs` and `output` are names of a model with named inputs or outputs; see `attribution.attribute`.
        Raises QueueFull, DeadlineExceeded, Conflict if the checkpoint is broken, Invalid if the network has no
        gradient.
        """
        if self._waiting >= WAITING:
            raise QueueFull
        order = Explain(
            model=model,
            path=path,
            record=record,
            samples=samples,
            method=method,
            inputs=tuple(inputs),
            output=output,
        )
        timeout_s = self._timeout_s + (0 if self._standby.warm else _START_S)
        self._waiting += 1
        try:
            async with asyncio.timeout(timeout_s):
                answer = await asyncio.get_running_loop().run_in_executor(self._thread, self._standby.do, order)
        except TimeoutError as err:
            raise DeadlineExceeded(f"no explanation within {timeout_s:g} s: send less at once, or later") from err
        finally:
            self._waiting -= 1
        match answer:
            case Explained(outputs=outputs, attributions=attributions):
                return outputs, attributions
            case Failed(kind=kind, detail=detail):
                raise _ERRORS.get(kind, ServiceError)(f"{model} cannot be explained: {detail}")
            case None:
                raise ServiceError("the process that explains gave no answer; the next request starts it again")

    def close(self) -> None:
        """Stop the subprocess after the current order."""
        self._thread.shutdown(cancel_futures=True)
        self._standby.close()
