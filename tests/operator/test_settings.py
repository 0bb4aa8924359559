"""The settings of sandbox pods and the chart values that set them."""

from __future__ import annotations

import json

import pytest

from moorage_operator.sandbox_pod.settings import CPU_PATTERN, MEMORY_PATTERN, PodSettings
from support.kube.fixtures import ROOT

IMAGES = {f"{name}_image": name for name in ("gate", "vnc", "box")}


@pytest.mark.parametrize(
    ("value", "field", "pattern"),
    [
        ("cpu", "cpu", CPU_PATTERN),
        ("memory", "memory", MEMORY_PATTERN),
        ("homeSize", "home_size", None),
        ("shmSize", "shm_size", None),
    ],
)
def test_a_chart_value_has_the_default_and_the_pattern_of_its_setting(
    value: str, field: str, pattern: str | None
) -> None:
    schema = json.loads((ROOT / "charts/moorage/values.schema.json").read_text())
    described = schema["properties"]["sandboxes"]["properties"][value]
    assert described["default"] == getattr(PodSettings(**IMAGES), field)
    if pattern is not None:
        assert described["pattern"] == pattern
