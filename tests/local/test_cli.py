"""The command line: its output, its effects, and its exit status."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from moorage_api.database import create_database, create_engine
from moorage_api.errors import UnauthenticatedError
from moorage_api.users.passwords import CONTEXT
from moorage_api.users.repository import UserRepository
from support.machine import moorage
from support.services import Services

PASSWORD = {"MOORAGE_ADMIN_PASSWORD": "a good password"}


@pytest.mark.parametrize(
    "arguments",
    [[], ["sail"], ["up", "--fast"], ["admin"], ["admin", "create"], ["llm"]],
    ids=lambda words: " ".join(words),
)
def test_invalid_arguments_print_the_usage_and_exit_with_2(tmp_path: Path, arguments: list[str]) -> None:
    reply = moorage(*arguments, data=tmp_path)
    assert reply.returncode == 2
    assert reply.stdout.startswith("usage: moorage")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--help"], "sandbox-host"),
        (["up", "--help"], "MOORAGE_DATA_DIR"),
        (["doctor", "--help"], "--json"),
        (["api", "--help"], "--port"),
        (["sandbox-host", "--help"], "--trust-file"),
        (["mcp-runner", "--help"], "--token-file"),
        (["migrate", "--help"], "MOORAGE_DATABASE_URL"),
        (["prepare", "--help"], "--wait SECONDS"),
        (["admin", "create", "--help"], "MOORAGE_ADMIN_PASSWORD"),
        (["llm", "test", "--help"], "MOORAGE_LLM_API_KEY"),
        (["version"], "0."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_help_names_the_options_of_a_command(tmp_path: Path, arguments: list[str], expected: str) -> None:
    reply = moorage(*arguments, data=tmp_path / "never made")
    assert reply.returncode == 0
    assert expected in reply.stdout
    assert not (tmp_path / "never made").exists()


def test_a_part_names_a_missing_setting(tmp_path: Path) -> None:
    reply = moorage("runner", data=tmp_path)
    assert reply.returncode == 1
    assert "database_url" in reply.stdout


def test_prepare_without_the_admins_password_changes_nothing(tmp_path: Path) -> None:
    reply = moorage("prepare", data=tmp_path)
    assert reply.returncode == 1
    assert "MOORAGE_ADMIN_PASSWORD" in reply.stdout


async def password_of(database_url: str, username: str) -> str | None:
    engine = create_engine(database_url)
    async with create_database(engine)() as tx:
        found = await UserRepository(tx).find_by_name_or_email(username, None)
    await engine.dispose()
    if found is None:
        raise UnauthenticatedError("No such user")
    return found[1]


async def test_an_admin_can_be_created_once_and_get_a_new_password(tmp_path: Path, database_url: str) -> None:
    place = {"MOORAGE_DATABASE_URL": database_url}
    assert moorage("admin", "create", "--username", "second", data=tmp_path, **place, **PASSWORD).returncode == 0
    again = moorage("admin", "create", "--username", "Second", data=tmp_path, **place, **PASSWORD)
    assert again.returncode == 1
    place["MOORAGE_ADMIN_PASSWORD"] = "a better password"
    assert moorage("admin", "reset-password", "--username", "second", data=tmp_path, **place).returncode == 0
    assert CONTEXT.verify("a better password", await password_of(database_url, "second"))


@pytest.mark.parametrize(
    ("arguments", "changes", "expected"),
    [
        (["create", "--username", "x"], PASSWORD, "username"),
        (["create", "--username", "somebody"], {"MOORAGE_ADMIN_PASSWORD": "short"}, "password"),
        (["create", "--username", "somebody"], {}, "no terminal"),
        (["reset-password", "--username", "nobody"], PASSWORD, "no user named 'nobody'"),
    ],
    ids=["name", "password", "no password", "unknown user"],
)
def test_an_invalid_account_is_refused(
    tmp_path: Path, database_url: str, arguments: list[str], changes: dict[str, str], expected: str
) -> None:
    reply = moorage("admin", *arguments, data=tmp_path, MOORAGE_DATABASE_URL=database_url, **changes)
    assert reply.returncode == 1
    assert reply.stdout.startswith("moorage: ")
    assert expected in reply.stdout.lower()


def test_admin_commands_need_a_database(tmp_path: Path) -> None:
    reply = moorage("admin", "create", "--username", "somebody", data=tmp_path, **PASSWORD)
    assert reply.returncode == 1
    assert "There is no database in" in reply.stdout


async def test_migrate_can_be_repeated(tmp_path: Path, services: Services) -> None:
    connection = await services.postgres.connect_as_superuser()
    await connection.execute("CREATE DATABASE empty OWNER moorage")
    await connection.close()
    place = {"MOORAGE_DATABASE_URL": services.postgres.url("empty")}
    assert [moorage("migrate", data=tmp_path, **place).returncode for _ in range(2)] == [0, 0]
    await services.drop_database(services.postgres.url("empty"))


def test_doctor_finds_nothing_missing_on_this_machine(tmp_path: Path) -> None:
    reply = moorage("doctor", "--json", data=tmp_path / "never made")
    found = {check["name"]: check for check in json.loads(reply.stdout)}
    assert {"Python", "disk", "data directory", "port", "PostgreSQL", "Valkey", "S3 server"} < set(found)
    assert [check["name"] for check in found.values() if check["required"] and not check["ok"]] == []
    assert reply.returncode == 0
    assert not (tmp_path / "never made").exists()


def test_doctor_and_up_name_what_is_missing_and_the_command_that_installs_it(tmp_path: Path) -> None:
    """The machine has only Python and the programs in the wheels."""
    lonely = tmp_path / "bin"
    lonely.mkdir()
    (lonely / "unshare").symlink_to(str(shutil.which("unshare")))
    doctor = moorage("doctor", data=tmp_path / "data", PATH=str(lonely))
    assert doctor.returncode == 1
    assert "FAIL" in doctor.stdout
    assert "bubblewrap" in doctor.stdout
    fixes = [line for line in doctor.stdout.splitlines() if "fix: " in line]
    assert any("apt-get install" in line for line in fixes)

    up = moorage("up", data=tmp_path / "data", PATH=str(lonely))
    assert up.returncode == 1
    failed = [line for line in doctor.stdout.splitlines() if line.startswith("  FAIL")]
    assert [line for line in failed if line not in up.stdout] == []


def test_doctor_reports_a_data_directory_with_other_files(tmp_path: Path) -> None:
    (tmp_path / "letters").write_text("of somebody")
    reply = moorage("doctor", data=tmp_path)
    assert reply.returncode == 1
    assert f"{tmp_path} contains other files" in reply.stdout
    assert moorage("up", data=tmp_path).returncode == 1
    assert [path.name for path in tmp_path.iterdir()] == ["letters"]


def test_the_command_is_installed() -> None:
    assert (Path(sys.executable).parent / "moorage").exists()
