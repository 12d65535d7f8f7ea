"""Roomcast as a relay, beside a direct connection and the plain bridge: `make bench-relay`."""
