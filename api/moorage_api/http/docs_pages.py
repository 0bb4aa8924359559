"""`/docs` and `/redoc`. All their scripts and styles are served from here, so they work without internet access."""

from __future__ import annotations

from importlib.resources import files

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse

from moorage_api.errors import NotFoundError

ASSETS = {
    "swagger-ui-bundle.js": "swagger/swagger-ui-bundle.js",
    "swagger-ui.css": "swagger/swagger-ui.css",
    "redoc.standalone.js": "redoc/redoc.standalone.js",
    "favicon.png": "fastapi/favicon.png",
}
"""Served name -> file in the package `fastapi-standalone-docs`. Nothing else of that package is used."""

POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self' data:; connect-src 'self'; worker-src blob:; frame-ancestors 'none'; base-uri 'none'"
)
"""Makes the browser refuse every request of these pages to other servers."""


def install(app: FastAPI) -> None:
    """Add the pages to an app that was created without FastAPI's own ones."""

    @app.get("/docs", include_in_schema=False)
    async def swagger(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "")
        return render_page(
            get_swagger_ui_html(
                openapi_url=f"{root}/openapi.json",
                title=f"{app.title} - Swagger UI",
                swagger_js_url=f"{root}/docs/assets/swagger-ui-bundle.js",
                swagger_css_url=f"{root}/docs/assets/swagger-ui.css",
                swagger_favicon_url=f"{root}/docs/assets/favicon.png",
            )
        )

    @app.get("/redoc", include_in_schema=False)
    async def redoc(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "")
        return render_page(
            get_redoc_html(
                openapi_url=f"{root}/openapi.json",
                title=f"{app.title} - ReDoc",
                redoc_js_url=f"{root}/docs/assets/redoc.standalone.js",
                redoc_favicon_url=f"{root}/docs/assets/favicon.png",
                with_google_fonts=False,
            )
        )

    @app.get("/docs/assets/{name}", include_in_schema=False)
    async def asset(name: str) -> FileResponse:
        if name not in ASSETS:
            raise NotFoundError("This file does not exist")
        path = files("fastapi_standalone_docs").joinpath("static", ASSETS[name])
        return FileResponse(str(path), headers={"Cache-Control": "public, max-age=86400"})


def render_page(html: HTMLResponse) -> HTMLResponse:
    html.headers["Content-Security-Policy"] = POLICY
    html.headers["X-Content-Type-Options"] = "nosniff"
    return html
