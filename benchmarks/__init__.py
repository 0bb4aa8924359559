"""Benchmarks. `python -m benchmarks` prints one table of measurements."""
