"""Settings of the operator, read from the environment once, in `main`. docs/settings.md is made from them."""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict

from moorage_operator.sandbox_pod.settings import PodSettings


class OperatorSettings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="MOORAGE_OPERATOR_", env_nested_delimiter="__", extra="ignore", use_attribute_docstrings=True
    )

    namespace: str
    """The namespace of the AgentSessions and their pods."""
    pod: PodSettings
    """The settings that every sandbox pod is built from."""
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
