"""The dashboard and the alerts, against a real server and a real Prometheus."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from actors.errors import CLOSES
from tests.processes import answers, fetch, free_port, running

ROOT = Path(__file__).parent.parent
PROMETHEUS = ROOT / "dashboards/prometheus"
GRAFANA = ROOT / "dashboards/grafana"


def load_yaml(path: Path) -> Any:
    return YAML(typ="safe").load(path)


DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "overview.json").read_text())
PANELS: list[dict[str, Any]] = [each for each in DASHBOARD["panels"] if each["type"] != "row"]
EXPRESSIONS = [
    # What Grafana would send: every node, and a range that holds a few scrapes.
    target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*")
    for panel in PANELS
    for target in panel["targets"]
]
ALERTS: list[dict[str, Any]] = load_yaml(PROMETHEUS / "rules.yml")["groups"][0]["rules"]
SERVER: dict[str, Any] = load_yaml(ROOT / "docker-compose.yml")["services"]["roomcast"]


def tool(name: str) -> str:
    """Return the path of a program that these tests cannot do without."""
    path = shutil.which(name)
    assert path, (
        f"{name} is not installed; Debian's package `prometheus` has prometheus and promtool"
    )
    return path


def promtool(*arguments: str | Path, stdin: str = "") -> None:
    done = subprocess.run(
        [tool("promtool"), *arguments], input=stdin, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Run the server with the command of the compose file, on loopback; yields its port."""
    port = free_port()
    here = {"0.0.0.0": "127.0.0.1", "8000": str(port)}
    command = [here.get(each, each) for each in SERVER["command"]]
    log = tmp_path_factory.mktemp("node") / "log"
    with running(log, sys.executable, "-m", "server.cli", *command) as wait_until:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/readyz"))
        yield port


@pytest.fixture(scope="module")
def prometheus(node: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run Prometheus with our files on the node, scraping faster; yields its URL."""
    place = tmp_path_factory.mktemp("prometheus")
    config = (PROMETHEUS / "prometheus.yml").read_text()
    shutil.copy(PROMETHEUS / "rules.yml", place)
    (place / "prometheus.yml").write_text(
        config.replace("roomcast:8000", f"127.0.0.1:{node}").replace("5s", "500ms")
    )
    address = f"127.0.0.1:{free_port()}"
    command = (
        tool("prometheus"),
        f"--config.file={place / 'prometheus.yml'}",
        f"--storage.tsdb.path={place / 'data'}",
        f"--web.listen-address={address}",
    )
    with running(place / "log", *command) as wait_until:
        url = f"http://{address}/api/v1"
        wait_until(lambda: answers(f"http://{address}/-/ready"))
        # A rate needs two scrapes.
        wait_until(lambda: bool(query(url, "rate(process_cpu_seconds_total[1m])")))
        wait_until(lambda: all(rule["health"] == "ok" for rule in rules(url)))
        yield url


def query(url: str, expression: str) -> list[Any]:
    result: list[Any] = json.loads(fetch(f"{url}/query", query=expression))["data"]["result"]
    return result


def rules(url: str) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = json.loads(fetch(f"{url}/rules"))["data"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_prometheus_accepts_its_configuration_and_the_rules() -> None:
    promtool("check", "config", "--lint-fatal", PROMETHEUS / "prometheus.yml")


def test_every_alert_fires_and_stays_silent_as_its_tests_say() -> None:
    promtool("test", "rules", PROMETHEUS / "rules_test.yml")


def test_every_alert_has_a_test_in_which_it_fires() -> None:
    fired = {
        case["alertname"]
        for group in load_yaml(PROMETHEUS / "rules_test.yml")["tests"]
        for case in group["alert_rule_test"]
        if case["exp_alerts"]
    }
    assert fired == {alert["alert"] for alert in ALERTS}


def test_every_expression_of_the_dashboard_parses(tmp_path: Path) -> None:
    recorded = [{"record": f"panel:{at}", "expr": expr} for at, expr in enumerate(EXPRESSIONS)]
    file = tmp_path / "panels.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": recorded}]}))

    promtool("check", "rules", file)


def test_every_panel_explains_itself_to_a_stranger() -> None:
    for panel in PANELS:
        title = panel["title"]
        assert len(panel["description"]) > 20, title
        assert panel["fieldConfig"]["defaults"]["unit"], title
        assert panel["datasource"]["uid"] == "${datasource}", title
        assert panel["targets"], title
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}", title
            assert target["legendFormat"], title


def test_no_two_panels_share_an_id_a_title_or_a_place() -> None:
    everything = DASHBOARD["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    assert len({panel["title"] for panel in everything}) == len(everything)

    taken = [
        (column, row)
        for place in (panel["gridPos"] for panel in everything)
        for column in range(place["x"], place["x"] + place["w"])
        for row in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(taken)) == len(taken)
    assert max(column for column, _ in taken) < 24


def test_the_panel_of_close_codes_names_each_of_them() -> None:
    (panel,) = (each for each in PANELS if each["title"] == "Close codes")
    names = (f"{close.code} {close.reason}" for close in CLOSES)
    assert [name for name in names if name not in panel["description"]] == []


def test_every_metric_of_a_panel_or_an_alert_is_exposed_by_a_running_node(node: int) -> None:
    exposed = set(re.findall(r"^(\w+)", fetch(f"http://127.0.0.1:{node}/metrics"), re.MULTILINE))
    variables = [each.get("definition", "") for each in DASHBOARD["templating"]["list"]]
    used = " ".join([*EXPRESSIONS, *variables, *(alert["expr"] for alert in ALERTS)])
    named = set(re.findall(r"\b(?:roomcast|process|python)_\w+", used))

    assert named - exposed == set()
    assert len(named) > 30


def test_a_running_node_exposes_nothing_that_promtool_objects_to(node: int) -> None:
    promtool("check", "metrics", stdin=fetch(f"http://127.0.0.1:{node}/metrics"))


def test_every_query_of_the_dashboard_answers(prometheus: str) -> None:
    assert [each for each in EXPRESSIONS if not query(prometheus, each)] == []


def test_an_idle_node_raises_no_alarm(prometheus: str) -> None:
    states = {rule["name"]: rule["state"] for rule in rules(prometheus)}
    assert states == {alert["alert"]: "inactive" for alert in ALERTS}


def test_the_health_check_passes_on_a_ready_node_and_fails_without_one(node: int) -> None:
    kind, program, *arguments = SERVER["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "python")
    for port, code in ((node, 0), (free_port(), 1)):
        here = [each.replace(":8000/", f":{port}/") for each in arguments]
        done = subprocess.run([sys.executable, *here], capture_output=True, timeout=30)
        assert done.returncode == code, done.stderr
