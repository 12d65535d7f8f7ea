"""A page that brings its token in the first message: what the server is for is a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import ARTIFACTS
from tests.e2e.test_tenants import TenantServer
from tests.tokens import OTHER_SECRET, mint, tenant

pytestmark = pytest.mark.browser
WITHIN = 15_000
"""Milliseconds; a page tries a few times before it looks for a reason."""
ELSEWHERE = "https://app.example.com"
CONNECT = """
async ([path, ...messages]) => {
  const socket = new WebSocket(new URL(path, location).href.replace(/^http/, "ws"));
  const events = [];
  socket.onopen = () => messages.forEach((each) => socket.send(JSON.stringify(each)));
  return await new Promise((resolve) => {
    socket.onmessage = ({ data }) => {
      events.push(JSON.parse(data).type);
      if (events.at(-1) === "ack") socket.close(1000);
    };
    socket.onclose = ({ code, reason }) => resolve({ events, code, reason });
  });
}
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TenantServer]:
    """A server of two tenants, of which one takes pages of another origin only."""
    tenants = tenant() | tenant("other", OTHER_SECRET, origins=[ELSEWHERE])
    table = msgspec.json.encode(tenants).decode()
    server = TenantServer(tmp_path / "log", tenants=table, engines__enabled="echo")
    server.start()
    try:
        yield server
        server.stop()
        assert "eyJ" not in server.output
    finally:
        if server.process.poll() is None:
            server.kill()


def test_a_page_introduces_itself_and_is_told_by_a_code_why_it_may_not(
    server: TenantServer, mute_browser: Browser
) -> None:
    page = mute_browser.new_page()
    page.goto(server.http)

    def connect(token: str, query: str = "?auth=message") -> Any:
        path = f"/v1/rooms/a/listen{query}"
        auth, ping = {"type": "auth", "token": token}, {"type": "ping", "id": 1}
        return page.evaluate(CONNECT, [path, auth, ping])

    good, expired = mint(), mint(exp=1)
    foreign = mint(OTHER_SECRET, tenant="other")
    assert connect(good)["events"] == ["hello", "joined", "ack"]
    assert connect("canary") == closed(4501, "unauthorized")
    assert connect(expired) == closed(4004, "token_expired")
    assert connect(foreign) == closed(4502, "forbidden")
    assert connect(good, "")["code"] == 1006


@pytest.mark.parametrize(
    ("token", "state", "told"),
    [
        (mint(), "live", ""),
        ("canary", "closed", "the token is no JWT"),
        (mint(exp=1), "reconnecting", "the token has expired"),
        (mint(OTHER_SECRET, tenant="other"), "closed", "origin"),
    ],
    ids=["good", "no token", "expired", "from elsewhere"],
)
def test_the_page_says_why_its_token_is_not_accepted(
    server: TenantServer, mute_browser: Browser, token: str, state: str, told: str
) -> None:
    page = mute_browser.new_page()
    page.goto(f"{server.http}/?room=a#token={token}")
    expect(page.locator("body")).to_have_attribute("data-link", state)
    if told:
        expect(page.locator("[role=alert]").filter(has_text=told)).to_be_visible(timeout=WITHIN)
        page.screenshot(path=ARTIFACTS / f"refused-{state}.png")


def closed(code: int, reason: str) -> dict[str, Any]:
    """Return what a page sees of a connection that is refused after the upgrade."""
    return {"events": ["error", "closing"], "code": code, "reason": reason}
