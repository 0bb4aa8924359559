"""Names and labels on which API, operator and chart agree."""

from __future__ import annotations

from uuid import UUID

GROUP = "moorage.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "AgentSession"
PLURAL = "agentsessions"

SESSION_LABEL = f"{GROUP}/session"
OWNER_LABEL = f"{GROUP}/owner"
SPEC_HASH_ANNOTATION = f"{GROUP}/spec-hash"

SANDBOX_SELECTOR = {"app.kubernetes.io/name": "moorage", "app.kubernetes.io/component": "sandbox"}
"""Every sandbox pod has these, and network policies select by them."""

MANAGED_BY_API = {"app.kubernetes.io/part-of": "moorage", "app.kubernetes.io/managed-by": "moorage-api"}
MANAGED_BY_OPERATOR = {"app.kubernetes.io/part-of": "moorage", "app.kubernetes.io/managed-by": "moorage-operator"}

GATE_PORT = 8080


def resource_name(session_id: UUID) -> str:
    """A session's resource; its pod is called the same, so there are never two."""
    return f"session-{session_id}"
