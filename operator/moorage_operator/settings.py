"""Settings of the operator, read from the environment once, in `main`. docs/settings.md is made from them."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict
from pydantic_settings import BaseSettings, SettingsConfigDict


class PodSettings(BaseModel):
    """What sandbox pods are made of. Every value is part of a pod's hash."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    gate_image: str
    """The image of the gate."""
    vnc_image: str
    """The image of the screen."""
    box_image: str
    """The image of the box."""
    image_pull_policy: str = "IfNotPresent"
    """When a node pulls these images: `Always`, `IfNotPresent` or `Never`."""
    image_pull_secrets: list[str] = []
    """Names of Secrets with the credentials of the registry, as a JSON list."""
    trust_config_map: str = "moorage-trust"
    """The ConfigMap with the trust file: key ids, public keys and scopes. A gate reads changes of it without a
    restart."""
    skills_url: str = ""
    """Where a pod fetches archives of skills: `{skills_url}/{digest}`. Without it a pod fetches none before the box
    starts."""
    runtime_class_name: str = ""
    """The runtime class of sandbox pods, for example of gVisor or Kata. Empty means the cluster's default."""
    box_seccomp_profile: str = ""
    """A Localhost seccomp profile with which Chromium keeps its own sandbox. Without it the box has RuntimeDefault."""
    node_selector: dict[str, str] = {}
    """The labels of the nodes that sandbox pods run on, as a JSON object."""
    cpu: str = "2"
    """The CPU limit of the box."""
    memory: str = "2Gi"
    """The memory limit of the box."""
    home_size: str = "4Gi"
    """The size limit of a sandbox's home directory."""
    shm_size: str = "512Mi"
    """The size limit of the box's /dev/shm, which Chromium uses."""


class OperatorSettings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="MOORAGE_OPERATOR_", env_nested_delimiter="__", extra="ignore", use_attribute_docstrings=True
    )

    namespace: str
    """The namespace of the AgentSessions and their pods."""
    pod: PodSettings
    """What sandbox pods are made of."""
    kubeconfig: Path | None = None
    """A kubeconfig file with the credentials for the cluster. Without it this pod's service account is used."""
    workers: int = 8
    """How many sessions are reconciled at the same time."""
    relist_seconds: float = 300
    """How often all sessions and pods are listed again, in case a watch missed a change."""
    lease_name: str = "moorage-operator"
    """The name of the Lease that decides which replica works."""
    lease_seconds: float = 15
    """How long a Lease that is not renewed keeps other replicas from taking over."""
    renew_seconds: float = 10
    """How long a replica that cannot renew its Lease goes on working. It is less than `lease_seconds`."""
    retry_seconds: float = 2
    """How long a replica waits between two attempts to get or renew the Lease. It is less than `renew_seconds`."""
    identity: str = ""
    """The name under which this replica holds the Lease. Empty means a generated name."""
    http_host: str = "0.0.0.0"  # noqa: S104 - probes and metrics come from outside the pod
    """The address at which the operator listens for probes and metrics."""
    http_port: int = 8080
    """The port of probes and metrics."""
