/* A helper process for work that may block: it can be killed and replaced.
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Only SIGKILL ends a wait in the kernel, and it cannot be sent to a single thread: it kills the whole process. Hence a
 * process. The helper shares the program's memory (CLONE_VM) and has a stack of its own there. A copy of the memory, as
 * fork makes it, stops a program of 2 GB for 33 ms, makes it fault at every page that it writes afterwards (1 to 5 s in
 * all), and keeps the overwritten pages; starting a child that shares the memory takes 0.1 ms (measured, Linux 6.18,
 * 4 KB pages). Sharing is safe because the helper calls no libc (helper_calls.h), takes no lock, allocates nothing, and
 * writes only to its room, which is not reused before the kernel has reported the helper's end. So it may be killed at
 * any point. It has its own descriptors, signal mask, working directory and capabilities, initially those of the thread
 * that started it; what belongs to the memory is shared: dumpable, oom_score_adj.
 *
 * Its exit signal is 0: the kernel sends no SIGCHLD, and no wait() without __WALL or __WCLONE sees it. It ends when its
 * socket is closed; if it is blocked then, SIGKILL ends it together with the thread that started it (PR_SET_PDEATHSIG).
 * */
#ifndef NFCT_FAST_HELPER_H
#define NFCT_FAST_HELPER_H

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <nfct_fast/kernel/helper_calls.h>
#include <nfct_fast/kernel/syscall_numbers.h>

#ifndef CLONE_VM
#define CLONE_VM 0x100
#endif
#define HELPER_PIDFD 0x1000 /* CLONE_PIDFD, since 5.2; older kernels ignore it */

enum {
    HELPER_STACK = 16384,
    HELPER_BUFFER = 65536,
    HELPER_ENDING = 8, /* limit of killed helpers that have not ended yet; at the limit no more are started */
};

/* The memory that a helper and the program both use. */
struct helper_room {
    uint64_t inside; /* set by the helper's work to a number of its choice during a call that may block; else 0 */
    int fd;
    void (*work)(int fd, struct helper_room *room);
    char buffer[HELPER_BUFFER];
    char guard[4096] __attribute__((aligned(4096)));
    char stack[HELPER_STACK];
};

struct helper_ending {
    pid_t pid;
    int pidfd;
    struct helper_room *room;
    uint64_t whose;
};

struct helper {
    pid_t pid;     /* 0: there is none */
    pid_t starter; /* the process that started it */
    int fd;        /* SOCK_SEQPACKET to it; -1: none, as for the next two */
    int pidfd;
    int stat; /* its /proc/PID/stat */
    struct helper_room *room;
    unsigned int processor; /* number of the processor that it was moved to last */
    unsigned int ending_count;
    struct helper_ending ending[HELPER_ENDING];
};

/* ---- In the helper ---- */

/* A substitute for close_range(2) before 5.9. */
HELPER_CODE void helper_close_listed(int keep, char *buf, long size)
{
    long directory = helper_raw(SYS_openat, AT_FDCWD, (long)"/proc/self/fd", O_RDONLY | O_DIRECTORY, 0), got, at;
    if (directory < 0) {
        for (long fd = 0; fd < 65536; fd++)
            if (fd != keep)
                helper_raw(SYS_close, fd, 0, 0, 0);
        return;
    }
    /* struct linux_dirent64: u64 ino, s64 off, u16 reclen, u8 type, name. Closing while reading skips none, as the
     * offset is the number of the descriptor. */
    while ((got = helper_raw(SYS_getdents64, directory, (long)buf, size, 0)) > 0)
        for (at = 0; at < got; at += *(unsigned short *)(buf + at + 16)) {
            const char *name = buf + at + 19;
            long fd = 0;
            for (; *name >= '0' && *name <= '9'; name++)
                fd = fd * 10 + (*name - '0');
            if (*name == 0 && fd != keep && fd != directory)
                helper_raw(SYS_close, fd, 0, 0, 0);
        }
    helper_raw(SYS_close, directory, 0, 0, 0);
}

HELPER_CODE void helper_run(void *argument)
{
    struct helper_room *room = argument;
    int fd = room->fd;
    /* If the program has ended before this, its end of the socket is closed already. */
    helper_raw(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0);
    helper_raw(SYS_prctl, PR_SET_NAME, (long)"nfct-cmdline", 0, 0);
    helper_raw(SYS_chdir, (long)"/", 0, 0, 0);
    if (helper_raw(SYS_close_range, fd + 1, ~0U, 0, 0) != 0 ||
        (fd > 0 && helper_raw(SYS_close_range, 0, fd - 1, 0, 0) != 0))
        helper_close_listed(fd, room->buffer, sizeof(room->buffer));
    room->work(fd, room);
    for (;;)
        helper_raw(SYS_exit_group, 0, 0, 0, 0);
}

