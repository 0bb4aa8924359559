"""Write docs/settings.md again: every setting of every process, from the classes and parsers that read them.

python docs/settings.py
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import AliasChoices, BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from moorage_api import main as api
from moorage_api.settings import Settings
from moorage_local.options import Options
from moorage_operator.settings import OperatorSettings
from moorage_sandbox import mcp_runner, vnc
from moorage_sandbox.box import __main__ as box
from moorage_sandbox.box import fetch_skills
from moorage_sandbox.gate import main as gate
from moorage_sandbox.host import main as host

TARGET = Path(__file__).parent / "settings.md"

HEAD = """\
# Settings

Made by `make docs` from the classes and parsers that read the settings: change the sentence there. A process reads its
settings once, when it starts. Values that are lists or objects are JSON. A setting without a default must be given.
On a cluster the chart sets them: with a [value](chart-values.md) of its own, or through the value `settings`. The
settings of `moorage up` are not used there.

"""

EVERYWHERE = """\
## Every process

| variable | default | what it is |
|---|---|---|
| `MOORAGE_LOG_FORMAT` | `text` | How a process logs: `text` for people, `json` with one object a line for programs. |
| `MOORAGE_SESSION_ID` |  | The one session that a process works for; its log lines name it. The operator sets it. |

"""

ADMIN = """\
## `moorage prepare` and `moorage admin`

They read the settings of the api, and these:

| variable | default | what it is |
|---|---|---|
| `MOORAGE_ADMIN_USERNAME` | `admin` | The name of the first admin, who is created when no account is an admin. |
| `MOORAGE_ADMIN_PASSWORD` |  | The password of that admin, or the new password of the account. |

"""

SKILLS = """\
The list of skills comes from the variable `MOORAGE_SKILLS`: JSON, as `[{"id": "…", "digest": "sha256:…"}]`.

"""

CLASSES: tuple[tuple[str, str, type[BaseModel], str], ...] = (
    (
        "`moorage up`",
        "It also passes every setting of the next section on to the processes that it starts.",
        Options,
        "MOORAGE_",
    ),
    ("api and runner", "`moorage api` and `moorage runner`, and so `moorage up`.", Settings, "MOORAGE_"),
    ("operator", "`python -m moorage_operator.main`, on a cluster.", OperatorSettings, "MOORAGE_OPERATOR_"),
)

PARSERS = (
    ("api, options", "`moorage api`", api.argument_parser, ""),
    ("sandbox host", "`moorage sandbox-host`; `moorage up` starts it.", host.argument_parser, ""),
    ("gate", "`python -m moorage_sandbox.gate`; the sandbox host or the pod starts it.", gate.argument_parser, ""),
    ("box", "`python -m moorage_sandbox.box`; the sandbox host or the pod starts it.", box.argument_parser, ""),
    ("vnc", "`python -m moorage_sandbox.vnc`; the sandbox host or the pod starts it.", vnc.argument_parser, ""),
    (
        "first skills",
        "`python -m moorage_sandbox.box.fetch_skills`; the pod's init container.",
        fetch_skills.argument_parser,
        SKILLS,
    ),
    ("mcp-runner", "`moorage mcp-runner`, on a cluster.", mcp_runner.argument_parser, ""),
)


def fields(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    """Each setting and its variable; those of a model inside a model are joined by two underscores."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from fields(inner, f"{prefix}{name.upper()}__")
        elif isinstance(field.validation_alias, AliasChoices):
            yield str(field.validation_alias.choices[0]), field
        else:
            yield prefix + name.upper(), field


def default_of(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined:
        return "must be given"
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return default_text(value)


def default_text(value: Any) -> str:
    if value is None or value in ("", []):
        return "" if value != [] else "`[]`"
    return f"`{json.dumps(value)}`" if isinstance(value, bool | list | dict) else f"`{value}`"


def sentence(field: FieldInfo) -> str:
    """The description, and what values there are where the type says so."""
    text = " ".join((field.description or "").split())
    if get_origin(field.annotation) is Literal:
        text += " One of " + ", ".join(f"`{value}`" for value in get_args(field.annotation)) + "."
    return text


def table(head: str, rows: Iterator[tuple[str, str, str]]) -> str:
    cells = ((name, default, text.replace("|", "\\|")) for name, default, text in rows)
    lines = [f"| `{name}` | {default} | {text} |\n" for name, default, text in cells]
    return f"| {head} | default | what it is |\n|---|---|---|\n" + "".join(lines) + "\n"


def options(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str, str]]:
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        default = "must be given" if action.required else default_text(action.default)
        yield action.option_strings[-1], default, action.help or ""


def page() -> str:
    parts = [HEAD, EVERYWHERE]
    for title, about, model, prefix in CLASSES:
        rows = ((name, default_of(field), sentence(field)) for name, field in fields(model, prefix))
        parts.append(f"## {title}\n\n{about}\n\n{table('variable', rows)}")
    parts.append(ADMIN)
    for title, about, make_parser, more in PARSERS:
        parts.append(f"## {title}\n\n{about}\n\n{more}{table('option', options(make_parser()))}")
    return "".join(parts).rstrip("\n") + "\n"


if __name__ == "__main__":
    TARGET.write_text(page())
