"""Read command lines of processes in a helper process, which is killed if it blocks.

The kernel copies a command line out of the process's own memory and takes that memory's lock (mmap_lock) for it. Any
user can hold that lock for as long as they like: one thread reads, through /proc/self/mem, a page of a file whose
server does not reply; another thread waits to map something.

Waiting for such processes is bounded in three ways. Each wait ends after 20 ms. A process that blocked is not read
again for 10 s. All waits of more than 1 ms together take at most 2 % of the time; once they have used that up,
processes of the users whose processes blocked are refused, and later those of everyone, as long as there are such
users.
"""
cimport cython
from libc.errno cimport EAGAIN, EPIPE, ETIMEDOUT
from libc.stdint cimport int64_t, uint64_t

from nfct_fast.processes.cmdline_helper cimport (
    cmdline_reply, cmdline_is_inside, cmdline_post, cmdline_receive, cmdline_start, helper_close, helper_init,
    helper_is_blocked, helper_kept, helper_kill, helper_reap,
)
from posix_pthread cimport pthread_mutex_destroy, pthread_mutex_lock, pthread_mutex_unlock

from nfct_fast.kernel.mutex cimport mutex_make
from nfct_fast.kernel.clock cimport monotonic_ns

cdef enum:
    DEADLINE_NS = 20000000
    FREE_NS = 1000000            # waits up to this long, which happen on any machine, are not charged
    SAVED_NS = 40000000          # largest credit; at the same amount of debt everyone is refused
    SHARE = 50                   # 1/SHARE of the time may be spent on waiting
    KEPT_MAX = 2                 # killed helpers, out of HELPER_ENDING, that one user may keep from ending
    PENDING = -1000000           # cmdline_t.size until the reply comes


cdef void replenish(CommandLineReader self, int64_t now) noexcept nogil:
    # Carry over the remainder of the division, so that frequent calls do not lose it.
    cdef int64_t more = (now - self._credited_at) // SHARE
    self._credit = min(<int64_t>SAVED_NS, self._credit + more)
    self._credited_at += more * SHARE


cdef void charge(CommandLineReader self, int64_t waited) noexcept nogil:
    # No wait is asked to be longer than the deadline: what is beyond it was the machine's, which a hypervisor may halt
    # for seconds.
    if waited >= FREE_NS:
        self._credit -= min(waited, <int64_t>DEADLINE_NS)


cdef int deferred_count(deferred_t *deferred, int64_t now) noexcept nogil:
    # Remove the entries that have expired, and return how many are left.
    cdef int i = 0
    while i < deferred.count:
        if deferred.at[i].until <= now:
            deferred.count -= 1
            deferred.at[i] = deferred.at[deferred.count]
        else:
            i += 1
    return deferred.count


cdef bint deferred_has(const deferred_t *deferred, uint64_t id, uint64_t start) noexcept nogil:
    cdef int i
    for i in range(deferred.count):
        if deferred.at[i].id == id and deferred.at[i].start == start:
            return True
    return False


cdef void deferred_put(deferred_t *deferred, uint64_t id, uint64_t start, int64_t until) noexcept nogil:
    # Use the entry with the same id, else a free one, else the one that expires next.
    cdef int i, place = 0
    for i in range(deferred.count):
        if deferred.at[i].id == id and deferred.at[i].start == start:
            place = i
            break
        if deferred.at[i].until < deferred.at[place].until:
            place = i
    else:
        if deferred.count < CMDLINES_DEFERRED:
            place = deferred.count
            deferred.count += 1
    deferred.at[place].id, deferred.at[place].start, deferred.at[place].until = id, start, until


cdef void defer(CommandLineReader self, const cmdline_t *one) noexcept nogil:
    cdef int64_t until = monotonic_ns() + self._defer_ns
    deferred_put(&self._processes, one.pid, one.start, until)
    deferred_put(&self._users, one.user, 0, until)


cdef bint is_refused(CommandLineReader self, const cmdline_t *one, int64_t now) noexcept nogil:
    if deferred_count(&self._processes, now) and deferred_has(&self._processes, one.pid, one.start):
        return True
    # If a process ends while the helper reads its memory, it is the helper that has to release the memory. That
    # includes writing changed pages back to a file, which takes as long as the file's server likes and which no signal
    # ends (seen on Linux 6.18).
    if helper_kept(&self._helper, one.user) >= KEPT_MAX:
        return True
    # Without such users the machine is just busy, and quick replies are still worth having.
    if self._credit > 0 or deferred_count(&self._users, now) == 0:
        return False
    return self._credit <= -<int64_t>SAVED_NS or deferred_has(&self._users, one.user, 0)


cdef void replace(CommandLineReader self, uint64_t user) noexcept nogil:
    # send() starts the next one when it is needed.
    helper_kill(&self._helper, user)
    self.restarted += 1


