"""The files that install and deploy Packmule agree with each other, the settings and the command line."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from packmule import config
from packmule.coordination.redis import compact
from packmule.tests.docs.pages import blocks

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
PACKAGES = PROJECT["tool"]["setuptools"]["packages"]
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-image.lock")
DOCKERFILE = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
OURS = ("worker", "scheduler", "dashboard")
PASSWORD = "chosen"
LOCK_NODES = ("lock1", "lock2", "lock3")


def compose(*flags: str, override: Path | None = None, **changes: str) -> dict[str, Any]:
    """The compose file as Docker's own parser resolves it where nothing but the password is set."""
    environ = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "VALKEY_PASSWORD": PASSWORD}
    environ |= changes
    command = [str(Path(sys.executable).with_name("docker-compose")), "--env-file", os.devnull, *flags]
    for file in filter(None, [ROOT / "docker-compose.yml", override]):
        command += ["--file", str(file)]
    command += ["config", "--format", "json"]
    done = subprocess.run(command, check=False, env=environ, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    for service in found["services"].values():  # what is None is not set
        given = service.get("environment", {}).items()
        service["environment"] = {name: value for name, value in given if value is not None}
    return found


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return compose("--profile", "*")["services"]  # type: ignore[no-any-return]


def procfile() -> dict[str, list[str]]:
    lines = (ROOT / "Procfile").read_text().splitlines()
    return {name: shlex.split(command) for name, command in (line.split(":", 1) for line in lines)}


def instructions(word: str) -> list[str]:
    """The arguments of each `word` instruction of the Dockerfile, in order."""
    return re.findall(rf"^{word}\s+(.+?)\s*$", DOCKERFILE, re.MULTILINE)


def locked(name: str) -> dict[str, tuple[str, int]]:
    """Package: (version, number of hashes) of one lock file."""
    entries = re.split(r"\n(?=\S)", re.sub(r"^\s*#.*\n", "", (ROOT / name).read_text(), flags=re.MULTILINE))
    found = [(re.match(r"([\w.-]+)==([\w.]+)", entry), entry.count("--hash=sha256:")) for entry in entries]
    return {match[1]: (match[2], hashes) for match, hashes in found if match}


def copied_to_the_image() -> set[str]:
    words = [word for line in instructions("COPY") for word in line.split()[:-1] if "--from" not in line]
    return {word.rstrip("/") for word in words}


def test_the_plain_stack_is_a_server_workers_a_scheduler_and_a_dashboard() -> None:
    assert set(compose()["services"]) == {"valkey", *OURS}


def test_profiles_add_a_mail_catcher_webhooks_metrics_and_three_lock_nodes(services: dict[str, Any]) -> None:
    assert set(compose("--profile", "dev")["services"]) == {"valkey", *OURS, "mail"}
    assert set(compose("--profile", "webhooks")["services"]) == {"valkey", *OURS, "webhooks"}
    assert set(compose("--profile", "metrics")["services"]) == {"valkey", *OURS, "metrics"}
    assert set(compose("--profile", "locks")["services"]) == {"valkey", *OURS, *LOCK_NODES}


def test_procfile_and_compose_start_the_same_commands(services: dict[str, Any]) -> None:
    (entrypoint,) = instructions("ENTRYPOINT")
    started = {name: json.loads(entrypoint) + services[name]["command"] for name in OURS}
    started["web"] = started.pop("dashboard")  # platforms send requests to the process of this name
    assert started == procfile()


def test_every_command_that_is_deployed_exists(services: dict[str, Any]) -> None:
    from packmule.cli import cli

    healthcheck = json.loads(instructions("HEALTHCHECK")[0].split(" CMD ")[1])
    run_by_default = ["packmule", *json.loads(instructions("CMD")[-1])]
    for program, subcommand, *_ in [*procfile().values(), healthcheck, run_by_default]:
        assert program == "packmule"
        assert subcommand in cli.list_commands(click.Context(cli))


def test_every_packmule_variable_that_is_set_is_a_setting(services: dict[str, Any]) -> None:
    known = {variable for variable, _ in config.VARIABLES.values()}
    passed = set(re.findall(r"^  (PACKMULE_\w+):", (ROOT / "docker-compose.yml").read_text(), re.MULTILINE))
    assert known - passed == {
        f"PACKMULE_{name}" for name in ("DATA_DIR", "HEALTH", "HOST", "PORT", "WEBHOOKS")
    }
    in_compose = {name for service in services.values() for name in service.get("environment", {})}
    mentioned = set(re.findall(r"PACKMULE_\w+", (ROOT / "docker-compose.yml").read_text() + DOCKERFILE))
    assert {name for name in in_compose if name.startswith("PACKMULE_")} <= mentioned <= known


def test_the_settings_of_every_service_can_be_read(services: dict[str, Any]) -> None:
    for name in OURS:
        settings = config.Settings.from_env(services[name]["environment"])
        assert settings.redis_url == f"redis://:{PASSWORD}@valkey:6379/0"
        assert settings.environment == "production"
        assert settings.queues == config.Settings().queues


def test_any_setting_and_secret_of_the_shell_or_the_env_file_reaches_the_processes(tmp_path: Path) -> None:
    set_here = {"PACKMULE_LOG_FORMAT": "json", "PACKMULE_HOOKS": "shop.hooks"}
    found = compose(**set_here)["services"]
    for name in OURS:
        assert found[name]["environment"].items() >= set_here.items()
        assert "PACKMULE_LOG_LEVEL" not in found[name]["environment"]
    text = (ROOT / "docker-compose.yml").read_text()
    assert "env_file: [{path: .env, required: false}]" in text


def test_an_image_with_jobs_of_ones_own_replaces_ours(tmp_path: Path) -> None:
    """The file is that of docs/operations.md."""
    (text,) = blocks("operations", "yaml")
    (tmp_path / "override.yml").write_text(text)
    found = compose(override=tmp_path / "override.yml", PACKMULE_MODULES="shop_jobs")["services"]
    for name in OURS:
        assert (found[name]["image"], found[name]["build"]["context"]) == ("shop", str(ROOT / "shop"))
        assert found[name]["environment"]["PACKMULE_MODULES"] == "shop_jobs"
        assert found[name]["depends_on"]["valkey"]["condition"] == "service_healthy"


def test_compose_asks_for_a_password() -> None:
    with pytest.raises(AssertionError, match="choose a password for Valkey"):
        compose(VALKEY_PASSWORD="")


def test_workers_can_be_scaled_and_have_the_time_to_drain(services: dict[str, Any]) -> None:
    worker = services["worker"]
    assert not {"container_name", "ports"} & set(worker)
    grace = config.Settings.from_env(worker["environment"]).grace
    assert int(worker["stop_grace_period"].removesuffix("s")) > grace


def test_workers_share_one_volume_where_the_image_keeps_its_data(services: dict[str, Any]) -> None:
    (mount,) = services["worker"]["volumes"]
    (declared,) = instructions("VOLUME")
    assert (mount["type"], mount["target"]) == ("volume", declared)
    assert f"PACKMULE_DATA_DIR={declared}" in DOCKERFILE


def test_ours_wait_for_a_healthy_server(services: dict[str, Any]) -> None:
    assert services["valkey"]["healthcheck"]["test"][:2] == ["CMD", "valkey-cli"]
    for name in OURS:
        assert services[name]["depends_on"]["valkey"]["condition"] == "service_healthy"


def test_nothing_is_reachable_from_another_machine(services: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in services.items() if service.get("ports")}
    assert set(published) == {"dashboard", "mail", "metrics"}
    assert {port["host_ip"] for ports in published.values() for port in ports} == {"127.0.0.1"}
    (port,) = published["dashboard"]
    assert str(port["target"]) == services["dashboard"]["environment"]["PACKMULE_PORT"]


@pytest.mark.parametrize("name", ["valkey", *LOCK_NODES])
def test_servers_keep_what_they_acknowledged(services: dict[str, Any], name: str) -> None:
    command = services[name]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--requirepass"] == PASSWORD == services[name]["environment"]["VALKEYCLI_AUTH"]
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"
    assert (options.get("--appendfsync") == "always") is (name in LOCK_NODES)
    if name not in LOCK_NODES:
        assert {each: int(options[f"--{each}"]) for each in compact.SETTINGS} == compact.SETTINGS
    (mount,) = services[name]["volumes"]
    assert (mount["source"], mount["target"]) == (name, "/data")


def test_the_image_runs_as_an_unprivileged_user_and_hears_signals() -> None:
    user = instructions("USER")[-1]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert f"useradd --uid {user.split(':')[0]} " in DOCKERFILE
    assert instructions("STOPSIGNAL") == ["SIGTERM"]
    for exec_form in (instructions("ENTRYPOINT")[0], instructions("CMD")[-1]):
        assert isinstance(json.loads(exec_form), list)


def test_the_image_is_built_from_every_package_and_module_of_the_project() -> None:
    assert "." in copied_to_the_image()
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line.removeprefix("!") for line in lines if line.startswith("!")}
    folders = {package.split(".")[1] for package in PACKAGES if "." in package}
    files = {"*.py", "py.typed", "pyproject.toml", "requirements-image.lock", "README.md", "LICENSE"}
    assert "*" in lines
    assert kept == folders | files


