"""Throughput and latency of a medium network: a ResNet-18 with random weights in this service and in other servers.

wrk sends the same picture of 224 x 224 over 16 connections and checks every label. The others run eager PyTorch, with
two processes of one thread each, as this service has. It is measured in float32, and in the faster forms that the gate
admits after judging them on pictures of noise. A figure is the median over the rounds; a ratio is taken within each
round.
"""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image

from benchmarks import Options, load, resnet
from benchmarks.load import Body, Load, LoadError
from benchmarks.report import Aim, table
from benchmarks.resnet_network import ResNet18
from benchmarks.servers import (
    HANDWRITTEN,
    LITSERVE,
    MOSEC,
    Server,
    attempt,
    copy_checkout,
    in_turn,
    started,
    torchloop,
)
from models.checkpoints import openvino_session, state_dict
from models.spec import Array
from training.exports import write_export
from training.recipe import Dataset, Split

_CONNECTIONS = 16
_WARMING = 10  # s at most
_JUDGED = 64  # pictures on which numeric forms are judged
_AIM = 2.0  # times the rate of a server that runs eager PyTorch
_PRECISE, _FAST = "torchloop, fp32", "torchloop"


@dataclass(frozen=True, kw_only=True)
class Visit:
    """Result of one server in one round. `cpu_ms`: its CPU time per request."""

    seen: Load
    cpu_ms: float


def main(options: Options) -> str:
    """Return the tables, or a message if wrk is missing."""
    if not load.is_installed():
        return load.MISSING
    with TemporaryDirectory() as folder:
        servers, faults = _servers(Path(folder)), dict[str, str]()
        rounds = []
        for turn in range(options.rounds):
            visits: dict[str, Visit] = {}

            def visit(server: Server, visits: dict[str, Visit] = visits) -> None:
                visits[server.name] = _visit(server, options.seconds)

            for server in in_turn(servers, turn):
                attempt(server, faults, visit)
            rounds.append(visits)
    return tables(rounds, faults, [server.name for server in servers])


def _servers(folder: Path) -> list[Server]:
    """Return the servers with the same network, in `folder`."""
    checkout, program = folder / "checkout", folder / "resnet.pt2"
    checkout.mkdir()
    copy_checkout(checkout)
    environ = resnet.add_to(checkout)
    weights = checkout / "models" / "pretrained" / f"{resnet.NAME}.pt"
    network = state_dict.load(resnet.NAME, resnet.SPEC, weights)[0].eval()
    write_export(resnet.NAME, resnet.SPEC, weights.parent, _pictures())
    _write_program(network, program)
    picture = _encoded(resnet.waves())
    with torch.inference_mode():
        label = int(network(torch.from_numpy(resnet.normalised(resnet.waves()[None]))).argmax())
    body = Body(content=picture, media_type="image/png", labels=(label,))
    coded = replace(body, content=json.dumps({"image_data": base64.b64encode(picture).decode()}).encode())
    path = f"/predict/{resnet.NAME}"
    ours = [torchloop(folder / form, cwd=checkout, form=form) for form in ("auto", "fp32")]
    return [
        *(
            replace(server, path=path, ready="/health/ready", body=body, environ={**server.environ, **environ})
            for server in ours
        ),
        *(
            replace(server, body=given, command=_medium(server.command), environ={"PROGRAM": f"{program}"})
            for server, given in (
                (HANDWRITTEN, body),
                (MOSEC[0], body),
                (LITSERVE, replace(coded, media_type="application/json")),
            )
        ),
    ]


def _medium(command: Sequence[str]) -> tuple[str, ...]:
    """Return the command of a peer with its program for the medium network."""
    programs = {
        "handwritten:app": "handwritten_medium:app",
        "mosec_server.py": "mosec_medium.py",
        "litserve_server.py": "litserve_medium.py",
    }
    return tuple(programs.get(word, word) for word in command)


def _pictures() -> Dataset:
    """Return pictures of noise, to judge the numeric forms of random weights on."""
    noise = np.random.default_rng(0).integers(0, 256, (_JUDGED, resnet.SIDE, resnet.SIDE, 3), dtype=np.uint8)
    split = Split(torch.from_numpy(resnet.normalised(noise)), torch.zeros(_JUDGED, dtype=torch.int64))
    return Dataset(name="noise", train=split, validation=split, test=split)


def _write_program(network: torch.nn.Module, path: Path) -> None:
    assert isinstance(network, ResNet18)
    batch = torch.export.Dim("batch", min=1, max=64)
    given = torch.zeros(2, 3, resnet.SIDE, resnet.SIDE)
    torch.export.save(torch.export.export(network, (given,), dynamic_shapes=({0: batch},)), path)


def _encoded(pixels: Array) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _visit(server: Server, seconds: int) -> Visit:
    with started(server) as running:
        running.settle()
        for _ in range(_WARMING):  # until every process has loaded the network
            if not load.send(running.url, server.body, (server.path,), connections=_CONNECTIONS, seconds=1).bad:
                break
        before = running.cpu_s()
        seen = load.send(running.url, server.body, (server.path,), connections=_CONNECTIONS, seconds=seconds)
        if seen.bad >= seen.requests:
            raise LoadError(f"{seen.bad} of {seen.requests} answers were bad")
        return Visit(seen=seen, cpu_ms=(running.cpu_s() - before) / max(1, seen.requests) * 1000)


def tables(rounds: Sequence[Mapping[str, Visit]], faults: Mapping[str, str], names: Sequence[str]) -> str:
    """Return the figures of each server, and the ratios with their aims. `faults`: why one was not measured."""
    rows = []
    for name in names:
        if name in faults:
            rows.append([name, faults[name]])
            continue
        seen = [visits[name] for visits in rounds]
        cells = [median(one.seen.rate for one in seen), median(one.cpu_ms for one in seen)]
        cells += [median(one.seen.p50_ms for one in seen), median(one.seen.p99_ms for one in seen)]
        rows.append([name, *(f"{cell:.1f}" for cell in cells), f"{sum(one.seen.bad for one in seen)}"])
    peers = [name for name in names if name not in {_PRECISE, _FAST, *faults}]
    aims = [
        Aim(f"{ours} / {name}", [_ratio(rounds, ours, name)], _AIM if ours == _FAST else 0.0, at_least=True).cells()
        for ours in (_FAST, _PRECISE)
        if ours not in faults
        for name in peers
    ]
    head = f"  one picture of 224 x 224, {_CONNECTIONS} connections, medians of {len(rounds)} rounds"
    columns = ["ResNet-18", "requests/s", "ms CPU/request", "p50 ms", "p99 ms", "bad answers"]
    parts = [f"{head}\n  {_form()}", table(columns, rows), table(["", "reached", "aim", ""], aims)]
    return "\n\n".join(parts)


def _form() -> str:
    forms = ", ".join(openvino_session.forms())
    return f"numeric forms of this machine: {forms}" if forms else 'no forms: pip install "torchloop[openvino]"'


def _ratio(rounds: Sequence[Mapping[str, Visit]], ours: str, other: str) -> float:
    return median(visits[ours].seen.rate / visits[other].seen.rate for visits in rounds)
