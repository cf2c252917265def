"""Counts as text for Prometheus and other collectors, and a process that serves it."""