def test_pyproject_lists_every_package_of_the_checkout() -> None:
    folders = {path.parent.relative_to(ROOT) for path in ROOT.glob("[a-z]*/**/*.py")}
    ours = {folder for folder in folders if folder.parts[0] not in {"tests", "benchmarks", "docs", "build"}}
    assert {"packmule", *(".".join(("packmule", *folder.parts)) for folder in ours)} == set(PACKAGES)


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_versions_and_hashes_and_no_place(name: str) -> None:
    text = (ROOT / name).read_text()
    assert not re.search(
        r"://|file:|^-|--index|--find-links|--extra-index| @ |(?<![\w.])/\w", text, re.MULTILINE
    )
    packages = locked(name)
    assert len(packages) == len(re.findall(r"^\w", text, re.MULTILINE))
    assert all(hashes >= 1 for _, hashes in packages.values())
    assert packages["pillow"][1] > 40, "the hashes are those of one platform"


def test_the_locks_satisfy_pyproject() -> None:
    needs = {
        "requirements.lock": [*PROJECT["project"]["dependencies"], *EXTRAS["build"]],
        "requirements-dev.lock": [need for name in ("build", "dev", "fast") for need in EXTRAS[name]],
        "requirements-peers.lock": EXTRAS["peers"],
        "requirements-image.lock": [
            need for name in ("build", "crypto", "fast", "http", "mcp", "otel", "s3") for need in EXTRAS[name]
        ],
    }
    for name, requirements in needs.items():
        packages = locked(name)
        for requirement in map(Requirement, requirements):
            version, _ = packages[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), (
                f"{requirement} is {version} in {name}: run make lock"
            )


