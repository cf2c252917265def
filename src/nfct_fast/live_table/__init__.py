"""What `nfct-fast top` shows: live flows by who made them, with rates. One file of it knows the terminal."""
