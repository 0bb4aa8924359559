"""The resource definition: what the API server enforces, and that the Python types and other patterns agree with it."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
import yaml
from pydantic import BaseModel

from moorage_api.skills.bundles.archive import PIN
from moorage_crds import names
from moorage_crds.types import SKILL_DIGEST_PATTERN, SKILL_ID_PATTERN, AgentSessionSpec, AgentSessionStatus
from moorage_kube.client import Manifest
from moorage_sandbox import protocol
from support.kube.control_plane import ControlPlane
from support.kube.fixtures import crd

DIGEST = "sha256:" + "0" * 64


def schema_of(part: str) -> dict[str, Any]:
    (version,) = crd()["spec"]["versions"]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]["properties"][part]
    return found


LIMITS = ("minLength", "maxLength", "pattern", "minimum", "maximum", "maxItems", "enum", "type")


def resolve(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Resolve references, and remove the `null` that pydantic uses for an absent field."""
    if "$ref" in schema:
        return {**definitions[schema["$ref"].rpartition("/")[2]], **schema}
    if "anyOf" in schema:
        (only,) = [one for one in schema["anyOf"] if one.get("type") != "null"]
        return {**resolve(only, definitions), **{name: value for name, value in schema.items() if name != "anyOf"}}
    return schema


def bounds(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """A schema of either side in one form: type, limits, allowed values, default, parts."""
    schema = resolve(schema, definitions)
    found = {name: schema[name] for name in LIMITS if name in schema}
    if schema.get("format") == "date-time":
        found["format"] = "date-time"
    if isinstance(schema.get("default"), str | int):
        found["default"] = schema["default"]
    if "items" in schema:
        found["items"] = bounds(schema["items"], definitions)
    if "properties" in schema:
        found["required"] = sorted(schema.get("required", []))
        found["properties"] = {name: bounds(part, definitions) for name, part in schema["properties"].items()}
    return found


@pytest.mark.parametrize(("part", "model"), [("spec", AgentSessionSpec), ("status", AgentSessionStatus)])
def test_the_python_types_equal_the_schema(part: str, model: type[BaseModel]) -> None:
    theirs = model.model_json_schema(by_alias=True)
    assert bounds(theirs, theirs.get("$defs", {})) == bounds(schema_of(part), {})


@pytest.mark.parametrize(
    ("ours", "others"),
    [
        (SKILL_ID_PATTERN, protocol.SKILL_ID_PATTERN),
        (SKILL_DIGEST_PATTERN, f"sha256:{protocol.DIGEST_PATTERN}"),
        (SKILL_DIGEST_PATTERN, PIN.pattern.translate({ord("("): None, ord(")"): None})),
    ],
    ids=["skill id in the sandbox", "skill digest in the sandbox", "skill digest in the api"],
)
def test_api_and_sandbox_accept_the_same_ids_and_digests(ours: str, others: str) -> None:
    """A sandbox imports nothing of the resource, so it declares both again."""
    assert ours == f"^{others}$"


def test_the_names_equal_those_of_the_definition() -> None:
    spec = crd()["spec"]
    assert (spec["group"], spec["names"]["kind"], spec["names"]["plural"], spec["versions"][0]["name"]) == (
        names.GROUP,
        names.KIND,
        names.PLURAL,
        names.VERSION,
    )


def session(**spec: Any) -> Manifest:
    session_id = uuid4()
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": names.resource_name(session_id), "namespace": "default"},
        "spec": {"sessionId": str(session_id), "ownerId": "alice", **spec},
    }


def skill(name: str, *, phase: str = "initial", digest: str = DIGEST) -> dict[str, str]:
    return {"id": name, "digest": digest, "phase": phase}


