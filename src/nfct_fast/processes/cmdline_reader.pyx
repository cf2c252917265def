"""Command lines of processes, read in a helper process that is killed when it is kept waiting.

The kernel copies a command line out of the process's own memory, for which it takes that memory's lock. Any user can
hold that lock for as long as they like: one thread reads through /proc/self/mem a page of a file whose server does not
answer, another one waits to map something.

Waiting for such a process is bounded three times. Each wait ends after 20 ms at most. Who was waited for in vain is put
aside for 10 s. All waits of more than 1 ms together may take 2 % of the time; where they have used that up, first the
users who have been waited for in vain are put aside, and then everybody as long as there are such users.
"""
cimport cython
from libc.errno cimport EAGAIN, EPIPE, ETIMEDOUT
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from nfct_fast.processes.cmdline_helper cimport (
    cmdline_answer, cmdline_is_inside, cmdline_post, cmdline_receive, cmdline_start, helper_close, helper_init,
    helper_is_blocked, helper_kept, helper_kill, helper_reap,
)
from posix_pthread cimport pthread_mutex_destroy, pthread_mutex_lock, pthread_mutex_unlock

from nfct_fast.kernel.mutex cimport mutex_make
from nfct_fast.kernel.clock cimport monotonic_ns

cdef enum:
    DEADLINE_NS = 20000000
    FREE_NS = 1000000            # what every machine needs now and then
    SAVED_NS = 40000000          # the most that is saved up, and then owed before nobody is asked any more
    SHARE = 50                   # one part in that many of the time is for waiting
    KEPT = 2                     # helpers of one user's that do not end, of HELPER_ENDING; one may just be about to
    PENDING = -1000000           # cmdline_t.size of what has not been answered


cdef void replenish(CommandLineReader self, int64_t now) noexcept nogil:
    # A share smaller than one nanosecond is kept for the next time.
    cdef int64_t more = (now - self._reckoned) // SHARE
    self._credit = min(<int64_t>SAVED_NS, self._credit + more)
    self._reckoned += more * SHARE


cdef void charge(CommandLineReader self, int64_t waited) noexcept nogil:
    if waited >= FREE_NS:
        self._credit -= waited


cdef int aside_count(aside_t *aside, int64_t now) noexcept nogil:
    # Of those whose time is not over.
    cdef int i = 0
    while i < aside.count:
        if aside.at[i].until <= now:
            aside.count -= 1
            aside.at[i] = aside.at[aside.count]
        else:
            i += 1
    return aside.count


cdef bint aside_has(const aside_t *aside, uint64_t id, uint64_t start) noexcept nogil:
    cdef int i
    for i in range(aside.count):
        if aside.at[i].id == id and aside.at[i].start == start:
            return True
    return False


cdef void aside_put(aside_t *aside, uint64_t id, uint64_t start, int64_t until) noexcept nogil:
    # In its own place, in a free one, or in that of the one which has the least of its time left.
    cdef int i, place = 0
    for i in range(aside.count):
        if aside.at[i].id == id and aside.at[i].start == start:
            place = i
            break
        if aside.at[i].until < aside.at[place].until:
            place = i
    else:
        if aside.count < CMDLINES_ASIDE:
            place = aside.count
            aside.count += 1
    aside.at[place].id, aside.at[place].start, aside.at[place].until = id, start, until


cdef void put_aside(CommandLineReader self, const cmdline_t *one) noexcept nogil:
    cdef int64_t until = monotonic_ns() + self._aside_ns
    aside_put(&self._processes, one.pid, one.start, until)
    aside_put(&self._users, one.user, 0, until)


cdef bint is_refused(CommandLineReader self, const cmdline_t *one, int64_t now) noexcept nogil:
    if aside_count(&self._processes, now) and aside_has(&self._processes, one.pid, one.start):
        return True
    # A process that ends while the helper reads its memory leaves it to the helper to take that spawn_helper: to write back
    # what it changed in a file, for as long as a server of files likes, and that no signal ends (seen with Linux 6.18).
    if helper_kept(&self._helper, one.user) >= KEPT:
        return True
    # Where nobody is to blame, the machine is busy: what is answered at once is still taken.
    if self._credit > 0 or aside_count(&self._users, now) == 0:
        return False
    return self._credit <= -<int64_t>SAVED_NS or aside_has(&self._users, one.user, 0)


