"""Builds the manifest of a session's pod: gate and vnc as sidecars, an init container for the skills, then the box.

The pod meets the restricted Pod Security Standard. docs/decisions/0002 and 0010 give the reasons for its fields.
"""

from __future__ import annotations

import json
from decimal import Decimal

from moorage_crds import names
from moorage_crds.types import AgentSession, SkillPin
from moorage_kube.client import Manifest
from moorage_operator.sandbox_pod.settings import PodSettings

GROUP_ID = 10000
GATE_UID, BOX_UID, VNC_UID = 10001, 10002, 10003
BOX_REQUESTS = {"cpu": "100m", "memory": "512Mi"}
UNREACHABLE_SECONDS = 30
"""How long a pod stays on a node that does not respond, before it is evicted."""


def build_pod(session: AgentSession, *, settings: PodSettings) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": session.name,
            "namespace": session.namespace,
            "labels": build_labels(session),
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
        "spec": _build_spec(session, settings),
    }


def build_labels(session: AgentSession) -> dict[str, str]:
    return {
        **names.SANDBOX_SELECTOR,
        **names.MANAGED_BY_OPERATOR,
        names.SESSION_LABEL: session.spec.session_id,
        names.OWNER_LABEL: session.spec.owner_id,
    }


def _build_spec(session: AgentSession, settings: PodSettings) -> Manifest:
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
                "key": f"node.kubernetes.io/{taint}",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": UNREACHABLE_SECONDS,
            }
            for taint in ("not-ready", "unreachable")
        ],
        "initContainers": [
            _build_gate(session, settings),
            _build_vnc(session, settings),
            *([_build_skills(session, initial, settings)] if initial else []),
        ],
        "containers": [_build_box(session, settings)],
        "volumes": _build_volumes(settings),
    }
    if settings.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    if settings.runtime_class_name:
        spec["runtimeClassName"] = settings.runtime_class_name
    if settings.node_selector:
        spec["nodeSelector"] = dict(settings.node_selector)
    return spec


def _build_gate(session: AgentSession, settings: PodSettings) -> Manifest:
    return {
        **_build_container("gate", settings.gate_image, GATE_UID, settings),
        "restartPolicy": "Always",
        "env": [
            *_build_log_variables(session),
            {"name": "MOORAGE_SANDBOX_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
        ],
        "ports": [{"name": "gate", "containerPort": names.GATE_PORT}],
        "livenessProbe": {  # no startup probe: the containers after this one would wait for it
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


def _build_vnc(session: AgentSession, settings: PodSettings) -> Manifest:
    return {
        **_build_container("vnc", settings.vnc_image, VNC_UID, settings),
        "restartPolicy": "Always",
        "env": _build_log_variables(session),
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "volumeMounts": [
            {"name": "rfb", "mountPath": "/run/moorage/vnc"},
            {"name": "vnc-tmp", "mountPath": "/tmp"},  # noqa: S108 - inside the pod
        ],
    }


def _build_skills(session: AgentSession, initial: list[SkillPin], settings: PodSettings) -> Manifest:
    """An init container: it fetches the initial skills, checks their digests and ends. Then the box starts."""
    pins = json.dumps([{"id": pin.id, "digest": pin.digest} for pin in initial], separators=(",", ":"))
    return {
        **_build_container("skills", settings.box_image, BOX_UID, settings),
        "command": ["/usr/bin/python3", "-I", "-m", "moorage_sandbox.box.fetch_skills"],
        "args": [f"--url={settings.skills_url}"],
        "env": [*_build_log_variables(session), {"name": "MOORAGE_SKILLS", "value": pins}],
        "resources": {"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
        "volumeMounts": [{"name": "home", "mountPath": "/home"}],
    }


def _build_box(session: AgentSession, settings: PodSettings) -> Manifest:
    box = _build_container("box", settings.box_image, BOX_UID, settings)
    if settings.box_seccomp_profile:
        box["securityContext"]["seccompProfile"] = {
            "type": "Localhost",
            "localhostProfile": settings.box_seccomp_profile,
        }
    limits = {"cpu": settings.cpu, "memory": settings.memory}
    ask_gate = {"httpGet": {"path": "/readyz", "port": names.GATE_PORT}, "timeoutSeconds": 3}
    return {
        **box,
        "args": ["--socket=/run/moorage/box/box.sock", "--display=:1"],
        "env": _build_log_variables(session),
        "startupProbe": {**ask_gate, "periodSeconds": 1, "failureThreshold": 120},
        "readinessProbe": {**ask_gate, "periodSeconds": 5},
        "resources": {
            "requests": {kind: min(BOX_REQUESTS[kind], limit, key=_parse_quantity) for kind, limit in limits.items()},
            "limits": limits,
        },
        "volumeMounts": [
            {"name": "box-socket", "mountPath": "/run/moorage/box"},
            {"name": "home", "mountPath": "/home"},  # the parent directory: the box creates its home in it and owns it
            {"name": "box-tmp", "mountPath": "/tmp"},  # noqa: S108 - inside the pod
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - inside the pod
        ],
    }


def _parse_quantity(quantity: str) -> Decimal:
    """Convert what PodSettings allows to a number: cores ("2", "0.5", "500m") or bytes ("512Mi", "2Gi")."""
    units = {"m": Decimal("0.001"), "Mi": Decimal(2**20), "Gi": Decimal(2**30)}
    number = quantity.rstrip("".join(units))
    return Decimal(number) * units.get(quantity.removeprefix(number), Decimal(1))


def _build_log_variables(session: AgentSession) -> list[Manifest]:
    """Variables of every container, so that all of their log lines are JSON and name the session."""
    return [
        {"name": "MOORAGE_LOG_FORMAT", "value": "json"},
        {"name": "MOORAGE_SESSION_ID", "value": session.spec.session_id},
    ]


def _build_container(name: str, image: str, uid: int, settings: PodSettings) -> Manifest:
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


def _build_volumes(settings: PodSettings) -> list[Manifest]:
    """Every volume has a size limit, because a command can fill what the box mounts. At the limit the kubelet evicts
    the pod."""
    small = {"gate-state": "256Mi", "box-socket": "16Mi", "rfb": "16Mi", "vnc-tmp": "16Mi"}
    sized = {**small, "home": settings.home_size, "box-tmp": "1Gi"}
    return [
        {"name": "trust", "configMap": {"name": settings.trust_config_map}},
        *({"name": name, "emptyDir": {"sizeLimit": size}} for name, size in sized.items()),
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": settings.shm_size}},
    ]
