"""What identifies a process among those of all hosts, and when it started.

The kernel tells when a process started in clock ticks (1/100 s) after boot to whoever reads /proc, and more exactly in
events. Ticks are what all have in common: two records of one process have the same `entity_id` and the same `start`.
"""
cimport cython
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, memset
from libc.time cimport time_t, tm
from posix.unistd cimport _SC_CLK_TCK, sysconf

from nfct_fast.kernel.clock cimport boottime_ns, realtime_ns

from nfct_fast.kernel.host import read_host

cdef extern from "<time.h>" nogil:
    tm *gmtime_r(const time_t *time, tm *result)

cdef extern from "nfct_fast/text/sha1.h" nogil:
    void nfct_fast_sha1(const void *data, size_t size, unsigned char *digest)

cdef extern from "nfct_fast/text/base64.h" nogil:
    const char BASE64_URL_DIGITS "nfct_fast_base64_url_digits"[65]
    size_t nfct_fast_base64(const unsigned char *data, size_t size, const char *digits, char *out)

cdef enum:
    ENTITY_BYTES = 12        # of the hash: 96 bits, so that 10^11 processes share an id with a probability of 10^-7
    FIRST_PIDS = 2           # init and kthreadd may start within the first tick


@cython.final
@cython.auto_pickle(False)
cdef class Identity:
    """The identity of this host's processes. Immutable, but for the names of users.

    host, boot_time, names: what another one's saved() returned, so that what came from another host still says so.

    A later step of the clock changes no process's start: the time of booting is what it was when this was made.
    """

    def __cinit__(self, host=None, int64_t boot_time=0, names=None):
        self._tick = 1_000_000_000 // sysconf(_SC_CLK_TCK)
        self.host = read_host() if host is None else host
        self.names = AccountNames() if names is None else AccountNames(*names)
        self.boot_time = boot_time
        if host is None:
            self.boot_time = (realtime_ns() - boottime_ns() + self._tick // 2) // self._tick * self._tick
        cdef bytes boot_id = (self.host.boot_id or "").encode("ascii")
        memcpy(self._boot_id, <const char *>boot_id, min(len(boot_id), 32))

    cdef tuple saved(self, uids, gids):
        """Return the arguments of one like it that knows the names of these users and groups, and no others."""
        users = [(uid, self.names.user_name(uid)) for uid in uids]
        groups = [(gid, self.names.group_name(gid)) for gid in gids]
        text = ["".join([f"{name}:x:{id}:\n" for id, name in pairs if name is not None]) for pairs in (users, groups)]
        return self.host, self.boot_time, tuple([one.encode("utf-8", "surrogateescape") for one in text])

    cdef bint entity_id(self, int32_t pid, uint64_t ticks, char *out) noexcept nogil:
        cdef unsigned char digest[20]
        cdef char text[64 + 33]
        cdef int size
        if self._boot_id[0] == 0 or ticks == 0 and pid > FIRST_PIDS:
            return False
        size = snprintf(text, sizeof(text), b"%s:%d:%llu", <const char *>self._boot_id, pid, <unsigned long long>ticks)
        nfct_fast_sha1(text, size, digest)
        nfct_fast_base64(digest, ENTITY_BYTES, BASE64_URL_DIGITS, out)
        return True

    cdef int64_t start_time(self, uint64_t ticks) noexcept nogil:
        return self.boot_time + <int64_t>ticks * self._tick

    cdef void start_text(self, uint64_t ticks, char *out) noexcept nogil:
        cdef int64_t time = self.start_time(ticks)
        cdef time_t second = <time_t>(time // 1_000_000_000)
        cdef char text[64]
        cdef tm parts
        memset(&parts, 0, sizeof(parts))
        gmtime_r(&second, &parts)
        snprintf(text, sizeof(text), b"%04d-%02d-%02dT%02d:%02d:%02d.%02dZ", parts.tm_year + 1900, parts.tm_mon + 1,
                 parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec, <int>(time % 1_000_000_000 // 10_000_000))
        memcpy(out, text, START_SIZE)

    cdef uint64_t ticks(self, uint64_t start_ns) noexcept nogil:
        return start_ns // <uint64_t>self._tick

    cdef uint64_t start_ns(self, uint64_t exact, uint64_t ticks) noexcept nogil:
        return exact if exact else ticks * <uint64_t>self._tick
