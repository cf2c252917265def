"""A store: flows as they were delivered, in SQLite files by hour, which a process of its own writes."""
