"""The files around the code: compose, workflow, lock file."""

import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version

import pytest
import yaml
from compose_pydantic import ComposeSpecification
from packaging.requirements import Requirement

from service.command import VERBS
from service.settings import from_environment
from tests.fakes import ROOT
from tests.requirements import DEVELOPMENT, LOCK, PROJECT


def _satisfied(declared: Sequence[str], lock: Mapping[str, str]) -> None:
    for requirement in map(Requirement, declared):
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        assert requirement.specifier.contains(lock[name]), name
        assert version(requirement.name).split("+")[0] == lock[name], f"{name}: run make, the environment is stale"


def test_the_lock_file_of_serving_satisfies_the_project_and_is_what_is_installed() -> None:
    _satisfied(PROJECT["dependencies"], LOCK)


def test_the_lock_file_of_development_adds_only_what_serving_lacks() -> None:
    _satisfied(PROJECT["optional-dependencies"]["dev"], {**LOCK, **DEVELOPMENT})
    assert not LOCK.keys() & DEVELOPMENT.keys()
    assert not {"pytest", "mypy", "ruff", "playwright", "schemathesis"} & LOCK.keys()


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_a_lock_file_names_no_host_and_no_folder(name: str) -> None:
    assert not re.search(r"https?:|file:|--|/", (ROOT / name).read_text())


COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_the_compose_file_is_valid_compose() -> None:
    known = {key: value for key, value in COMPOSE.items() if not key.startswith("x-")}
    secrets = {name: {"name": name} for name in COMPOSE["secrets"]}  # its schema is older than their `environment`
    ComposeSpecification.model_validate({**known, "secrets": secrets})


def test_compose_starts_closed_and_asks_for_its_secrets() -> None:
    services = COMPOSE["services"]
    always = {name for name, service in services.items() if "profiles" not in service}
    assert always == {"web", "worker", "database"}
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert all(re.match(r"(127\.0\.0\.1|\$\{\w+:-127\.0\.0\.1\}):", port) for port in ports)
    for secret in ("TORCHLOOP_API_KEYS", "TORCHLOOP_DATABASE_URL"):
        assert ":?" in services["web"]["environment"][secret]
    assert ":?" in services["database"]["environment"]["POSTGRES_PASSWORD"]


def test_compose_waits_for_what_it_needs_and_keeps_what_must_last() -> None:
    services = COMPOSE["services"]
    assert "/health/ready" in services["web"]["healthcheck"]["test"][-1]
    assert "pg_isready" in services["database"]["healthcheck"]["test"][-1]
    for name in ("web", "worker"):
        assert services[name]["depends_on"] == {"database": {"condition": "service_healthy"}}
    used = {volume.split(":")[0] for service in services.values() for volume in service["volumes"]}
    of_the_checkout = {volume for volume in used if volume.startswith("./")}
    assert used - of_the_checkout == COMPOSE["volumes"].keys()
    assert all((ROOT / folder).is_dir() for folder in of_the_checkout)


def test_the_profiles_of_compose_run_commands_that_there_are() -> None:
    services = COMPOSE["services"]
    profiles = {name: service.get("profiles", []) for name, service in services.items()}
    assert {name for name, of in profiles.items() if of == ["balance"]} == {
        "balance-config",
        "balance-servers",
        "haproxy",
    }
    assert {name for name, of in profiles.items() if of == ["cluster"]} == {"ray-head", "ray-node", "dispatcher"}
    verbs = {verb for verbs in VERBS.values() for verb in verbs}
    ours = [service["command"] for service in services.values() if service.get("command", [""])[0] == "torchloop"]
    assert len(ours) == 3
    assert {command[1] for command in ours} <= verbs
    for name in ("ray-head", "ray-node", "dispatcher"):
        assert services[name]["environment"]["RAY_AUTH_MODE"] == "token"
        assert "RAY_AUTH_TOKEN" in services[name]["environment"]


def test_ray_has_the_settings_of_the_page_in_compose_and_on_kubernetes() -> None:
    page = (ROOT / "docs" / "several-machines.md").read_text()
    wanted = dict(re.findall(r"(RAY_health_check_\w+|RAY_gcs_rpc_server_\w+)=(\d+)", page))
    assert len(wanted) == 5
    for name in ("ray-head", "ray-node", "dispatcher"):
        assert wanted.items() <= COMPOSE["services"][name]["environment"].items()
    manifests = (ROOT / "deploy" / "kubernetes" / "ray" / "cluster.yaml").read_text()
    [cluster] = [one for one in yaml.safe_load_all(manifests) if one["kind"] == "RayCluster"]
    for group in (cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]):
        given = {one["name"]: one["value"] for one in group["template"]["spec"]["containers"][0]["env"]}
        assert wanted.items() <= given.items()


def test_the_settings_of_compose_and_dockerfile_are_settings() -> None:
    image = dict(re.findall(r"(TORCHLOOP_\w+)=(\S+)", DOCKERFILE))
    given = {
        "TORCHLOOP_API_KEYS": "admin:x",
        "TORCHLOOP_DATABASE_URL": "postgresql+psycopg://torchloop:x@database/torchloop",
    }
    environment = {name: value or "" for name, value in COMPOSE["services"]["worker"]["environment"].items()}
    settings = from_environment({**image, **environment, **given})
    assert (settings.host, settings.worker) == ("0.0.0.0", "external")
    assert {str(settings.store), str(settings.data)} == {"/store", "/data"}
    for folder in ("/store", "/data", "/balance", "/ray"):  # a new volume takes its owner from the image
        assert folder in DOCKERFILE.split("install -d")[1].splitlines()[0]


def test_the_workflow_runs_the_same_script_as_ci_on_each_python_that_the_project_names() -> None:
    job = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["check-and-test"]
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    matrix = job["strategy"]["matrix"]
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos"}
    named = {words.rsplit(" ", 1)[1] for words in PROJECT["classifiers"] if "Python :: 3." in words}
    assert set(matrix["python"]) == named
    candidates = (ROOT / "Makefile").read_text().split("PYTHON ?=")[1].split(";")[0]
    assert set(re.findall(r"python(3\.\d+)", candidates)) == named
