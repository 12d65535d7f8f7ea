"""The app for servers that are not started by `roomcast serve`."""

from __future__ import annotations

from server.app import create_app
from server.engines.configured import Engines
from server.settings import Settings

app = create_app(Settings(dev=True, engines=Engines(enabled=("echo",))))
