"""The life of a release on a real API server without nodes. `make test-cluster` runs the pods too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
import yaml

from support.helm import CHART, Helm, HelmError, Values
from support.kube.control_plane import ControlPlane
from support.kube.errors import UnavailableError
from support.kube.tools import http_route_definition

CREDENTIALS = "moorage-credentials"
with_helm_4_alone = pytest.mark.parametrize("helm", [4], indirect=True, ids=["helm4"])


@dataclass
class ChartRelease:
    helm: Helm
    control_plane: ControlPlane
    namespace: str

    def upgrade(self, values: Values | None = None) -> str:
        arguments = ("upgrade", "--install", "moorage", str(CHART), "--namespace", self.namespace)
        return self.helm(*arguments, values={"crd": {"install": False}, **(values or {})})

    def uninstall(self) -> None:
        self.helm("uninstall", "moorage", "--namespace", self.namespace, "--wait", "--cascade", "foreground")

    def data(self, kind: str, name: str) -> dict[str, str]:
        shown = self.control_plane.kubectl("get", kind, name, "--namespace", self.namespace, "--output=json")
        data: dict[str, str] = json.loads(shown)["data"]
        return data

    def secrets(self) -> dict[str, dict[str, str]]:
        names = (CREDENTIALS, "moorage-api-signing", "moorage-runner-signing", "moorage-commands")
        return {name: self.data("secret", name) for name in names}

    def read_trust(self) -> dict[str, Any]:
        keys: dict[str, Any] = json.loads(self.data("configmap", "moorage-trust")["trust.json"])["keys"]
        return keys

    def remaining_objects(self) -> set[str]:
        """The objects that exist with the label of the release, without those that controllers create from them."""
        kinds = (
            "deployments,statefulsets,daemonsets,jobs,cronjobs,services,horizontalpodautoscalers,"
            "secrets,configmaps,serviceaccounts,roles,rolebindings,networkpolicies,poddisruptionbudgets,ingresses"
        )
        label = "--selector=app.kubernetes.io/instance=moorage"
        shown = self.control_plane.kubectl("get", kinds, label, "--namespace", self.namespace, "--output=name")
        return set(shown.split())


@pytest.fixture
def release(helm: Helm, control_plane: ControlPlane) -> Iterator[ChartRelease]:
    namespace = f"chart-{uuid4().hex[:8]}"
    control_plane.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}])
    yield ChartRelease(Helm(helm.program, control_plane.kubeconfig), control_plane, namespace)
    control_plane.kubectl("delete", "namespace", namespace, "--wait=false")


def test_an_upgrade_keeps_every_secret_and_the_keys_that_sandboxes_trust(release: ChartRelease) -> None:
    notes = release.upgrade()
    secrets, trusted = release.secrets(), release.read_trust()
    release.upgrade({"api": {"replicas": 3}})
    assert release.secrets() == secrets
    assert release.read_trust() == trusted
    assert f"delete secret {CREDENTIALS}" in notes


@with_helm_4_alone
def test_signing_keys_rotate_by_three_upgrades_and_one_key_is_always_trusted(release: ChartRelease) -> None:
    release.upgrade()
    first, trusted = release.secrets(), release.read_trust()
    release.upgrade({"signing": {"keys": [1, 2], "active": 1}})
    both = release.read_trust()
    assert set(both) == {"api-1", "api-2", "runner-1", "runner-2"}
    assert {name: both[name] for name in trusted} == trusted
    release.upgrade({"signing": {"keys": [1, 2], "active": 2}})
    assert release.read_trust() == both
    release.upgrade({"signing": {"keys": [2], "active": 2}})
    assert release.read_trust() == {name: both[name] for name in ("api-2", "runner-2")}
    assert release.secrets()[CREDENTIALS] == first[CREDENTIALS]
    assert set(release.secrets()["moorage-api-signing"]) == {"api-2.pem"}


@with_helm_4_alone
def test_an_upgrade_creates_a_new_token_for_commands_when_its_secret_was_deleted(release: ChartRelease) -> None:
    release.upgrade()
    before = release.secrets()
    release.control_plane.kubectl("delete", "secret", "moorage-commands", "--namespace", release.namespace)
    release.upgrade()
    after = release.secrets()
    assert {name for name in before if before[name] != after[name]} == {"moorage-commands"}


@with_helm_4_alone
def test_an_uninstalled_release_keeps_its_passwords_and_a_new_release_uses_them(release: ChartRelease) -> None:
    release.upgrade()
    kept = release.secrets()[CREDENTIALS]
    release.uninstall()
    assert release.remaining_objects() == {f"secret/{CREDENTIALS}"}
    release.upgrade()
    assert release.secrets()[CREDENTIALS] == kept


@with_helm_4_alone
def test_the_api_server_accepts_every_object_of_the_chart(release: ChartRelease) -> None:
    """Including the resource definition and a separate namespace for sandboxes."""
    sandboxes = f"{release.namespace}-sandboxes"
    values: Values = {
        "ingress": {"enabled": True, "hosts": ["moorage.example.com"]},
        "sandboxes": {"namespace": sandboxes, "createNamespace": True},
        "networkPolicies": {"apiFrom": [{"podSelector": {}}], "metricsFrom": [{"podSelector": {}}]},
    }
    assert "api.trustedProxies" in release.upgrade(values), "the notes must name the missing setting"
    assert "api.trustedProxies" not in release.upgrade({**values, "api": {"trustedProxies": ["10.0.0.0/8"]}})
    policy = release.control_plane.kubectl("get", "networkpolicy", "--namespace", sandboxes, "--output=name")
    assert policy.split() == ["networkpolicy.networking.k8s.io/moorage-sandbox"]
    release.uninstall()
    assert release.remaining_objects() == {f"secret/{CREDENTIALS}"}


@with_helm_4_alone
def test_a_bad_value_is_refused_before_anything_changes(release: ChartRelease) -> None:
    release.upgrade()
    before = release.remaining_objects()
    with pytest.raises(HelmError, match="replicas"):
        release.upgrade({"api": {"replicas": 0}, "ingress": {"enabled": True}})
    assert release.remaining_objects() == before


@with_helm_4_alone
def test_the_gateway_api_accepts_the_http_route(release: ChartRelease) -> None:
    """The API server drops unknown fields silently, so the test reads the route back."""
    try:
        definition = yaml.safe_load(http_route_definition().read_text())
    except UnavailableError as error:
        pytest.skip(f"no Gateway API here: {error}")
    release.control_plane.apply([definition])
    release.control_plane.wait_until_established(definition["metadata"]["name"])
    parents = [{"name": "edge", "namespace": "gateways", "sectionName": "https"}]
    release.upgrade({"httpRoute": {"enabled": True, "parentRefs": parents, "hostnames": ["agents.example.com"]}})
    where = ("httproute", "moorage-api", "--namespace", release.namespace, "--output=json")
    spec = json.loads(release.control_plane.kubectl("get", *where))["spec"]
    (rule,) = spec["rules"]
    assert rule["timeouts"] == {"request": "0s", "backendRequest": "0s"}
    assert [(one["name"], one["port"]) for one in rule["backendRefs"]] == [("moorage-api", 80)]
    assert spec["hostnames"] == ["agents.example.com"]
    assert spec["parentRefs"][0] | parents[0] == spec["parentRefs"][0]
