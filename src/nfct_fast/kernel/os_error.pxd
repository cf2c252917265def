"""One form for the message of an OSError: "call: reason; advice"."""

# Return an OSError for the present errno. call: the call that failed, with its object; advice: what to do about it.
cdef object os_error(str call, str advice=*)
