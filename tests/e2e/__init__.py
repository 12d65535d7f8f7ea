"""The server as its users meet it: its own process, real sockets, real speech."""
