"""The HTTP and WebSocket surfaces, one module each."""
