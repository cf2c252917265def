# Move the calling thread into the network namespace of this descriptor, for good: 0 or -errno. Takes CAP_SYS_ADMIN.
cdef int netns_enter(int fd) noexcept nogil
