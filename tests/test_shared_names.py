"""Names and patterns that two packages write down: they fail here when they part."""

from __future__ import annotations

import re
import tomllib
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import get_args
from uuid import UUID

from moorage_api.agent.ports import SwitchedKind
from moorage_api.agent.toolsets import browser, file, shell
from moorage_api.agent.turn import results
from moorage_api.preferences.repository import PreferenceKind
from moorage_api.runner import pictures
from moorage_common import OLDEST_PYTHON
from moorage_crds import names
from moorage_crds.types import AgentSession
from moorage_operator.sandbox_pod.manifest import build_pod
from moorage_operator.sandbox_pod.settings import PodSettings
from moorage_sandbox.box.files import shrink
from moorage_sandbox.gate.main import argument_parser
from moorage_sandbox.protocol import DEBIAN_PYTHON, HOME, SANDBOX_FUNCTIONS

ROOT = Path(__file__).parent.parent


def test_the_agent_offers_exactly_the_functions_of_the_sandbox() -> None:
    offered = [function.name for toolset in (browser, file, shell) for function in toolset.FUNCTIONS]
    assert sorted(offered) == sorted(SANDBOX_FUNCTIONS)


def test_a_user_can_switch_what_the_agent_knows_as_switched() -> None:
    assert get_args(SwitchedKind) == get_args(PreferenceKind)


def test_pyproject_requires_the_python_that_the_doctors_check() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=" + ".".join(map(str, OLDEST_PYTHON))


def test_the_pod_mounts_what_the_gate_uses_by_default_and_probes_its_port() -> None:
    """The operator starts the gate without arguments."""
    session = AgentSession(
        namespace="sandboxes",
        name=names.resource_name(UUID(int=1)),
        uid="1",
        generation=1,
        created_at=datetime.now(UTC),
        deleted_at=None,
        spec={"sessionId": str(UUID(int=1)), "ownerId": "alice"},
        status={},
    )
    images = dict.fromkeys(("gate_image", "vnc_image", "box_image"), "image")
    gate = build_pod(session, settings=PodSettings(**images))["spec"]["initContainers"][0]
    default = argument_parser().get_default
    assert default("listen").endswith(f":{names.GATE_PORT}")
    used = {str(PurePosixPath(default(name)).parent) for name in ("box_socket", "rfb_socket", "trust_file")}
    assert used | {default("state_dir")} == {mount["mountPath"] for mount in gate["volumeMounts"]}


def test_a_picture_that_is_small_enough_for_the_runner_needs_no_shrinking() -> None:
    assert pictures.MAX_SIDE == shrink.MAX_SIDE


def test_the_agent_knows_the_home_directory_of_the_sandbox() -> None:
    assert results.HOME == HOME


def test_images_and_manifests_start_the_sandbox_with_debians_python() -> None:
    """The operator and the images cannot import the constant. Only the gate has a Python of its own."""
    places = ["operator/moorage_operator/sandbox_pod/manifest.py", "sandbox/images/Dockerfile"]
    starts = [re.findall(r"[\w/]*python3\b(?=\W+-I\b)", (ROOT / place).read_text()) for place in places]
    assert all(starts)
    assert {python for found in starts for python in found} == {DEBIAN_PYTHON, "/opt/gate/bin/python3"}
