"""Read /proc without the GIL: small files as a whole, links of the form `socket:[N]`, numbered directories."""
from libc.stdint cimport int32_t, uint64_t

# Each of these returns a count, or -errno. `dirfd` may be AT_FDCWD.
cdef int procfs_open(const char *path) noexcept nogil                  # an O_PATH descriptor of a directory
cdef ssize_t procfs_fill(int fd, char *buf, size_t size) noexcept nogil   # reads `size` bytes, fewer only at the end
cdef ssize_t procfs_read(int dirfd, const char *name, char *buf, size_t size) noexcept nogil
cdef ssize_t procfs_link(int dirfd, const char *name, char *buf, size_t size) noexcept nogil
cdef int procfs_link_number(int dirfd, const char *name, const char *kind, uint64_t *out) noexcept nogil
cdef int procfs_name(char *out, int32_t pid, const char *rest) noexcept nogil   # "PID/rest"; out: 64 bytes

# Parse the digits at *p and move *p past them. Return how many there are, or -ERANGE beyond 64 bits.
cdef int procfs_decimal(const char **p, const char *end, uint64_t *out) noexcept nogil

# The entries of a directory whose names are numbers, as in /proc and /proc/PID/fd, a buffer at a time.
ctypedef struct numbers_t:
    int fd
    int32_t count           # valid numbers in at[]
    int32_t at[1024]

cdef int numbers_open(numbers_t *numbers, int dirfd, const char *name) noexcept nogil
cdef int numbers_next(numbers_t *numbers) noexcept nogil    # fills at[]; 0 at the end
cdef void numbers_close(numbers_t *numbers) noexcept nogil
