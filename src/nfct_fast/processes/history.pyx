"""The programs that processes ran, from the kernel's events of fork, execve and exit.

An identity (pid, start time of the first thread, exec id) stands for one program in one process and is never reused. It
joins a BPF note with the program that wrote it, however late and in whatever order the two are seen. A program that was
running before us is read from /proc, which does not show exec ids: it gets the exec id of the first note or event of
its process. If that event is an execve, either the program's id was one less, or /proc already showed the new program;
the address of the arguments tells which, since every execve randomizes it.

This file has more than 400 lines: the hash, its lists and the two sources of events share one lock and one set of
invariants.
"""
cimport cython
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memchr, memcmp, memcpy, memset
from posix.unistd cimport _SC_CLK_TCK, sysconf

from posix_pthread cimport pthread_mutex_destroy, pthread_mutex_lock, pthread_mutex_unlock
from nfct_fast.processes.process_event cimport (
    PROCESS_EVENT_DELETED, PROCESS_EVENT_EXEC, PROCESS_EVENT_EXIT, PROCESS_EVENT_EXIT_SIZE, PROCESS_EVENT_FORK,
    PROCESS_EVENT_FORK_SIZE, PROCESS_EVENT_NO_ARGS, PROCESS_PATH_MAX, RING_DISCARDED, process_event, process_id,
    process_ring, ring_begin, ring_next, ring_release,
)

from nfct_fast.processes.cgroup cimport span_t
from nfct_fast.kernel.mutex cimport mutex_make
from nfct_fast.processes.process cimport (
    PROCESS_CMDLINE, PROCESS_EXE, PROCESS_EXE_FILE, PROCESS_FORKED, PROCESS_IDS, PROCESS_LOGIN, PROCESS_PPID,
    PROCESS_UNREAD, ancestor_build, ancestor_drop, ancestor_t, ancestor_take, process_build, process_drop, process_t,
    process_take,
)
from nfct_fast.kernel.clock cimport monotonic_ns

cdef enum:
    NO_LOGIN = 0xffffffff
    PROGRAMS_PER_PROCESS = 16    # limit, so that a process that calls execve in a loop cannot evict all others
    # ns by which /proc may show a new program before the proc connector's time stamp of its execve: usually
    # microseconds, more if the process is preempted in between.
    EXEC_SHOWN_EARLY = 5000000


cdef inline program_t **slot_of(History self, int32_t pid) noexcept nogil:
    return &self._slots[(<uint32_t>pid * <uint32_t>2654435761) >> 8 & self._mask]


cdef void list_add(programs_list_t *list, program_t *program) noexcept nogil:
    program.newer = NULL
    program.older = list.newest
    if list.newest != NULL:
        list.newest.newer = program
    else:
        list.oldest = program
    list.newest = program


cdef void list_remove(programs_list_t *list, program_t *program) noexcept nogil:
    if program.newer != NULL:
        program.newer.older = program.older
    else:
        list.newest = program.older
    if program.older != NULL:
        program.older.newer = program.newer
    else:
        list.oldest = program.newer


cdef programs_list_t *list_of(History self, const program_t *program) noexcept nogil:
    if program.has_ended:
        return &self._ended
    return &self._unbound if program.is_unbound else &self._running


cdef void program_free(program_t *program) noexcept nogil:
    process_drop(program.facts)
    process_drop(program.title)
    process_drop(program.pending_title)
    ancestor_drop(program.ancestors)
    ancestor_drop(program.node)
    free(program)


cdef void program_remove(History self, program_t *program) noexcept nogil:
    cdef program_t **at = slot_of(self, program.id.tgid)
    while at[0] != program:
        at = &at[0].chain
    at[0] = program.chain
    list_remove(list_of(self, program), program)
    self._fresh_count -= program.is_fresh
    self.count -= 1
    self.bytes -= program.bytes
    program_free(program)


cdef void program_end(History self, program_t *program) noexcept nogil:
    if not program.has_ended:
        list_remove(list_of(self, program), program)
        program.has_ended = True
        list_add(&self._ended, program)


