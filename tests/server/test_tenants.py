"""Tenants: where they come from, what is refused, and what a reload changes."""

from __future__ import annotations

import logging
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tomli_w
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from server.cli.config import veiled
from server.settings import BadSettings, Settings, load
from server.tenants import Tenants
from tests.server.commands import roomcast
from tests.tokens import SECRET, pem, pem_of, private, tenant

GOOD = f"keys.main.secret = '{SECRET}'\n"


def settings_of(directory: Path) -> Settings:
    """Return settings with a directory of tenants."""
    return Settings(tenants_directory=str(directory))


def load_text(folder: Path, text: str) -> Settings:
    """Load settings from a file with this text."""
    file = folder / "roomcast.toml"
    file.write_text(text)
    return load(file, {})


def test_tenants_come_from_the_settings_and_from_files(tmp_path: Path) -> None:
    directory = tmp_path / "tenants"
    directory.mkdir()
    (directory / "b.toml").write_text(GOOD + "engines = ['echo']")
    (directory / ".b.toml").write_text("what an editor left")
    (directory / "README").write_text("no tenant")
    settings = load_text(
        tmp_path, f"tenants_directory = '{directory}'\n[tenants.a]\nkeys.k.secret = '{SECRET}'\n"
    )
    tenants = Tenants(settings).by_name
    assert tenants.keys() == {"a", "b"}
    assert tenants["b"].options.engines == ("echo",)
    for name, key_id in (("a", "k"), ("b", "main")):
        key = tenants[name].find(key_id)
        assert key is not None
        assert tenants[name].suited("HS256") == {key_id: key}
        assert tenants[name].suited("RS256") == {}
        assert key.algorithm == "HS256"
        assert tenants[name].find("other") is None


