"""The control plane that all tests of one process share. Used by conftest files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
import yaml

from moorage_kube.client import Manifest
from support.kube.control_plane import ControlPlane
from support.kube.errors import UnavailableError
from support.waiting import HANG_SECONDS

ROOT = Path(__file__).parents[3]
CRD = ROOT / "crds" / "moorage.dev_agentsessions.yaml"

T = TypeVar("T")


@contextmanager
def boot(what: AbstractContextManager[T], config: pytest.Config) -> Iterator[T]:
    """Enter `what`, or skip the test if it is not available here.

    The first time this builds for many minutes, so its progress is printed although pytest captures output.
    """
    capturing = config.pluginmanager.getplugin("capturemanager")
    with ExitStack() as stack:
        try:
            with capturing.global_and_fixture_disabled():
                entered = stack.enter_context(what)
        except UnavailableError as error:
            pytest.skip(f"no Kubernetes here: {error}")
        yield entered


def crd() -> Manifest:
    manifest: Manifest = yaml.safe_load(CRD.read_text())
    return manifest


@pytest.fixture(scope="session")
def control_plane(pytestconfig: pytest.Config) -> Iterator[ControlPlane]:
    """A booted control plane with our resource definition."""
    with boot(ControlPlane.boot(), pytestconfig) as plane:
        plane.apply([crd()])

        def is_established() -> bool:
            definition = json.loads(
                plane.get("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/agentsessions.moorage.dev")
            )
            conditions = definition.get("status", {}).get("conditions") or []
            return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)

        plane.wait("the resource definition to be established", is_established, seconds=HANG_SECONDS)
        # The pod garbage collector would delete pods without a node.
        plane.start_controller_manager(without=["pod-garbage-collector-controller"])
        yield plane
