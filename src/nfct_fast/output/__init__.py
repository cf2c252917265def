"""Records as text: lines, columns, JSON, journal entries, syslog; and what writes them to one output or several."""
