"""Keys, and the tokens that are made with them: good ones, and each kind of bad one."""

from __future__ import annotations

import time
from base64 import urlsafe_b64encode
from functools import cache
from typing import Any

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

SECRET = "canary-acme-0123456789-0123456789-0123456789"
OTHER_SECRET = "canary-other-0123456789-0123456789-0123456789"
OPERATOR = "canary-operator-0123456789-0123456789"
NEXT_OPERATOR = "canary-next-operator-0123456789-0123456789"
EVERYWHERE = [{"pattern": "*", "can": ["speak", "listen", "publish", "presence", "admin"]}]


@cache
def private(algorithm: str) -> Any:
    """Make a private key, one for each algorithm."""
    match algorithm:
        case "RS256":
            return rsa.generate_private_key(65537, 2048)
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case _:
            return ed25519.Ed25519PrivateKey.generate()


def pem(algorithm: str) -> str:
    """Return the public part of the key of an algorithm."""
    return pem_of(private(algorithm))


def pem_of(key: Any) -> str:
    """Return the public part of a private key."""
    form = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    text: bytes = key.public_key().public_bytes(*form)
    return text.decode()


def claims(**changes: Any) -> dict[str, Any]:
    """Return what a good token says, with changes; None leaves a claim out."""
    good = {"tenant": "acme", "exp": int(time.time()) + 3600, "rooms": EVERYWHERE}
    return {name: value for name, value in (good | changes).items() if value is not None}


def mint(
    key: Any = SECRET,
    algorithm: str = "HS256",
    headers: dict[str, Any] | None = None,
    **changes: Any,
) -> str:
    """Make a token."""
    return jwt.encode(claims(**changes), key, algorithm, headers)


def forge(header: dict[str, Any], secret: bytes = SECRET.encode(), **changes: Any) -> str:
    """Make a token with any header, and an HS256 signature whatever the header says."""
    signed = f"{part(msgspec.json.encode(header))}.{part(msgspec.json.encode(claims(**changes)))}"
    hs256 = jwt.get_algorithm_by_name("HS256")
    return f"{signed}.{part(hs256.sign(signed.encode(), secret))}"


def part(data: bytes) -> str:
    """Encode one part of a token."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def tenant(name: str = "acme", secret: str = SECRET, **more: Any) -> dict[str, Any]:
    """Return the settings of one tenant with one secret, as JSON has them."""
    return {name: {"keys": {"main": {"secret": secret}}, **more}}