/* ---- In the program. One caller at a time; errors are -errno. ---- */

static inline void helper_close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static inline void helper_init(struct helper *self)
{
    memset(self, 0, sizeof(*self));
    self->fd = self->pidfd = self->stat = -1;
}

/* Free the rooms of helpers that have ended. Does not wait. */
static inline void helper_reap(struct helper *self)
{
    unsigned int kept = 0;
    for (unsigned int i = 0; i < self->ending_count; i++) {
        struct helper_ending *one = &self->ending[i];
        /* An error means that other code in this process has already waited for all children. */
        if (waitpid(one->pid, NULL, WNOHANG | __WALL) == 0) {
            self->ending[kept++] = *one;
            continue;
        }
        munmap(one->room, sizeof(*one->room));
        helper_close_fd(&one->pidfd);
    }
    self->ending_count = kept;
}

/* Kill the helper and close its socket; it may end later. whose: a number of the caller's for the user on whose account
 * the helper is blocked. */
static inline void helper_kill(struct helper *self, uint64_t whose)
{
    struct helper_ending *one = &self->ending[self->ending_count];
    if (self->pid == 0)
        return;
    if (self->pidfd < 0 || syscall(SYS_pidfd_send_signal, self->pidfd, SIGKILL, NULL, 0) != 0)
        kill(self->pid, SIGKILL);
    one->pid = self->pid;
    one->pidfd = self->pidfd;
    one->room = self->room;
    one->whose = whose;
    self->ending_count++;
    self->pid = 0;
    self->pidfd = -1;
    helper_close_fd(&self->fd);
    helper_close_fd(&self->stat);
    helper_reap(self);
}

/* Return how many killed helpers have not ended yet on account of `whose`. */
static inline int helper_kept(struct helper *self, uint64_t whose)
{
    int count = 0;
    if (self->ending_count)
        helper_reap(self);
    for (unsigned int i = 0; i < self->ending_count; i++)
        count += self->ending[i].whose == whose;
    return count;
}

/* In a forked child, drop the parent's helpers and the copies of their rooms. */
static inline void helper_forget(struct helper *self)
{
    if (self->pid)
        munmap(self->room, sizeof(*self->room));
    for (unsigned int i = 0; i < self->ending_count; i++) {
        munmap(self->ending[i].room, sizeof(*self->room));
        helper_close_fd(&self->ending[i].pidfd);
    }
    helper_close_fd(&self->fd);
    helper_close_fd(&self->pidfd);
    helper_close_fd(&self->stat);
    helper_init(self);
}

static inline void helper_stat(struct helper *self)
{
    char path[32] = "/proc/", digits[12];
    int length = 6, n = 0;
    for (pid_t pid = self->pid; pid; pid /= 10)
        digits[n++] = (char)('0' + pid % 10);
    while (n)
        path[length++] = digits[--n];
    memcpy(path + length, "/stat", 6);
    self->stat = open(path, O_RDONLY | O_CLOEXEC);
}

/* Have the helper run ahead of other programs, so that on a busy machine it does not wait for their time slices: by a
 * nice value, if that is permitted, and a slice of 0.1 ms (since 6.12; ignored before). Next to four programs that
 * never sleep, on two processors, 95 % of replies came within 0.3 ms, and within 4.7 ms without this. If it is refused,
 * replies only take longer. */
static inline void helper_put_first(pid_t pid)
{
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } attr; /* struct sched_attr, as of 3.14 */
    int32_t nice;
    if (syscall(SYS_sched_getattr, pid, &attr, sizeof(attr), 0) < 0 || attr.policy != SCHED_OTHER)
        return;
    nice = attr.nice;
    attr.nice = -20;
    attr.runtime = 100000;
    if (syscall(SYS_sched_setattr, pid, &attr, 0) < 0) {
        attr.nice = nice;
        syscall(SYS_sched_setattr, pid, &attr, 0);
    }
}

/* Move the helper to the caller's processor, which becomes free as the caller is about to wait; another processor may
 * be running something that cannot be preempted. On a loaded machine, 78 of 25,000 first replies took more than 20 ms
 * on another processor, and none on the caller's. */
