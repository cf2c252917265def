"""Flows that are in a table of ClickHouse: its server is asked over HTTP, and its rows are made into recordings."""
