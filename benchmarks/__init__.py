"""How fast it is. `python -m benchmarks` prints one table; nothing here is a test."""
