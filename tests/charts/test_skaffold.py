"""skaffold.yaml names existing Dockerfiles and stages, and existing values of the chart."""

from __future__ import annotations

import re
from typing import Any

import yaml

from moorage_kube.client import Manifest
from support.helm import CHART, Helm, Values, containers

ROOT = CHART.parents[1]
CONFIG: Any = yaml.safe_load((ROOT / "skaffold.yaml").read_text())


def test_every_image_of_skaffold_has_a_stage_in_its_dockerfile() -> None:
    for artifact in CONFIG["build"]["artifacts"]:
        docker = artifact["docker"]
        dockerfile = (ROOT / artifact["context"] / docker["dockerfile"]).read_text()
        stages = re.findall(r"^FROM \S+ AS (\S+)$", dockerfile, re.MULTILINE)
        assert docker.get("target", stages[-1]) == artifact["image"].removeprefix("moorage-")


def test_skaffold_sets_every_image_of_the_chart(helm: Helm) -> None:
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
    manifests: list[Manifest] = helm.render(values)
    used = {
        text
        for manifest in manifests
        if manifest["kind"] == "Deployment"
        for container in containers(manifest)
        for text in (container["image"], *(str(env.get("value")) for env in container.get("env", [])))
    }
    assert set(images.values()) - used == set()