cdef int send(CommandLineReader self, int dirfd) noexcept nogil:
    # Send to the present helper, or to a new one if it has ended (as it does with the thread that started it) or is
    # still blocked by an earlier request.
    cdef int _, rc = 0
    for _ in range(2):
        self._ask.number = self._ask.number + 1 or 1
        rc = cmdline_start(&self._helper)
        if rc < 0:
            return rc
        rc = cmdline_post(&self._helper, &self._ask, dirfd)
        if rc != -EPIPE and not (rc == -EAGAIN and helper_is_blocked(&self._helper)):
            return rc
        replace(self, CMDLINES_UNKNOWN_USER)
    return rc


cdef int receive(CommandLineReader self, cmdline_t *one, size_t *have, int64_t until) noexcept nogil:
    # *have: bytes of the reply already received.
    cdef cmdline_reply answer
    cdef ssize_t got
    while True:
        got = cmdline_receive(&self._helper, &answer, one.buf + have[0], one.limit - have[0], until)
        if got < 0:
            return <int>got
        if answer.number != self._ask.number:
            continue                        # the reply to a request that was given up
        have[0] += got
        if not answer.last:
            continue
        one.full_size = answer.full_size
        one.size = answer.error if answer.error else <ssize_t>min(<uint64_t>have[0], answer.full_size)
        return 0


cdef int give_up(CommandLineReader self, cmdline_t *one, size_t *have) noexcept nogil:
    # Replace only a helper that waits for a lock; one that waits for a processor is merely late.
    cdef bint blocked = helper_is_blocked(&self._helper)
    cdef bint guilty = blocked and cmdline_is_inside(&self._helper, self._ask.number)
    if receive(self, one, have, 0) == 0:
        return 0
    if guilty:
        defer(self, one)
        self.given_up += 1
    else:
        self.late += 1
    if blocked:
        replace(self, one.user if guilty else <uint64_t>CMDLINES_UNKNOWN_USER)
    return -ETIMEDOUT


@cython.final
@cython.auto_pickle(False)
cdef class CommandLineReader:
    """A reader of command lines with a helper process, which is started when it is first needed. For any thread.

    Counts: of the requests that were `asked`, each was `answered` (perhaps by an error), `given_up` (the process
    blocked the helper), `late` (the helper got no processor) or `refused` (deferred), or it `failed` (no helper could
    be started). `restarted` counts the helpers that were replaced.

    Args:
        aside: Seconds for which a process that blocked the helper is not read again.
    """

    def __cinit__(self, double aside=10.0):
        helper_init(&self._helper)
        if not mutex_make(&self._mutex):
            raise MemoryError
        self._mutex_made = True
        self._defer_ns = <int64_t>(aside * 1e9)
        self._credit, self._credited_at = SAVED_NS, monotonic_ns()

    def __dealloc__(self):
        if self._mutex_made:
            helper_close(&self._helper)
            pthread_mutex_destroy(&self._mutex)

    cdef void begin(self, cmdline_t *one) noexcept nogil:
        cdef int64_t now
        cdef int rc
        pthread_mutex_lock(&self._mutex)
        now = monotonic_ns()
        replenish(self, now)
        self.asked += 1
        one.size, one.full_size = PENDING, 0
        if is_refused(self, one, now):
            one.size = -EAGAIN
            self.refused += 1
            return
        self._ask.limit, self._ask.known = one.limit, one.known
        rc = send(self, one.dirfd)
        if rc < 0:
            one.size = rc
            self.failed += 1

    cdef void finish(self, cmdline_t *one, int64_t deadline) noexcept nogil:
        cdef int64_t begun = monotonic_ns()
        cdef size_t have = 0
        cdef int rc
        if not 0 < deadline < DEADLINE_NS:
            deadline = DEADLINE_NS
        if self._credit <= -<int64_t>SAVED_NS:
            deadline = min(deadline, <int64_t>FREE_NS)
        if one.size == PENDING:
            rc = receive(self, one, &have, begun + deadline)
            if rc < 0 and rc != -ETIMEDOUT:
                replace(self, CMDLINES_UNKNOWN_USER)
                rc = send(self, one.dirfd)
                have = 0
                if rc == 0:
                    rc = receive(self, one, &have, begun + deadline)
                if rc < 0 and rc != -ETIMEDOUT:
                    self.failed += 1
            if rc == -ETIMEDOUT:
                rc = give_up(self, one, &have)
            if rc < 0:
                one.size = rc
            else:
                self.answered += 1
            charge(self, monotonic_ns() - begun)
        pthread_mutex_unlock(&self._mutex)

    @property
    def helper(self):
        """Process id of the helper, int; None if none is running."""
        return self._helper.pid or None

    @property
    def ending(self):
        """Number of helpers that were killed and have not ended yet, int."""
        with nogil:
            pthread_mutex_lock(&self._mutex)
            helper_reap(&self._helper)
            pthread_mutex_unlock(&self._mutex)
        return self._helper.ending_count

    def close(self):
        """End the helper. A later request starts another one."""
        with nogil:
            pthread_mutex_lock(&self._mutex)
            helper_close(&self._helper)
            pthread_mutex_unlock(&self._mutex)
