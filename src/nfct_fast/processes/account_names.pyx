"""Names of users and groups, from /etc/passwd and /etc/group and nowhere else.

getpwuid(3) may ask a directory server and wait for it, which neither a flow nor its taker may. The files are read again
once they have changed, by whoever asks for a name then, at most every ten seconds.
"""
cimport cython
from libc.stdint cimport UINT32_MAX, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memchr, memcmp, memcpy, memset
from posix.fcntl cimport O_NONBLOCK, O_RDONLY, open as c_open
from posix.stat cimport S_ISREG, struct_stat
from posix.unistd cimport close, read
from posix_pthread cimport pthread_mutex_destroy, pthread_mutex_lock, pthread_mutex_unlock
from procfs_calls cimport O_CLOEXEC

from nfct_fast.kernel.clock cimport monotonic_ns
from nfct_fast.kernel.fstatat cimport fstat
from nfct_fast.kernel.mutex cimport mutex_make

import os

cdef enum:
    TEXT_MAX = 8 << 20       # bytes of a file that are read


cdef inline uint32_t _slot(const accounts_t *accounts, uint32_t id) noexcept nogil:
    return (id * <uint32_t>2654435761) >> 7 & accounts.mask


cdef void _add(accounts_t *accounts, uint32_t id, const char *name, size_t size) noexcept nogil:
    cdef uint32_t at = _slot(accounts, id)
    while accounts.slots[at].size:
        if accounts.slots[at].id == id:     # the first one counts, as for getpwuid(3)
            return
        at = (at + 1) & accounts.mask
    accounts.slots[at].id, accounts.slots[at].name, accounts.slots[at].size = id, name, <uint32_t>size


cdef void _parse_line(accounts_t *accounts, const char *line, const char *end) noexcept nogil:
    # name:password:id:...
    cdef const char *name_end = <const char *>memchr(line, c":", end - line)
    cdef const char *at
    cdef uint64_t id = 0
    if name_end == NULL or name_end == line or name_end - line > ACCOUNT_NAME_MAX or line[0] in (c"#", c"+", c"-"):
        return
    at = <const char *>memchr(name_end + 1, c":", end - name_end - 1)
    if at == NULL or at + 1 == end or not c"0" <= at[1] <= c"9":
        return
    at += 1
    while at < end and c"0" <= at[0] <= c"9" and id <= <uint64_t>UINT32_MAX:
        id = id * 10 + <uint64_t>(at[0] - c"0")
        at += 1
    if at < end and at[0] == c":" and id <= <uint64_t>UINT32_MAX:
        _add(accounts, <uint32_t>id, line, name_end - line)


cdef void _parse_lines(accounts_t *accounts, size_t size) noexcept nogil:
    cdef const char *at = accounts.text
    cdef const char *end = at + size
    cdef const char *newline
    while at < end:
        newline = <const char *>memchr(at, c"\n", end - at)
        if newline == NULL:
            newline = end
        _parse_line(accounts, at, newline)
        at = newline + 1


cdef bint _parse(accounts_t *accounts, size_t size) noexcept nogil:
    cdef const char *at = accounts.text
    cdef uint32_t slots = 16
    cdef size_t i, lines = 1
    for i in range(size):
        lines += at[i] == c"\n"
    while slots < 2 * lines:
        slots *= 2
    accounts.slots = <account_t *>calloc(slots, sizeof(account_t))
    if accounts.slots == NULL:
        return False
    accounts.mask = slots - 1
    _parse_lines(accounts, size)
    return True


cdef ssize_t _read_all(int fd, char *out, size_t size) noexcept nogil:
    cdef size_t have = 0
    cdef ssize_t got
    while have < size:
        got = read(fd, out + have, size - have)
        if got < 0:
            return got
        if got == 0:
            break
        have += got
    return have