def test_a_tenant_has_the_limits_of_the_node_but_for_its_own(tmp_path: Path) -> None:
    directory = tmp_path / "tenants"
    directory.mkdir()
    own = "[limits.history]\nage = 60.0\n[limits.upstream]\npolicy = 'block'\n"
    (directory / "b.toml").write_text(f"presence = ['m-*']\n{GOOD}{own}")
    settings = load_text(
        tmp_path,
        f"tenants_directory = '{directory}'\n"
        "[limits.history]\nmessages = 7\nreplay = 5\n[limits.upstream]\npolicy = 'drop_oldest'\n"
        f"[tenants.a]\nkeys.k.secret = '{SECRET}'\n[tenants.a.limits.history]\nbytes = 9000\n",
    )
    tenants = Tenants(settings)
    a, b, other = (tenants.limits(name) for name in ("a", "b", "dev"))
    assert (a.history.messages, a.history.bytes, a.history.age, a.history.replay) == (
        7,
        9000,
        600,
        5,
    )
    assert (b.history.messages, b.history.age, b.history.replay) == (7, 60, 5)
    assert [each.upstream.policy for each in (a, b, other)] == [
        "drop_oldest",
        "block",
        "drop_oldest",
    ]
    assert other == settings.limits
    rooms = [("a", "x"), ("b", "x"), ("b", "m-1"), ("dev", "x")]
    assert [tenants.keeps_presence(*each) for each in rooms] == [True, False, True, True]
    (directory / "b.toml").write_text(f"{GOOD}[limits.history]\nage = 30.0\n")
    tenants.take(tenants.read())
    assert (tenants.limits("b").history.age, tenants.keeps_presence("b", "x")) == (30, True)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_what_a_public_key_is_decides_its_algorithm(tmp_path: Path, algorithm: str) -> None:
    file = tmp_path / "key.pem"
    file.write_text(pem(algorithm))
    for text in (pem(algorithm), str(file)):
        settings = msgspec.convert({"tenants": {"a": {"keys": {"k": {"pem": text}}}}}, Settings)
        key = Tenants(settings).by_name["a"].find("k")
        assert key is not None
        assert key.algorithm == algorithm


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"keys": {}}, "tenants.a: a tenant needs a key"),
        ({"keys": {"k": {}}}, "tenants.a.keys.k: a key has exactly one of"),
        ({"keys": {"k": {"secret": SECRET, "pem": "x"}}}, "tenants.a.keys.k: a key has exactly"),
        ({"keys": {"k": {"secret": 31 * "s"}}}, "tenants.a.keys.k: the secret has 31 bytes"),
        ({"keys": {"k": {"secret": "base64:c2VjcmV0"}}}, "tenants.a.keys.k: the secret has 6"),
        ({"keys": {"k": {"secret": "base64:canary"}}}, "no base64"),
        ({"keys": {"k": {"secret": "-----BEGIN PUBLIC"}}}, "belongs in pem"),
        ({"keys": {"k": {"secret": SECRET, "algorithm": "none"}}}, "setting tenants.a.keys.k.alg"),
        ({"keys": {"": {"secret": SECRET}}}, "a key's id is"),
        ({"keys": {"k": {"jwks": "http://example.com/"}}}, "jwks must be https"),
        ({"keys": {"k": {"jwks": "https://user:canary@example.com/"}}}, "jwks is no address"),
        ({"keys": {"k": {"jwks": "file:///etc/passwd"}}}, "jwks is no address"),
        ({"keys": {"k": {"jwks": "https://[canary/"}}}, "jwks is no address"),
        (tenant("a")["a"] | {"origins": ["null"]}, "tenants.a: 'null' is no origin"),
        (tenant("a")["a"] | {"origins": ["https://a.example/"]}, "is no origin"),
        (tenant("a")["a"] | {"origins": ["https://a.example:443"]}, "is no origin"),
        (tenant("a")["a"] | {"origins": ["https://A.example"]}, "is no origin"),
        (tenant("a")["a"] | {"engines": ["revai"]}, "tenants.a.engines: revai is not in"),
        (tenant("a")["a"] | {"presence": ["a/*"]}, "tenants.a.presence[0]"),
        (tenant("a")["a"] | {"limits": {"history": {"age": 0}}}, "tenants.a.limits.history.age"),
        (tenant("a")["a"] | {"limits": {"histori": {}}}, "tenants.a.limits.histori"),
        (tenant("a")["a"] | {"limits": 5}, "tenants.a.limits must be"),
        (tenant("a")["a"] | {"engines": ["parrot"]}, "tenants.a.engines[0] must be one of"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_place(
    tmp_path: Path, table: dict[str, Any], said: str
) -> None:
    good = tenant("z")
    with pytest.raises(BadSettings) as error:
        load_text(tmp_path, tomli_w.dumps({"tenants": good | {"a": table}}))

    assert said in str(error.value)
    with pytest.raises(BadSettings, match="ROOMCAST_TENANTS") as by_variable:
        load(None, {"ROOMCAST_TENANTS": msgspec.json.encode({"a": table}).decode()})

    directory = tmp_path / "tenants"
    directory.mkdir()
    file = directory / "a.toml"
    file.write_text(tomli_w.dumps(table))
    broken = Tenants(settings_of(directory)).read().broken["a"]
    assert broken.startswith(f"{file}: ")
    assert "canary" not in f"{error.value} {by_variable.value} {broken}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("missing.pem", "'missing.pem' cannot be read: No such file"),
        ("-----BEGIN canary", "the pem is no public key"),
        ("private", "a private key"),
        ("short", "2048 to 8192 bits"),
        ("curve", "of the curve P-256"),
        ("dsa", "of RSA"),
    ],
)
def test_a_pem_that_cannot_be_used_is_refused(text: str, said: str) -> None:
    makers: dict[str, Callable[[], str]] = {
        "private": lambda: (
            private("RS256")
            .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            .decode()
        ),
        "short": lambda: pem_of(rsa.generate_private_key(65537, 1024)),
        "curve": lambda: pem_of(ec.generate_private_key(ec.SECP384R1())),
        "dsa": lambda: pem_of(ed448.Ed448PrivateKey.generate()),
    }
    whole = makers[text]() if text in makers else text
    settings = msgspec.convert({"tenants": {"a": {"keys": {"k": {"pem": whole}}}}}, Settings)
    with pytest.raises(BadSettings) as error:
        Tenants(settings)

    assert str(error.value).startswith("tenants.a.keys.k: ")
    assert said in str(error.value)
    assert "canary" not in str(error.value)


def test_a_secret_that_looks_like_a_public_key_is_refused() -> None:
    text = "base64:" + b64encode(pem("RS256").encode()).decode()
    settings = msgspec.convert({"tenants": tenant("a", text)}, Settings)
    with pytest.raises(BadSettings, match="a public key is no secret"):
        Tenants(settings)


@pytest.mark.parametrize("name", ["a b", "", "a" * 65, "ä", "a/b", "a\n", "dev"])
def test_what_is_no_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="tenants: "):
        msgspec.convert({"tenants": tenant(name)}, Settings)


