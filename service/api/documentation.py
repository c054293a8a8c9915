"""GET /docs: Swagger UI from the files that are installed with the service, without a CDN."""

import re
from base64 import b64encode
from hashlib import sha256

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.api.page import SECURITY_HEADERS

_FILES = "/static-offline-docs"
_INLINE = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


def routes(app: FastAPI) -> list[Route]:
    """Return the route."""

    async def docs(request: Request) -> Response:
        root = request.scope.get("root_path", "")
        page = get_swagger_ui_html(
            openapi_url=f"{root}{app.openapi_url}",
            title=f"{app.title} - Swagger UI",
            swagger_js_url=f"{root}{_FILES}/swagger-ui-bundle.js",
            swagger_css_url=f"{root}{_FILES}/swagger-ui.css",
            swagger_favicon_url=f"{root}{_FILES}/favicon.png",
        )
        content = bytes(page.body)
        headers = {**SECURITY_HEADERS, "Content-Security-Policy": _policy(content)}
        return Response(content, headers=headers, media_type="text/html")

    return [Route("/docs", docs, include_in_schema=False)]


def _policy(content: bytes) -> str:
    """Return the Content-Security-Policy of a page: its own inline script only; Swagger UI sets inline styles."""
    digests = (b64encode(sha256(script).digest()).decode() for script in _INLINE.findall(content))
    scripts = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src 'self' {scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
