"""Benchmarks: data, protocol, metrics."""
