"""What `skaffold dev` would be told: real Dockerfiles and stages, and values that the chart has."""

from __future__ import annotations

import re
from typing import Any

import yaml

from moorage_kube.client import Manifest
from support.helm import CHART, Helm, Values, containers

ROOT = CHART.parents[1]
CONFIG: Any = yaml.safe_load((ROOT / "skaffold.yaml").read_text())


def test_every_image_is_built_by_a_dockerfile_that_has_its_stage() -> None:
    for artifact in CONFIG["build"]["artifacts"]:
        docker = artifact["docker"]
        dockerfile = (ROOT / artifact["context"] / docker["dockerfile"]).read_text()
        stages = re.findall(r"^FROM \S+ AS (\S+)$", dockerfile, re.MULTILINE)
        assert docker.get("target", stages[-1]) == artifact["image"].removeprefix("moorage-")


def test_the_release_gets_every_built_image_where_the_chart_uses_it(helm: Helm) -> None:
    (release,) = CONFIG["deploy"]["helm"]["releases"]
    built = {artifact["image"] for artifact in CONFIG["build"]["artifacts"]}
    assert set(release["setValueTemplates"].values()) == {
        f"{{{{.IMAGE_FULLY_QUALIFIED_{image.replace('-', '_')}}}}}" for image in built
    }
    images = {path.partition(".")[2]: f"localhost/{path}:built" for path in release["setValueTemplates"]}
    values: Values = {"images": images}
    for path, value in release["setValues"].items():
        part, name = path.split(".")
        values.setdefault(part, {})[name] = value
    manifests: list[Manifest] = helm.rendered(values)
    used = {
        text
        for manifest in manifests
        if manifest["kind"] == "Deployment"
        for container in containers(manifest)
        for text in (container["image"], *(str(env.get("value")) for env in container.get("env", [])))
    }
    assert set(images.values()) - used == set()
