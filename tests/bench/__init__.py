"""Benchmarks: `make bench` runs them all and prints figures; nothing here is a test, nothing fails for being slow."""
