"""roomcast token: mint, check."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
import msgspec

from actors.errors import Refused
from actors.principal import Capability
from server.cli.options import Bad, Failed, config_option, load_settings
from server.settings import BadSettings, Settings
from server.tenant_settings import Key, Tenant, read_secret

if TYPE_CHECKING:
    from server.tenants import Customer

LENGTH = 8192
"""Characters of a token that are read."""
NO_TENANTS = "no tenant is in the settings; name a file with --config"
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
secret_option = click.option(
    "--secret-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the HS256 secret, instead of the keys in the settings.",
)


class Duration(click.ParamType[float]):
    """A number with s, m, h or d behind it."""

    name = "duration"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Read it as seconds."""
        found = re.fullmatch(r"([0-9]{1,6})([smhd])", str(value), re.ASCII)
        if found is None or found[1].strip("0") == "":
            self.fail(f"{value} is no time like 90s, 15m, 1h or 30d")

        return float(int(found[1]) * UNITS[found[2]])


class Rights(click.ParamType[dict[str, Any]]):
    """Capabilities, and where they hold."""

    name = "rights"

    def convert(self, value: Any, param: Any, ctx: Any) -> dict[str, Any]:
        """Read `speak,listen:room-*` as an entry of the claim `rooms`."""
        names, _, pattern = str(value).partition(":")
        known: tuple[str, ...] = get_args(Capability)
        can = [name.strip() for name in names.split(",")]
        if not pattern or not set(can) <= set(known):
            self.fail(f"{value} is not like speak,listen:room-*, with some of {', '.join(known)}")

        return {"pattern": pattern, "can": can}


@click.group("token", short_help="Make a token for a tenant, or look at one.")
def command() -> None:
    """Make a token for a tenant, or look at one."""


@command.command("mint")
@config_option
@secret_option
@click.option("--tenant", required=True, help="The tenant that the token is for.")
@click.option("--key", help="Id of the tenant's key; its first secret otherwise.")
@click.option("--sub", help="Who it is: the same for all tokens of one user.")
@click.option("--name", help="Name that others see.")
@click.option("--jti", help="Id of the token, by which it can be revoked.")
@click.option("--expires", type=Duration(), default="1h", show_default=True, help="For how long.")
@click.option("--can", type=Rights(), multiple=True, help="Rights, as in speak,listen:room-*.")
def mint(
    config: Path | None, secret_file: Path | None, tenant: str, key: str | None, **said: Any
) -> None:
    """Print a token, signed with a secret of the tenant's; --can is given for each right."""
    import jwt

    settings = load_settings(config) if secret_file is None else given(tenant, secret_file, key)
    options = options_of(settings, tenant)
    key_id, secret = secret_of(options, tenant, key)
    now = int(time.time())
    claims: dict[str, Any] = {
        "tenant": tenant,
        "sub": said["sub"],
        "name": said["name"],
        "jti": said["jti"],
        "aud": options.audience,
        "iat": now,
        "exp": now + int(said["expires"]),
        "rooms": list(said["can"]),
    }
    claims = {name: value for name, value in claims.items() if value}
    headers = {"kid": key_id} if secret_file is None or key else None
    token = jwt.encode(claims, secret, "HS256", headers)
    verdict = verdict_of(token, settings)
    if verdict:
        raise Bad(f"such a token would be refused: {verdict}")

    if not said["can"]:
        click.echo("it gives no right; say which with --can speak,listen:room-*", err=True)

    click.echo(token)


@command.command("check")
@config_option
@secret_option
@click.argument("token", required=False)
def check(config: Path | None, secret_file: Path | None, token: str | None) -> None:
    """Print what a token claims, and whether it is good by these settings; status 1 if not.

    What a running server has revoked is not known here. Without a token it is read from standard
    input, where no list of processes shows it.
    """
    text = token or sys.stdin.buffer.read(LENGTH + 2).decode("ascii", "replace")
    token = text.strip()
    claims = read_claims(token)
    if claims is not None:
        click.echo(msgspec.json.format(msgspec.json.encode(claims)).decode())

    tenant = claims.get("tenant") if isinstance(claims, dict) else None
    settings = load_settings(config) if secret_file is None else given(str(tenant), secret_file)
    verdict = verdict_of(token, settings)
    if verdict:
        raise Failed(f"refused: {verdict}")

    click.echo("the token is good")


def given(tenant: str, secret_file: Path, key: str | None = None) -> Settings:
    """Return settings in which a tenant has the secret of a file. Raises Bad."""
    try:
        text = secret_file.read_text("utf-8").strip()
        options = Tenant(keys={key or "given": Key(secret=text)})
        return Settings(tenants={tenant: options})
    except OSError as error:
        raise Bad(f"{secret_file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Bad(f"{secret_file} is no text; other bytes go behind base64:") from None
    except ValueError as error:
        raise Bad(f"{secret_file}: {error}") from None


def options_of(settings: Settings, tenant: str) -> Tenant:
    """Return the settings of a tenant. Raises Bad."""
    customer = customers_of(settings).get(tenant)
    if customer is None:
        raise Bad(f"no tenant {tenant!r} is in the settings; name a file with --config")

    return customer.options


def customers_of(settings: Settings) -> Mapping[str, Customer]:
    """Return the tenants of some settings. Raises Bad."""
    from server.tenants import Tenants

    try:
        return Tenants(settings).by_name
    except BadSettings as error:
        raise Bad(str(error)) from None


def secret_of(options: Tenant, tenant: str, key: str | None) -> tuple[str, bytes]:
    """Return the id and the secret of the key to sign with. Raises Bad."""
    for name, each in options.keys.items():
        if each.secret and key in (None, name):
            return name, read_secret(each.secret)

    which = f"key {key!r}" if key else "key"
    raise Bad(f"the tenant {tenant!r} has no {which} with a secret; a public key cannot sign")


def verdict_of(token: str, settings: Settings) -> str:
    """Return why a server with these settings would refuse a token; empty if it would not."""
    from server.jwks import fetch
    from server.tokens import UnknownKey, verify

    customers = customers_of(settings)
    if not customers:
        raise Bad(NO_TENANTS)

    try:
        try:
            verify(token, customers, time.time())
        except UnknownKey as unknown:
            for url, keys in unknown.customer.sets.items():
                keys.took(fetch(url), 0.0)

            verify(token, customers, time.time())
    except (OSError, ValueError) as error:
        return f"a set of keys could not be fetched: {error}"
    except Refused as refused:
        return refused.message

    return ""


def read_claims(token: str) -> Any:
    """Return what a token says, whoever signed it; None if it is no JWT."""
    import jwt

    try:
        return jwt.decode_complete(token, options={"verify_signature": False})["payload"]
    except (jwt.InvalidTokenError, ValueError, RecursionError):
        return None
