"""The load generator: WebSocket clients that cost little, and check what they get."""
