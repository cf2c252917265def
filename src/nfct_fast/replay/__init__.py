"""Recordings: flows with their owners as they came, in a file, and the same again from it; nothing of the host."""
