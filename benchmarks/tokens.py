"""What a wrong token costs: CPU time of this process from the request's headers to the refusal.

Not measured: reading the request and writing the answer, which cost more. The targets are for what
can be refused before its signature is verified, and for HS256; the rest is what the library takes.
"""

from __future__ import annotations

import time
from base64 import urlsafe_b64encode
from typing import Any

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from actors.errors import Refused
from benchmarks.report import Report
from server.auth import Credentials, Gate
from server.node import SystemClock
from server.settings import Settings

SECRET = "a secret for the benchmark, of more than 32 bytes"


class Plan(msgspec.Struct, frozen=True):
    """How much to measure."""

    operations: int = 5_000
    """Tokens of each run."""
    runs: int = 7


QUICK = Plan(operations=500, runs=3)


def run(plan: Plan) -> Report:
    """Measure every kind of wrong token."""
    report = Report("tokens")
    keys: dict[str, Any] = {
        "RS256": rsa.generate_private_key(65537, 2048),
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    }
    form = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    table: dict[str, Any] = {
        name: {"pem": key.public_key().public_bytes(*form).decode()} for name, key in keys.items()
    }
    table["HS256"] = {"secret": SECRET}
    gate = Gate(msgspec.convert({"tenants": {"a": {"keys": table}}}, Settings), SystemClock())
    for title, token in wrong_tokens(keys).items():
        costs = [_refuse(gate, token, plan.operations) for _ in range(plan.runs)]
        report.add(f"{title}, CPU until it is refused", "us", costs)

    return report


def wrong_tokens(keys: dict[str, Any]) -> dict[str, str]:
    """Make one token of each kind."""
    rooms = [{"pattern": f"room-{n}-*", "can": ["speak", "listen"]} for n in range(64)]
    good = {"tenant": "a", "exp": int(time.time()) + 3600}
    wrong = {
        "no JWT": "x" * 300,
        "8000 characters of brackets": f"{_part({'alg': 'HS256'})}.{_encode(b'[' * 5800)}.AAAA",
        "expired": _sign(good | {"exp": 1}, SECRET, "HS256"),
        "of an unknown tenant": _sign(good | {"tenant": "b"}, SECRET, "HS256"),
        "HS256 of another secret": _sign(good, SECRET + "!", "HS256"),
        "HS256 of another secret, 64 rooms": _sign(good | {"rooms": rooms}, SECRET + "!", "HS256"),
    }
    return wrong | {
        f"{name} of another message": _sign(good | {"sub": "x"}, key, name, _part(good))
        for name, key in keys.items()
    }


def _sign(claims: dict[str, Any], key: Any, algorithm: str, instead: str = "") -> str:
    """Sign claims, and put others instead."""
    header, payload, signature = jwt.encode(claims, key, algorithm, {"kid": algorithm}).split(".")
    return f"{header}.{instead or payload}.{signature}"


def _part(value: Any) -> str:
    return _encode(msgspec.json.encode(value))


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _refuse(gate: Gate, token: str, times: int) -> float:
    """Return microseconds of CPU for each token."""
    credentials, refused = Credentials(token), 0
    began = time.process_time_ns()
    for _ in range(times):
        try:
            gate.admit(credentials)
        except Refused:
            refused += 1

    used = (time.process_time_ns() - began) / 1000 / times
    assert refused == times, "a wrong token was taken"
    return used
