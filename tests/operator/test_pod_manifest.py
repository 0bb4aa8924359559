"""The manifest of a session's pod. Its specification equals the one that tests/cluster runs on a real node."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import kubernetes_validate
import pytest
from pydantic import ValidationError

from moorage_crds import names
from moorage_crds.types import AgentSession
from moorage_kube.client import Manifest
from moorage_operator.sandbox_pod.manifest import build_pod
from moorage_operator.sandbox_pod.settings import PodSettings
from support.kube.control_plane import ControlPlane
from support.kube.sandbox_pod import manifests

DIGEST = "sha256:" + "a" * 64
IMAGES = {f"{name}_image": f"localhost/moorage-{name}:test" for name in ("gate", "vnc", "box")}
SETTINGS = PodSettings(trust_config_map="sandbox-trust", **IMAGES)
KUBERNETES = "1.36"


def session(**spec: Any) -> AgentSession:
    session_id = uuid4()
    return AgentSession(
        namespace="sandboxes",
        name=names.resource_name(session_id),
        uid=str(uuid4()),
        generation=1,
        created_at=datetime.now(UTC),
        deleted_at=None,
        spec={"sessionId": str(session_id), "ownerId": "alice", **spec},
        status={},
    )


def test_the_pod_equals_the_one_that_runs_on_a_real_node() -> None:
    _, by_hand = manifests()
    session_id = variables_of(by_hand["spec"]["containers"][0])["MOORAGE_SESSION_ID"]
    made = build_pod(session(sessionId=session_id), settings=SETTINGS)["spec"]
    assert made.pop("tolerations")
    wanted = copy.deepcopy(by_hand["spec"])
    assert made == wanted


FULL = SETTINGS.model_copy(
    update={
        "skills_url": "http://moorage-api-internal:8081/internal/skills",
        "runtime_class_name": "gvisor",
        "box_seccomp_profile": "profiles/moorage-box.json",
        "image_pull_secrets": ["registry"],
        "node_selector": {"pool": "sandboxes"},
    }
)
SKILLS = [
    {"id": "pdf", "digest": DIGEST, "phase": "initial"},
    {"id": "docx--0a1b2c3d", "digest": DIGEST, "phase": "backfill"},
]


@pytest.mark.parametrize("settings", [SETTINGS, FULL], ids=["defaults", "everything"])
def test_the_pod_is_valid_for_the_schema_of_kubernetes(settings: PodSettings) -> None:
    pod = build_pod(session(skills=SKILLS), settings=settings)
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)


@pytest.mark.parametrize("settings", [SETTINGS, FULL], ids=["defaults", "everything"])
def test_the_pod_meets_the_restricted_standard(control_plane: ControlPlane, settings: PodSettings) -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "restricted"}}
    namespace["metadata"]["labels"] = {"pod-security.kubernetes.io/enforce": "restricted"}  # type: ignore[index]
    runtime = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "gvisor"}, "handler": "x"}
    control_plane.apply([namespace, runtime])
    pod = build_pod(session(skills=SKILLS), settings=settings)
    pod["metadata"]["namespace"] = "restricted"
    taken = control_plane.kubectl_result("create", "--dry-run=server", "--filename=-", stdin=json.dumps(pod))
    assert taken.returncode == 0, taken.stderr
    assert "Warning" not in taken.stderr


def test_only_initial_skills_are_fetched_before_the_box_starts() -> None:
    pod = build_pod(session(skills=SKILLS), settings=FULL)
    gate, vnc, skills = pod["spec"]["initContainers"]
    assert [gate["name"], vnc["name"], skills["name"]] == ["gate", "vnc", "skills"]
    assert "restartPolicy" not in skills
    assert json.loads(variables_of(skills)["MOORAGE_SKILLS"]) == [{"id": "pdf", "digest": DIGEST}]


def variables_of(container: Manifest) -> dict[str, str]:
    return {variable["name"]: variable.get("value", "") for variable in container.get("env", [])}


def test_every_container_logs_json_that_names_the_session() -> None:
    made = session(skills=SKILLS)
    spec = build_pod(made, settings=FULL)["spec"]
    for container in (*spec["initContainers"], *spec["containers"]):
        variables = variables_of(container)
        assert variables["MOORAGE_LOG_FORMAT"] == "json"
        assert variables["MOORAGE_SESSION_ID"] == made.spec.session_id


@pytest.mark.parametrize(
    ("limits", "requests"),
    [
        ({}, {"cpu": "100m", "memory": "512Mi"}),
        ({"cpu": "1.5", "memory": "1Gi"}, {"cpu": "100m", "memory": "512Mi"}),
        ({"cpu": "50m", "memory": "256Mi"}, {"cpu": "50m", "memory": "256Mi"}),
        ({"cpu": "0.05"}, {"cpu": "0.05", "memory": "512Mi"}),
    ],
    ids=str,
)
def test_the_box_requests_no_more_than_its_limits(limits: dict[str, str], requests: dict[str, str]) -> None:
    """The API server refuses a pod that requests more."""
    (box,) = build_pod(session(), settings=SETTINGS.model_copy(update=limits))["spec"]["containers"]
    assert box["resources"]["requests"] == requests
    assert box["resources"]["limits"] == {"cpu": SETTINGS.cpu, "memory": SETTINGS.memory} | limits


@pytest.mark.parametrize("limits", [{"cpu": "0"}, {"cpu": "0.0"}, {"memory": "0Mi"}, {"memory": "lots"}], ids=str)
def test_limits_that_mean_no_limit_are_refused(limits: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        PodSettings(**IMAGES, **limits)
