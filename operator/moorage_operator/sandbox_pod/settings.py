"""The settings that a sandbox pod is built from. docs/settings.md is made from them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

CPU_PATTERN = r"^([1-9][0-9]*m?|[1-9][0-9]*\.[0-9]+|0\.[0-9]*[1-9][0-9]*)$"
MEMORY_PATTERN = r"^[1-9][0-9]*(Mi|Gi)$"


class PodSettings(BaseModel):
    """A change applies to pods that are created later; running pods keep what they were created with."""

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
    cpu: Annotated[str, Field(pattern=CPU_PATTERN)] = "2"
    """The CPU limit of the box, in cores (`2`, `0.5`, `500m`)."""
    memory: Annotated[str, Field(pattern=MEMORY_PATTERN)] = "2Gi"
    """The memory limit of the box (`512Mi`, `2Gi`). Its /dev/shm counts towards it."""
    home_size: str = "4Gi"
    """The size limit of a sandbox's home directory."""
    shm_size: str = "512Mi"
    """The size limit of the box's /dev/shm, which Chromium uses."""
