"""What was seen before: which program talked to which address and port, in bounded memory, and its file.

It knows records and processes; it does not know how owners are found, nor who reads the marks.
"""
