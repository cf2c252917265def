"""Which network namespaces are monitored, as they come and go, and what an operator is told of it."""
