"""What this host offers: each precondition of logging flows with their owners, and a real flow from end to end."""
