"""Notes what a browser complains about: console errors, uncaught exceptions, policy violations."""

from __future__ import annotations

import re

from playwright.sync_api import ConsoleMessage, Error, Page

UNREACHABLE = re.compile(
    r"net::ERR_(CONNECTION_(REFUSED|RESET|CLOSED)|EMPTY_RESPONSE)|response code: 503"
)
VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy: ${event.effectiveDirective} refused ${event.blockedURI || "inline"}`));
"""


class Watch:
    """The complaints of every page that it watches; none is the only good number."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self.outage = False
        """Whether the server is away, so that failing connections are as they should be."""

    def over(self, page: Page) -> Page:
        """Watch a page from before its first document."""
        page.add_init_script(VIOLATIONS)
        page.on("console", self._said)
        page.on("pageerror", self._raised)
        return page

    def _said(self, message: ConsoleMessage) -> None:
        expected = self.outage and UNREACHABLE.search(message.text)
        if message.type in ("error", "warning") and not expected:
            self.complaints.append(f"{message.type}: {message.text}")

    def _raised(self, error: Error) -> None:
        self.complaints.append(f"uncaught: {error}")
