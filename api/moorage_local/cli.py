"""The command `moorage`: start the platform or one part of it, check the machine, and administer accounts."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import importlib.metadata
import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from moorage_common.logging_setup import configure_logging
from moorage_local.errors import StartError

logger = logging.getLogger(__name__)

PARTS = {
    "api": ("moorage_api.main", "serve HTTP; settings from MOORAGE_…"),
    "runner": ("moorage_api.runner.main", "carry out runs; settings from MOORAGE_…"),
    "mcp-runner": ("moorage_sandbox.mcp_runner", "run stdio MCP servers, for a cluster"),
    "sandbox-host": ("moorage_sandbox.host", "run the sandboxes of this machine"),
}

LOGGING_COMMANDS = ("migrate", "prepare")
"""Commands that also run without a person, on a cluster: they log what the other commands print."""

UP_HELP = """\
Starts PostgreSQL, Valkey, an S3 server, the api, a runner and the sandbox host, and stops them with Ctrl-C.

environment:
  MOORAGE_HOST, MOORAGE_PORT      address and port of the api; default 127.0.0.1, and 8000 or the next free port
  MOORAGE_DATA_DIR                directory for all data; default ~/.local/share/moorage
  MOORAGE_ADMIN_USERNAME, MOORAGE_ADMIN_PASSWORD
                                  the first admin; default "admin", and a random password that is shown once
  MOORAGE_LLM_BASE_URL, MOORAGE_LLM_API_KEY, MOORAGE_LLM_MODEL
                                  the model, until an admin stores another one through the API
  MOORAGE_MCP_PATHS               directories with the programs of stdio MCP servers, separated by colons
  MOORAGE_DATABASE_URL            use this PostgreSQL instead of starting one
  MOORAGE_REDIS_URL               use this Redis instead of starting Valkey
  MOORAGE_S3_ENDPOINT, MOORAGE_S3_ACCESS_KEY, MOORAGE_S3_SECRET_KEY, MOORAGE_S3_BUCKET, MOORAGE_S3_SECURE
                                  use this S3 server instead of starting one
"""

PREPARE_HELP = """\
Migrates the database, creates the bucket, and creates an admin from MOORAGE_ADMIN_USERNAME (default "admin") and
MOORAGE_ADMIN_PASSWORD if no account is an admin. The settings are those of the api (MOORAGE_…). It is safe to repeat
this command, and to run it in several processes at once.
"""

ADMIN_HELP = """\
Changes the database at MOORAGE_DATABASE_URL, or that of a running `moorage up`.
The password is read from MOORAGE_ADMIN_PASSWORD, or from the terminal.
"""


LLM_HELP = """\
Tries what the agent needs from a model: a plan, a tool call, streaming, a picture, and a long request that must be
read whole. Each part says whether it works, and why not. It sends six requests to the model, which cost their tokens.

Without options it tries the configured model: that of a running `moorage up`, or of the database at
MOORAGE_DATABASE_URL (with MOORAGE_JWT_SECRET or MOORAGE_CONFIG_KEY, which decrypt the key). With --base-url and
--model it needs no database. The key for --base-url is read from MOORAGE_LLM_API_KEY. Where there is no database yet,
the model is that of MOORAGE_LLM_BASE_URL, MOORAGE_LLM_MODEL and MOORAGE_LLM_API_KEY.

Exit status 1: a plan or a tool call does not work, so the agent cannot use the model.
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
        help="show what is missing on this machine and how to install it",
        description="Shows what is missing and how to install it. Exit status 1: Moorage cannot run on this machine.",
    )
    doctor.add_argument("--json", action="store_true", help="print JSON for programs")
    commands.add_parser(
        "migrate",
        help="upgrade the database to the schema of this version",
        description="Upgrades the database at MOORAGE_DATABASE_URL to the schema of this version.",
    )
    prepare = commands.add_parser(
        "prepare",
        help="migrate the database, create the bucket and the first admin",
        description=PREPARE_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    prepare.add_argument("--wait", type=float, default=0, metavar="SECONDS", help="how long to wait for the services")
    for name, (_, help_text) in PARTS.items():
        commands.add_parser(name, help=f"start only this part: {help_text}", add_help=False)
    admin = commands.add_parser("admin", help="create an admin or reset a password")
    actions = admin.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, help_text in (
        ("create", "create another super_admin"),
        ("reset-password", "give an account a new password and end its logins"),
    ):
        action = actions.add_parser(
            name, help=help_text, description=ADMIN_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        action.add_argument("--username", required=True)
    llm = commands.add_parser("llm", help="test a model")
    add_llm_actions(llm)
    commands.add_parser("version", help="print the version")
    return main


def add_llm_actions(llm: argparse.ArgumentParser) -> None:
    actions = llm.add_subparsers(dest="action", required=True, metavar="ACTION")
    test = actions.add_parser(
        "test",
        help="say what works with a model, and why the rest does not",
        description=LLM_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    test.add_argument("--base-url", metavar="URL", help="another server; its key is MOORAGE_LLM_API_KEY")
    test.add_argument("--model", metavar="NAME", help="another model")
    test.add_argument("--seconds", type=positive, metavar="N", help="how long each part may take; default 60")
    test.add_argument("--window", type=int, metavar="TOKENS", help="size of the long request; default 12000")
    test.add_argument("--json", action="store_true", help="print JSON for programs, at the end")


def positive(text: str) -> float:
    """Parse a positive number of seconds. Raises ValueError."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError
    return number


def main() -> None:
    if sys.argv[1:2] and sys.argv[1] in PARTS:
        replace_process(PARTS[sys.argv[1]][0], sys.argv[2:])
    arguments = parser().parse_args()
    try:
        sys.exit(run(arguments))
    except StartError as error:
        if arguments.command not in LOGGING_COMMANDS:
            sys.exit(f"moorage: {error}")
        logger.error("%s", error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def replace_process(module: str, arguments: Sequence[str]) -> NoReturn:
    """Replace this process by that part, so that it receives signals and returns its exit status directly."""
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606 - the arguments are the user's


def run(arguments: argparse.Namespace) -> int:
    """Run a command and return the exit status. Each command imports what it needs, because imports take a second."""
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
    if arguments.command == "llm":
        from moorage_local.llm import Choice, try_model

        choice = Choice(arguments.base_url, arguments.model, arguments.seconds, arguments.window, arguments.json)
        return asyncio.run(try_model(choice))
    from moorage_api.wiring.loggers import CHATTY_LOGGERS, SILENT_LOGGERS
    from moorage_local import operate

    if arguments.command in LOGGING_COMMANDS:
        configure_logging(quiet=(*CHATTY_LOGGERS, "alembic"), silent=SILENT_LOGGERS)
    if arguments.command == "migrate":
        return asyncio.run(operate.migrate())
    if arguments.command == "prepare":
        return asyncio.run(operate.prepare(wait_seconds=arguments.wait))
    return asyncio.run(operate.change_admin(arguments.action, username=arguments.username, password=ask_password()))


def ask_password() -> str:
    if given := os.environ.get("MOORAGE_ADMIN_PASSWORD"):
        return given
    if not sys.stdin.isatty():
        raise StartError("Set MOORAGE_ADMIN_PASSWORD: there is no terminal to read the password from")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Repeat the password: ") != password:
        raise StartError("The two passwords differ; run the command again")
    return password


if __name__ == "__main__":
    main()
