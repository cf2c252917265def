# Messages over a UNIX socket, with or without a descriptor: pass_fd.h.
cdef extern from "nfct_fast/kernel/pass_fd.h" nogil:
    ssize_t pass_send "nfct_fast_send"(int fd, const void *data, size_t size, int passed)
    ssize_t pass_receive "nfct_fast_receive"(int fd, void *data, size_t size, int flags, int *passed)
