"""The thread that receives events and has each flow attributed, and what starts and ends it."""
