"""Values of `moorage_sandbox.protocol` that other packages or modules spell again are the same there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from moorage_api.agent.ports import Function
from moorage_api.agent.toolsets import browser, file, shell
from moorage_api.settings import Settings
from moorage_api.skills.bundles import archive, limits
from moorage_crds.types import SKILL_DIGEST_PATTERN, SkillPin
from moorage_crds.types import SKILL_ID_PATTERN as RESOURCE_SKILL_ID_PATTERN
from moorage_sandbox.box import skills
from moorage_sandbox.box.arguments import SIGNATURES
from moorage_sandbox.box.browser.browser import Browser
from moorage_sandbox.box.files.functions import Files
from moorage_sandbox.box.shell.named_shells import Shells
from moorage_sandbox.protocol import (
    BROWSER_FUNCTIONS,
    DIGEST_PATTERN,
    DIGEST_PREFIX,
    FILE_FUNCTIONS,
    HOME,
    MAX_SKILL_FILES,
    MAX_SKILL_ID_CHARS,
    MAX_TRANSFER_BYTES,
    PICTURE_FUNCTIONS,
    SANDBOX_FUNCTIONS,
    SHELL_FUNCTIONS,
    SKILL_ID_PATTERN,
)

ROOT = Path(__file__).parent.parent.parent

TAR_HEADER_BYTES = 1024
"""A file's header, and the padding of its content to whole blocks of 512 bytes."""


def test_the_box_runs_exactly_the_declared_functions() -> None:
    assert len(SANDBOX_FUNCTIONS) == 23
    assert set(SIGNATURES) == SANDBOX_FUNCTIONS | PICTURE_FUNCTIONS
    for part, functions in ((Shells, SHELL_FUNCTIONS), (Files, FILE_FUNCTIONS), (Browser, BROWSER_FUNCTIONS)):
        assert {name for name in vars(part) if name in SANDBOX_FUNCTIONS} == functions


@pytest.mark.parametrize(
    ("offered", "declared"),
    [(shell.FUNCTIONS, SHELL_FUNCTIONS), (file.FUNCTIONS, FILE_FUNCTIONS), (browser.FUNCTIONS, BROWSER_FUNCTIONS)],
    ids=["shell", "files", "browser"],
)
def test_the_agents_tools_have_the_names_and_parameters_of_the_box(
    offered: list[Function], declared: frozenset[str]
) -> None:
    assert {function.name for function in offered} == declared
    for function in offered:
        signature = SIGNATURES[function.name]
        assert list(function.parameters["properties"]) == list(signature)
        assert set(function.parameters["required"]) == {name for name, param in signature.items() if param.required}


def test_skills_are_spelled_in_one_way_by_api_resource_and_box() -> None:
    assert f"^{SKILL_ID_PATTERN}$" == RESOURCE_SKILL_ID_PATTERN
    assert f"^{DIGEST_PREFIX}{DIGEST_PATTERN}$" == SKILL_DIGEST_PATTERN
    assert re.fullmatch(DIGEST_PREFIX + DIGEST_PATTERN, archive.to_pin("0" * 64))
    SkillPin(id="a" * MAX_SKILL_ID_CHARS, digest=archive.to_pin("0" * 64), phase="initial")
    with pytest.raises(ValidationError):
        SkillPin(id="a" * (MAX_SKILL_ID_CHARS + 1), digest=archive.to_pin("0" * 64), phase="initial")


def test_the_box_accepts_every_skill_and_file_that_the_api_accepts() -> None:
    assert limits.MAX_FILES == MAX_SKILL_FILES
    assert limits.MAX_BUNDLE_BYTES + MAX_SKILL_FILES * TAR_HEADER_BYTES <= skills.MAX_UNPACKED_BYTES
    assert Settings.model_fields["upload_limit_bytes"].default == MAX_TRANSFER_BYTES


def test_every_text_and_path_of_the_product_names_the_real_home() -> None:
    sources = [path for folder in ("api", "sandbox") for path in (ROOT / folder).rglob("*")]
    texts = [path.read_text() for path in sources if path.suffix == ".py" or path.name == "Dockerfile"]
    homes = {home for text in texts for home in re.findall(r"/home/[a-z]+", text)}
    assert homes == {HOME}