cdef uint64_t bytes_of(const program_t *program) noexcept nogil:
    # An upper bound: memory that several programs share is counted for each.
    cdef uint64_t bytes = sizeof(program_t)
    if program.facts != NULL:
        bytes += program.facts.bytes
    if program.ancestors != NULL:
        bytes += program.ancestors.bytes
    return bytes


cdef void program_add(History self, program_t *program) noexcept nogil:
    # Takes over `program`, with its references.
    cdef program_t **slot = slot_of(self, program.id.tgid)
    cdef program_t *at = slot[0]
    cdef program_t *last = NULL
    cdef int count = 0
    while at != NULL:
        if at.id.tgid == program.id.tgid:
            count += 1
            last = at
        at = at.chain
    if count >= PROGRAMS_PER_PROCESS:
        program_remove(self, last)
    program.bytes = bytes_of(program)
    while self.count and (self.count >= self._limit or self.bytes + program.bytes > self._bytes_limit):
        program_remove(self, self._ended.oldest or self._running.oldest or self._unbound.oldest)
        self.evicted += 1
    program.chain = slot[0]
    slot[0] = program
    list_add(list_of(self, program), program)
    self.count += 1
    self.bytes += program.bytes


cdef inline program_t *newest_of(History self, int32_t pid) noexcept nogil:
    cdef program_t *at = slot_of(self, pid)[0]
    while at != NULL and <int32_t>at.id.tgid != pid:
        at = at.chain
    return at


cdef inline program_t *older_of(program_t *program) noexcept nogil:
    cdef program_t *at = program.chain
    while at != NULL and at.id.tgid != program.id.tgid:
        at = at.chain
    return at


cdef program_t *find_program(History self, const process_id *id) noexcept nogil:
    cdef program_t *at = newest_of(self, id.tgid)
    cdef program_t *unbound = NULL
    while at != NULL:
        if at.is_unbound:
            if unbound == NULL and not at.is_fresh and at.ticks == id.start // <uint64_t>self._tick:
                unbound = at
        elif at.id.exec == id.exec and at.id.start == id.start:
            return at
        at = older_of(at)
    if unbound != NULL:
        unbound.id = id[0]
        if not unbound.has_ended:
            list_remove(&self._unbound, unbound)
            list_add(&self._running, unbound)
        unbound.is_unbound = False
    return unbound


cdef ancestor_t *ancestors_of(History self, program_t *program, int depth) noexcept nogil:
    # The ancestors of a program that was read from /proc are looked up when first needed, since by then all of them
    # have been read as well.
    cdef program_t *parent
    if program.ancestors == NULL and program.is_read and program.ppid > 0 and depth < 64:
        parent = newest_of(self, program.ppid)
        while parent != NULL and parent.ticks > program.ticks:
            parent = older_of(parent)
        if parent != NULL and parent != program:
            program.ancestors = ancestor_take(node_of(self, parent, depth + 1))
    return program.ancestors


cdef ancestor_t *node_of(History self, program_t *program, int depth) noexcept nogil:
    cdef span_t comm, exe
    cdef const char *end
    cdef uint64_t start_ns
    if program.node == NULL:
        end = <const char *>memchr(program.comm, 0, 16)
        comm.at, comm.size = program.comm, end - program.comm if end != NULL else 16
        exe.at, exe.size = NULL, 0
        if program.facts != NULL:
            exe = program.facts.exe
        start_ns = program.id.start or program.ticks * <uint64_t>self._tick
        program.node = ancestor_build(program.id.tgid, start_ns, comm, exe,
                                      ancestor_take(ancestors_of(self, program, depth)))
    return program.node


cdef size_t path_put(char *room, const process_event *event, const char *text) noexcept nogil:
    """Write a path, given by its components in reverse order with a NUL after each. Return its size."""
    cdef size_t size = event.path_size
    cdef char *at = room + size
    cdef const char *end = text + size
    cdef const char *next
    cdef size_t length
    while text < end:
        next = <const char *>memchr(text, 0, end - text)
        if next == NULL:
            return 0
        length = next - text
        at -= length + 1
        at[0] = c'/'
        memcpy(at + 1, text, length)
        text = next + 1
    if event.flags & PROCESS_EVENT_DELETED:
        memcpy(room + size, b" (deleted)", 10)
        size += 10
    return size


