# Move the calling thread into the network namespace open as `fd`, for good. 0 or -errno. Needs CAP_SYS_ADMIN.
cdef int netns_enter(int fd) noexcept nogil
