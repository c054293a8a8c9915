"""Model repository of the Open Inference Protocol: load and unload models under /v2.

Unloading hides a model from /v2 in all web processes of this service, until it is loaded or the service starts again.
The network stays loaded: promotions decide which version is live and what /predict answers. Loading reads the live
version's checkpoint again, in this process, and shows the model again.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from models.catalog import Specs
from models.errors import shown
from models.spec import ModelSpec
from service.api.bodies import RequestBodies
from service.api.openinference.codec import json_object
from service.api.openinference.inferring import Signature
from service.api.schemas import is_whole_number
from service.delivery.closed import Closed
from service.delivery.rollout import Rollout
from service.errors import Malformed, NotFound, NothingLive, require_model
from service.inference.engine import Engine, Loaded
from service.inference.pipeline import Lane, Pipeline, Stopwatch
from service.media_types import JSON
from service.web.auth import Access

ACCESS: Mapping[str, Access] = {
    "POST /v2/repository/index": Access("predict"),
    "POST /v2/repository/models/{model}/load": Access("admin"),
    "POST /v2/repository/models/{model}/unload": Access("admin"),
}

log = logging.getLogger(__name__)


class Offered:
    """The models and versions available under /v2."""

    def __init__(
        self,
        specs: Mapping[str, ModelSpec],
        engine: Engine,
        rollout: Rollout,
        pipeline: Pipeline,
        shared: Path | None = None,
    ) -> None:
        """`shared` is a folder in which the web processes of one service share the models that are unloaded."""
        self.specs = Specs(specs, specs.faults if isinstance(specs, Specs) else {})
        self.signatures = {name: Signature.of(name, spec) for name, spec in self.specs.items()}
        self.closed = Closed(self.specs, shared)
        self._engine = engine
        self._rollout = rollout
        self._pipeline = pipeline
        self._unloaded = pipeline.networks.unloaded

    def known(self, request: Request) -> str:
        """Return the model's name in a request. Raises NotFound."""
        name: str = request.path_params["model"]
        require_model(name, self.specs)
        return name

    async def pinned(self, request: Request) -> Loaded | None:
        """Return the version named in a request, loaded; None if it names none.

        Raises NotFound, Conflict, and NothingLive if the model is unloaded.
        """
        name = self.known(request)
        if name in self.closed:
            raise NothingLive(f"{name} was unloaded from /v2: POST /v2/repository/models/{name}/load opens it again")
        version: str | None = request.path_params.get("version")
        if version is None:
            return None
        if not (is_whole_number(version) and len(version) <= 9):
            raise NotFound(f"{name} has no version {shown(version)!r}")
        return await self._rollout.pinned(name, int(version))

    async def lane(self, request: Request, watch: Stopwatch, stem: str, headers: Mapping[bytes, bytes]) -> Lane:
        """Return the lane of the version named in a request, of a candidate, or of the live version.

        Raises as `pinned` does.

        The live version is taken now if samples or values depend on its artifacts, or it is unloaded: see
        `PredictRoute`.
        """
        name, pinned = self.known(request), await self.pinned(request)
        if pinned is not None:
            return Lane(name, pinned, by_number=True)
        pinned = self._pipeline.candidate(name, headers, stem)
        if pinned is None and (name in self._unloaded or not self.specs[name].is_plain):
            pinned = await self._pipeline.live(name, watch)
        return Lane(name, pinned)

    def require_live(self, name: str) -> None:
        """Raise NothingLive or StillLoading unless the live version of a model is loaded, or loaded on demand."""
        if name not in self._unloaded:
            self._engine.live(name)

    def version(self, name: str) -> str:
        """Return the version of a model that answers; empty if there is none."""
        loaded = self._engine.loaded(name)
        number = self._rollout.live.get(name) if name in self._unloaded else loaded and loaded.version
        return str(number or "")

    def index(self) -> list[dict[str, str]]:
        """Return one row per model: its live version, or the reason why it has none."""
        faults = self.specs.faults
        unusable = [{"name": name, "state": "UNAVAILABLE", "reason": fault} for name, fault in faults.items()]
        return [*(self._row(name) for name in self.specs), *unusable]

    def _row(self, name: str) -> dict[str, str]:
        version = self.version(name)
        if not version:
            absent = "being loaded" if name in self._engine.loading else "no live version"
            reason = self._rollout.faults.get(name, absent)
            return {"name": name, "state": "UNAVAILABLE", "reason": reason}
        closed = name in self.closed
        state, reason = ("UNAVAILABLE", "unloaded") if closed else ("READY", "")
        if name in self._unloaded and not closed:
            reason = "loaded on demand"
        return {"name": name, "version": version, "state": state, "reason": reason}


def routes(offered: Offered, bodies: RequestBodies, rollout: Rollout) -> list[Route]:
    """Return the routes."""

    async def parameters(request: Request, *allowed: str) -> None:
        body = json_object(await bodies.read(request.scope, request.receive) or b"{}")
        given = {} if body.get("parameters") is None else body["parameters"]
        if not isinstance(given, dict) or not given.keys() <= set(allowed):
            known = " and ".join(allowed) or "none"
            raise Malformed(f"parameters may name {known}: configuration and files in a request are not supported")
        if not all(isinstance(value, bool) for value in given.values()):
            raise Malformed(f"{' and '.join(allowed)} must be true or false")

    async def index(request: Request) -> Response:
        body = json_object(await bodies.read(request.scope, request.receive) or b"{}")
        ready = body.get("ready", False)
        if not isinstance(ready, bool):
            raise Malformed("ready must be true or false")
        return answer([row for row in offered.index() if row["state"] == "READY" or not ready])

    async def load(request: Request) -> Response:
        name = offered.known(request)
        await parameters(request)
        await rollout.reload(name)
        offered.closed.discard(name)
        log.info("model opened to /v2", extra={"model": name})
        return Response()

    async def unload(request: Request) -> Response:
        name = offered.known(request)
        await parameters(request, "unload_dependents")
        offered.closed.add(name)
        log.info("model closed to /v2", extra={"model": name})
        return Response()

    return [
        post("/v2/repository/index", index),
        post("/v2/repository/models/{model}/load", load),
        post("/v2/repository/models/{model}/unload", unload),
    ]


def post(path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> Route:
    """Return a route for POST."""
    return Route(path, endpoint, methods=["POST"])


def answer(body: Any, status: int = 200) -> Response:
    """Return a JSON response."""
    return Response(orjson.dumps(body), status, media_type=JSON)