cdef void _read_file(accounts_t *accounts, int fd, size_t size) noexcept nogil:
    """Read the file anew; without memory, or if that fails, keep what was known."""
    cdef accounts_t new
    cdef ssize_t got
    memset(&new, 0, sizeof(new))
    new.text = <char *>malloc(size + 1)
    got = -1 if new.text == NULL else _read_all(fd, new.text, size)
    if got < 0 or not _parse(&new, got):
        free(new.text)
        return
    free(accounts.text)
    free(accounts.slots)
    accounts.text, accounts.slots, accounts.mask = new.text, new.slots, new.mask


cdef void _look(accounts_t *accounts) noexcept nogil:
    cdef struct_stat st
    cdef uint64_t version[4]
    cdef int fd
    if accounts.path == NULL:
        return
    # O_NONBLOCK: if somebody has put a FIFO there, opening must not wait for its writer.
    fd = c_open(accounts.path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    if fd < 0:
        return
    if fstat(fd, &st) == 0 and S_ISREG(st.st_mode):
        version = [st.st_dev, st.st_ino, <uint64_t>st.st_size, <uint64_t>st.st_mtime]
        if memcmp(version, accounts.version, sizeof(version)) != 0:
            _read_file(accounts, fd, min(<size_t>st.st_size, <size_t>TEXT_MAX))
            memcpy(accounts.version, version, sizeof(version))
    close(fd)


@cython.final
@cython.auto_pickle(False)
cdef class AccountNames:
    """The names of this host's users and groups. Any thread may ask.

    passwd, group: paths of the files, or their content as bytes; interval: seconds between two looks, at least.
    """

    def __cinit__(self, passwd="/etc/passwd", group="/etc/group", double interval=10):
        if not mutex_make(&self._mutex):
            raise MemoryError
        self._mutex_made = True
        self._interval = <int64_t>(interval * 1e9)
        self._open(&self._users, passwd)
        self._open(&self._groups, group)
        self._looked_at = monotonic_ns()

    def __dealloc__(self):
        free(self._users.text)
        free(self._users.slots)
        free(self._groups.text)
        free(self._groups.slots)
        if self._mutex_made:
            pthread_mutex_destroy(&self._mutex)

    cdef int _open(self, accounts_t *accounts, source) except -1:
        if isinstance(source, bytes):
            accounts.text = <char *>malloc(len(source) + 1)
            if accounts.text == NULL:
                raise MemoryError("names")
            memcpy(accounts.text, <const char *><bytes>source, len(source))
            if not _parse(accounts, len(source)):
                raise MemoryError("names")
            return 0
        path = os.fsencode(source)
        self._paths = (self._paths, path)       # kept for as long as this object
        accounts.path = <bytes>path
        _look(accounts)         # now: later the files may be out of reach
        return 0

    cdef int user(self, uint32_t id, char *out) noexcept nogil:
        return self._find(&self._users, id, out)

    cdef int group(self, uint32_t id, char *out) noexcept nogil:
        return self._find(&self._groups, id, out)

    cdef int _find(self, accounts_t *accounts, uint32_t id, char *out) noexcept nogil:
        cdef int64_t now = monotonic_ns()
        cdef const account_t *found
        cdef uint32_t at
        cdef int size = 0
        pthread_mutex_lock(&self._mutex)
        if now - self._looked_at > self._interval:
            self._looked_at = now
            _look(&self._users)
            _look(&self._groups)
        if accounts.slots != NULL:
            at = _slot(accounts, id)
            while accounts.slots[at].size and accounts.slots[at].id != id:
                at = (at + 1) & accounts.mask
            found = &accounts.slots[at]
            size = <int>found.size
            if size:
                memcpy(out, found.name, size)
        pthread_mutex_unlock(&self._mutex)
        return size

    cdef str user_name(self, uint32_t id):
        cdef char name[ACCOUNT_NAME_MAX]
        cdef int size = self.user(id, name)
        return name[:size].decode("utf-8", "surrogateescape") if size else None

    cdef str group_name(self, uint32_t id):
        cdef char name[ACCOUNT_NAME_MAX]
        cdef int size = self.group(id, name)
        return name[:size].decode("utf-8", "surrogateescape") if size else None

    def names(self, uint32_t uid, uint32_t gid) -> tuple:
        """Return the names of a user and of a group, None for one without a name."""
        return self.user_name(uid), self.group_name(gid)
