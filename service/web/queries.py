"""Query parameters that a route does not have: ignored, unless they look like a misspelt one of the route."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from itertools import islice
from typing import Any, get_args, get_origin

from fastapi.routing import APIRoute
from starlette.datastructures import QueryParams
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from models.errors import shown
from service.errors import Invalid

_NEAR = 0.75  # of difflib: `verison` and `versions` are near to `version`; `api_key` is not near to `key`
_LONGEST_NAME = 64
_MOST = 64  # names that are looked at: a URL may have thousands


def require_known(query: QueryParams, known: Collection[str], repeatable: Collection[str] = ()) -> None:
    """Raise Invalid for a name that is nearly one of `known`, and for a value given twice that counts once.

    Such a request would be answered as if the parameter had not been sent. Names that are near to none are ignored:
    caches and trackers add some.
    """
    for name in islice(query, _MOST):
        if name in known:
            if len(given := query.getlist(name)) > 1 and name not in repeatable:
                raise Invalid(f"{name} is given {len(given)} times; give it once")
        elif near := _near(name, known):
            raise Invalid(f"{shown(name)} is not a query parameter here; did you mean {near}?")


def _near(name: str, known: Collection[str]) -> str:
    """Return the known name that is meant: other case, brackets as in PHP, another letter. Empty if none is."""
    plain = name.partition("[")[0].strip().casefold().replace("-", "_")[:_LONGEST_NAME]
    return next(iter(get_close_matches(plain, known, 1, _NEAR)), "")


class _Checked:
    """ASGI application of one route: checks the query of each request that has one."""

    def __init__(self, app: ASGIApp, known: Collection[str], repeatable: Collection[str]) -> None:
        self._app = app
        self._known = known
        self._repeatable = repeatable

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["query_string"]:
            require_known(QueryParams(scope["query_string"]), self._known, self._repeatable)
        await self._app(scope, receive, send)


def check_queries(routes: Iterable[BaseRoute]) -> None:
    """Have each route that FastAPI parses check its query parameters."""
    for route in routes:
        if isinstance(route, APIRoute) and route.dependant.query_params:
            found = {field.alias: field.field_info.annotation for field in route.dependant.query_params}
            repeatable = [name for name, annotation in found.items() if _is_list(annotation)]
            route.app = _Checked(route.app, found, repeatable)


def _is_list(annotation: Any) -> bool:
    return any(get_origin(one) is list for one in (annotation, *get_args(annotation)))
