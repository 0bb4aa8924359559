"""Commands for the operator of an installation: migrate, prepare the services, create an admin, reset a password."""

from __future__ import annotations

import asyncio
import logging
import os
import time

import asyncpg
from pydantic import SecretStr
from sqlalchemy.exc import SQLAlchemyError

from moorage_api import migrations
from moorage_api.config.service import KEY_UNREADABLE
from moorage_api.database import Database, create_database, create_engine
from moorage_api.errors import DomainError
from moorage_api.settings import Settings
from moorage_api.users.admin import create_admin, reset_password
from moorage_local.data.credentials import Credentials
from moorage_local.data.directory import DataDirectory
from moorage_local.data.ports import PortBook
from moorage_local.errors import StartError
from moorage_local.options import Options, check_account
from moorage_local.prepare import prepare_services
from moorage_local.servers import postgres
from moorage_local.servers.postgres import Postgres

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0


async def migrate() -> int:
    options = Options.from_environment()
    if options.database_url is None:
        raise StartError("Set MOORAGE_DATABASE_URL. (`moorage up` migrates its own database.)")
    try:
        await migrations.upgrade(options.database_url.get_secret_value())
    except (OSError, SQLAlchemyError, asyncpg.PostgresError) as error:
        raise StartError(f"The database cannot be migrated: {error}. Check MOORAGE_DATABASE_URL") from error
    return 0


async def prepare(*, wait_seconds: float) -> int:
    """Prepare the services before a replica starts. Raises StartError if one does not answer in `wait_seconds`."""
    username = os.environ.get("MOORAGE_ADMIN_USERNAME") or "admin"
    password = SecretStr(os.environ.get("MOORAGE_ADMIN_PASSWORD", ""))
    try:
        check_account(username, password)
    except ValueError as error:
        raise StartError(f"MOORAGE_ADMIN_USERNAME, MOORAGE_ADMIN_PASSWORD: {error}") from None
    settings = Settings()
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            done = await prepare_services(settings, admin_username=username, admin_password=password)
        except StartError as error:
            if time.monotonic() > deadline:
                raise
            logger.info("Waiting for a service: %s", error)
            await asyncio.sleep(RETRY_SECONDS)
            continue
        if done.llm_key == "unreadable":
            logger.warning("%s", KEY_UNREADABLE)
        if done.admin_was_created:
            logger.info("The admin %s was created", username)
        logger.info("The services are ready")
        return 0


async def change_admin(action: str, *, username: str, password: str) -> int:
    """`action` is create or reset-password. Raises StartError."""
    try:
        check_account(username, SecretStr(password))
    except ValueError as error:
        raise StartError(str(error)) from None
    engine = create_engine(find_database_url(Options.from_environment()))
    try:
        await _change_account(create_database(engine), action, username=username, password=password)
    except DomainError as error:
        raise StartError(str(error)) from error
    except (OSError, SQLAlchemyError, asyncpg.PostgresError) as error:
        raise StartError(f"The database does not answer: {error}. Start it with `moorage up`") from error
    finally:
        await engine.dispose()
    print(f"{username} is an admin now" if action == "create" else f"{username} has a new password")
    return 0


async def _change_account(db: Database, action: str, *, username: str, password: str) -> None:
    if action == "create":
        await create_admin(db, username=username, password=password)
    else:
        await reset_password(db, username=username, password=password)


def find_database_url(options: Options) -> str:
    """The URL of the configured database, or of the one in the data directory. Raises StartError."""
    if options.database_url is not None:
        return options.database_url.get_secret_value()
    directory = DataDirectory(options.data_dir.expanduser().absolute())
    ports = PortBook(directory.ports).last_ports(Postgres.name)
    if not ports:
        raise StartError(f"There is no database in {directory.root}: set MOORAGE_DATABASE_URL or MOORAGE_DATA_DIR")
    return postgres.build_url(ports["postgres"], password=Credentials.load(directory.secrets).database_password)
