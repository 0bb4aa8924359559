"""The resource definition: what the API server enforces, and that the Python types say the same."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
import yaml
from pydantic import BaseModel

from moorage_crds import names
from moorage_crds.types import AgentSessionSpec, AgentSessionStatus
from moorage_kube.client import Manifest
from support.kube.control_plane import ControlPlane
from support.kube.fixtures import crd

DIGEST = "sha256:" + "0" * 64


def schema_of(part: str) -> dict[str, Any]:
    (version,) = crd()["spec"]["versions"]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]["properties"][part]
    return found


LIMITS = ("minLength", "maxLength", "pattern", "minimum", "maximum", "maxItems", "enum", "type")


def resolved(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Without references, and without the `null` that stands for an absent field."""
    if "$ref" in schema:
        return {**definitions[schema["$ref"].rpartition("/")[2]], **schema}
    if "anyOf" in schema:
        (only,) = [one for one in schema["anyOf"] if one.get("type") != "null"]
        return {**resolved(only, definitions), **{name: value for name, value in schema.items() if name != "anyOf"}}
    return schema


def bounds(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """What either side says of a value, in one form: type, limits, allowed values, default, parts."""
    schema = resolved(schema, definitions)
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
def test_the_python_types_say_what_the_schema_says(part: str, model: type[BaseModel]) -> None:
    theirs = model.model_json_schema(by_alias=True)
    assert bounds(theirs, theirs.get("$defs", {})) == bounds(schema_of(part), {})


def test_names_are_the_definitions() -> None:
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
    "no session": ({"sessionId": None}, "sessionId"),
    "a session id that is none": ({"sessionId": "../etc"}, "sessionId"),
    "no owner": ({"ownerId": ""}, "ownerId"),
    "a state nobody knows": ({"desiredState": "Paused"}, "desiredState"),
    "a digest that is none": ({"skills": [skill("pdf", digest="latest")]}, "digest"),
    "a skill's name that is a path": ({"skills": [skill("../pdf")]}, "skills[0].id"),
    "a skill twice": ({"skills": [skill("pdf"), skill("pdf")]}, "Duplicate value"),
    "more initial skills than twelve": ({"skills": [skill(f"s{n}") for n in range(13)]}, "at most 12 skills"),
    "memory without a unit": ({"resources": {"memory": "lots"}}, "memory"),
    "no limit of memory, which is what 0 means": ({"resources": {"memory": "0Mi"}}, "memory"),
    "no limit of cores": ({"resources": {"cpu": "0.0"}}, "cpu"),
    "a time to live of nothing": ({"ttlSecondsAfterSuspended": 1}, "ttlSecondsAfterSuspended"),
}


@pytest.mark.parametrize(("spec", "named"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_wrong_is_refused_and_named(control_plane: ControlPlane, spec: dict[str, Any], named: str) -> None:
    created = control_plane.kubectl_result("create", "--filename=-", stdin=yaml.safe_dump(session(**spec)))
    assert created.returncode == 1
    assert named in created.stderr


def test_a_name_that_another_pod_may_want_is_refused(control_plane: ControlPlane) -> None:
    """A sandbox's pod is called as its resource: it must not be in the way of, say, a StatefulSet's."""
    manifest = session()
    manifest["metadata"]["name"] = "moorage-postgresql-0"
    created = control_plane.kubectl_result("create", "--filename=-", stdin=yaml.safe_dump(manifest))
    assert created.returncode == 1
    assert "named session- and its sessionId" in created.stderr


def test_what_is_right_is_taken_with_its_defaults(control_plane: ControlPlane) -> None:
    manifest = session(skills=[skill(f"s{n}", phase="initial" if n < 12 else "backfill") for n in range(40)])
    control_plane.apply([manifest])
    name = manifest["metadata"]["name"]
    shown = yaml.safe_load(control_plane.kubectl("get", "agentsession", name, "--output=yaml"))
    assert shown["spec"]["desiredState"] == "Suspended"
    assert len(shown["spec"]["skills"]) == 40
    control_plane.kubectl("delete", "ags", name)


CHANGES = {
    "the session": ({"sessionId": "0198b3a2-0000-7000-8000-000000000000"}, "sessionId never changes"),
    "the owner": ({"ownerId": "bob"}, "ownerId never changes"),
    "a skill's version": ({"skills": [skill("pdf", digest="sha256:" + "1" * 64)]}, "keeps its version"),
    "a skill away": ({"skills": []}, "not taken away"),
}


@pytest.mark.parametrize(("spec", "named"), CHANGES.values(), ids=CHANGES.keys())
def test_what_must_not_change_does_not(control_plane: ControlPlane, spec: dict[str, Any], named: str) -> None:
    manifest = session(skills=[skill("pdf")])
    control_plane.apply([manifest])
    manifest["spec"] |= spec
    changed = control_plane.kubectl_result("replace", "--filename=-", stdin=yaml.safe_dump(manifest))
    assert changed.returncode == 1
    assert named in changed.stderr
    control_plane.kubectl("delete", "ags", manifest["metadata"]["name"])


def test_kubectl_explains_and_lists_it(control_plane: ControlPlane) -> None:
    explained = control_plane.kubectl("explain", "agentsession.spec", "--recursive=false")
    for words in (
        "What is wanted",
        "desiredState",
        "Running keeps a sandbox pod",
        "sessionId",
        "ttlSecondsAfterSuspended",
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
