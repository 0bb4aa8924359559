"""The one pod that a session owns: gate and vnc as sidecars, the initial skills, then the box.

Meets the restricted Pod Security Standard. Why each field is as it is: docs/decisions/0002 and 0010.
"""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal

from moorage_crds import names
from moorage_crds.types import AgentSession, SkillPin
from moorage_kube.client import Manifest
from moorage_operator.settings import PodSettings

GROUP_ID = 10000
GATE_UID, BOX_UID, VNC_UID = 10001, 10002, 10003
HASH_CHARS = 16
BOX_REQUESTS = {"cpu": "100m", "memory": "512Mi"}
UNREACHABLE_SECONDS = 30
"""How long a pod stays on a node that does not answer, before it counts as lost."""


def sandbox_pod(session: AgentSession, *, settings: PodSettings) -> Manifest:
    """A pure function of the resource and the settings: the same in, the same out."""
    spec = pod_spec(session, settings)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": session.name,
            "namespace": session.namespace,
            "labels": pod_labels(session),
            "annotations": {names.SPEC_HASH_ANNOTATION: spec_hash(spec)},
            "ownerReferences": [
                {
                    "apiVersion": names.API_VERSION,
                    "kind": names.KIND,
                    "name": session.name,
                    "uid": session.uid,
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        },
        "spec": spec,
    }


def pod_labels(session: AgentSession) -> dict[str, str]:
    return {
        **names.SANDBOX_SELECTOR,
        **names.MANAGED_BY_OPERATOR,
        names.SESSION_LABEL: session.spec.session_id,
        names.OWNER_LABEL: session.spec.owner_id,
    }


def spec_hash(spec: Manifest) -> str:
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:HASH_CHARS]


def pod_spec(session: AgentSession, settings: PodSettings) -> Manifest:
    initial = [pin for pin in session.spec.skills if pin.phase == "initial"] if settings.skills_url else []
    spec: Manifest = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 10,
        "securityContext": {
            "runAsNonRoot": True,
            "fsGroup": GROUP_ID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "tolerations": [
            {
                "key": f"node.kubernetes.io/{trouble}",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": UNREACHABLE_SECONDS,
            }
            for trouble in ("not-ready", "unreachable")
        ],
        "initContainers": [
            gate(settings),
            vnc(settings),
            *([skills(initial, settings)] if initial else []),
        ],
        "containers": [box(session, settings)],
        "volumes": volumes(settings),
    }
    if settings.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    if settings.runtime_class_name:
        spec["runtimeClassName"] = settings.runtime_class_name
    if settings.node_selector:
        spec["nodeSelector"] = dict(settings.node_selector)
    return spec


def gate(settings: PodSettings) -> Manifest:
    return {
        **container("gate", settings.gate_image, GATE_UID, settings),
        "restartPolicy": "Always",
        "env": [
            {"name": "MOORAGE_LOG_FORMAT", "value": "json"},
            {"name": "MOORAGE_SANDBOX_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
        ],
        "ports": [{"name": "gate", "containerPort": names.GATE_PORT}],
        "livenessProbe": {  # and no startup probe, for which the containers below would wait
            "httpGet": {"path": "/healthz", "port": "gate"},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
        "resources": {"requests": {"cpu": "20m", "memory": "80Mi"}, "limits": {"memory": "256Mi"}},
        "volumeMounts": [
            {"name": "trust", "mountPath": "/etc/moorage/trust", "readOnly": True},
            {"name": "gate-state", "mountPath": "/var/lib/moorage"},
            {"name": "box-socket", "mountPath": "/run/moorage/box"},
            {"name": "rfb", "mountPath": "/run/moorage/vnc"},
        ],
    }


def vnc(settings: PodSettings) -> Manifest:
    return {
        **container("vnc", settings.vnc_image, VNC_UID, settings),
        "restartPolicy": "Always",
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "volumeMounts": [
            {"name": "rfb", "mountPath": "/run/moorage/vnc"},
            {"name": "vnc-tmp", "mountPath": "/tmp"},  # noqa: S108 - inside the pod
        ],
    }


def skills(initial: list[SkillPin], settings: PodSettings) -> Manifest:
    """Fetches the initial skills by digest, compares, and ends; then the box starts."""
    pins = json.dumps([{"id": pin.id, "digest": pin.digest} for pin in initial], separators=(",", ":"))
    return {
        **container("skills", settings.box_image, BOX_UID, settings),
        "command": ["/usr/bin/python3", "-I", "-m", "moorage_sandbox.box.fetch_skills"],
        "args": [f"--url={settings.skills_url}"],
        "env": [{"name": "MOORAGE_SKILLS", "value": pins}],
        "resources": {"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
        "volumeMounts": [{"name": "home", "mountPath": "/home"}],
    }


def box(session: AgentSession, settings: PodSettings) -> Manifest:
    wanted = session.spec.resources
    made = container("box", settings.box_image, BOX_UID, settings)
    if settings.box_seccomp_profile:
        made["securityContext"]["seccompProfile"] = {
            "type": "Localhost",
            "localhostProfile": settings.box_seccomp_profile,
        }
    limits = {"cpu": wanted.cpu or settings.cpu, "memory": wanted.memory or settings.memory}
    asks_the_gate = {"httpGet": {"path": "/readyz", "port": names.GATE_PORT}, "timeoutSeconds": 3}
    return {
        **made,
        "args": ["--socket=/run/moorage/box/box.sock", "--display=:1"],
        "startupProbe": {**asks_the_gate, "periodSeconds": 1, "failureThreshold": 120},
        "readinessProbe": {**asks_the_gate, "periodSeconds": 5},
        "resources": {
            "requests": {kind: min(BOX_REQUESTS[kind], limit, key=amount) for kind, limit in limits.items()},
            "limits": limits,
        },
        "volumeMounts": [
            {"name": "box-socket", "mountPath": "/run/moorage/box"},
            {"name": "home", "mountPath": "/home"},  # one above: the box makes its home in there and owns it
            {"name": "box-tmp", "mountPath": "/tmp"},  # noqa: S108 - inside the pod
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - inside the pod
        ],
    }


def amount(quantity: str) -> Decimal:
    """Of what the schema allows: cores ("2", "0.5", "500m") or bytes ("512Mi", "2Gi")."""
    units = {"m": Decimal("0.001"), "Mi": Decimal(2**20), "Gi": Decimal(2**30)}
    number = quantity.rstrip("".join(units))
    return Decimal(number) * units.get(quantity.removeprefix(number), Decimal(1))


def container(name: str, image: str, uid: int, settings: PodSettings) -> Manifest:
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": settings.image_pull_policy,
        "securityContext": {
            "runAsUser": uid,
            "runAsGroup": GROUP_ID,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def volumes(settings: PodSettings) -> list[Manifest]:
    """Every one with a limit, beyond which the kubelet evicts the pod: a command can fill what the box mounts."""
    small = {"gate-state": "256Mi", "box-socket": "16Mi", "rfb": "16Mi", "vnc-tmp": "16Mi"}
    sized = {**small, "home": settings.home_size, "box-tmp": "1Gi"}
    return [
        {"name": "trust", "configMap": {"name": settings.trust_config_map}},
        *({"name": name, "emptyDir": {"sizeLimit": size}} for name, size in sized.items()),
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": settings.shm_size}},
    ]
