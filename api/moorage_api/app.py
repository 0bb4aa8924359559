"""Build the HTTP application from its services. Importing this module opens no connection."""

from __future__ import annotations

from typing import Any

from fastapi import Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware

from moorage_api.administration.router import router as admin_router
from moorage_api.config.legacy import router as legacy_router
from moorage_api.config.router import router as config_router
from moorage_api.files.router import router as files_router
from moorage_api.http import docs_pages
from moorage_api.http import errors as http_errors
from moorage_api.http.access import AccessSettings
from moorage_api.http.body_limit import BodyLimit
from moorage_api.http.health import router as health_router
from moorage_api.http.openapi.document import complete_document
from moorage_api.http.provided import Services, check_provided
from moorage_api.http.request_id import RequestId
from moorage_api.http.routes import rules_of
from moorage_api.http.trailing_slash import TrailingSlash
from moorage_api.sessions.pictures import router as pictures_router
from moorage_api.sessions.router import router as sessions_router
from moorage_api.sessions.vnc import router as vnc_router
from moorage_api.skills.router import router as skills_router
from moorage_api.status.router import router as status_router
from moorage_api.tools.router import config_router as tools_config_router
from moorage_api.tools.router import user_router as user_tools_router
from moorage_api.usage.router import router as usage_router
from moorage_api.users.callers import count_request
from moorage_api.users.router import router as users_router
from moorage_api.wechat.router import router as wechat_router

ROUTERS = (
    users_router,
    wechat_router,
    admin_router,
    sessions_router,
    vnc_router,
    pictures_router,
    files_router,
    config_router,
    usage_router,
    tools_config_router,
    user_tools_router,
    skills_router,
    legacy_router,
    status_router,
)


class Application(FastAPI):
    """A FastAPI application whose OpenAPI document is completed by `http.openapi`."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = complete_document(super().openapi())
        return self.openapi_schema


def create_app_without_services() -> Application:
    """Build the application with its routes but without resources. Raises LookupError for a route without a rule."""
    app = Application(
        title="Moorage",
        version="0.1.0",
        summary="Every AI-agent session gets its own computer.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(count_request)],
    )
    for router in ROUTERS:
        app.include_router(router, prefix="/api")
    app.include_router(health_router)
    docs_pages.install(app)
    app.state.rules = rules_of(app.routes)
    return app


def create_app(services: Services) -> FastAPI:
    """Raises LookupError if a route asks for a service that `wiring` did not build."""
    app = create_app_without_services()
    check_provided(app.routes, services)
    app.state.services = services
    http_errors.install(app)
    app.add_middleware(BodyLimit)
    app.add_middleware(TrailingSlash)
    if origins := services.get(AccessSettings).allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["*"],
            allow_headers=["Authorization", "Content-Type", "Last-Event-ID"],
            expose_headers=["Retry-After", "Content-Disposition", "X-Request-ID"],
        )
    app.add_middleware(RequestId)  # the outermost: what the others log has the id
    return app
