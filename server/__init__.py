"""Roomcast as a server: routes, speech engines, backplanes, metrics, settings and commands."""

__version__ = "0.1.0"
