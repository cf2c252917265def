"""Finding flows in a store: by time, filter, Community ID, or an alert of others; and what happened around one."""
