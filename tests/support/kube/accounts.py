"""Service accounts that have exactly the given rights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.kube.control_plane import ControlPlane
from support.kube.faults import token_kubeconfig
from support.kube.sessions import Sessions


async def service_account(
    name: str, rules: list[Any], *, control_plane: ControlPlane, sessions: Sessions, directory: Path
) -> Path:
    """Create a service account with `rules` in the namespace. Returns its kubeconfig."""
    namespace, request = sessions.namespace, sessions.kube.request
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    metadata = {"name": name}
    await request("POST", accounts, body={"metadata": metadata})
    await request("POST", f"{rbac}/roles", body={"metadata": metadata, "rules": rules})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    subjects = [{"kind": "ServiceAccount", "name": name, "namespace": namespace}]
    await request(
        "POST", f"{rbac}/rolebindings", body={"metadata": metadata, "roleRef": reference, "subjects": subjects}
    )
    token = await request("POST", f"{accounts}/{name}/token", body={"spec": {"expirationSeconds": 3600}})
    kubeconfig = directory / f"{name}.kubeconfig"
    kubeconfig.write_text(json.dumps(token_kubeconfig(control_plane, token["status"]["token"])))
    return kubeconfig
