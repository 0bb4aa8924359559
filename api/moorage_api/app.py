"""Build the HTTP application from its resources. Importing this opens nothing."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from moorage_api import http_errors
from moorage_api.body_limit import BodyLimit
from moorage_api.config.router import router as config_router
from moorage_api.files.router import router as files_router
from moorage_api.health import router as health_router
from moorage_api.resources import Resources
from moorage_api.sessions.pictures import router as pictures_router
from moorage_api.sessions.router import router as sessions_router
from moorage_api.sessions.vnc import router as vnc_router
from moorage_api.skills.router import router as skills_router
from moorage_api.tools.router import config_router as tools_config_router
from moorage_api.tools.router import user_router as user_tools_router
from moorage_api.users.router import router as users_router


def create_app(resources: Resources) -> FastAPI:
    app = FastAPI(title="Moorage", version="0.1.0", summary="Every AI-agent session gets its own computer.")
    app.state.resources = resources
    http_errors.install(app)
    app.add_middleware(BodyLimit)
    if resources.settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=resources.settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["Authorization", "Content-Type", "Last-Event-ID"],
            expose_headers=["Retry-After", "Content-Disposition"],
        )
    for router in (users_router, sessions_router, vnc_router, pictures_router, files_router, config_router):
        app.include_router(router, prefix="/api")
    for router in (tools_config_router, user_tools_router, skills_router):
        app.include_router(router, prefix="/api")
    app.include_router(health_router)
    return app
