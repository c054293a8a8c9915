"""The dashboard, alerts and scrape configuration use existing metrics and addresses."""

import json
import re

import yaml

from service.delivery.trial_rule import verdicts
from service.delivery.trial_tally import Tally
from service.settings import from_environment
from service.telemetry.metrics import Metrics
from tests.fakes import ROOT
from tests.trials import trial_of

DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
PROMETHEUS = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
RULES = [
    rule
    for group in yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "torchloop.json").read_text())
SOURCE = yaml.safe_load((DEPLOY / "grafana" / "datasources" / "prometheus.yml").read_text())["datasources"][0]
QUERIES = [
    *(target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]),
    *(variable["definition"] for variable in DASHBOARD["templating"]["list"]),
]


def exposed() -> dict[str, set[str]]:
    """Name of each sample that GET /metrics can answer -> its labels."""
    metrics = Metrics()
    metrics.request("mnist", 200)
    metrics.stages("mnist", (0.1, 0.1, 0.1, 0.1))
    metrics.batch_size.labels("mnist").observe(1)
    metrics.waiting.set(0)
    metrics.loaded("mnist", 1, "eager")
    metrics.load_failures.labels("mnist").inc()
    metrics.failed_write("full")
    metrics.captures("mnist", "captured", 1)
    metrics.nodes({"serving": 1})
    trial = trial_of()
    metrics.trials.show(trial, verdicts(trial, Tally()))
    metrics.drift("mnist", {"ink mean": (0.1, 0.05)}, alarm=True)
    samples = re.findall(r"^(\w+)(?:\{(.*)\})? ", metrics.exposition().decode(), re.MULTILINE)
    return {name: set(re.findall(r'(\w+)="', labels)) for name, labels in samples}


def test_every_metric_and_label_of_dashboard_and_alerts_is_exposed() -> None:
    known = exposed()
    for query in [*QUERIES, *(rule["expr"] for rule in RULES)]:
        assert query.count("(") == query.count(")"), query
        for name, labels in re.findall(r"(torchloop_\w+)(?:\{(.*?)\})?", query):
            assert name in known, f"{name} is no metric: {query}"
            assert set(re.findall(r'(\w+)(?:=|!=|=~|!~)"', labels)) <= known[name], query
        assert "torchloop_" in query or 'up{job="torchloop"}' in query


def test_every_metric_is_on_the_dashboard() -> None:
    shown = " ".join(QUERIES)
    assert {name for name in exposed() if not name.endswith("_created")} >= {"torchloop_requests_total"}
    for name in exposed():
        family = re.sub(r"_(bucket|sum|count|created)$", "", name)
        assert family in shown, family


def test_the_alerts_say_what_is_wrong_and_how_bad_it_is() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)
    assert all(rule["labels"]["severity"] in {"page", "warn"} and rule["annotations"]["summary"] for rule in RULES)
    named = (ROOT / "docs" / "operating.md").read_text()
    assert all(f"`{name}`" in named for name in names), "docs/operating.md has a line for each alert"


def test_prometheus_scrapes_the_port_of_the_web_service_with_a_key() -> None:
    (job,) = PROMETHEUS["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    published = COMPOSE["services"]["web"]["ports"][0].split(":")[-1]
    assert found["names"] == ["web"]
    assert str(found["port"]) == published == str(from_environment({}).port)
    assert job.get("metrics_path", "/metrics") == "/metrics"
    (secret,) = COMPOSE["services"]["prometheus"]["secrets"]
    assert job["authorization"]["credentials_file"] == f"/run/secrets/{secret}"
    assert COMPOSE["secrets"][secret] == {"environment": "TORCHLOOP_METRICS_KEY"}
    assert {rule["alert"] for rule in RULES if 'job="torchloop"' in rule["expr"]} == {"TorchloopDown"}
    assert job["job_name"] == "torchloop"


def test_the_files_that_prometheus_and_grafana_read_are_mounted() -> None:
    services = COMPOSE["services"]
    assert "./deploy/prometheus:/etc/prometheus:ro" in services["prometheus"]["volumes"]
    assert "--config.file=/etc/prometheus/prometheus.yml" in services["prometheus"]["command"]
    assert PROMETHEUS["rule_files"] == ["/etc/prometheus/alerts.yml"]
    assert "./deploy/grafana:/etc/grafana/provisioning:ro" in services["grafana"]["volumes"]
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (DEPLOY / "grafana" / home.removeprefix("/etc/grafana/provisioning/")).is_file()
    assert SOURCE["url"] == f"http://prometheus:{services['prometheus']['ports'][0].split(':')[-1]}"
    used = {target["datasource"]["uid"] for panel in DASHBOARD["panels"] for target in panel["targets"]}
    assert used == {SOURCE["uid"]}


def test_monitoring_starts_on_request_only_pinned_and_without_a_password() -> None:
    for name in ("prometheus", "grafana"):
        service = COMPOSE["services"][name]
        assert service["profiles"] == ["monitoring"]
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), "a version, not a moving tag"
        assert service["healthcheck"]["test"][0] == "CMD"
    environment = COMPOSE["services"]["grafana"]["environment"]
    assert not [setting for setting in environment if "PASSWORD" in setting]
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