static inline void helper_follow(struct helper *self)
{
    unsigned int processor, node;
    unsigned long mask[64] = {0};
    if (syscall(SYS_getcpu, &processor, &node, NULL) != 0 || processor >= sizeof(mask) * 8 ||
        processor == self->processor)
        return;
    mask[processor / (8 * sizeof(long))] = 1UL << processor % (8 * sizeof(long));
    if (syscall(SYS_sched_setaffinity, self->pid, sizeof(mask), mask) == 0)
        self->processor = processor;
}

/* Start a helper that runs work(), unless there is one. 0 or -errno; -EAGAIN if too many killed ones have not ended.
 * Takes 0.1 ms. */
static inline int helper_start(struct helper *self, void (*work)(int fd, struct helper_room *room))
{
    struct helper_room *room;
    uint64_t all = ~(uint64_t)0, mask;
    int ends[2];
    long pid;
    if (self->pid && self->starter != getpid())
        helper_forget(self);
    if (self->pid)
        return 0;
    helper_reap(self);
    if (self->ending_count == HELPER_ENDING)
        return -EAGAIN;
    /* MAP_SHARED, so that we see `inside` even where the helper has a copy of the memory. */
    room = mmap(NULL, sizeof(*room), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED)
        return -errno;
    if (mprotect(room->guard, sizeof(room->guard), PROT_NONE) != 0 ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
        int error = -errno;
        munmap(room, sizeof(*room));
        return error;
    }
    room->fd = ends[1];
    room->work = work;
    self->pidfd = -1;
    /* The program's signal handlers must never run in the helper: it starts with all signals blocked, including those
     * that libc reserves for itself. */
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, &all, &mask, sizeof(mask));
    pid = helper_raw_child(HELPER_PIDFD | (HELPER_SHARES ? CLONE_VM : 0), room->stack + sizeof(room->stack),
                           &self->pidfd, helper_run, room);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof(mask));
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        munmap(room, sizeof(*room));
        return (int)pid;
    }
    helper_put_first((pid_t)pid);
    self->pid = (pid_t)pid;
    self->starter = getpid();
    self->fd = ends[0];
    self->room = room;
    self->processor = ~0U;
    helper_follow(self);
    helper_stat(self);
    return 0;
}

/* Whether the helper is blocked, rather than waiting for a processor. True if that is not known. */
static inline int helper_is_blocked(const struct helper *self)
{
    char buf[64];
    ssize_t got = pread(self->stat, buf, sizeof(buf) - 1, 0);
    const char *end = got > 0 ? memrchr(buf, ')', (size_t)got) : NULL;
    return !end || buf + got - end < 3 || end[2] == 'D' || end[2] == 'S' || end[2] == 'Z' || end[2] == 'X';
}

/* Receive a message. Return its size, -ETIMEDOUT after `until` (CLOCK_MONOTONIC ns), -EPIPE if the helper has ended. */
static inline ssize_t helper_receive(const struct helper *self, struct msghdr *message, int64_t until)
{
    struct pollfd ready = {.fd = self->fd, .events = POLLIN};
    struct timespec now, left;
    int64_t ns;
    ssize_t got;
    for (;;) {
        got = recvmsg(self->fd, message, MSG_DONTWAIT);
        if (got > 0)
            return got;
        if (got == 0 || errno == ECONNRESET)
            return -EPIPE;
        if (errno != EAGAIN && errno != EINTR)
            return -errno;
        clock_gettime(CLOCK_MONOTONIC, &now);
        ns = until - ((int64_t)now.tv_sec * 1000000000 + now.tv_nsec);
        if (ns <= 0)
            return -ETIMEDOUT;
        left.tv_sec = ns / 1000000000;
        left.tv_nsec = ns % 1000000000;
        if (ppoll(&ready, 1, &left, NULL) < 0 && errno != EINTR)
            return -errno;
    }
}

/* End the helper and wait for 0.1 s at most. The room of one that has not ended by then stays mapped. */
static inline void helper_close(struct helper *self)
{
    struct timespec pause = {0, 200000};
    if (self->starter && self->starter != getpid()) {
        helper_forget(self);
        return;
    }
    helper_kill(self, 0);
    for (int i = 0; i < 500 && self->ending_count; i++) {
        nanosleep(&pause, NULL);
        helper_reap(self);
    }
    for (unsigned int i = 0; i < self->ending_count; i++)
        helper_close_fd(&self->ending[i].pidfd);
    helper_init(self);
}

#endif
