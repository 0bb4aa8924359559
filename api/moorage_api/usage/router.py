"""HTTP endpoints of the usage module."""

from __future__ import annotations

from datetime import date
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from moorage_api.http.envelope import Envelope, ok
from moorage_api.http.provided import provide
from moorage_api.usage.schemas import Group, ModelPrices, UsageResponse
from moorage_api.usage.service import UsageService
from moorage_api.users.callers import AdminUser, ConfigWriter, CurrentUser

router = APIRouter(tags=["usage"])

Usage = Annotated[UsageService, Depends(provide(UsageService))]
By = Annotated[list[Group], Query(min_length=1, max_length=4, description="What to group by; may be repeated")]
Since = Annotated[date | None, Query(description="First day (UTC); by default 29 days before the last")]
Until = Annotated[date | None, Query(description="Last day (UTC), included; by default today")]
SessionId = Annotated[UUID | None, Query(description="Only the calls of this session")]
Skip = Annotated[int, Query(ge=0, le=2**31, description="Number of groups to skip")]
Limit = Annotated[int, Query(ge=1, le=1000, description="Most groups to return")]


@router.get("/usage")
async def get_usage(
    user: CurrentUser,
    usage: Usage,
    by: By = ["model"],  # noqa: B006 - FastAPI copies it
    since: Since = None,
    until: Until = None,
    session_id: SessionId = None,
    skip: Skip = 0,
    limit: Limit = 100,
) -> Envelope[UsageResponse]:
    """Get the tokens and the cost of your own model calls, by session, model and day."""
    return ok(
        await usage.summarise(
            user_id=user.id, session_id=session_id, since=since, until=until, by=by, skip=skip, limit=limit
        )
    )


@router.get("/admin/usage")
async def get_usage_of_all(
    admin: AdminUser,
    usage: Usage,
    by: By = ["user"],  # noqa: B006 - FastAPI copies it
    since: Since = None,
    until: Until = None,
    user_id: Annotated[UUID | None, Query(description="Only the calls of this user")] = None,
    session_id: SessionId = None,
    skip: Skip = 0,
    limit: Limit = 100,
) -> Envelope[UsageResponse]:
    """Get the tokens and the cost of all model calls, by user, session, model and day.

    Calls of deleted users and sessions stay in the sums; their rows have no id.
    """
    return ok(
        await usage.summarise(
            user_id=user_id, session_id=session_id, since=since, until=until, by=by, skip=skip, limit=limit
        )
    )


@router.get("/app-config/llm/prices", dependencies=[ConfigWriter])
async def get_prices(usage: Usage) -> Envelope[ModelPrices]:
    """Get the prices of models."""
    return ok(await usage.prices())


@router.post("/app-config/llm/prices", dependencies=[ConfigWriter])
async def set_prices(body: ModelPrices, usage: Usage) -> Envelope[ModelPrices]:
    """Replace the prices of models. They apply to runs that begin from now on; earlier calls keep their cost.

    A price is found by the exact `model_name` of the model's configuration.
    """
    return ok(await usage.replace_prices(body))
