"""Settings: where they come from, and what is said of those that cannot be used."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from server.cli.config import veiled
from server.cli.serve import with_flags
from server.settings import BadSettings, Settings, load, override, schema
from tests.server.commands import roomcast


def test_without_a_file_and_variables_the_defaults_hold() -> None:
    assert load(None, {"PATH": "/bin", "ROOMCASTLE": "x"}) == Settings()


def test_flags_win_over_variables_over_the_file_over_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "roomcast.toml"
    file.write_text("dev = true\n[server]\nport = 1\nhost = 'file'\nping_interval = 7\n")
    settings = load(file, {"ROOMCAST_SERVER__PORT": "2", "ROOMCAST_SERVER__HOST": "variable"})
    settings = with_flags(settings, False, host=None, port=3)
    assert (settings.dev, settings.server.port, settings.server.host) == (True, 3, "variable")
    assert (settings.server.ping_interval, settings.server.ping_timeout) == (7, 10)


def test_a_variable_names_the_file_and_an_argument_wins_over_it(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[server]\nport = 1\n")
    (tmp_path / "b.toml").write_text("[server]\nport = 2\n")
    environ = {"ROOMCAST_CONFIG": str(tmp_path / "a.toml")}
    assert load(None, environ).server.port == 1
    assert load(tmp_path / "b.toml", environ).server.port == 2


@pytest.mark.parametrize("text", ["echo,embedded", " echo , embedded,", '["echo", "embedded"]'])
def test_a_list_in_a_variable_is_json_or_has_commas(text: str) -> None:
    settings = load(None, {"ROOMCAST_ENGINES__ENABLED": text})
    assert settings.engines.enabled == ("echo", "embedded")


def test_what_else_is_called_roomcast_in_an_environment_is_no_setting() -> None:
    others = {
        "ROOMCAST_URL": "http://127.0.0.1:8000",
        "ROOMCAST_SERVICE_HOST": "10.0.0.1",
        "ROOMCAST_SERVICE_PORT": "8000",
        "ROOMCAST_SERVICE_PORT_HTTP": "8000",
        "ROOMCAST_PORT": "tcp://10.0.0.1:8000",
        "ROOMCAST_PORT_8000_TCP_ADDR": "10.0.0.1",
    }
    assert load(None, others) == Settings()


def test_two_variables_that_fit_each_other_need_not_fit_the_defaults() -> None:
    environ = {"ROOMCAST_LIMITS__EGRESS__MESSAGES": "20", "ROOMCAST_LIMITS__HISTORY__REPLAY": "10"}
    assert load(None, environ).limits.egress.messages == 20


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("LIMITS__EGRESS__MESSAGES", "abc", "limits.egress.messages must be `int`"),
        ("LIMITS__EGRESS__MESSAGES", "0", "limits.egress.messages must be `int` >= 1"),
        ("LIMITS__EGRESS__MESSAGES", "20", "limits.history.replay must be at most half of"),
        ("LIMITS__EGRESS__AGE", "inf", "limits.egress.age must be a finite number"),
        ("LIMITS__EGRESS__AGE", "nan", "limits.egress.age must be `float` > 0"),
        ("LIMITS__EGRESS", "3", "as in ROOMCAST_LIMITS__EGRESS__MESSAGES"),
        ("LIMITS__EGRESS__AGE__X", "3", "limits.egress.age is a value, not a section"),
        ("LIMITS__EGRES__AGE", "3", "did you mean limits.egress?"),
        ("LIMITS__UPSTREAM__POLICY", "x", "limits.upstream.policy must be one of block, drop"),
        ("DEV", "perhaps", "dev must be `bool`"),
        ("SERVER__PORT", "70000", "server.port must be `int` <= 65535"),
        ("PORT", "8000", "there is no setting port; there are dev, server"),
        ("ENGINES__ENABLED", "echo,parrot", "engines.enabled[1] must be one of"),
        ("ENGINES__ENABLED", "", "engines.enabled must be `array` of length >= 1"),
        ("ENGINES__ENABLED", '["echo"', "engines.enabled is no JSON list"),
    ],
)
def test_a_wrong_variable_is_named_with_the_path(variable: str, value: str, said: str) -> None:
    with pytest.raises(BadSettings) as error:
        load(None, {f"ROOMCAST_{variable}": value})

    assert str(error.value).startswith(f"ROOMCAST_{variable}: ")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dev = 'yes'", "dev must be `bool`, not `str`"),
        ("limits = 3", "limits must be `section`, not `int`"),
        ("[server]\nport = '80'", "server.port must be `int`, not `str`"),
        ("[limits]\nconections = 1", "no setting limits.conections; did you mean limits.connec"),
        ("[limits.upstream]\npolicy = 'x'", "limits.upstream.policy must be one of block, drop"),
        ("[limits.egress]\nage = inf", "limits.egress.age must be a finite number"),
        ("[limits.egress]\nmessages = 20", "limits.history.replay must be at most half of"),
        ("[engines]\nenabled = ['parrot']", "engines.enabled[0] must be"),
        ("dev = true\n[server\nport = 1", "at line 2"),
        ("x = " + 5000 * "[", "recursion"),
    ],
)
def test_a_wrong_file_is_named_with_the_path(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "roomcast.toml"
    file.write_text(text)
    with pytest.raises(BadSettings) as error:
        load(file, {})

    assert str(error.value).startswith(f"{file}: ")
    assert said in str(error.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b"# \xff")
    for name, said in (("missing", "No such file"), (".", "Is a directory"), ("latin.toml", "utf")):
        with pytest.raises(BadSettings, match=f"^{tmp_path / name}: .*{said}"):
            load(tmp_path / name, {})


def test_what_is_shown_loads_again_to_the_same_settings(tmp_path: Path) -> None:
    environ: dict[str, Any] = {
        "ROOMCAST_SERVER__HOST": 'a "strange" näme',
        "ROOMCAST_ENGINES__ENABLED": "echo",
        "ROOMCAST_LIMITS__EGRESS__AGE": "0.25",
    }
    file = tmp_path / "shown.toml"
    file.write_text(roomcast("config", "show", **environ).stdout, "utf-8")
    assert load(file, {}) == load(None, environ)
    shown = json.loads(roomcast("config", "show", "--json", **environ).stdout)
    assert msgspec.convert(shown, Settings) == load(None, environ)


def test_the_schema_takes_what_is_shown_and_refuses_what_is_refused(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text(roomcast("config", "schema").stdout)
    shown = json.loads(roomcast("config", "show", "--json").stdout)
    assert _fits(tmp_path, shown)
    assert not _fits(tmp_path, shown | {"parrot": 1})
    assert not _fits(tmp_path, shown | {"server": {"port": 70000}})
    assert not _fits(tmp_path, shown | {"engines": {"enabled": ["parrot"]}})


def _fits(folder: Path, tree: dict[str, Any]) -> bool:
    schema, document = folder / "schema.json", folder / "document.json"
    document.write_text(json.dumps(tree))
    check = [sys.executable, "-m", "check_jsonschema", "--schemafile", str(schema), str(document)]
    done = subprocess.run(check, capture_output=True, timeout=60)
    assert done.returncode == 0 or b"Schema validation errors" in done.stdout, done
    return done.returncode == 0


def test_every_setting_of_the_schema_is_explained() -> None:
    sections = schema()["$defs"]
    assert sections["Limits"]["properties"].keys() >= {"connections", "egress"}
    for section in sections.values():
        assert section["description"]
        for name, setting in section["properties"].items():
            assert "$ref" in setting or setting["description"], name


def test_an_override_replaces_keys_and_keeps_the_rest() -> None:
    settings = override(Settings(), server={"port": 1}, drain={"window": 0})
    assert (settings.server.port, settings.server.host) == (1, "127.0.0.1")
    assert (settings.drain.window, settings.drain.within) == (0, 30)


def test_a_secret_is_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "roomcast.toml"
    file.write_text(
        "[engines.revai]\ntoken = 'sesame'\n[engines.deepgram]\nkey = 'sesame'\n"
        "parameters = {token = 'sesame', tag = ['sesame']}\n"
        "[engines.websocket]\nheaders = {Authorization = 'Bearer sesame'}\n"
        "url = 'wss://example.com/path?key=sesame'\n"
        "first = '{\"key\": \"sesame\"}'\nsubprotocols = ['token', 'sesame']\n"
    )
    settings = load(file, {})
    shown = str(msgspec.to_builtins(veiled(settings)))
    assert "sesame" not in shown + repr(settings)
    assert shown.count("***") == 9
    assert "wss://example.com/path" in shown
    assert settings.engines.revai.token == "sesame"


def test_a_table_may_come_by_a_variable() -> None:
    headers = {"ROOMCAST_ENGINES__WEBSOCKET__HEADERS": '{"X-Key": "a"}'}
    assert load(None, headers).engines.websocket.headers == {"X-Key": "a"}
    with pytest.raises(BadSettings, match="no JSON table"):
        load(None, {"ROOMCAST_ENGINES__WEBSOCKET__HEADERS": "X-Key: a"})


def test_a_failover_is_among_the_engines_that_are_enabled() -> None:
    with pytest.raises(BadSettings, match=r"engines\.failover"):
        load(None, {"ROOMCAST_ENGINES__FAILOVER": "revai"})
