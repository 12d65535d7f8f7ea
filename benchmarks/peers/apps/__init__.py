"""The Python peers: scripts that take a port, run where their packages are."""
