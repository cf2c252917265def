"""The thread that receives events and attributes flows, and the engine that starts and ends all threads."""
