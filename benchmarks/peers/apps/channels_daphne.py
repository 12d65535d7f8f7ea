"""Django Channels on Daphne: a group of the in-memory layer, and its consumers."""

from __future__ import annotations

import sys

import django
from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
    INSTALLED_APPS=["channels"],
    SECRET_KEY="only for this run",
    USE_TZ=True,
)
django.setup()

from channels.generic.websocket import AsyncWebsocketConsumer  # noqa: E402  after the settings
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from daphne.server import Server  # noqa: E402
from django.urls import path  # noqa: E402


class Listener(AsyncWebsocketConsumer):
    """Gets what is published."""

    groups = ("room",)

    async def room_message(self, event: dict[str, str]) -> None:
        """Send what the group got."""
        await self.send(text_data=event["text"])


class Publisher(AsyncWebsocketConsumer):
    """Sends what comes to the group."""

    async def receive(self, text_data: str = "", bytes_data: bytes = b"") -> None:
        """Send one message."""
        await self.channel_layer.group_send("room", {"type": "room.message", "text": text_data})


routes = [path("listen", Listener.as_asgi()), path("publish", Publisher.as_asgi())]

if __name__ == "__main__":
    Server(
        ProtocolTypeRouter({"websocket": URLRouter(routes)}),
        endpoints=[f"tcp:port={sys.argv[1]}:interface=127.0.0.1:backlog=2048"],
    ).run()
