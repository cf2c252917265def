"""Records as text: the default line, templates, JSON, and a writer that can always be stopped."""
