"""Load runs against a real server process: `python -m benchmarks`. Not part of the test suite."""