def test_a_reload_takes_what_has_changed_and_keeps_who_is_broken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.toml").write_text(GOOD)

    tenants = Tenants(settings_of(tmp_path))
    before = dict(tenants.by_name)
    (tmp_path / "a.toml").write_text(GOOD + "audience = 'x'")
    (tmp_path / "b.toml").write_text("keys.main.secret = 'canary'")
    (tmp_path / "c.toml").unlink()
    (tmp_path / "d.toml").write_text("keys = [")
    (tmp_path / "e f.toml").write_text(GOOD)
    for _ in range(2):
        tenants.take(tenants.read())

    assert tenants.by_name.keys() == {"a", "b"}
    assert tenants.by_name["a"].options.audience == "x"
    assert tenants.by_name["b"] is before["b"]
    told = [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]
    assert [line.split(":")[0] for line in told] == [
        "tenant 'b' stays as it was",
        "tenant 'd' is left out",
        "tenant 'e f' is left out",
    ]
    assert f"{tmp_path / 'b.toml'}: keys.main: the secret has 6 bytes" in told[0]
    assert "canary" not in caplog.text
    (tmp_path / "b.toml").write_text(GOOD)
    tenants.take(tenants.read())
    (tmp_path / "b.toml").write_text("keys.main.secret = 'canary'")
    tenants.take(tenants.read())
    assert len(caplog.records) == 4


def test_a_reload_says_who_is_new_gone_and_another_within_a_bound(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.write_text(pem("RS256"))
    for name in ("a", "b"):
        (tmp_path / f"{name}.toml").write_text(GOOD)

    (tmp_path / "p.toml").write_text(f"keys.main.pem = '{key}'\n")
    tenants = Tenants(settings_of(tmp_path))
    assert tenants.take(tenants.read()) == "nothing has changed"
    (tmp_path / "a.toml").write_text(GOOD + "audience = 'x'")
    (tmp_path / "b.toml").unlink()
    key.write_text(pem("ES256"))
    for number in range(12):
        (tmp_path / f"n{number:02}.toml").write_text(GOOD)

    added = ", ".join(f"n{number:02}" for number in range(10))
    changes = f"added {added} and 2 more; removed b; changed a, p"
    assert tenants.take(tenants.read()) == changes


def test_a_directory_that_cannot_be_listed_stops_the_start_and_changes_nothing_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "tenants"
    with pytest.raises(BadSettings, match=r"tenants_directory: .*No such file"):
        Tenants(settings_of(directory))

    directory.mkdir()
    (directory / "a.toml").write_text(GOOD)
    tenants = Tenants(settings_of(directory))
    directory.rename(tmp_path / "moved")
    assert tenants.reload() is None
    assert tenants.by_name.keys() == {"a"}
    assert "the tenants stay as they were" in caplog.text


def test_a_name_in_the_settings_is_no_name_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "acme.toml").write_text(GOOD)
    table = {"tenants": tenant(), "tenants_directory": str(tmp_path)}
    tenants = Tenants(msgspec.convert(table, Settings))
    assert "the settings have a tenant of this name" in tenants.read().broken["acme"]


def test_a_secret_is_in_no_repr_and_not_shown(tmp_path: Path) -> None:
    settings = load_text(tmp_path, tomli_w.dumps({"tenants": tenant()}))
    tenants = Tenants(settings)
    key = tenants.by_name["acme"].find("main")
    shown = str(msgspec.to_builtins(veiled(settings)))
    assert "'secret': '***'" in shown
    assert "canary" not in f"{shown} {settings} {tenants.by_name} {key}"


def test_the_command_line_checks_and_hides(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("keys.main.secret = 'canary'")
    table = msgspec.json.encode(tenant()).decode()
    done = roomcast("config", "show", ROOMCAST_TENANTS=table)
    assert done.returncode == 0
    assert 'secret = "***"' in done.stdout
    checked = roomcast("config", "check", ROOMCAST_TENANTS_DIRECTORY=tmp_path)
    assert checked.returncode == 2
    said = f"{tmp_path / 'bad.toml'}: keys.main: the secret has 6 bytes; HS256 needs 32 or more"
    assert checked.stderr == f"Error: {said}\n"
    assert "canary" not in done.stdout + done.stderr + checked.stdout + checked.stderr
