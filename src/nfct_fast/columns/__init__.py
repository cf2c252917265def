"""Flows as columns: batches that any reader of the Arrow C data interface takes without a copy."""
