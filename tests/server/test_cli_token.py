"""roomcast token: what is minted is taken, what is refused says why, and no secret is shown."""

from __future__ import annotations

import json
from pathlib import Path

import jwt
import pytest
import tomli_w
from click.testing import CliRunner

from server.cli.token import command
from server.settings import load
from server.tenants import Tenants
from server.tokens import verify
from tests.server.commands import roomcast
from tests.server.test_jwks import document, jwk, serving_keys
from tests.tokens import OTHER_SECRET, SECRET, mint, pem, private, tenant


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A file with tenants: of one secret, of one audience, and of a public key alone."""
    file = tmp_path / "roomcast.toml"
    table = {
        **tenant(),
        **tenant("other", OTHER_SECRET, audience="roomcast"),
        "public": {"keys": {"main": {"pem": pem("RS256")}}},
    }
    file.write_text(tomli_w.dumps({"tenants": table}))
    return file


def test_what_is_minted_is_taken_with_what_was_asked_for(config: Path, tmp_path: Path) -> None:
    asked = ("--sub", "ann", "--name", "Ann", "--jti", "t1", "--expires", "15m")
    rights = ("--can", "speak,listen:room-*", "--can", "publish:a:1")
    minted = roomcast("token", "mint", "--config", config, "--tenant", "acme", *asked, *rights)
    token = minted.stdout.strip()
    checked = roomcast("token", "check", "--config", config, token)
    assert (checked.returncode, checked.stderr) == (0, "")
    claims = json.loads(checked.stdout.rpartition("}")[0] + "}")
    assert claims["exp"] - claims["iat"] == 900
    principal = verify(token, Tenants(load(config, {})).by_name, claims["iat"])
    assert (principal.subject, principal.name, principal.token) == ("ann", "Ann", "t1")
    assert jwt.get_unverified_header(token)["kid"] == principal.kid == "main"
    assert principal.may("room-1", "speak")
    assert principal.may("a:1", "publish")
    assert not principal.may("a:1", "listen")

    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    again = roomcast("token", "mint", "--secret-file", file, "--tenant", "acme").stdout.strip()
    piped = roomcast("token", "check", "--config", config, stdin=again.encode())
    assert piped.stdout.endswith("the token is good\n")
    assert roomcast("token", "check", "--secret-file", file, again).returncode == 0
    assert "canary" not in minted.stdout + minted.stderr + checked.stdout + piped.stdout


def test_a_tenant_with_an_audience_gets_it(config: Path) -> None:
    token = roomcast("token", "mint", "--config", config, "--tenant", "other").stdout.strip()
    assert verify(token, Tenants(load(config, {})).by_name, 0.0).tenant == "other"


def test_what_cannot_be_minted_is_said(config: Path, tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.write_text("canary")
    for options, said in (
        (("--tenant", "nobody"), "no tenant 'nobody' is in the settings"),
        (("--tenant", "public"), "no key with a secret; a public key cannot sign"),
        (("--tenant", "acme", "--key", "x"), "no key 'x' with a secret"),
        (("--tenant", "acme", "--expires", "soon"), "soon is no time like 90s"),
        (("--tenant", "acme", "--expires", "0h"), "0h is no time like 90s"),
        (("--tenant", "acme", "--can", "speak"), "speak is not like speak,listen:room-*"),
        (("--tenant", "acme", "--can", "fly:*"), "fly:* is not like"),
        (("--tenant", "acme", "--can", "speak:a b"), "would be refused: the claim rooms"),
        (("--tenant", "acme", "--secret-file", short), "short: the secret has 6 bytes"),
        (("--tenant", "dev", "--secret-file", short), "short: the secret has 6 bytes"),
    ):
        arguments = ["mint", "--config", config, *options]
        done = CliRunner().invoke(command, list(map(str, arguments)))
        assert done.exit_code == 2, options
        assert said in done.stderr
        assert done.stdout == ""
        assert "canary" not in done.stderr.replace(str(tmp_path), "")


def test_a_refusal_says_why_and_shows_the_claims(config: Path) -> None:
    for token, said, shown in (
        (mint(exp=1), "the token has expired", True),
        (mint(key=OTHER_SECRET), "not signed by a key of its tenant", True),
        ("a.b.c", "no JWT", False),
        ("", "no JWT", False),
    ):
        done = CliRunner().invoke(command, ["check", "--config", str(config)], input=token)
        assert done.exit_code == 1
        assert done.stderr.startswith("Error: refused: ")
        assert said in done.stderr
        assert ('"tenant": "acme"' in done.stdout) is shown


def test_without_tenants_there_is_nothing_to_check_a_token_by() -> None:
    done = roomcast("token", "check", stdin=mint().encode())
    assert done.returncode == 2
    assert done.stderr == "Error: no tenant is in the settings; name a file with --config\n"


def test_a_token_of_a_set_of_keys_can_be_checked(tmp_path: Path) -> None:
    with serving_keys() as source:
        source.body = document(jwk("EdDSA", "one"))
        file = tmp_path / "roomcast.toml"
        file.write_text(f"[tenants.acme.keys.set]\njwks = '{source.url}'\n")
        for kid, status in (("one", 0), ("two", 1)):
            token = mint(private("EdDSA"), "EdDSA", {"kid": kid})
            assert roomcast("token", "check", "--config", file, token).returncode == status

        source.status = 500
        failed = roomcast("token", "check", "--config", file, mint(headers={"kid": "x"}))
        assert "a set of keys could not be fetched: it answered 500" in failed.stderr
