"""Helm 3 and 4, and a control plane for installations."""

from __future__ import annotations

import pytest

from support.helm import Helm
from support.kube.errors import UnavailableError
from support.kube.fixtures import control_plane
from support.kube.tools import helm as helm_program

__all__ = ["control_plane"]


@pytest.fixture(scope="session", params=[4, 3], ids=["helm4", "helm3"])
def helm(request: pytest.FixtureRequest) -> Helm:
    try:
        return Helm(helm_program(request.param))
    except UnavailableError as error:
        pytest.skip(f"no Helm here: {error}")
