"""The server's WebSocket protocols: what is tested of one is tested of all."""

from __future__ import annotations

PROTOCOLS: dict[str, dict[str, object]] = {
    name: {"server__protocol": name} for name in ("lean", "stock")
}
"""The settings that choose each of them."""