def test_the_development_lock_holds_that_of_the_image_which_holds_the_runtime_lock() -> None:
    dev = locked("requirements-dev.lock").items()
    assert locked("requirements.lock").items() <= locked("requirements-image.lock").items() <= dev


def test_the_image_has_what_the_shipped_manifests_name() -> None:
    settings = (ROOT / "deploy" / "kubernetes" / "settings.env").read_text()
    (scheme,) = re.findall(r"^PACKMULE_STORAGE=(\w+)://", settings, re.MULTILINE)
    image = locked("requirements-image.lock")
    assert {canonicalize_name(Requirement(need).name) for need in EXTRAS[scheme]} <= set(image)
    (install,) = [line for line in instructions("RUN") if "--require-hashes" in line]
    assert "/requirements-image.lock" in install


def test_make_installs_with_the_python_behind_an_active_environment() -> None:
    command = ["make", "--dry-run", "--what-if", "pyproject.toml", ".venv/.dev"]
    active = {**os.environ, "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"}
    active.pop("PYTHON", None)
    done = subprocess.run(
        command, cwd=ROOT, env=active, capture_output=True, text=True, timeout=100, check=True
    )
    (python,) = set(re.findall(r"^(\S+) -m pip ", done.stdout, re.MULTILINE))
    assert Path(python).is_absolute()
    assert not Path(python).is_relative_to(ROOT / ".venv"), "it has no pip"


def test_make_alone_lists_what_can_be_made() -> None:
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, timeout=100, check=True).stdout
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony
    assert re.findall(r"^make ([\w-]+)", shown, re.MULTILINE) == phony[1].split()


def test_the_continuous_integration_script_can_be_run() -> None:
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True, timeout=100)