cdef process_t *facts_of(const process_event *event, uint32_t size) noexcept nogil:
    """Build a process from the event of an execve. Return a reference; NULL if memory is exhausted."""
    cdef char path[PROCESS_PATH_MAX + 16]
    cdef const char *text = <const char *>(event + 1)
    cdef process_t facts
    memset(&facts, 0, sizeof(facts))
    if sizeof(process_event) + event.path_size + event.kept_size > size or event.path_size > PROCESS_PATH_MAX:
        return NULL
    if event.path_size:
        facts.exe.at, facts.exe.size = path, path_put(path, event, text)
        facts.has |= PROCESS_EXE
    # Encode as st_dev: the kernel's own device numbers have 20 bits for the minor number.
    facts.exe_dev = ((event.device >> 20 & 0xfff) << 8 | event.device & 0xff | <uint64_t>(event.device & 0xfff00) << 12
                     | <uint64_t>(event.device >> 20 & ~0xfff) << 32)
    facts.exe_inode = event.inode
    facts.has |= PROCESS_EXE_FILE
    if event.flags & PROCESS_EVENT_NO_ARGS:
        facts.has |= PROCESS_UNREAD
    else:
        facts.cmdline.at, facts.cmdline.size = text + event.path_size, event.kept_size
        facts.cmdline_size = event.args_size
        if facts.cmdline_size and (
                facts.cmdline.size < facts.cmdline_size or facts.cmdline.at[facts.cmdline.size - 1] == 0):
            facts.cmdline_size -= 1
        facts.cmdline.size = min(facts.cmdline.size, facts.cmdline_size)
        facts.has |= PROCESS_CMDLINE
    return process_build(&facts)


cdef void fill(History self, program_t *program, const process_event *event) noexcept nogil:
    program.id = event.id
    program.ticks = event.id.start // <uint64_t>self._tick
    program.uid, program.gid = event.uid, event.gid
    program.login_uid, program.ns_pid = event.login_uid, event.ns_pid
    memcpy(program.comm, event.comm, 16)


cdef void apply_fork(History self, const process_event *event) noexcept nogil:
    cdef program_t *child = <program_t *>calloc(1, sizeof(program_t))
    cdef program_t *parent
    if child == NULL:
        return
    self.forks += 1
    fill(self, child, event)
    child.ppid = <int32_t>event.parent.tgid
    child.is_forked = True
    parent = find_program(self, &event.parent)
    if parent != NULL:
        child.facts = process_take(parent.facts)
        child.arg_start = parent.arg_start
        child.ancestors = ancestor_take(node_of(self, parent, 0))
    program_add(self, child)


cdef void remove_read(History self, const process_event *event) noexcept nogil:
    # Remove the same program as read from /proc: the event says more.
    cdef program_t *at = newest_of(self, event.id.tgid)
    cdef program_t *next
    while at != NULL:
        next = older_of(at)
        if at.is_read and at.ticks == event.id.start // <uint64_t>self._tick and at.arg_start in (0, event.arg_start):
            program_remove(self, at)
        at = next


cdef void match_fresh(History self, process_ring *ring) noexcept nogil:
    # Find the programs that /proc showed before their execve event was read. Look at all queued events first, so that
    # such a program is not taken for the one before the execve.
    cdef const process_event *event
    cdef program_t *program
    cdef uint64_t at = ring_begin(ring)
    cdef uint32_t length
    while True:
        event = ring_next(ring, &at, &length)
        if event == NULL:
            break
        if not length & RING_DISCARDED and length >= sizeof(process_event) and event.kind == PROCESS_EVENT_EXEC:
            remove_read(self, event)
    program = self._unbound.newest
    while self._fresh_count and program != NULL:
        self._fresh_count -= program.is_fresh
        program.is_fresh = False
        program = program.older
    self._fresh_count = 0


cdef void apply_exec(History self, const process_event *event, uint32_t size) noexcept nogil:
    cdef process_id old = event.id
    cdef program_t *program = <program_t *>calloc(1, sizeof(program_t))
    cdef program_t *at
    if program == NULL:
        return
    self.execs += 1
    fill(self, program, event)
    program.arg_start = event.arg_start
    program.facts = facts_of(event, size)
    # execve keeps the ancestors. So take those of the previous program, or of the same one as read from /proc.
    at = newest_of(self, event.id.tgid)
    while at != NULL and at.ticks != program.ticks:
        at = older_of(at)
    if at != NULL:
        program.ppid = at.ppid
        program.ancestors = ancestor_take(ancestors_of(self, at, 0))
    remove_read(self, event)
    old.exec -= 1
    at = find_program(self, &old)
    if at != NULL:
        program_end(self, at)
    program_add(self, program)


