"""Roomcast beside other servers, on one machine: `python -m benchmarks.peers`."""
