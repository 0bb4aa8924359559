"""The manifests that the chart renders from its values, with each supported version of Helm."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from moorage_api.limits.addresses import parse_networks
from moorage_crds import names
from moorage_kube.client import Manifest
from moorage_sandbox.gate.tokens import read_trust
from moorage_sandbox.protocol import API_SCOPES, RUNNER_SCOPES
from support.helm import CHART, Helm, HelmError, Values, containers, find_manifest

ROOT = CHART.parents[1]
KUBERNETES = "1.36"

REPLACED: Values = {
    "postgresql": {"enabled": False, "externalSecret": "database"},
    "valkey": {"enabled": False, "externalSecret": "redis"},
    "minio": {"enabled": False, "external": {"endpoint": "s3.example.com", "existingSecret": "s3"}},
}
GITOPS: Values = {
    "credentials": {"existingSecret": "given"},
    "signing": {
        "existingApiSecret": "api-key",
        "existingRunnerSecret": "runner-key",
        "existingTrustConfigMap": "trust",
    },
    "commands": {"existingSecret": "commands-token"},
}
FULL: Values = {
    "fullnameOverride": "harbour",
    "images": {"registry": "registry.example.com/moorage", "tag": "1.2.3", "pullSecrets": ["pull"]},
    "signing": {"keys": [1, 2], "active": 2},
    "llm": {"existingSecret": "llm"},
    "settings": {"MOORAGE_OUTBOUND_PRIVATE": "llm"},
    "api": {
        "trustedProxies": ["10.0.0.0/8"],
        "corsOrigins": ["https://app.example.com"],
        "extraEnv": [{"name": "MOORAGE_REFRESH_SINGLE_USE", "value": "true"}],
        "podAnnotations": {"prometheus.io/scrape": "true"},
        "nodeSelector": {"pool": "web"},
        "tolerations": [{"key": "web", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
    },
    "runner": {"podAnnotations": {"a": "b"}},
    "operator": {"podAnnotations": {"a": "b"}},
    "commands": {
        "runtimeClassName": "gvisor",
        "network": {"openRanges": ["10.9.8.0/24"]},
        "podAnnotations": {"a": "b"},
        "nodeSelector": {"pool": "sandboxes"},
    },
    "sandboxes": {
        "namespace": "sandboxes",
        "createNamespace": True,
        "runtimeClassName": "gvisor",
        "seccompProfile": "profiles/chromium.json",
        "nodeSelector": {"pool": "sandboxes"},
        "network": {"openRanges": ["10.1.2.0/24"]},
    },
    "networkPolicies": {
        "apiFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}],
        "metricsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
    },
    "ingress": {
        "enabled": True,
        "className": "nginx",
        "hosts": ["moorage.example.com"],
        "tlsSecret": "tls",
        "annotations": {"cert-manager.io/cluster-issuer": "ours"},
    },
    "httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}], "hostnames": ["moorage.example.com"]},
    "postgresql": {"persistence": {"storageClass": "fast"}},
    "minio": {"publicEndpoint": "files.example.com:443"},
}
SETS = {"default": {}, "full": FULL, "replaced": REPLACED, "gitops": GITOPS}
NOT_IN_THE_SCHEMAS = {"CustomResourceDefinition", "HTTPRoute"}


@pytest.fixture(params=SETS, scope="module")
def manifests(request: pytest.FixtureRequest, helm: Helm) -> list[Manifest]:
    return helm.render(SETS[request.param])


def workloads(manifests: list[Manifest]) -> list[Manifest]:
    return [m for m in manifests if m["kind"] in ("Deployment", "StatefulSet", "Pod")]


def test_every_object_is_valid_and_has_our_labels(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        if manifest["kind"] not in NOT_IN_THE_SCHEMAS:
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
        assert manifest["metadata"]["labels"]["app.kubernetes.io/part-of"] == "moorage", manifest["metadata"]


def test_every_pod_meets_the_restricted_standard_and_has_limits(manifests: list[Manifest]) -> None:
    for workload in workloads(manifests):
        pod = workload["spec"] if workload["kind"] == "Pod" else workload["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers(workload):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert security["readOnlyRootFilesystem"] is True
            assert container["resources"]["limits"]["memory"]


def test_only_api_runner_and_operator_have_a_service_account_token(manifests: list[Manifest]) -> None:
    with_token = {
        workload["metadata"]["labels"]["app.kubernetes.io/component"]
        for workload in workloads(manifests)
        if (workload["spec"] if workload["kind"] == "Pod" else workload["spec"]["template"]["spec"])[
            "automountServiceAccountToken"
        ]
    }
    assert with_token == {"api", "runner", "operator"}


def test_selectors_contain_only_labels_that_never_change(manifests: list[Manifest]) -> None:
    allowed = {f"app.kubernetes.io/{name}" for name in ("name", "instance", "component")}
    for workload in workloads(manifests):
        if workload["kind"] != "Pod":
            assert set(workload["spec"]["selector"]["matchLabels"]) == allowed


def test_secret_values_appear_only_in_secrets(manifests: list[Manifest]) -> None:
    """That includes checksums and arguments."""
    secrets = [base64.b64decode(v) for m in manifests if m["kind"] == "Secret" for v in m["data"].values()]
    others = json.dumps([m for m in manifests if m["kind"] != "Secret"])
    assert not [secret for secret in secrets if secret.decode() in others]


def test_the_chart_installs_our_resource_definition_and_keeps_it(helm: Helm) -> None:
    ours = yaml.safe_load((ROOT / "crds" / "moorage.dev_agentsessions.yaml").read_text())
    installed = find_manifest(helm.render(), "CustomResourceDefinition", "agentsessions.moorage.dev")
    assert installed["spec"] == ours["spec"]
    assert installed["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    copy = CHART / "files" / "moorage.dev_agentsessions.yaml"
    assert copy.read_text() == (ROOT / "crds" / "moorage.dev_agentsessions.yaml").read_text()


@pytest.mark.parametrize(
    ("values", "secrets", "ids"),
    [
        ({}, ("moorage-api-signing", "moorage-runner-signing"), [1]),
        ({"signing": {"keys": [3, 4], "active": 4}}, ("moorage-api-signing", "moorage-runner-signing"), [3, 4]),
    ],
)
def test_the_trust_file_has_the_public_key_and_the_scopes_of_each_key_pair(
    helm: Helm, values: Values, secrets: tuple[str, str], ids: list[int]
) -> None:
    manifests = helm.render(values)
    trusted = read_trust(find_manifest(manifests, "ConfigMap", "moorage-trust")["data"]["trust.json"].encode())
    assert set(trusted) == {f"{part}-{number}" for part in ("api", "runner") for number in ids}
    for secret, part, scopes in zip(secrets, ("api", "runner"), (API_SCOPES, RUNNER_SCOPES), strict=True):
        data = find_manifest(manifests, "Secret", secret)["data"]
        assert set(data) == {f"{part}-{number}.pem" for number in ids}
        for number in ids:
            key = load_pem_private_key(base64.b64decode(data[f"{part}-{number}.pem"]), password=None)
            assert isinstance(key, Ed25519PrivateKey)
            signer = trusted[f"{part}-{number}"]
            assert signer.key.public_bytes_raw() == key.public_key().public_bytes_raw()
            assert signer.scopes == scopes


def test_the_network_policy_of_sandboxes_selects_the_pods_of_the_operator(helm: Helm) -> None:
    policy = find_manifest(helm.render(FULL), "NetworkPolicy", "harbour-sandbox")
    assert policy["metadata"]["namespace"] == "sandboxes"
    assert policy["spec"]["podSelector"]["matchLabels"] == names.SANDBOX_SELECTOR
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert [rule["ports"] for rule in policy["spec"]["ingress"]] == [[{"port": names.GATE_PORT, "protocol": "TCP"}]]


def test_a_sandbox_without_internet_reaches_only_name_servers_and_skills(helm: Helm) -> None:
    closed = find_manifest(
        helm.render({"sandboxes": {"network": {"internet": False}}}), "NetworkPolicy", "moorage-sandbox"
    )
    assert [[port["port"] for port in rule["ports"]] for rule in closed["spec"]["egress"]] == [[53, 53], [8001]]


def environment(workload: Manifest) -> dict[str, Any]:
    return {env["name"]: env for container in containers(workload) for env in container.get("env", [])}


def test_api_and_runner_know_where_commands_run_and_their_token(helm: Helm) -> None:
    manifests = helm.render(FULL)
    settings = find_manifest(manifests, "ConfigMap", "harbour-settings")["data"]
    (port,) = find_manifest(manifests, "Service", "harbour-commands")["spec"]["ports"]
    assert settings["MOORAGE_MCP_COMMANDS_URL"] == f"tcp://harbour-commands:{port['port']}"
    for part in ("api", "runner"):
        token = environment(find_manifest(manifests, "Deployment", f"harbour-{part}"))["MOORAGE_MCP_COMMANDS_TOKEN"]
        assert token["valueFrom"]["secretKeyRef"] == {"name": "harbour-commands", "key": "token"}
    assert len(base64.b64decode(find_manifest(manifests, "Secret", "harbour-commands")["data"]["token"])) >= 32


def test_the_pods_of_commands_mount_no_secret_but_their_token(manifests: list[Manifest]) -> None:
    (deployment,) = [m for m in workloads(manifests) if m["metadata"]["name"].endswith("-commands")]
    pod = deployment["spec"]["template"]["spec"]
    assert "serviceAccountName" not in pod
    assert list(environment(deployment)) == ["MOORAGE_LOG_FORMAT"]
    assert [container for container in containers(deployment) if "envFrom" in container] == []
    (token,) = [volume for volume in pod["volumes"] if "secret" in volume]
    assert token["secret"]["secretName"] in ("moorage-commands", "harbour-commands", "commands-token")
    assert [set(volume) - {"name"} for volume in pod["volumes"] if volume is not token] == [{"emptyDir"}]


def test_commands_accept_api_and_runner_and_reach_what_a_sandbox_reaches(helm: Helm) -> None:
    manifests = helm.render({"commands": {"network": {"openRanges": ["10.9.8.0/24"]}}})
    commands = find_manifest(manifests, "NetworkPolicy", "moorage-commands")["spec"]
    sandbox = find_manifest(manifests, "NetworkPolicy", "moorage-sandbox")["spec"]
    (rule,) = commands["ingress"]
    assert rule["ports"] == [{"port": 8091, "protocol": "TCP"}]
    peers = [peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for peer in rule["from"]]
    assert peers == ["api", "runner"]
    assert commands["policyTypes"] == ["Ingress", "Egress"]
    assert commands["egress"] == [
        *(rule for rule in sandbox["egress"] if rule.get("ports") != [{"port": 8001, "protocol": "TCP"}]),
        {"to": [{"ipBlock": {"cidr": "10.9.8.0/24"}}]},
    ]
    closed = helm.render({"commands": {"network": {"internet": False}}})
    (names_alone,) = find_manifest(closed, "NetworkPolicy", "moorage-commands")["spec"]["egress"]
    assert [port["port"] for port in names_alone["ports"]] == [53, 53]


def test_without_commands_no_object_mentions_them(helm: Helm) -> None:
    manifests = helm.render({"commands": {"enabled": False}})
    assert [m for m in manifests if m["metadata"]["name"].endswith("-commands")] == []
    assert "MCP_COMMANDS" not in json.dumps(manifests)


DIGEST = "sha256:" + "0123456789abcdef" * 4


def images(manifests: list[Manifest]) -> set[str]:
    """The images of all containers, including those of the pods that the operator creates."""
    used = {container["image"] for workload in workloads(manifests) for container in containers(workload)}
    made = environment(find_manifest(manifests, "Deployment", "moorage-operator"))
    return used | {env["value"] for name, env in made.items() if name.endswith("_IMAGE")}


def test_every_image_can_be_pinned_by_its_digest(helm: Helm) -> None:
    ours = ("api", "operator", "gate", "box", "vnc", "commands")
    servers = ("postgresql", "valkey", "minio")
    values: Values = {name: {"image": f"registry.example.com/{name}:1@{DIGEST}"} for name in servers}
    pinned = images(helm.render({**values, "images": {"digests": dict.fromkeys(ours, DIGEST)}}))
    assert pinned == {
        *(f"localhost/moorage-{name}@{DIGEST}" for name in ours),
        *(values[name]["image"] for name in servers),
    }
    given = f"registry.example.com/mine:1@{DIGEST}"
    assert given in images(helm.render({"images": {"box": given, "digests": {"box": DIGEST}}}))


def test_roles_apply_to_the_sandbox_namespace_and_have_the_rules_that_tests_use(helm: Helm) -> None:
    manifests = helm.render(FULL)
    assert not [m for m in manifests if m["kind"] in ("ClusterRole", "ClusterRoleBinding")]
    for role, rules in (("harbour-operator", "operator-rules.yaml"), ("harbour-sessions", "api-rules.yaml")):
        made = find_manifest(manifests, "Role", role)
        assert made["metadata"]["namespace"] == "sandboxes"
        tried = (CHART / "files" / rules).read_text().replace("[moorage-operator]", "[harbour-operator]")
        assert made["rules"] == yaml.safe_load(tried)


def test_with_existing_secrets_the_chart_creates_none(helm: Helm) -> None:
    """With GitOps `lookup` finds nothing, so a generated value would change with every rendering."""
    assert [m for m in helm.render({**REPLACED, **GITOPS}) if m["kind"] == "Secret"] == []
    assert helm.render(GITOPS) == helm.render(GITOPS)


def test_only_a_changed_setting_restarts_api_and_runner(helm: Helm) -> None:
    before, after = (helm.render({**GITOPS, "llm": {"model": model}}) for model in ("one", "two"))
    changed = {
        m["metadata"]["name"]
        for m in workloads(before)
        if m["kind"] != "Pod" and find_manifest(after, m["kind"], m["metadata"]["name"])["spec"] != m["spec"]
    }
    assert changed == {"moorage-api", "moorage-runner"}


def test_the_skill_cache_is_writable_and_smaller_than_its_volume(helm: Helm) -> None:
    manifests = helm.render({"skills": {"cacheBytes": 5_000_000_000}})
    settings = find_manifest(manifests, "ConfigMap", "moorage-settings")["data"]
    for part in ("api", "runner"):
        deployment = find_manifest(manifests, "Deployment", f"moorage-{part}")
        pod = deployment["spec"]["template"]["spec"]
        (place,) = [m for m in pod["containers"][0]["volumeMounts"] if m["name"] == "skills"]
        assert place == {"name": "skills", "mountPath": settings["MOORAGE_SKILLS_ROOT_DIR"]}
        (limit,) = [v["emptyDir"]["sizeLimit"] for v in pod["volumes"] if v["name"] == "skills"]
        assert int(limit) > int(settings["MOORAGE_SKILLS_CACHE_BYTES"]) == 5_000_000_000


def test_trusted_proxies_reach_the_api_as_networks(helm: Helm) -> None:
    proxies = ["10.0.0.0/8", "192.0.2.1"]
    settings = find_manifest(helm.render({"api": {"trustedProxies": proxies}}), "ConfigMap", "moorage-settings")["data"]
    assert parse_networks(json.loads(settings["MOORAGE_TRUSTED_PROXIES"])) == parse_networks(proxies)


def test_the_runner_is_probed_on_its_port_and_accepts_only_metrics_requests(helm: Helm) -> None:
    manifests = helm.render(FULL)
    (container,) = containers(find_manifest(manifests, "Deployment", "harbour-runner"))
    (port,) = container["ports"]
    (listens,) = [env["value"] for env in container["env"] if env["name"] == "MOORAGE_RUNNER_PORT"]
    assert port == {"name": "http", "containerPort": int(listens)}
    paths = {name: container[name]["httpGet"]["path"] for name in ("livenessProbe", "readinessProbe")}
    assert paths == {"livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    (rule,) = find_manifest(manifests, "NetworkPolicy", "harbour-runner")["spec"]["ingress"]
    assert rule == {"ports": [{"port": 8080, "protocol": "TCP"}], "from": FULL["networkPolicies"]["metricsFrom"]}


def test_the_ingress_keeps_streams_alive(helm: Helm) -> None:
    annotations = find_manifest(helm.render(FULL), "Ingress", "harbour-api")["metadata"]["annotations"]
    nginx = {name.partition("/")[2]: value for name, value in annotations.items() if name.startswith("nginx.")}
    assert (nginx["proxy-buffering"], nginx["proxy-read-timeout"]) == ("off", "660")
    assert annotations["cert-manager.io/cluster-issuer"] == "ours"
    route = find_manifest(helm.render(FULL), "HTTPRoute", "harbour-api")
    assert route["spec"]["rules"][0]["timeouts"] == {"request": "0s", "backendRequest": "0s"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"api": {"replica": 3}}, "replica"),
        ({"api": {"replicas": 0}}, "replicas"),
        ({"api": {"streamMaxSeconds": "long"}}, "streamMaxSeconds"),
        ({"api": {"corsOrigins": ["app.example.com"]}}, "corsOrigins"),
        ({"api": {"trustedProxies": ["ingress-nginx"]}}, "trustedProxies"),
        ({"settings": {"DATABASE_URL": "x"}}, "DATABASE_URL"),
        ({"settings": {"MOORAGE_LLM_MODEL": "x"}}, "the chart itself sets MOORAGE_LLM_MODEL. Remove it from settings"),
        ({"images": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
        ({"images": {"digests": {"api": "sha256:1234"}}}, "digests"),
        ({"images": {"digests": {"postgresql": DIGEST}}}, "postgresql"),
        ({"valkey": {"image": "valkey@9.0"}}, "image"),
        ({"sandboxes": {"memory": "lots"}}, "memory"),
        ({"sandboxes": {"network": {"openRanges": ["10.0.0.1"]}}}, "openRanges"),
        ({"commands": {"homesSize": "lots"}}, "homesSize"),
        ({"commands": {"network": {"openRanges": ["intranet"]}}}, "openRanges"),
        ({"signing": {"keys": []}}, "keys"),
        ({"signing": {"keys": [1], "active": 2}}, "signing.active is 2"),
        ({"signing": {"existingApiSecret": "mine"}}, "belong together"),
        ({"postgresql": {"enabled": False}}, "externalSecret"),
        ({"valkey": {"enabled": False}}, "externalSecret"),
        (
            {"minio": {"enabled": False, "external": {"endpoint": "https://s3.example.com", "existingSecret": "s"}}},
            "end",
        ),
        ({"ingress": {"enabled": True, "timeoutSeconds": 600}}, "ingress.timeoutSeconds must be greater"),
        ({"httpRoute": {"enabled": True}}, "parentRefs"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_values_that_cannot_work_are_refused_by_name(helm: Helm, values: Values, message: str) -> None:
    helm.render(REPLACED)
    with pytest.raises(HelmError, match=message):
        helm.render(values)


def variables_of_api_and_runner(manifests: list[Manifest]) -> set[str]:
    data: set[str] = set(find_manifest(manifests, "ConfigMap", "harbour-settings")["data"])
    deployments = [find_manifest(manifests, "Deployment", f"harbour-{part}") for part in ("api", "runner")]
    return data.union(*(environment(deployment) for deployment in deployments))


@pytest.mark.parametrize("values", [FULL, {**FULL, **REPLACED}], ids=["own servers", "other servers"])
def test_a_variable_that_the_chart_sets_is_refused_in_settings(helm: Helm, values: Values) -> None:
    given = {*values["settings"], *(variable["name"] for variable in values["api"]["extraEnv"])}
    names_set = {
        name
        for name in variables_of_api_and_runner(helm.render(values)) - given
        if name.startswith("MOORAGE_")  # the schema allows no others
    }
    with pytest.raises(HelmError) as refused:
        helm.render({**values, "settings": dict.fromkeys(names_set, "x")})
    assert f"the chart itself sets {', '.join(sorted(names_set))}. Remove it" in str(refused.value)


def test_every_container_of_ours_logs_json(manifests: list[Manifest]) -> None:
    settings = {m["metadata"]["name"]: m["data"] for m in manifests if m["kind"] == "ConfigMap" and "data" in m}
    deployments = [workload for workload in manifests if workload["kind"] == "Deployment"]
    assert len(deployments) >= 4
    for container in (container for deployment in deployments for container in containers(deployment)):
        shared = [settings[source["configMapRef"]["name"]] for source in container.get("envFrom", [])]
        own = {variable["name"]: variable.get("value") for variable in container.get("env", [])}
        merged = {name: value for values in (*shared, own) for name, value in values.items()}
        assert merged["MOORAGE_LOG_FORMAT"] == "json", container["name"]


def leaves(schema: dict[str, Any], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], dict[str, Any]]:
    if "default" in schema:
        return {path: schema}
    parts = schema.get("properties", {})
    return {key: leaf for name, part in parts.items() for key, leaf in leaves(part, (*path, name)).items()}


def read_values() -> dict[tuple[str, ...], tuple[str, Any]]:
    """Each setting of values.yaml with the comment above it and its default."""
    text = (CHART / "values.yaml").read_text()
    values: Any = yaml.safe_load(text)
    places: list[str] = []
    words, result = "", {}
    for line in text.splitlines():
        name, bare = line.strip().partition(":")[0], len(line) - len(line.lstrip())
        if line.strip().startswith("# -- "):
            words = line.strip().removeprefix("# -- ")
        elif name.isalnum():
            places = [*places[: bare // 2], name]
            if words:
                default = values
                for place in places:
                    default = default[place]
                result[tuple(places)] = (words, default)
            words = ""
    return result


def test_values_and_schema_have_the_same_settings_and_texts() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert {key: (leaf["description"], leaf["default"]) for key, leaf in leaves(schema).items()} == read_values()


def test_the_table_in_the_docs_is_generated_from_the_schema() -> None:
    script = "import sys; sys.path.insert(0, 'docs'); import chart_values; print(chart_values.page(), end='')"
    made = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert Path(ROOT, "docs", "chart-values.md").read_text() == made.stdout, "python docs/chart_values.py"
