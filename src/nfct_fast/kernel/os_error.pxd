"""One form for the message of an OSError: "call: reason; advice"."""

# The OSError for the errno of the last call. call: what failed, with its object; advice: what to do about it.
cdef object os_error(str call, str advice=*)
