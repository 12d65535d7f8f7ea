"""An app on a free port of this process, for tests that look into the server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import uvicorn


@asynccontextmanager
async def hosted(app: Any, sockets: Any = None, **config: Any) -> AsyncIterator[int]:
    """Serve an app for the length of a block, on sockets of its own or these; yields its port."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, **config))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, sockets)
        with anyio.fail_after(10):
            while not server.started:
                await anyio.lowlevel.checkpoint()

        yield server.servers[0].sockets[0].getsockname()[1]
        server.should_exit = True
