"""Runs the command line as `python -m server.cli`."""

from server.cli import main

main()
