"""Keys that verify tokens: what a key is decides its one algorithm; no token has a say in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt import InvalidKeyError
from jwt.algorithms import (
    ECAlgorithm,
    HMACAlgorithm,
    OKPAlgorithm,
    RSAAlgorithm,
    get_default_algorithms,
)

from server.tenant_settings import BASE64, Key, read_secret

RSA_BITS = range(2048, 8193)
"""Shorter ones can be broken, longer ones make a wrong token dear."""
KEYS = 100
"""Keys of one set; the rest are not looked at."""
_READERS: Mapping[str, tuple[Callable[[dict[str, str]], Any], tuple[str, ...]]] = {
    "RSA": (RSAAlgorithm.from_jwk, ("kty", "n", "e")),
    "EC": (ECAlgorithm.from_jwk, ("kty", "crv", "x", "y")),
    "OKP": (OKPAlgorithm.from_jwk, ("kty", "crv", "x")),
}
_ALGORITHMS = get_default_algorithms()


class VerifyingKey:
    """A key and its algorithm; its repr shows only the latter."""

    __slots__ = ("_key", "_verify", "algorithm")

    def __init__(self, algorithm: str, key: Any) -> None:
        """Take a key that has been checked."""
        self.algorithm, self._key = algorithm, key
        self._verify = _ALGORITHMS[algorithm].verify

    def __eq__(self, other: object) -> bool:
        """Tell whether it is the same key; no token is compared so."""
        return isinstance(other, VerifyingKey) and self._parts == other._parts

    def __hash__(self) -> int:
        """Go by the algorithm, which equal keys share."""
        return hash(self.algorithm)

    @property
    def _parts(self) -> tuple[str, Any]:
        return self.algorithm, self._key

    def __repr__(self) -> str:
        """Keep the secret."""
        return f"VerifyingKey({self.algorithm})"

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Tell whether a signature is this key's; a MAC is compared in constant time."""
        return bool(self._verify(message, self._key, signature))


class Jwk(msgspec.Struct, frozen=True):
    """One key of a set, with what is looked at of it; private parts are not."""

    kty: str
    kid: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    use: str = "sig"
    alg: str = ""
    key_ops: tuple[str, ...] = ("verify",)
    crv: str = ""
    n: str = ""
    e: str = ""
    x: str = ""
    y: str = ""


class JwkSet(msgspec.Struct, frozen=True):
    """A set of keys (RFC 7517), each read by itself: one that is unknown spoils no other."""

    keys: list[msgspec.Raw]


def read_key(options: Key) -> VerifyingKey:
    """Return the key of a secret or a PEM, whose file is read. Raises ValueError."""
    if options.secret:
        return secret_key(read_secret(options.secret))

    return pem_key(options.pem if "-----BEGIN" in options.pem else _read(options.pem))


def secret_key(secret: bytes) -> VerifyingKey:
    """Return the key of a shared secret. Raises ValueError for what looks like a public key."""
    try:
        return VerifyingKey("HS256", HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret))
    except InvalidKeyError:
        raise ValueError(f"a public key is no secret; other bytes go behind {BASE64}") from None


def pem_key(text: str) -> VerifyingKey:
    """Return the public key in a PEM. Raises ValueError, without the text."""
    if "PRIVATE KEY" in text:
        raise ValueError("the pem is a private key; a server needs only the public one")

    try:
        return public_key(load_pem_public_key(text.encode()))
    except (UnsupportedAlgorithm, UnicodeError):
        raise ValueError("the pem is no public key that is known here") from None
    except ValueError as error:
        known = isinstance(error, BadKey)
        raise ValueError(str(error) if known else "the pem is no public key") from None


class BadKey(ValueError):
    """A key that is not to be used; the message says why, and nothing of the key."""


def public_key(key: object) -> VerifyingKey:
    """Return a public key with the algorithm that it is for. Raises BadKey."""
    match key:
        case RSAPublicKey() if key.key_size in RSA_BITS:
            return VerifyingKey("RS256", key)
        case RSAPublicKey():
            raise BadKey(f"an RSA key has {RSA_BITS[0]} to {RSA_BITS[-1]} bits")
        case EllipticCurvePublicKey() if isinstance(key.curve, SECP256R1):
            return VerifyingKey("ES256", key)
        case Ed25519PublicKey():
            return VerifyingKey("EdDSA", key)
        case _:
            raise BadKey("a public key is of RSA, of the curve P-256, or of Ed25519")


def read_jwks(document: bytes) -> dict[str, VerifyingKey]:
    """Return the keys of a set that can be used here. Raises ValueError for what is no set."""
    try:
        raws = msgspec.json.decode(document, type=JwkSet).keys[:KEYS]
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise ValueError("the answer is no set of keys") from None

    keys: dict[str, VerifyingKey] = {}
    for raw in raws:
        found = _read_jwk(raw)
        if found is not None:
            keys.setdefault(*found)

    return keys


def _read_jwk(raw: msgspec.Raw) -> tuple[str, VerifyingKey] | None:
    """Return a key with its id, or None for one of an unknown kind or for another use."""
    try:
        jwk = msgspec.json.decode(raw, type=Jwk)
        if jwk.kty not in _READERS or jwk.use != "sig" or "verify" not in jwk.key_ops:
            return None

        reader, fields = _READERS[jwk.kty]
        key = public_key(reader({name: getattr(jwk, name) for name in fields}))
    except (ValueError, InvalidKeyError, UnsupportedAlgorithm, RecursionError):
        return None

    return (jwk.kid, key) if jwk.alg in ("", key.algorithm) else None


def _read(path: str) -> str:
    try:
        return Path(path).read_text("ascii")
    except OSError as error:
        raise ValueError(f"the pem {path!r} cannot be read: {error.strerror}") from None
    except ValueError:
        raise ValueError(f"the pem {path!r} is no PEM") from None
