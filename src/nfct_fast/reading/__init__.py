"""The thread that receives events and has flows attributed, and the engine that starts and ends all threads."""