REFUSED = {
    "no session id": ({"sessionId": None}, "sessionId"),
    "an invalid session id": ({"sessionId": "../etc"}, "sessionId"),
    "no owner": ({"ownerId": ""}, "ownerId"),
    "an unknown desired state": ({"desiredState": "Paused"}, "desiredState"),
    "an invalid digest": ({"skills": [skill("pdf", digest="latest")]}, "digest"),
    "a skill id that is a path": ({"skills": [skill("../pdf")]}, "skills[0].id"),
    "the same skill twice": ({"skills": [skill("pdf"), skill("pdf")]}, "Duplicate value"),
    "thirteen initial skills": ({"skills": [skill(f"s{n}") for n in range(13)]}, "at most 12 skills"),
}


@pytest.mark.parametrize(("spec", "named"), REFUSED.values(), ids=REFUSED.keys())
def test_an_invalid_field_is_refused_by_name(control_plane: ControlPlane, spec: dict[str, Any], named: str) -> None:
    created = control_plane.kubectl_result("create", "--filename=-", stdin=yaml.safe_dump(session(**spec)))
    assert created.returncode == 1
    assert named in created.stderr


def test_a_resource_name_that_does_not_come_from_the_session_id_is_refused(control_plane: ControlPlane) -> None:
    """The pod has the name of its resource, so the name must not clash with, for example, the pod of a StatefulSet."""
    manifest = session()
    manifest["metadata"]["name"] = "moorage-postgresql-0"
    created = control_plane.kubectl_result("create", "--filename=-", stdin=yaml.safe_dump(manifest))
    assert created.returncode == 1
    assert "metadata.name must be session-" in created.stderr


def test_a_valid_resource_is_stored_with_its_defaults(control_plane: ControlPlane) -> None:
    manifest = session(skills=[skill(f"s{n}", phase="initial" if n < 12 else "backfill") for n in range(40)])
    control_plane.apply([manifest])
    name = manifest["metadata"]["name"]
    shown = yaml.safe_load(control_plane.kubectl("get", "agentsession", name, "--output=yaml"))
    assert shown["spec"]["desiredState"] == "Suspended"
    assert len(shown["spec"]["skills"]) == 40
    control_plane.kubectl("delete", "ags", name)


CHANGES = {
    "the session id": ({"sessionId": "0198b3a2-0000-7000-8000-000000000000"}, "sessionId never changes"),
    "the owner": ({"ownerId": "bob"}, "ownerId never changes"),
    "the digest of a skill": (
        {"skills": [skill("pdf", digest="sha256:" + "1" * 64)]},
        "the digest of a skill never changes",
    ),
    "a skill is removed": ({"skills": []}, "cannot be removed"),
}


@pytest.mark.parametrize(("spec", "named"), CHANGES.values(), ids=CHANGES.keys())
def test_an_immutable_field_cannot_change(control_plane: ControlPlane, spec: dict[str, Any], named: str) -> None:
    manifest = session(skills=[skill("pdf")])
    control_plane.apply([manifest])
    manifest["spec"] |= spec
    changed = control_plane.kubectl_result("replace", "--filename=-", stdin=yaml.safe_dump(manifest))
    assert changed.returncode == 1
    assert named in changed.stderr
    control_plane.kubectl("delete", "ags", manifest["metadata"]["name"])


def test_kubectl_explains_every_field_and_lists_the_columns(control_plane: ControlPlane) -> None:
    explained = control_plane.kubectl("explain", "agentsession.spec", "--recursive=false")
    for words in (
        "The desired state",
        "desiredState",
        "Running keeps one sandbox pod",
        "sessionId",
    ):
        assert words in explained
    undescribed = [line for line in explained.splitlines() if "<no description>" in line]
    assert undescribed == []
    manifest = session()
    control_plane.apply([manifest])
    listed = control_plane.kubectl("get", "moorage").splitlines()
    assert listed[0].split() == ["NAME", "PHASE", "READY", "REASON", "OWNER", "POD", "AGE"]
    assert any(line.split()[0] == manifest["metadata"]["name"] and "alice" in line for line in listed[1:])
    control_plane.kubectl("delete", "ags", manifest["metadata"]["name"])
