"""Every call of the service, described once: its request, and how its response is read. Nothing here does I/O.

Client and AsyncClient have each function below as a method; see `method` in clients.py.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar
from uuid import uuid4

import httpx

from service.client import answers, inputs
from service.client.errors import TorchloopError

T = TypeVar("T")
_UPLOAD_S = 180.0  # the service evaluates an upload before it answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """One request, and how its response is read.

    `repeatable`: the request is idempotent and may be retried.
    `timeout_s`: replaces the client's timeout for slow calls.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    repeatable: bool
    arguments: Mapping[str, Any] = field(default_factory=dict)  # of httpx.Client.build_request
    timeout_s: float | None = None


def _body(response: httpx.Response) -> Any:
    return response.json()


def _under(key: str) -> Callable[[httpx.Response], Any]:
    return lambda response: response.json()[key]


def _get(path: str, read: Callable[[httpx.Response], T], **params: Any) -> Call[T]:
    given = {name: value for name, value in params.items() if value is not None}
    return Call(method="GET", path=path, read=read, repeatable=True, arguments={"params": given})


def predict(model: str, data: Any, *, version: int | None = None) -> Call[answers.Predictions]:
    """Predictions for `data` (see inputs.body), by the live version or the given one."""
    given = {} if version is None else {"version": version}
    arguments = {"params": given, **inputs.body(data)}
    return Call(method="POST", path=f"/predict/{model}", read=_body, repeatable=True, arguments=arguments)


def explain(
    model: str,
    data: Any,
    *,
    method: Literal["gradient", "integrated_gradients"] = "gradient",
    version: int | None = None,
) -> Call[answers.Explanations]:
    """Feature attributions of each answer; `data` as for predict."""
    given = {"method": method} | ({} if version is None else {"version": version})
    arguments = {"params": given, **inputs.body(data)}
    return Call(method="POST", path=f"/explain/{model}", read=_body, repeatable=True, arguments=arguments)


def submit(
    model: str,
    config: Mapping[str, Any] | None = None,
    *,
    promote: answers.Policy = "if_better",
    tensorboard: bool = False,
    idempotency_key: str | None = None,
) -> Call[answers.Job]:
    """Queue a training job. It has an Idempotency-Key, generated unless given, so that a retry starts no second job."""
    order: dict[str, Any] = {"model": model, "config": _as_json(config or {}), "promote": promote}
    if tensorboard:
        order["tensorboard"] = True
    headers = {"Idempotency-Key": idempotency_key or uuid4().hex}
    return Call(
        method="POST",
        path="/train",
        read=_body,
        repeatable=True,
        arguments={"json": order, "headers": headers},
    )


def _as_json(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return hyperparameters that JSON has. Raises TorchloopError, e.g. for NaN."""
    for name, value in config.items():
        try:
            json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        except (TypeError, ValueError, RecursionError) as err:
            raise TorchloopError(f"config: {name!r} cannot be sent as JSON ({err})") from err
    return dict(config)


def job(job_id: str) -> Call[answers.Job]:
    """Return one job."""
    return _get(f"/jobs/{job_id}", _body)


def jobs(
    *,
    model: str | None = None,
    state: answers.State | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Call[answers.JobPage]:
    """Jobs, newest first, one page."""
    return _get("/jobs", _body, model=model, state=state, limit=limit, cursor=cursor)


def cancel(job_id: str) -> Call[answers.Job]:
    """Cancel a job. A finished job raises Conflict, and so would a repeated call."""
    return Call(method="POST", path=f"/jobs/{job_id}/cancel", read=_body, repeatable=False)


def job_history(job_id: str) -> Call[list[dict[str, Any]]]:
    """Every progress point of a job."""
    return _get(f"/jobs/{job_id}/history", _under("points"))


def plot(job_id: str) -> Call[bytes]:
    """The plot of a job: a PNG file."""
    return _get(f"/jobs/{job_id}/plot.png", _content)


def models() -> Call[list[answers.Model]]:
    """All models."""
    return _get("/models", _under("models"))


def model(name: str) -> Call[answers.Model]:
    """One model."""
    return _get(f"/models/{name}", _body)


def versions(model: str) -> Call[list[answers.Version]]:
    """The versions of a model, oldest first."""
    return _get(f"/models/{model}/versions", _under("versions"))


def version(model: str, number: int) -> Call[answers.Version]:
    """One version."""
    return _get(f"/models/{model}/versions/{number}", _body)


def register(model: str, checkpoint: bytes, *, arguments: str = "{}") -> Call[answers.Version]:
    """Upload a state_dict, as torch.save or safetensors writes it; `arguments`: the network's constructor arguments, as
    JSON.
    """
    given = {
        "content": checkpoint,
        "params": {"arguments": arguments},
        "headers": {"Content-Type": "application/octet-stream"},
    }
    return Call(
        method="POST",
        path=f"/models/{model}/versions",
        read=_body,
        repeatable=False,
        arguments=given,
        timeout_s=_UPLOAD_S,
    )


def download(model: str, number: int) -> Call[bytes]:
    """The state_dict file of a version."""
    return _get(f"/models/{model}/versions/{number}/checkpoint", _content)


def promote(model: str, number: int) -> Call[answers.Promoted]:
    """Make a version live."""
    arguments = {"json": {"version": number}}
    return Call(
        method="POST",
        path=f"/models/{model}/promote",
        read=_body,
        repeatable=False,
        arguments=arguments,
        timeout_s=60,
    )


def rollback(model: str) -> Call[answers.Promoted]:
    """Make the previous version live again."""
    return Call(method="POST", path=f"/models/{model}/rollback", read=_body, repeatable=False, timeout_s=60)


def promotions(model: str, *, at: str | None = None) -> Call[answers.History]:
    """History of promotions; with `at` (ISO 8601), until that time."""
    return _get(f"/models/{model}/promotions", _body, at=at)


def ready() -> Call[answers.Health]:
    """Check readiness. Raises Unavailable if a model with a live version is not loaded."""
    return _get("/health/ready", _body)


def _content(response: httpx.Response) -> bytes:
    return response.content
