"""Records as text: the default line, templates, JSON, and a writer that can be stopped even when its reader blocks."""
