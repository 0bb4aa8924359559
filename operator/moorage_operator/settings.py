"""What the operator is told, read from the environment once, in `main`."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel
from pydantic_settings import BaseSettings, SettingsConfigDict


class PodSettings(BaseModel):
    """What sandbox pods are made of. Everything in here is part of a pod's hash."""

    gate_image: str
    vnc_image: str
    box_image: str
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: list[str] = []
    trust_config_map: str = "moorage-trust"
    """Key ids and the scopes that they may give; mounted by the gate as a directory, so that it may change."""
    skills_url: str = ""
    """Where archives of skills are: `{skills_url}/{digest}`. Without it nothing is fetched before the box starts."""
    runtime_class_name: str = ""
    box_seccomp_profile: str = ""
    """A Localhost profile that lets Chromium keep its own sandbox; RuntimeDefault without one."""
    node_selector: dict[str, str] = {}
    cpu: str = "2"
    memory: str = "2Gi"
    home_size: str = "4Gi"
    shm_size: str = "512Mi"


class OperatorSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="MOORAGE_OPERATOR_", env_nested_delimiter="__", extra="ignore")

    namespace: str
    """Where AgentSessions and their pods are."""
    pod: PodSettings
    kubeconfig: Path | None = None
    """Without it, the credentials of the pod that we are in."""
    workers: int = 8
    relist_seconds: float = 300
    lease_name: str = "moorage-operator"
    lease_seconds: float = 15
    renew_seconds: float = 10
    retry_seconds: float = 2
    identity: str = ""
    """Who holds the Lease; made up where it is empty."""
    http_host: str = "0.0.0.0"  # noqa: S104 - probes and metrics come from outside the pod
    http_port: int = 8080