cdef void apply_exit(History self, const process_event *event) noexcept nogil:
    cdef program_t *program = find_program(self, &event.id)
    self.exits += 1
    if program != NULL:
        program_end(self, program)


cdef void forget_unbound(History self, uint64_t lost) noexcept nogil:
    cdef program_t *at = self._unbound.oldest
    cdef program_t *next
    while at != NULL:
        next = at.newer
        if at.lost != lost:
            program_remove(self, at)
        at = next
    self._lost = lost


cdef void apply(History self, const process_event *event, uint32_t size) noexcept nogil:
    if event.kind == PROCESS_EVENT_EXIT and size >= PROCESS_EVENT_EXIT_SIZE:
        apply_exit(self, event)
    elif event.kind == PROCESS_EVENT_FORK and size >= PROCESS_EVENT_FORK_SIZE:
        apply_fork(self, event)
    elif event.kind == PROCESS_EVENT_EXEC and size >= sizeof(process_event):
        apply_exec(self, event, size)


cdef void facts_copy(History self, program_t *program, process_t *facts, process_t **holder) noexcept nogil:
    # *holder owns the text; the caller gets a reference to it.
    cdef process_t *known = program.title if program.title != NULL else program.facts
    memset(facts, 0, sizeof(facts[0]))
    holder[0] = process_take(known)
    if known != NULL:
        facts.has = known.has & (PROCESS_EXE | PROCESS_CMDLINE | PROCESS_EXE_FILE | PROCESS_UNREAD)
        facts.exe, facts.exe_dev, facts.exe_inode = known.exe, known.exe_dev, known.exe_inode
        facts.cmdline, facts.cmdline_size = known.cmdline, known.cmdline_size
        if program.title != NULL and program.facts != NULL and program.facts.has & PROCESS_EXE_FILE:
            facts.exe_dev, facts.exe_inode = program.facts.exe_dev, program.facts.exe_inode
            facts.has |= PROCESS_EXE_FILE
    facts.pid = program.id.tgid
    facts.ppid = program.ppid
    facts.start = program.ticks
    facts.start_ns = program.id.start
    facts.uid, facts.gid = program.uid, program.gid
    facts.has |= PROCESS_IDS
    if program.ppid or program.id.tgid == 1:
        facts.has |= PROCESS_PPID
    if program.login_uid != NO_LOGIN:
        facts.login_uid = program.login_uid
        facts.has |= PROCESS_LOGIN
    if program.is_forked:
        facts.has |= PROCESS_FORKED
    facts.ns_pid = program.ns_pid
    facts.ancestors = ancestors_of(self, program, 0)
    program.found_at = monotonic_ns()


