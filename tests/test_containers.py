"""The compose file, the image and what they mount: no container engine is needed to check them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from server.settings import Settings

ROOT = Path(__file__).parent.parent


def load_yaml(path: str) -> Any:
    return YAML(typ="safe").load(ROOT / path)


COMPOSE: dict[str, Any] = load_yaml("docker-compose.yml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SERVER = SERVICES["roomcast"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_the_compose_file_fits_its_schema() -> None:
    command = ("-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec")
    done = subprocess.run(
        [sys.executable, *command, ROOT / "docker-compose.yml"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_everything_that_a_container_mounts_exists_and_is_read_only() -> None:
    mounts = [each for service in SERVICES.values() for each in service.get("volumes", [])]
    assert len(mounts) == 5
    for source, _, *mode in (mount.split(":") for mount in mounts):
        if source.startswith("."):
            assert (ROOT / source).exists(), source
            assert mode == ["ro"], source
        else:
            assert source in COMPOSE["volumes"]


def test_the_containers_find_each_other_and_their_files() -> None:
    (scrape,) = load_yaml("dashboards/prometheus/prometheus.yml")["scrape_configs"]
    provisioning = "dashboards/grafana/provisioning"
    (source,) = load_yaml(f"{provisioning}/datasources/prometheus.yml")["datasources"]
    (provider,) = load_yaml(f"{provisioning}/dashboards/roomcast.yml")["providers"]
    home = f"{provider['options']['path']}/overview.json"
    grafana = SERVICES["grafana"]

    assert SERVICES.keys() == {"roomcast", "prometheus", "grafana"}
    assert scrape["static_configs"] == [{"targets": ["roomcast:8000"]}]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    assert f"./dashboards/grafana/overview.json:{home}:ro" in grafana["volumes"]
    assert grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == home


def test_no_container_is_reachable_from_elsewhere_or_can_gain_privileges() -> None:
    for name, service in SERVICES.items():
        assert service["ports"], name
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name


def test_every_image_is_pinned() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert bases == ["python:3.11-slim-bookworm"] * 2
    for name in ("prometheus", "grafana"):
        assert re.search(r":v?\d+\.\d+\.\d+$", SERVICES[name]["image"]), name


def test_the_server_has_time_to_drain_and_a_descriptor_for_every_connection() -> None:
    assert int(SERVER["stop_grace_period"].removesuffix("s")) > Settings().drain.within
    assert SERVER["ulimits"]["nofile"] > Settings().limits.connections
    assert "STOPSIGNAL SIGTERM" in DOCKERFILE


def test_the_image_asks_for_its_health_as_the_compose_file_does() -> None:
    _, *command = SERVER["healthcheck"]["test"]
    assert "/readyz" in command[-1]
    assert json.dumps(command) in DOCKERFILE


def test_the_image_is_built_from_what_is_there_and_from_nothing_else() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    ignored = (ROOT / ".dockerignore").read_text().splitlines()

    assert "*" in ignored
    assert sources == {line[1:].rstrip("/") for line in ignored if line.startswith("!")}
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_the_image_runs_the_command_as_an_ordinary_user() -> None:
    assert re.search(r"^USER roomcast$", DOCKERFILE, re.MULTILINE)
    assert 'ENTRYPOINT ["roomcast"]' in DOCKERFILE
