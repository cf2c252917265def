"""One form for the message of an OSError: "call: reason; advice"."""
from libc.errno cimport errno

import os


cdef object os_error(str call, str advice=None):
    cdef int number = errno
    message = f"{call}: {os.strerror(number)}"
    return OSError(number, message if advice is None else f"{message}; {advice}")
