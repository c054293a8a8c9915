"""POST /preview/{model}: the network's input for a body, after decoding and preprocessing."""

from collections.abc import Awaitable, Callable, Mapping

import numpy as np
import orjson
from fastapi import APIRouter, Request, Response

from models.errors import TooManySamples
from models.samples import Columns
from models.spec import ModelSpec
from service.api.bodies import RequestBodies
from service.api.openapi import PREVIEW_BODY
from service.api.predictions import in_order
from service.api.schemas import Preview
from service.errors import require_model
from service.inference.engine import Loaded
from service.media_types import JSON
from service.web.auth import Access
from service.web.multipart import MAX_FILES

ACCESS: Mapping[str, Access] = {
    "POST /preview/{model}": Access("predict", 400, 403, 404, 413, 415, 422, 503),
}


def router(
    specs: Mapping[str, ModelSpec], bodies: RequestBodies, live: Callable[[str], Awaitable[Loaded]]
) -> APIRouter:
    """Return the route."""
    routes = APIRouter(tags=["predict"])

    @routes.post(
        "/preview/{model}",
        summary="Show the network's input",
        response_class=Response,
        responses={200: {"model": Preview}},
        openapi_extra=PREVIEW_BODY,
    )
    async def preview(model: str, request: Request) -> Response:
        """Bodies as for POST /predict/{model}, up to 256 samples. A sample that failed has its error in its place.

        A picture is returned as the network's input: for a digit 28x28 numbers, located, cropped and centred. A sample
        of named inputs is returned as an object of arrays, as the live version encodes it.
        """
        require_model(model, specs)
        coder = (await live(model)).coder if specs[model].inputs else None
        samples = await bodies.samples(request.scope, request.receive, specs[model], coder)
        if samples.count > MAX_FILES:
            raise TooManySamples(samples.count, MAX_FILES)
        good = samples.good
        rows = (
            [good.sample(row) for row in range(len(good))] if isinstance(good, Columns) else np.ascontiguousarray(good)
        )
        previews = in_order(rows, samples.errors)
        content = orjson.dumps({"model": model, "samples": previews}, option=orjson.OPT_SERIALIZE_NUMPY)
        return Response(content, media_type=JSON)

    return routes
