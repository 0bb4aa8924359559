"""The command `moorage`: the whole platform, its parts one by one, and what an operator does by hand."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from moorage_local.errors import StartError

PARTS = {
    "api": ("moorage_api.main", "serve HTTP; settings from MOORAGE_…"),
    "runner": ("moorage_api.runner.main", "work on runs; settings from MOORAGE_…"),
    "mcp-runner": ("moorage_sandbox.mcp_runner", "run stdio MCP servers, for a cluster"),
    "sandbox-host": ("moorage_sandbox.host", "own the sandboxes of this machine"),
}

UP_HELP = """\
Starts PostgreSQL, Valkey, an S3 server, the api, a runner and the sandbox host, and stops them with Ctrl-C.

environment:
  MOORAGE_HOST, MOORAGE_PORT      where it listens: 127.0.0.1, and 8000 or the next that is free
  MOORAGE_DATA_DIR                where everything is kept: ~/.local/share/moorage
  MOORAGE_ADMIN_USERNAME, MOORAGE_ADMIN_PASSWORD
                                  the first admin: "admin", and a password that is made up and shown once
  MOORAGE_LLM_BASE_URL, MOORAGE_LLM_API_KEY, MOORAGE_LLM_MODEL
                                  the model, until an admin stores another by the API
  MOORAGE_MCP_PATHS               directories with the programs of stdio MCP servers, separated by colons
  MOORAGE_DATABASE_URL            instead of starting PostgreSQL
  MOORAGE_REDIS_URL               instead of starting Valkey
  MOORAGE_S3_ENDPOINT, MOORAGE_S3_ACCESS_KEY, MOORAGE_S3_SECRET_KEY, MOORAGE_S3_BUCKET, MOORAGE_S3_SECURE
                                  instead of starting an S3 server
"""

PREPARE_HELP = """\
Settings come from MOORAGE_…, as for the api. The first admin is made from MOORAGE_ADMIN_USERNAME ("admin") and
MOORAGE_ADMIN_PASSWORD, unless there is one. Harmless to repeat, and from several places at once.
"""

ADMIN_HELP = """\
Works on MOORAGE_DATABASE_URL, or on the database of a running `moorage up`.
The password is asked for, or taken from MOORAGE_ADMIN_PASSWORD.
"""


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(
        prog="moorage", description="Every AI-agent session gets its own computer.", epilog="moorage COMMAND --help"
    )
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser(
        "up",
        help="start the whole platform on this machine",
        description=UP_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    doctor = commands.add_parser(
        "doctor",
        help="say what is missing on this machine and how to get it",
        description="Says what is missing here and how to get it. Exit status 1: Moorage cannot run like this.",
    )
    doctor.add_argument("--json", action="store_true", help="for programs")
    commands.add_parser(
        "migrate", help="bring the database to this version's schema", description="Works on MOORAGE_DATABASE_URL."
    )
    prepare = commands.add_parser(
        "prepare",
        help="bring database and bucket to what this version needs, and make the first admin",
        description=PREPARE_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    prepare.add_argument("--wait", type=float, default=0, metavar="SECONDS", help="how long to wait for the services")
    for name, (_, help_text) in PARTS.items():
        commands.add_parser(name, help=f"only this part: {help_text}", add_help=False)
    admin = commands.add_parser("admin", help="accounts, where HTTP is no way in")
    actions = admin.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, help_text in (
        ("create", "make one more super_admin"),
        ("reset-password", "give an account a new password and end its logins"),
    ):
        action = actions.add_parser(
            name, help=help_text, description=ADMIN_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        action.add_argument("--username", required=True)
    commands.add_parser("version", help="print the version")
    return main


def main() -> None:
    if sys.argv[1:2] and sys.argv[1] in PARTS:
        become(PARTS[sys.argv[1]][0], sys.argv[2:])
    arguments = parser().parse_args()
    try:
        sys.exit(run(arguments))
    except StartError as error:
        sys.exit(f"moorage: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def become(module: str, arguments: Sequence[str]) -> NoReturn:
    """Be that part's own process, so that signals and exit status are its own."""
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606 - the arguments are the user's


def run(arguments: argparse.Namespace) -> int:
    """The exit status. What a command needs is imported for that command alone: some of it takes a second."""
    if arguments.command == "version":
        print(importlib.metadata.version("moorage"))
        return 0
    if arguments.command == "up":
        from moorage_local.options import Options
        from moorage_local.up import up

        return asyncio.run(up(Options.from_environment()))
    if arguments.command == "doctor":
        from moorage_local.doctor import doctor
        from moorage_local.options import Options

        return asyncio.run(doctor(Options.from_environment(), as_json=arguments.json))
    from moorage_local import operate

    if arguments.command == "migrate":
        return asyncio.run(operate.migrate())
    if arguments.command == "prepare":
        return asyncio.run(operate.prepare(wait_seconds=arguments.wait))
    return asyncio.run(operate.admin(arguments.action, username=arguments.username, password=ask_password()))


def ask_password() -> str:
    if given := os.environ.get("MOORAGE_ADMIN_PASSWORD"):
        return given
    if not sys.stdin.isatty():
        raise StartError("Set MOORAGE_ADMIN_PASSWORD: there is no terminal to ask for the password at")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Once more: ") != password:
        raise StartError("The two passwords differ")
    return password


if __name__ == "__main__":
    main()