cdef void replace(CommandLineReader self, uint64_t whose) noexcept nogil:
    # The next is started when it is needed.
    helper_kill(&self._helper, whose)
    self.restarted += 1


cdef int send(CommandLineReader self, int dirfd) noexcept nogil:
    # To the helper there is, or a new one if that has ended (by itself with the thread that started it) or is kept
    # waiting by what was asked before.
    cdef int again, rc = 0
    for again in range(2):
        self._ask.number = self._ask.number + 1 or 1
        rc = cmdline_start(&self._helper)
        if rc < 0:
            return rc
        rc = cmdline_post(&self._helper, &self._ask, dirfd)
        if rc != -EPIPE and not (rc == -EAGAIN and helper_is_blocked(&self._helper)):
            return rc
        replace(self, CMDLINES_NOBODY)
    return rc


cdef int receive(CommandLineReader self, cmdline_t *one, size_t *have, int64_t until) noexcept nogil:
    # *have: bytes of it that are there already.
    cdef cmdline_answer answer
    cdef ssize_t got
    while True:
        got = cmdline_receive(&self._helper, &answer, one.buf + have[0], one.limit - have[0], until)
        if got < 0:
            return <int>got
        if answer.number != self._ask.number:
            continue                        # to a request that nobody waits for any more
        have[0] += got
        if not answer.last:
            continue
        one.whole = answer.whole
        one.size = answer.error if answer.error else <ssize_t>min(<uint64_t>have[0], answer.whole)
        return 0


cdef int give_up(CommandLineReader self, cmdline_t *one, size_t *have) noexcept nogil:
    # Whose fault is it? A helper that waits for a processor, and not for a lock, is not stuck.
    cdef bint blocked = helper_is_blocked(&self._helper)
    cdef bint guilty = blocked and cmdline_is_inside(&self._helper, self._ask.number)
    if receive(self, one, have, 0) == 0:
        return 0
    if guilty:
        put_aside(self, one)
        self.given_up += 1
    else:
        self.late += 1
    if blocked:
        replace(self, one.user if guilty else <uint64_t>CMDLINES_NOBODY)
    return -ETIMEDOUT


@cython.final
@cython.auto_pickle(False)
cdef class CommandLineReader:
    """Reads command lines in a helper process, which is started when it is first needed. Any thread may use it.

    `aside`: seconds for which a process that kept the helper waiting is not asked for again. What was `asked` for has
    been `answered` (also by an error), `given_up` (it kept the helper waiting), `late` (the helper had no processor),
    `refused` (put aside), or has `failed` (there is no helper); `restarted`: helpers that were replaced.
    """

    def __cinit__(self, double aside=10.0):
        helper_init(&self._helper)
        if not mutex_make(&self._mutex):
            raise MemoryError
        self._mutex_made = True
        self._aside_ns = <int64_t>(aside * 1e9)
        self._credit, self._reckoned = SAVED_NS, monotonic_ns()

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
        one.size, one.whole = PENDING, 0
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
                replace(self, CMDLINES_NOBODY)
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
        """Process id of the helper, int; None if there is none now."""
        return self._helper.pid or None

    @property
    def ending(self):
        """Helpers that were killed and that the kernel has not let go of yet, int."""
        with nogil:
            pthread_mutex_lock(&self._mutex)
            helper_reap(&self._helper)
            pthread_mutex_unlock(&self._mutex)
        return self._helper.ending_count

    def close(self):
        """Ends the helper. What is asked afterwards starts another one."""
        with nogil:
            pthread_mutex_lock(&self._mutex)
            helper_close(&self._helper)
            pthread_mutex_unlock(&self._mutex)
