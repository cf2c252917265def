"""What the program and the process that serves metrics say to each other: a byte that asks, and a text that answers."""

import struct

from nfct_fast.metrics.exposition import OPENMETRICS, TEXT

LENGTH = struct.Struct("=I")  # before each text, its length in bytes
FORMATS = (TEXT, OPENMETRICS)  # by the byte that asks


def answer_requests(program, texts) -> None:
    """In the program: answer what the process asks, until it is gone or the socket is shut down.

    Args:
        program: The program's end of the socket.
        texts: Called with whether OpenMetrics is asked for; returns the text as a str.

    Blocks while the process asks nothing or does not read. Raises OSError.
    """
    while asked := program.recv(1):
        text = texts(FORMATS[asked[0]] == OPENMETRICS).encode()
        program.sendall(LENGTH.pack(len(text)) + text)
