"""The removed first version of the skill API: every call gets HTTP 410 and the path of the new API."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.convertors import Convertor, register_url_convertor

from moorage_api.http.envelope import Envelope
from moorage_api.http.errors import envelope_response
from moorage_api.http.routes import METHODS

MOVED = "SKILL_API_MOVED"


class MovedTo(BaseModel):
    code: str = MOVED
    migrate_to: str = "/api/v2/skills"


class Anything(Convertor[str]):
    """Matches a path with any characters. Starlette's own `path` does not match line feeds, and would answer 404."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("anything", Anything())
router = APIRouter(prefix="/app-config/skills", tags=["legacy"])


async def refuse_moved() -> JSONResponse:
    """Removed. Use `/api/v2/skills`."""
    return envelope_response(410, MOVED, MovedTo().model_dump())


async def refuse_below_moved(below: Annotated[str, Path(description="Any path")]) -> JSONResponse:
    """Removed, with every path below it. Use `/api/v2/skills`."""
    return await refuse_moved()


for path, endpoint in (("", refuse_moved), ("/{below:anything}", refuse_below_moved)):
    for method in METHODS:
        router.add_api_route(
            path,
            endpoint,
            methods=[method],
            status_code=410,
            response_model=Envelope[MovedTo],
            operation_id=f"{endpoint.__name__}_{method.lower()}",
        )
