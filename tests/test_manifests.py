"""What is in `deploy/`: manifests of Kubernetes, units of systemd and the board of Grafana."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml

from packmule import config
from packmule.cli import cli
from packmule.observe.metrics import exposition
from packmule.tests.test_deploy import DOCKERFILE, compose

ROOT = Path(__file__).resolve().parent.parent
KUBERNETES = ROOT / "deploy" / "kubernetes"
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
GRAFANA = json.loads((ROOT / "deploy" / "grafana.json").read_text())
CHECKED_BY_ITS_OWN = {"Kustomization", "ScaledObject"}
"""Kinds that aren't Kubernetes' own, whose schemas it doesn't have."""


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(KUBERNETES.glob("*.yaml")):
        for found in yaml.safe_load_all(path.read_text()):
            yield f"{path.stem}-{found['kind']}", found


ALL = dict(documents())
DEPLOYMENTS = {name: each for name, each in ALL.items() if each["kind"] == "Deployment"}


def pod(deployment: dict[str, Any]) -> dict[str, Any]:
    return deployment["spec"]["template"]["spec"]  # type: ignore[no-any-return]


def container(deployment: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod(deployment)["containers"]
    return only  # type: ignore[no-any-return]


def environment(deployment: dict[str, Any]) -> dict[str, str]:
    """What the container finds set, by the files that are in its config map and secret."""
    files = [KUBERNETES / "settings.env", KUBERNETES / "secret.env"]
    lines = [line for path in files for line in path.read_text().splitlines() if "=" in line]
    given = dict(line.split("=", 1) for line in lines)
    return given | {each["name"]: each["value"] for each in container(deployment).get("env", [])}


@pytest.mark.parametrize("name", ALL)
def test_manifests_fit_the_schemas_of_kubernetes(name: str) -> None:
    if ALL[name]["kind"] not in CHECKED_BY_ITS_OWN:
        kubernetes_validate.validate(ALL[name], "1.33", strict=True)


def test_every_manifest_is_applied_but_the_two_that_are_chosen_from() -> None:
    kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    others = {"kustomization.yaml", "hpa.yaml", "keda.yaml"}
    assert {*kustomization["resources"], *others} == {path.name for path in KUBERNETES.glob("*.yaml")}
    for generator in (*kustomization["configMapGenerator"], *kustomization["secretGenerator"]):
        assert (KUBERNETES / generator["envs"][0]).is_file()


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_deployment_runs_one_of_our_commands_with_settings_that_can_be_read(name: str) -> None:
    command, *options = container(DEPLOYMENTS[name])["args"]
    found = cli.get_command(click.Context(cli), command)
    assert found is not None
    known = {option for each in found.params for option in each.opts}
    assert {option for option in options if option.startswith("-")} <= known
    given = environment(DEPLOYMENTS[name])
    assert set(given) <= {variable for variable, _ in config.VARIABLES.values()}
    settings = config.Settings.from_env(given)
    assert settings.environment == "production"
    assert pod(DEPLOYMENTS[name])["terminationGracePeriodSeconds"] > (
        settings.grace if command == "worker" else 0
    )


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_deployment_is_probed_where_it_answers(name: str) -> None:
    deployment = DEPLOYMENTS[name]
    command = container(deployment)["args"][0]
    settings = config.Settings.from_env(environment(deployment))
    port = settings.port if command == "dashboard" else int(settings.health.rpartition(":")[2])
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        (probe,) = [value for key, value in container(deployment)[kind].items() if isinstance(value, dict)]
        assert probe["port"] == port
        assert probe.get("path") in {"/healthz", "/readyz", "/health", None}
    assert "httpGet" in container(deployment)["readinessProbe"]
    assert container(deployment)["readinessProbe"]["httpGet"]["path"] in {"/readyz", "/health"}


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_deployment_is_unprivileged(name: str) -> None:
    (user,) = re.findall(r"^USER (\d+):", DOCKERFILE, re.MULTILINE)
    context = pod(DEPLOYMENTS[name])["securityContext"]
    assert (context["runAsNonRoot"], context["runAsUser"]) == (True, int(user))
    inner = container(DEPLOYMENTS[name])["securityContext"]
    assert inner == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not pod(DEPLOYMENTS[name])["automountServiceAccountToken"]
    assert container(DEPLOYMENTS[name])["resources"]["limits"]["memory"]


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_no_service_of_the_namespace_sets_a_variable_that_looks_like_a_setting(name: str) -> None:
    assert pod(DEPLOYMENTS[name])["enableServiceLinks"] is False


def test_services_and_budgets_find_their_pods_and_scalers_their_deployment() -> None:
    labels = [each["spec"]["template"]["metadata"]["labels"] for each in DEPLOYMENTS.values()]
    names = {each["metadata"]["name"] for each in DEPLOYMENTS.values()}
    for each in ALL.values():
        if each["kind"] == "Service":
            assert each["spec"]["selector"] in labels
        if each["kind"] == "PodDisruptionBudget":
            assert each["spec"]["selector"]["matchLabels"] in labels
        if each["kind"] in {"ScaledObject", "HorizontalPodAutoscaler"}:
            assert each["spec"]["scaleTargetRef"]["name"] in names


def test_keda_asks_for_a_number_that_the_metrics_process_answers(client: Any) -> None:
    from packmule.observe.scale import scales

    (trigger,) = ALL["keda-ScaledObject"]["spec"]["triggers"]
    assert hasattr(scales(client, ["default"]), trigger["metadata"]["valueLocation"])
    service = ALL["metrics-Service"]
    (port,) = service["spec"]["ports"]
    host = f"{service['metadata']['name']}.{ALL['namespace-Namespace']['metadata']['name']}.svc"
    assert trigger["metadata"]["url"] == f"http://{host}:{port['port']}/scale"
    processes = config.Settings.from_env(environment(ALL["worker-Deployment"])).processes
    assert trigger["metadata"]["targetValue"] == str(processes)
    (metric,) = ALL["hpa-HorizontalPodAutoscaler"]["spec"]["metrics"]
    assert f"{metric['external']['metric']['name']} 0" in exposition(client, ["default"])
    assert metric["external"]["target"]["averageValue"] == str(processes)


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_runs_a_command_and_leaves_it_the_time_to_drain(path: Path) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(path)
    service = unit["Service"]
    command = service["ExecStart"].split()[1]
    assert path.stem == f"packmule-{command}"
    assert cli.get_command(click.Context(cli), command) is not None
    assert service["Type"] == ("exec" if command == "dashboard" else "notify")
    grace = config.Settings().grace if command == "worker" else 0
    assert int(service["TimeoutStopSec"]) > grace
    given = dict(each.split("=", 1) for each in service["Environment"].split())
    assert config.Settings.from_env(given).environment == "production", "else it catches mails"
    assert unit["Unit"]["StartLimitIntervalSec"] == "0", "else it gives up if a name isn't known at boot"


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_systemd_itself_finds_no_fault_in_a_unit(path: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    copy = tmp_path / path.name
    copy.write_text(re.sub(r"/srv/packmule/.venv/bin/packmule", "/bin/true", path.read_text()))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, timeout=60, check=False
    )
    assert path.name not in done.stderr


def test_the_board_asks_for_metrics_that_there_are(client: Any) -> None:
    heads = re.findall(r"^# TYPE (\w+) (\w+)$", exposition(client, ["default"]), re.MULTILINE)
    known = {name for name, kind in heads if kind != "histogram"}
    known |= {f"{name}_bucket" for name, kind in heads if kind == "histogram"}
    asked = {
        name
        for panel in GRAFANA["panels"]
        for target in panel["targets"]
        for name in re.findall(r"packmule_\w+", target["expr"])
    }
    assert asked <= known
    assert {"packmule_leader", "packmule_queue_age_seconds", "packmule_wanted_processes"} <= asked


def test_the_boards_panels_stand_side_by_side() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in GRAFANA["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken
        assert all(x < 24 for x, _ in cells)
        taken |= cells
    assert len({panel["id"] for panel in GRAFANA["panels"]}) == len(GRAFANA["panels"])


def test_compose_asks_each_process_for_its_health() -> None:
    services = compose("--profile", "*")["services"]
    assert services["dashboard"]["healthcheck"]["test"][1:] == [
        "packmule",
        "health",
        "http://127.0.0.1:9181/health",
    ]
    assert "PACKMULE_HEALTH=127.0.0.1:9465" in DOCKERFILE
