"""Create what the services need before api and runner start: the schema, the bucket and the first admin."""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from moorage_api import migrations
from moorage_api.config.schemas import LlmConfigRead
from moorage_api.config.service import LlmKeyState
from moorage_api.database import create_database, create_engine
from moorage_api.errors import DomainError
from moorage_api.outbound import Outbound
from moorage_api.runs.queue import has_runner
from moorage_api.settings import Settings
from moorage_api.users.admin import ensure_admin
from moorage_api.wiring.resources import blobs_of, sealing_of
from moorage_api.wiring.services import build_config
from moorage_local.errors import StartError


@dataclass(frozen=True)
class PreparedServices:
    admin_was_created: bool
    llm: LlmConfigRead
    llm_key: LlmKeyState


async def prepare_services(settings: Settings, *, admin_username: str, admin_password: SecretStr) -> PreparedServices:
    """Prepare all services. Safe to repeat. Raises StartError that names the service."""
    url = settings.database_url.get_secret_value()
    await _check_redis(settings.redis_url.get_secret_value())
    try:
        await blobs_of(settings).ensure_bucket()
    except DomainError as error:
        raise StartError(f"S3 at {settings.s3_endpoint}, bucket {settings.s3_bucket}: {error}") from error
    engine = create_engine(url, pool_size=2)
    try:
        await migrations.upgrade(url)
        db = create_database(engine)
        made = await ensure_admin(db, username=admin_username, password=admin_password.get_secret_value())
        config = build_config(settings, db, sealing=sealing_of(settings), outbound=Outbound())
        await config.seal_stored_key()
        return PreparedServices(made, await config.read_llm(), await config.llm_key())
    except DomainError as error:
        raise StartError(f"The first admin, {admin_username}: {error}") from error
    except (OSError, SQLAlchemyError, asyncpg.PostgresError) as error:
        place = make_url(url)
        first_line = str(error).partition("\n")[0] or type(error).__name__
        raise StartError(f"PostgreSQL at {place.host}:{place.port or 5432}/{place.database}: {first_line}") from error
    finally:
        await engine.dispose()


async def _check_redis(url: str) -> None:
    client = Redis.from_url(url, socket_connect_timeout=5, socket_timeout=5)
    try:
        await client.ping()
    except (RedisError, OSError) as error:
        place = client.connection_pool.connection_kwargs
        raise StartError(f"Redis at {place.get('host')}:{place.get('port')}: {error}") from error
    finally:
        await client.aclose()


async def runner_is_alive(database_url: str) -> bool:
    """Whether a runner is connected to the database: each one holds an advisory lock while it can work."""
    engine = create_engine(database_url, pool_size=1)
    try:
        async with engine.connect() as connection:
            return await has_runner(connection)
    except (OSError, SQLAlchemyError):
        return False
    finally:
        await engine.dispose()
