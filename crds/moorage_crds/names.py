"""The names and labels that api, operator and chart share."""

from __future__ import annotations

from uuid import UUID

GROUP = "moorage.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "AgentSession"
PLURAL = "agentsessions"

SESSION_LABEL = f"{GROUP}/session"
OWNER_LABEL = f"{GROUP}/owner"

SANDBOX_SELECTOR = {"app.kubernetes.io/name": "moorage", "app.kubernetes.io/component": "sandbox"}
"""The labels of every sandbox pod; the network policies select by them."""

MANAGED_BY_API = {"app.kubernetes.io/part-of": "moorage", "app.kubernetes.io/managed-by": "moorage-api"}
MANAGED_BY_OPERATOR = {"app.kubernetes.io/part-of": "moorage", "app.kubernetes.io/managed-by": "moorage-operator"}

GATE_PORT = 8080
"""The port of the gate in every sandbox pod."""

RESOURCE_PREFIX = "session-"


def resource_name(session_id: UUID) -> str:
    """The name of a session's resource. Its pod has the same name, so a session never has two pods."""
    return f"{RESOURCE_PREFIX}{session_id}"


def session_id_of(name: str) -> str:
    """The session's id in the name of its resource or pod. A name of another form is returned unchanged."""
    return name.removeprefix(RESOURCE_PREFIX)
