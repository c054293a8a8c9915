"""Scaling of the service with connections, samples per request, models, and picture sizes.

Measures a subprocess of this service with two web processes; wrk checks every response. Figures are medians.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from PIL import Image, ImageDraw

from benchmarks import Options, load
from benchmarks.batches import npy_body
from benchmarks.load import Body, Load
from benchmarks.report import Aim, table
from benchmarks.servers import SEVEN, Running, Server, copy_checkout, started, torchloop
from benchmarks.service_process import ROOT

CONNECTIONS = (1, 4, 16, 64, 128, 256, 512)
SAMPLES = (1, 4, 16, 64, 256, 1024, 4096)
MODELS = (3, 10, 30)
PICTURES = ((28, 28), (280, 280), (640, 480), (1600, 1200), (4000, 3000))
_SMALL = 4  # connections with small pictures while large ones are decoded
_SPREAD = 64  # connections in total, spread over all models
Key = TypeVar("Key")
Seen = TypeVar("Seen")
_PATH = ("/predict/mnist",)


@dataclass(frozen=True, kw_only=True)
class Grown:
    """Result of one round with one number of models."""

    seen: Load
    resident_mb: float
    start_s: float


def main(options: Options) -> str:
    """Return the tables, or a message if wrk is missing."""
    if not load.is_installed():
        return load.MISSING
    with TemporaryDirectory() as store:
        server = torchloop(Path(store))
        with started(server):
            pass  # the first start writes the store
        with started(server) as running:
            running.settle()
            load.send(running.url, SEVEN, _PATH, connections=64, seconds=1)
            connections = _repeat(options, CONNECTIONS, lambda count: _connections(running, count, options))
            samples = _repeat(options, SAMPLES, lambda count: _samples(running, count, options))
            pictures = _repeat(options, _kinds(), lambda kind: _picture(running, kind, options))
    models = _models(options)
    loads = [one for seen in [*connections.values(), *samples.values()] for one in seen]
    loads += [one for pairs in pictures.values() for pair in pairs for one in pair]
    loads += [one.seen for grown in models.values() for one in grown]
    tables = [
        *(connections_table(connections), samples_table(samples), pictures_table(pictures), models_table(models)),
        table(["", "reached", "aim", ""], [Aim("bad answers in all", [sum(one.bad for one in loads)], 0).cells()]),
    ]
    head = f"  two web processes, medians of {options.rounds} rounds, every response checked"
    return "\n\n".join([head, *tables])


def _repeat(options: Options, keys: Sequence[Key], measure: Callable[[Key], Seen]) -> dict[Key, list[Seen]]:
    """Measure all keys in turn in each round, so that other load on the machine affects all of them."""
    found: dict[Key, list[Seen]] = {key: [] for key in keys}
    for _ in range(options.rounds):
        for key in keys:
            found[key].append(measure(key))
    return found


def _connections(running: Running, count: int, options: Options) -> Load:
    return load.send(running.url, SEVEN, _PATH, connections=count, seconds=options.seconds)


def connections_table(found: Mapping[int, Sequence[Load]]) -> str:
    """Return the table for one small picture per request."""
    rows = [
        [f"{count}", _middle(seen, "rate", ".0f"), _middle(seen, "p50_ms"), _middle(seen, "p99_ms"), _bad(seen)]
        for count, seen in found.items()
    ]
    return table(["connections", "requests/s", "p50 ms", "p99 ms", "bad answers"], rows)


def _samples(running: Running, count: int, options: Options) -> Load:
    return load.send(running.url, npy_body(count), _PATH, connections=1, seconds=options.seconds)


def samples_table(found: Mapping[int, Sequence[Load]]) -> str:
    """Return the table for one connection with many samples per request."""
    rows = [
        [f"{count}", f"{median(load.rate for load in seen) * count:.0f}", _middle(seen, "p50_ms"), _bad(seen)]
        for count, seen in found.items()
    ]
    return table(["samples in a .npy request", "samples/s", "ms", "bad answers"], rows)


def _kinds() -> list[tuple[int, int, str]]:
    """Return width, height and format of the large pictures; width 0 means none."""
    return [(0, 0, ""), *((width, height, kind) for width, height in PICTURES for kind in ("PNG", "JPEG"))]


def drawn(width: int, height: int, kind: str) -> Body:
    """Return a picture of a seven, dark on light; with 28x28 as in MNIST, light on dark."""
    if (width, height) == (28, 28):
        page = Image.open(BytesIO(SEVEN.content)).convert("L")
    else:
        page, side = Image.new("L", (width, height), 240), height // 2
        left, top = (width - side) // 2, (height - side) // 2
        points = [(left + x * side / 28, top + y * side / 28) for x, y in ((5, 4), (22, 4), (13, 25))]
        ImageDraw.Draw(page).line(points, fill=20, width=max(2, side // 9), joint="curve")
    file = BytesIO()
    page.save(file, kind)
    return Body(content=file.getvalue(), media_type=f"image/{kind.lower()}", labels=SEVEN.labels)


def _picture(running: Running, kind: tuple[int, int, str], options: Options) -> tuple[Load, Load]:
    """Measure one connection with large pictures and _SMALL with small ones, concurrently."""

    def small() -> Load:
        return load.send(running.url, SEVEN, _PATH, connections=_SMALL, seconds=options.seconds)

    if not kind[0]:
        alone = small()
        return alone, alone
    with ThreadPoolExecutor(1) as pool:
        concurrent = pool.submit(small)
        body = drawn(*kind)
        large = load.send(running.url, body, _PATH, connections=1, seconds=options.seconds)
        return large, concurrent.result()


def pictures_table(found: Mapping[tuple[int, int, str], Sequence[tuple[Load, Load]]]) -> str:
    """Return the table for large pictures, one at a time, and concurrent small ones."""
    rows = []
    for (width, height, kind), seen in found.items():
        large, small = ([pair[which] for pair in seen] for which in (0, 1))
        name = f"{width} x {height} {kind}" if width else "none"
        cells = [_middle(large, "p50_ms"), _bad(large)] if width else ["", ""]
        rows.append([name, *cells, _middle(small, "p50_ms"), _middle(small, "p99_ms"), _bad(small)])
    head = ["one large picture at a time", "ms", "bad", f"meanwhile, {_SMALL} x 28 x 28: p50 ms", "p99 ms", "bad"]
    return table(head, rows)


def _models(options: Options) -> dict[int, list[Grown]]:
    """Measure each number of models, each in its own checkout with its own store."""
    with TemporaryDirectory() as folder:
        for count in MODELS:
            copy_checkout(Path(folder) / f"{count}")
            add_models(Path(folder) / f"{count}", count - MODELS[0])
            with started(_with_models(Path(folder), count)):
                pass
        return _repeat(options, MODELS, lambda count: _grown(Path(folder), count, options))


def add_models(checkout: Path, more: int) -> list[str]:
    """Copy the picture model, its recipe and its weights `more` times. Returns the new names."""
    names = [f"mnist_{number:02}" for number in range(1, more + 1)]
    record = (ROOT / "models" / "pretrained" / "mnist.json").read_text()
    for name in names:
        for package in ("models", "training"):
            (checkout / package / f"{name}.py").write_bytes((ROOT / package / "mnist.py").read_bytes())
        weights = checkout / "models" / "pretrained"
        (weights / f"{name}.pt").write_bytes((ROOT / "models" / "pretrained" / "mnist.pt").read_bytes())
        (weights / f"{name}.json").write_text(re.sub(r'("model":\s*)"mnist"', rf'\1"{name}"', record))
    return names


def _with_models(folder: Path, count: int) -> Server:
    """Return the server of a checkout; it counts as started once every model is loaded."""
    return replace(torchloop(folder / f"store{count}", cwd=folder / f"{count}"), ready="/health/ready")


def _grown(folder: Path, count: int, options: Options) -> Grown:
    names = ["mnist", *(f"mnist_{number:02}" for number in range(1, count - MODELS[0] + 1))]
    paths = tuple(f"/predict/{name}" for name in names)
    with started(_with_models(folder, count)) as running:
        running.settle()
        load.send(running.url, SEVEN, paths, connections=_SPREAD, seconds=1)
        seen = load.send(running.url, SEVEN, paths, connections=_SPREAD, seconds=options.seconds)
        return Grown(seen=seen, resident_mb=sum(running.resident_mb()), start_s=running.start_s)


def models_table(found: Mapping[int, Sequence[Grown]]) -> str:
    """Return the table for small pictures, spread over all models that accept pictures."""
    rows = []
    for count, grown in found.items():
        seen = [one.seen for one in grown]
        start_s, resident_mb = median(one.start_s for one in grown), median(one.resident_mb for one in grown)
        costs = [f"{resident_mb:.0f}", f"{start_s:.2f}", _bad(seen)]
        rows.append([f"{count}", _middle(seen, "rate", ".0f"), _middle(seen, "p99_ms"), *costs])
    return table(["models", f"requests/s, {_SPREAD} connections", "p99 ms", "MB", "start s", "bad answers"], rows)


def _middle(seen: Sequence[Any], name: str, spec: str = ".2f") -> str:
    return format(median(getattr(one, name) for one in seen), spec)


def _bad(seen: Sequence[Load]) -> str:
    return str(sum(one.bad for one in seen))
