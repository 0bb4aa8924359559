"""Runs Helm: renders the chart, and installs it."""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from moorage_kube.client import Manifest

CHART = Path(__file__).resolve().parents[2] / "charts" / "moorage"
TIMEOUT_SECONDS = 120

Values = dict[str, Any]


class HelmError(Exception):
    """Helm failed; the message is its error output."""


@dataclass(frozen=True)
class Helm:
    program: Path
    kubeconfig: Path | None = None

    def __call__(self, *arguments: str, values: Values | None = None, seconds: float = TIMEOUT_SECONDS) -> str:
        """Run Helm with a separate home directory. Raises HelmError."""
        with tempfile.TemporaryDirectory(prefix="moorage-helm-") as home:
            environment = {"HOME": home, "PATH": "/usr/bin:/bin"}
            if self.kubeconfig:
                environment["KUBECONFIG"] = str(self.kubeconfig)
            given = Path(home, "values.json")
            given.write_text(json.dumps(values or {}))
            command = [str(self.program), *arguments, *(["--values", str(given)] if values is not None else [])]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds)
        if done.returncode:
            raise HelmError(done.stderr.strip())
        return done.stdout

    def render(self, values: Values | None = None, *, namespace: str = "moorage") -> list[Manifest]:
        """The objects of a new release named `moorage`."""
        text = self("template", "moorage", str(CHART), "--namespace", namespace, values=values or {})
        return [manifest for manifest in yaml.safe_load_all(text) if manifest]


def find_manifest(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    (one,) = [m for m in manifests if (m["kind"], m["metadata"]["name"]) == (kind, name)]
    return one


def containers(manifest: Manifest) -> list[Manifest]:
    pod = manifest["spec"] if manifest["kind"] == "Pod" else manifest["spec"]["template"]["spec"]
    return [*pod.get("initContainers", []), *pod["containers"]]
