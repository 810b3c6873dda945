"""Benchmarks: measured side by side, never asserted by tests."""
