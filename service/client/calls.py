"""Every call of the service, described once: its request, and how its response is read. Nothing here does I/O.

Client and AsyncClient have each function below as a method; see `method` in clients.py.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import httpx

from service.client import answers, checkpoints, fields, files, inputs, named, numbers
from service.client.call import (
    OCTETS,
    Asking,
    Call,
    file_of,
    get,
    json_body,
    key_header,
    list_under,
    no_content,
    object_with,
    path,
)
from service.client.errors import BadArgument

T = TypeVar("T")
_TAR, _PNG = "application/x-tar", "image/png"
_NPY, _NPZ = "application/x-npy", "application/x-npz"
_UPLOAD_S = 180.0  # the service evaluates an upload before it answers
_BYTES_PER_S = 2_500_000  # of its check; the service itself waits half as long


def predict(
    model: str, data: Any, *, version: int | None = None, segment: bool = False
) -> Call[answers.Predictions] | Asking[answers.Predictions]:
    """Predictions for `data` (see inputs.body), by the live version or the given one.

    Strings in a list are texts if the model's only input is a text, and names of files otherwise. With `segment`, data
    is one picture, and each sample in it is answered, in reading order, with its `box`: left, top, right, bottom.
    """
    return _predicted(model, data, version, "application/json", object_with("predictions"), segment=segment)


def predict_picture(model: str, data: Any, *, version: int | None = None) -> Call[bytes] | Asking[bytes]:
    """The picture that a model answers for one sample: a PNG file."""
    return _predicted(model, data, version, _PNG, _of_type(_PNG, lambda content: content))


def predict_arrays(
    model: str, data: Any, *, version: int | None = None
) -> Call[dict[str, Any]] | Asking[dict[str, Any]]:
    """The outputs as NumPy arrays (N, ...) by name; `output` if they have no names. One bad sample fails the call."""
    return _predicted(model, data, version, f"{_NPZ}, {_NPY};q=0.9", _of_type("application/x-np", numbers.read_arrays))


def _predicted(
    model: str,
    data: Any,
    version: int | None,
    accept: str,
    read: Callable[[httpx.Response], T],
    *,
    segment: bool = False,
) -> Call[T] | Asking[T]:
    def call(texts: bool = False) -> Call[T]:
        given = inputs.body(data, texts=texts)
        given["headers"] = {**given.get("headers", {}), "Accept": accept}
        given["params"] = {} if version is None else {"version": version}
        if segment:
            given["params"]["segment"] = "true"
        return Call(method="POST", path=path("predict", model), read=read, repeatable=True, arguments=given)

    return Asking(get(path("models", model), _takes_texts), call) if named.are_words(data) else call()


def _takes_texts(response: httpx.Response) -> bool:
    found = object_with("name")(response)
    try:
        return fields.takes_texts(found)
    except AttributeError as err:
        raise TypeError("not the description of a model") from err


def _of_type(media_type: str, read: Callable[[bytes], T]) -> Callable[[httpx.Response], T]:
    """Read a file of predictions. Raises BadArgument if the model answers JSON instead."""

    def checked(response: httpx.Response) -> T:
        kind = response.headers.get("content-type", "")
        if kind.startswith("application/json") and isinstance(response.json()["predictions"], list):
            raise BadArgument("the model's answer is not of this kind: call predict, which reads it as JSON")
        if not kind.startswith(media_type):
            raise ValueError("another media type")
        return read(response.content)

    return checked


def explain(
    model: str,
    data: Any,
    *,
    method: Literal["gradient", "integrated_gradients"] = "gradient",
    version: int | None = None,
    output: str | None = None,
) -> Call[answers.Explanations]:
    """Feature attributions of each answer, or of one of several outputs by its name; `data` as for predict."""
    asked = {"method": method, "version": version, "output": output}
    given = {name: value for name, value in asked.items() if value is not None}
    arguments = {"params": given, **inputs.body(data)}
    return Call(
        method="POST",
        path=path("explain", model),
        read=object_with("explanations"),
        repeatable=True,
        arguments=arguments,
    )


def submit(
    model: str,
    config: Mapping[str, Any] | None = None,
    *,
    promote: answers.Promote = "if_better",
    dataset: str | None = None,
    tensorboard: bool = False,
    resources: Mapping[str, float] | None = None,
    feedback: Mapping[str, Any] | None = None,
    idempotency_key: str | None = None,
) -> Call[answers.Job]:
    """Queue a training job, on a dataset version such as "field@4", or the newest one of a bare name.

    `promote` may have bounds: {"if_better": {"alpha": 0.05}}.
    `resources`: those that the job needs, {"cpus": 4, "gpus": 0.5, "nodes": 2}.
    `feedback`: also learn from labelled captures, {"since": "P7D", "weight": 20}: `dataset` grows by them.

    It has an Idempotency-Key, generated unless given, so that a retry starts no second job.
    """
    try:
        order: dict[str, Any] = {"model": model, "config": dict(config or {}), "promote": promote}
    except (TypeError, ValueError) as err:
        raise BadArgument(f'config must be a dict such as {{"epochs": 1}}, not {type(config).__name__}') from err
    for name, value in order["config"].items():
        numbers.encoded(value, f"config: {name!r}")
    if tensorboard:
        order["tensorboard"] = True
    if dataset is not None:
        order["dataset"] = dataset
    if resources is not None:
        order["resources"] = resources
    if feedback is not None:
        order["feedback"] = feedback
    arguments = json_body(order, "order")
    arguments["headers"] |= key_header(idempotency_key)
    return Call(method="POST", path="/train", read=object_with("id"), repeatable=True, arguments=arguments)


def job(job_id: str) -> Call[answers.Job]:
    """Return one job."""
    return get(path("jobs", job_id), object_with("state"))


def jobs(
    *,
    model: str | None = None,
    state: answers.State | None = None,
    kind: answers.Kind | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Call[answers.JobPage]:
    """Jobs, newest first, one page."""
    return get("/jobs", object_with("jobs"), model=model, state=state, kind=kind, limit=limit, cursor=cursor)


def cancel(job_id: str) -> Call[answers.Job]:
    """Cancel a job. A finished job raises Conflict, and so would a repeated call."""
    return Call(method="POST", path=path("jobs", job_id, "cancel"), read=object_with("state"), repeatable=False)


def job_history(job_id: str) -> Call[list[dict[str, Any]]]:
    """Every progress point of a job."""
    return get(path("jobs", job_id, "history"), list_under("points"))


def stream(job_id: str, headers: Mapping[str, str]) -> Call[None]:
    """The events of a job, as server-sent events; see events.py."""
    arguments = {"headers": headers}
    return Call(
        method="GET", path=path("jobs", job_id, "events"), read=no_content, repeatable=True, arguments=arguments
    )


def change_stream(
    model: str | None, kind: str | Sequence[str] | None, follow: bool, headers: Mapping[str, str]
) -> Call[None]:
    """The feed of all changes, as server-sent events; see events.py."""
    chosen: dict[str, Any] = {} if model is None else {"model": model}
    chosen |= {} if kind is None else {"kind": _kinds(kind)}
    chosen |= {} if follow else {"follow": "false"}
    arguments = {"headers": headers, "params": chosen}
    return Call(method="GET", path="/events", read=no_content, repeatable=True, arguments=arguments)


def _kinds(kind: str | Sequence[str]) -> list[str]:
    """Return the kinds of changes that are asked for. Raises BadArgument."""
    found = [kind] if isinstance(kind, str) else numbers.listed(kind)
    if not all(isinstance(one, str) for one in found):
        raise BadArgument('kind must be text such as "job.succeeded" or "job.*", or a list of such texts')
    return found


def plot(job_id: str) -> Call[bytes]:
    """The plot of a job: a PNG file."""
    return get(path("jobs", job_id, "plot.png"), file_of(_PNG))


def models() -> Call[list[answers.Model]]:
    """All models."""
    return get("/models", list_under("models"))


def model(name: str) -> Call[answers.Model]:
    """One model."""
    return get(path("models", name), object_with("name"))


def example(model: str) -> Call[dict[str, Any]]:
    """A valid JSON body of a prediction: {"inputs": [...]}; pass its inputs to predict."""
    return get(path("models", model, "example"), object_with("inputs"))


def versions(model: str) -> Call[list[answers.Version]]:
    """The versions of a model, oldest first."""
    return get(path("models", model, "versions"), list_under("versions"))


def version(model: str, number: int) -> Call[answers.Version]:
    """One version."""
    return get(path("models", model, "versions", number), object_with("version"))


def register(model: str, checkpoint: Any, *, arguments: Mapping[str, Any] | str | None = None) -> Call[answers.Version]:
    """Upload a checkpoint as a new version, which is not promoted.

    `checkpoint`: a file as torch.save or safetensors writes it (path, bytes or open in binary mode), a network, its
    state_dict, or a bundle. If the record next to the file (NAME.json) names artifacts, they are sent with it.
    `arguments`: the constructor arguments that the network was built with, such as {"hidden": 64}.
    """
    content = checkpoints.content(checkpoint)
    size, stream = (len(content), None) if isinstance(content, bytes) else (content.size, content)
    given: dict[str, Any] = {
        "params": {"arguments": _arguments(arguments)},
        "headers": {"Content-Type": OCTETS, "Content-Length": str(size)},
    }
    if stream is None:
        given["content"] = content
    return Call(
        method="POST",
        path=path("models", model, "versions"),
        read=object_with("version"),
        repeatable=False,
        arguments=given,
        stream=stream,
        timeout_s=_UPLOAD_S + size / _BYTES_PER_S,
    )


def download(model: str, number: int, *, artifacts: bool = False) -> Call[bytes]:
    """The state_dict file of a version; with `artifacts`, its bundle: a tar archive with record and artifacts, too."""
    place = path("models", model, "versions", number, "checkpoint")
    return get(place, file_of(_TAR), artifacts="true") if artifacts else get(place, file_of(OCTETS))


def save(model: str, number: int, file: str | os.PathLike[str], *, artifacts: bool = False) -> Call[Path]:
    """As `download`, into a file, which is written as it arrives. Returns its path; raises OSError, too."""
    asked = download(model, number, artifacts=artifacts)
    target = files.Target(files.path(file), _TAR if artifacts else OCTETS)
    return Call(
        method=asked.method,
        path=asked.path,
        read=target.written,
        repeatable=asked.repeatable,
        arguments=asked.arguments,
        target=target,
    )


def promote(model: str, number: int) -> Call[answers.Promoted]:
    """Make a version live."""
    return Call(
        method="POST",
        path=path("models", model, "promote"),
        read=object_with("live"),
        repeatable=False,
        arguments=json_body({"version": number}, "promote"),
        timeout_s=60,
    )


def rollback(model: str, *, idempotency_key: str | None = None) -> Call[answers.Promoted]:
    """Make the previous version live again. The Idempotency-Key, generated unless given, makes a retry safe."""
    return Call(
        method="POST",
        path=path("models", model, "rollback"),
        read=object_with("live"),
        repeatable=True,
        arguments={"headers": key_header(idempotency_key)},
        timeout_s=60,
    )


def promotions(model: str, *, at: str | None = None) -> Call[answers.History]:
    """History of promotions; with `at` (ISO 8601), until that time."""
    return get(path("models", model, "promotions"), object_with("promotions"), at=at)


def drift(model: str, *, version: int | None = None, window: str | None = None) -> Call[answers.Drift]:
    """Recent inputs and answers of a version, by default the live one, compared with its data.

    `window`: minutes, hours or days until now, such as 30m, 1h or 7d.
    """
    return get(path("models", model, "drift"), object_with("features"), version=version, window=window)


def nodes() -> Call[list[answers.Node]]:
    """The services that share the database, on all machines, the oldest first."""
    return get("/nodes", list_under("nodes"))


def ready() -> Call[answers.Health]:
    """Check readiness. Raises Unavailable if a model with a live version is not loaded."""
    return get("/health/ready", object_with("status"))


def _arguments(arguments: Mapping[str, Any] | str | None) -> str:
    """Return constructor arguments as JSON. Raises BadArgument."""
    if isinstance(arguments, str):
        return arguments
    if not isinstance(arguments, Mapping | None):
        kind = type(arguments).__name__
        raise BadArgument(f'arguments must be a dict of constructor arguments such as {{"hidden": 64}}, not {kind}')
    return numbers.encoded(arguments or {}, "arguments").decode()
