"""The web page: / and its files under /page/. They hold no data, so they need no key; the page's own requests do."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from models.errors import shown
from service.errors import NotFound
from service.web.answers import is_known
from service.web.auth import Access

ACCESS: Mapping[str, Access] = {
    "GET /": Access(None),
    "OPTIONS /": Access(None),
    "GET /page/{name}": Access(None, 404),
}

FOLDER = Path(__file__).parents[1] / "page"
PREFIX = "/page/"
_MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
SECURITY_HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_HEADERS = {
    **SECURITY_HEADERS,
    "Cache-Control": "no-cache",  # cached, but revalidated by ETag: a new release shows at once
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' blob:; "  # blob: for pictures fetched with a key, which an <img> cannot send
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    media_type: str
    etag: str


def routes(folder: Path = FOLDER) -> list[Route]:
    """Return the routes. The files are read at start: a request selects one of them by name, and no path is built from
    it.
    """
    files = {path.name: _read(path) for path in folder.iterdir() if path.suffix in _MEDIA_TYPES}

    async def page(request: Request) -> Response:
        return _answer(request, files["index.html"])

    async def file(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in files:
            raise NotFound(f"the page has no file {shown(name)!r}")
        return _answer(request, files[name])

    endpoints: dict[str, Callable[[Request], Awaitable[Response]]] = {"/": page, f"{PREFIX}{{name}}": file}
    files_and_page = [Route(path, endpoint, include_in_schema=False) for path, endpoint in endpoints.items()]
    return [*files_and_page, Route("/", _options, methods=["OPTIONS"], include_in_schema=False)]


async def _options(_: Request) -> Response:
    """Answer the default health check of HAProxy."""
    return Response(status_code=204, headers={"Allow": "GET, HEAD, OPTIONS"})


def _read(path: Path) -> _File:
    content = path.read_bytes()
    return _File(content, f"{_MEDIA_TYPES[path.suffix]}; charset=utf-8", f'"{sha256(content).hexdigest()[:32]}"')


def _answer(request: Request, file: _File) -> Response:
    headers = {**_HEADERS, "ETag": file.etag}
    if is_known(file.etag, request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.media_type)
