"""What an operator does to the database by hand: migrate it, make an admin, reset a password."""

from __future__ import annotations

import asyncpg
from pydantic import SecretStr
from sqlalchemy.exc import SQLAlchemyError

from moorage_api import migrations
from moorage_api.database import Database, create_database, create_engine
from moorage_api.embedded import postgres
from moorage_api.embedded.credentials import Credentials
from moorage_api.embedded.directory import DataDirectory
from moorage_api.embedded.errors import StartError
from moorage_api.embedded.options import Options, check_account
from moorage_api.embedded.ports import PortBook
from moorage_api.embedded.postgres import Postgres
from moorage_api.errors import DomainError
from moorage_api.users.admin import create_admin, reset_password


async def migrate() -> int:
    options = Options.from_environment()
    if options.database_url is None:
        raise StartError("Set MOORAGE_DATABASE_URL. (`moorage up` migrates its own database.)")
    try:
        await migrations.upgrade(options.database_url.get_secret_value())
    except (OSError, SQLAlchemyError, asyncpg.PostgresError) as error:
        raise StartError(f"The database: {error}") from error
    return 0


async def admin(action: str, *, username: str, password: str) -> int:
    """`action` is create or reset-password. Raises StartError."""
    try:
        check_account(username, SecretStr(password))
    except ValueError as error:
        raise StartError(str(error)) from None
    engine = create_engine(_database_url(Options.from_environment()))
    try:
        await _change(create_database(engine), action, username=username, password=password)
    except DomainError as error:
        raise StartError(str(error)) from error
    except (OSError, SQLAlchemyError, asyncpg.PostgresError) as error:
        raise StartError(f"The database does not answer; start it with `moorage up`. ({error})") from error
    finally:
        await engine.dispose()
    print(f"{username} is an admin now" if action == "create" else f"{username} has a new password")
    return 0


async def _change(db: Database, action: str, *, username: str, password: str) -> None:
    if action == "create":
        await create_admin(db, username=username, password=password)
    else:
        await reset_password(db, username=username, password=password)


def _database_url(options: Options) -> str:
    if options.database_url is not None:
        return options.database_url.get_secret_value()
    directory = DataDirectory(options.data_dir.expanduser().absolute())
    ports = PortBook(directory.ports).known(Postgres.name)
    if not ports:
        raise StartError(f"There is no database in {directory.root}: set MOORAGE_DATABASE_URL or MOORAGE_DATA_DIR")
    return postgres.url(ports["postgres"], password=Credentials.load(directory.secrets).database_password)
