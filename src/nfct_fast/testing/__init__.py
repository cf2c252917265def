"""Hooks for tests and benchmarks. No wheel contains them."""
