"""The control plane that all tests of one process share. Used by conftest files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
import yaml

from moorage_kube.client import Manifest
from support.kube.control_plane import ControlPlane
from support.kube.errors import UnavailableError

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
        plane.wait_until_established("agentsessions.moorage.dev")
        # The pod garbage collector would delete pods without a node.
        plane.start_controller_manager(without=["pod-garbage-collector-controller"])
        yield plane
