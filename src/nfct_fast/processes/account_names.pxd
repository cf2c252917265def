from libc.stdint cimport int64_t, uint32_t, uint64_t
from posix_pthread cimport pthread_mutex_t

cdef enum:
    ACCOUNT_NAME_MAX = 255   # bytes of a name; longer ones are left out

cdef struct account_t:
    uint32_t id
    uint32_t size            # bytes of the name; 0: unused
    const char *name         # in the text of the table

# The names in /etc/passwd or /etc/group.
cdef struct accounts_t:
    const char *path
    account_t *slots         # hashed by id
    uint32_t mask            # number of slots, less 1
    char *text               # of the file
    uint64_t version[4]      # device, inode, size and time of change of the file that was read

cdef class AccountNames:
    cdef accounts_t _users
    cdef accounts_t _groups
    cdef pthread_mutex_t _mutex
    cdef bint _mutex_made
    cdef tuple _paths
    cdef int64_t _interval       # ns
    cdef int64_t _looked_at      # ns of CLOCK_MONOTONIC when the files were last looked at
    # Write the name of a user or group to out[0..ACCOUNT_NAME_MAX) and return its size; 0: it has none. Any thread.
    cdef int user(self, uint32_t id, char *out) noexcept nogil
    cdef int group(self, uint32_t id, char *out) noexcept nogil
    cdef str user_name(self, uint32_t id)      # the same as text; None without a name
    cdef str group_name(self, uint32_t id)
    cdef int _open(self, accounts_t *accounts, source) except -1
    cdef int _find(self, accounts_t *accounts, uint32_t id, char *out) noexcept nogil