@cython.final
@cython.auto_pickle(False)
cdef class History:
    """A record of at most `limit` programs, running or ended, in at most `bytes_limit` bytes of memory."""

    def __cinit__(self, uint32_t limit=32768, uint64_t bytes_limit=24 << 20):
        cdef uint32_t size = 64
        if not 0 < limit <= 1 << 20:
            raise ValueError("limit must be between 1 and 1048576")
        while size < limit:
            size *= 2
        self._tick = 1000000000 // sysconf(_SC_CLK_TCK)
        self._limit, self._bytes_limit, self._mask = limit, bytes_limit, size - 1
        if not mutex_make(&self._mutex):
            raise MemoryError
        self._mutex_made = True
        self._slots = <program_t **>calloc(size, sizeof(program_t *))
        if self._slots == NULL:
            raise MemoryError

    def __dealloc__(self):
        cdef uint32_t i
        cdef program_t *at
        cdef program_t *next
        if self._slots != NULL:
            for i in range(self._mask + 1):
                at = self._slots[i]
                while at != NULL:
                    next = at.chain
                    program_free(at)
                    at = next
        free(self._slots)
        if self._mutex_made:
            pthread_mutex_destroy(&self._mutex)

    cdef void drain(self, process_ring *ring, uint64_t lost) noexcept nogil:
        cdef const process_event *event
        cdef uint64_t at = ring_begin(ring)
        cdef uint64_t done = at
        cdef uint32_t length
        pthread_mutex_lock(&self._mutex)
        if lost != self._lost:
            forget_unbound(self, lost)
        if self._fresh_count:
            match_fresh(self, ring)
        while True:
            event = ring_next(ring, &at, &length)
            if event == NULL:
                break
            if not length & RING_DISCARDED:
                apply(self, event, length)
            # Give room back in steps, as the kernel may need it for further events meanwhile.
            if at - done > ring.size // 8:
                ring_release(ring, at)
                done = at
        if at != done:
            ring_release(ring, at)
        pthread_mutex_unlock(&self._mutex)

    cdef void add(self, const process_t *process, uint64_t lost) noexcept nogil:
        cdef program_t *program
        cdef program_t *known
        pthread_mutex_lock(&self._mutex)
        known = newest_of(self, process.pid)
        # Ignore what was read if an event has reported the same program.
        if known == NULL or known.ticks != process.start or known.arg_start != process.arg_start:
            program = <program_t *>calloc(1, sizeof(program_t))
            if program != NULL:
                program.id.tgid = process.pid
                program.ticks, program.ppid = process.start, process.ppid
                program.uid, program.gid, program.login_uid = process.uid, process.gid, NO_LOGIN
                memcpy(program.comm, process.comm.at, min(<size_t>16, process.comm.size))
                program.arg_start, program.lost = process.arg_start, lost
                program.is_read = program.is_unbound = program.is_fresh = True
                self._fresh_count += 1
                program.facts = process_build(process)
                program_add(self, program)
                self.changes += 1
        pthread_mutex_unlock(&self._mutex)

    cdef bint find(self, const process_id *id, process_t *facts, process_t **holder) noexcept nogil:
        cdef program_t *program
        pthread_mutex_lock(&self._mutex)
        program = find_program(self, id)
        if program != NULL:
            facts_copy(self, program, facts, holder)
            ancestor_take(facts.ancestors)
        pthread_mutex_unlock(&self._mutex)
        return program != NULL

    cdef bint find_at(self, int32_t pid, int64_t when, process_t *facts, process_t **holder) noexcept nogil:
        cdef program_t *program
        pthread_mutex_lock(&self._mutex)
        program = newest_of(self, pid)
        # A running process may have executed another program whose event has not been read yet.
        while program != NULL and not (program.since <= when and when <= (program.until or self._reported_until)):
            program = older_of(program)
        if program != NULL:
            facts_copy(self, program, facts, holder)
            ancestor_take(facts.ancestors)
        pthread_mutex_unlock(&self._mutex)
        return program != NULL

    cdef void reporting(self, bint reporting) noexcept nogil:
        pthread_mutex_lock(&self._mutex)
        self._reporting = reporting
        pthread_mutex_unlock(&self._mutex)

    cdef bint has_reported(self, int64_t when) noexcept nogil:
        cdef bint reporting
        pthread_mutex_lock(&self._mutex)
        reporting = self._reporting
        if not reporting:
            self._reported_until = max(self._reported_until, when)
        pthread_mutex_unlock(&self._mutex)
        return not reporting

    cdef void on_fork(self, int32_t pid, int32_t ppid, int64_t when) noexcept nogil:
        cdef program_t *child = <program_t *>calloc(1, sizeof(program_t))
        cdef program_t *parent
        if child == NULL:
            return
        pthread_mutex_lock(&self._mutex)
        self.forks += 1
        parent = newest_of(self, ppid)
        child.id.tgid, child.ppid, child.since, child.login_uid = pid, ppid, when, NO_LOGIN
        child.ticks = when // self._tick
        child.is_forked = True
        if parent != NULL and not parent.has_ended:
            child.uid, child.gid = parent.uid, parent.gid
            memcpy(child.comm, parent.comm, 16)
            child.facts = process_take(parent.facts)
            child.ancestors = ancestor_take(node_of(self, parent, 0))
        program_add(self, child)
        pthread_mutex_unlock(&self._mutex)

    cdef void on_exec(self, int32_t pid, int64_t when, const process_t *process, int64_t read_by) noexcept nogil:
        cdef program_t *program = <program_t *>calloc(1, sizeof(program_t))
        cdef program_t *old
        if program == NULL:
            return
        pthread_mutex_lock(&self._mutex)
        self.execs += 1
        old = newest_of(self, pid)
        program.id.tgid, program.since, program.login_uid = pid, when, NO_LOGIN
        if old != NULL and not old.has_ended:
            program.ppid, program.ticks = old.ppid, old.ticks
            program.ancestors = ancestor_take(ancestors_of(self, old, 0))
            old.until = when
            # A title read just before the event may already have been the new program's command line.
            if old.title_read_at and old.title_read_at > when - EXEC_SHOWN_EARLY:
                process_drop(old.facts)
                old.facts = NULL
            program_end(self, old)
        if process != NULL:
            program.ppid, program.ticks = process.ppid, process.start
            program.uid, program.gid = process.uid, process.gid
            memcpy(program.comm, process.comm.at, min(<size_t>16, process.comm.size))
            program.arg_start = process.arg_start
            program.facts = process_build(process)
            program.title_read_at = read_by
        program_add(self, program)
        pthread_mutex_unlock(&self._mutex)

    cdef void on_exit(self, int32_t pid, int64_t when) noexcept nogil:
        cdef program_t *program
        pthread_mutex_lock(&self._mutex)
        self.exits += 1
        program = newest_of(self, pid)
        if program != NULL and not program.has_ended:
            program.until = when
            program_end(self, program)
        pthread_mutex_unlock(&self._mutex)

    cdef bint running(self, const process_t *process, uint32_t *exec_id) noexcept nogil:
        cdef program_t *program
        cdef bint known
        pthread_mutex_lock(&self._mutex)
        program = newest_of(self, process.pid)
        known = program != NULL and not program.has_ended and program.ticks == process.start
        if known:
            exec_id[0] = program.id.exec
        pthread_mutex_unlock(&self._mutex)
        return known

    cdef bint runs(self, const process_t *process, uint32_t exec_id) noexcept nogil:
        cdef uint32_t now = 0
        return self.running(process, &now) and now == exec_id

    cdef int titles_due(self, int64_t found_after, int64_t read_before, int32_t *out, int room) noexcept nogil:
        cdef int count
        pthread_mutex_lock(&self._mutex)
        count = due_among(&self._running, found_after, read_before, out, room)
        count += due_among(&self._unbound, found_after, read_before, out + count, room - count)
        pthread_mutex_unlock(&self._mutex)
        return count

    cdef void check_title(self, const process_t *process) noexcept nogil:
        cdef program_t *program
        cdef process_t *known
        pthread_mutex_lock(&self._mutex)
        program = newest_of(self, process.pid)
        if program != NULL and not program.has_ended and program.ticks == process.start and process.cmdline.size:
            program.title_read_at = monotonic_ns()
            known = program.title if program.title != NULL else program.facts
            if known != NULL and known.has & PROCESS_CMDLINE and is_text(&known.cmdline, &process.cmdline):
                process_drop(program.pending_title)
                program.pending_title = NULL
            elif program.pending_title != NULL and is_text(&program.pending_title.cmdline, &process.cmdline):
                # The same text was read twice without an execve in between: a title, not another program's arguments.
                process_drop(program.title)
                program.title, program.pending_title = program.pending_title, NULL
                self.changes += 1
            else:
                process_drop(program.pending_title)
                program.pending_title = process_build(process)
        pthread_mutex_unlock(&self._mutex)


cdef int due_among(const programs_list_t *list, int64_t found_after, int64_t read_before, int32_t *out,
                   int room) noexcept nogil:
    cdef const program_t *at = list.newest
    cdef int count = 0
    while at != NULL and count < room:
        if at.found_at > found_after and (at.title_read_at < read_before or at.pending_title != NULL):
            out[count] = at.id.tgid
            count += 1
        at = at.older
    return count


cdef bint is_text(const span_t *one, const span_t *other) noexcept nogil:
    return one.size == other.size and memcmp(one.at, other.at, one.size) == 0
