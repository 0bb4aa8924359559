"""The pod that a session gets: the one that was tried by hand, with what a session adds."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import kubernetes_validate
import pytest

from moorage_crds import names
from moorage_crds.types import AgentSession
from moorage_operator.children.pod import sandbox_pod
from moorage_operator.settings import PodSettings
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


def test_it_is_the_pod_that_was_tried_by_hand() -> None:
    _, by_hand = manifests()
    made = sandbox_pod(session(), settings=SETTINGS)["spec"]
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
def test_it_is_a_pod_to_kubernetes(settings: PodSettings) -> None:
    pod = sandbox_pod(session(skills=SKILLS, resources={"cpu": "500m", "memory": "1Gi"}), settings=settings)
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)


@pytest.mark.parametrize("settings", [SETTINGS, FULL], ids=["defaults", "everything"])
def test_the_restricted_standard_takes_it(control_plane: ControlPlane, settings: PodSettings) -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "restricted"}}
    namespace["metadata"]["labels"] = {"pod-security.kubernetes.io/enforce": "restricted"}  # type: ignore[index]
    runtime = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "gvisor"}, "handler": "x"}
    control_plane.apply([namespace, runtime])
    pod = sandbox_pod(session(skills=SKILLS), settings=settings)
    pod["metadata"]["namespace"] = "restricted"
    taken = control_plane.kubectl_result("create", "--dry-run=server", "--filename=-", stdin=json.dumps(pod))
    assert taken.returncode == 0, taken.stderr
    assert "Warning" not in taken.stderr


def test_the_initial_skills_alone_are_fetched_before_the_box() -> None:
    pod = sandbox_pod(session(skills=SKILLS), settings=FULL)
    gate, vnc, skills = pod["spec"]["initContainers"]
    assert [gate["name"], vnc["name"], skills["name"]] == ["gate", "vnc", "skills"]
    assert "restartPolicy" not in skills
    assert json.loads(skills["env"][0]["value"]) == [{"id": "pdf", "digest": DIGEST}]


def test_the_same_in_is_the_same_out_and_what_differs_has_another_hash() -> None:
    one = session(skills=SKILLS)
    first, second = (sandbox_pod(one, settings=FULL) for _ in range(2))
    assert first == second

    def hash_of(settings: PodSettings) -> str:
        return str(sandbox_pod(one, settings=settings)["metadata"]["annotations"][names.SPEC_HASH_ANNOTATION])

    assert hash_of(FULL) != hash_of(FULL.model_copy(update={"box_image": "another"}))


@pytest.mark.parametrize(
    ("resources", "requests"),
    [
        ({}, {"cpu": "100m", "memory": "512Mi"}),
        ({"cpu": "1.5", "memory": "1Gi"}, {"cpu": "100m", "memory": "512Mi"}),
        ({"cpu": "50m", "memory": "256Mi"}, {"cpu": "50m", "memory": "256Mi"}),
        ({"cpu": "0.05"}, {"cpu": "0.05", "memory": "512Mi"}),
    ],
    ids=str,
)
def test_no_more_is_asked_for_than_may_be_used(resources: dict[str, str], requests: dict[str, str]) -> None:
    """The API server takes no pod that asks for more."""
    (box,) = sandbox_pod(session(resources=resources), settings=SETTINGS)["spec"]["containers"]
    assert box["resources"]["requests"] == requests


def test_a_sessions_own_limits_win() -> None:
    (box,) = sandbox_pod(session(resources={"memory": "8Gi"}), settings=SETTINGS)["spec"]["containers"]
    assert box["resources"]["limits"] == {"cpu": "2", "memory": "8Gi"}
