"""The manifests of deploy/kubernetes, against the schemas of Kubernetes and against what the service offers."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.command import VERBS
from service.settings import from_environment
from tests.fakes import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
VERSIONS = ["1.30", "1.37"]  # the oldest that is meant, the newest that there is a schema of
KUSTOMIZE = {"kustomization.yaml", "images.yaml"}
GIVEN = {
    "TORCHLOOP_API_KEYS": "admin:x",
    "TORCHLOOP_DATABASE_URL": "postgresql+psycopg://torchloop:x@database/torchloop",
}


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


MANIFESTS = [
    (f"{path.parent.name}/{document['kind']}/{document['metadata']['name']}", document)
    for path in sorted(FOLDER.glob("*/*.yaml"))
    if path.name not in KUSTOMIZE
    for document in documents(path)
]


def named(name: str) -> dict[str, Any]:
    return dict(MANIFESTS)[name]


def pods(manifest: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The specs of all pods that a manifest makes."""
    spec = manifest.get("spec", {})
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]] if manifest["kind"] == "RayCluster" else [spec]
    yield from (group["template"]["spec"] for group in groups if "template" in group)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_and_every_pod_fits_the_schemas(version: str) -> None:
    for name, manifest in MANIFESTS:
        documents = [] if manifest["kind"] == "RayCluster" else [manifest]
        documents += [
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod} for pod in pods(manifest)
        ]
        for document in documents:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as err:
                pytest.fail(f"{name}: {err.message}")


def test_the_schemas_refuse_what_is_misspelt() -> None:
    manifest = named("base/Deployment/torchloop-web")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(
            {**manifest, "spec": {**manifest["spec"], "replica": 2}}, VERSIONS[-1], strict=True
        )


def test_each_kustomization_names_every_file_beside_it() -> None:
    for path in FOLDER.glob("*/kustomization.yaml"):
        (kustomization,) = documents(path)
        listed = {(path.parent / name).resolve() for name in kustomization["resources"]}
        assert all(found.exists() for found in listed)
        assert {found for found in path.parent.glob("*.yaml") if found.name not in KUSTOMIZE} <= listed


def test_the_settings_are_settings_and_the_commands_are_commands() -> None:
    shared = named("base/ConfigMap/torchloop-settings")["data"]
    verbs = {verb for verbs in VERBS.values() for verb in verbs}
    for _, manifest in MANIFESTS:
        for container in (container for pod in pods(manifest) for container in pod["containers"]):
            values = {one["name"]: one.get("value", "") for one in container.get("env", [])}
            own = {name: value.replace("$(POD_IP)", "10.0.0.5") for name, value in values.items()}
            from_environment({**shared, **own, **GIVEN})
            assert container.get("command", ["torchloop", "serve"])[1] in verbs


def test_web_pods_are_probed_drained_and_never_all_away() -> None:
    (pod,) = pods(named("base/Deployment/torchloop-web"))
    (web,) = pod["containers"]
    assert web["readinessProbe"]["httpGet"]["path"] == web["startupProbe"]["httpGet"]["path"] == "/health/ready"
    assert web["livenessProbe"]["httpGet"]["path"] == "/health/live"
    pause = int(web["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] >= pause + from_environment({}).request_timeout_s + 10
    labels = named("base/Deployment/torchloop-web")["spec"]["selector"]["matchLabels"]
    assert named("base/PodDisruptionBudget/torchloop-web")["spec"]["selector"]["matchLabels"] == labels
    assert named("base/Service/torchloop")["spec"]["selector"] == labels


def test_pods_run_without_rights_and_secrets_come_from_secrets() -> None:
    for name, manifest in MANIFESTS:
        for pod in pods(manifest):
            assert pod["automountServiceAccountToken"] is False, name
            assert pod["enableServiceLinks"] is False, name
            for container in pod["containers"]:
                secrets = {variable["name"] for variable in container.get("env", []) if "valueFrom" not in variable}
                assert not secrets & {*GIVEN, "RAY_AUTH_TOKEN"}, name
    assert not GIVEN.keys() & named("base/ConfigMap/torchloop-settings")["data"].keys()
    assert named("ray/RayCluster/torchloop")["spec"]["authOptions"]["mode"] == "token"
