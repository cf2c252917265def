/* A filter for seccomp(2) that allows the system calls needed for receiving events, finding owners and writing records.
 * All others fail with EPERM. */
#ifndef NFCT_FAST_SECCOMP_FILTER_H
#define NFCT_FAST_SECCOMP_FILTER_H

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <nfct_fast/kernel/syscall_numbers.h>

#if defined(__x86_64__)
#define NFCT_FAST_AUDIT_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define NFCT_FAST_AUDIT_ARCH AUDIT_ARCH_AARCH64
#else
#define NFCT_FAST_AUDIT_ARCH 0 /* there is no filter for this machine */
#endif

#ifndef SECCOMP_GET_ACTION_AVAIL
#define SECCOMP_GET_ACTION_AVAIL 2 /* 4.14 */
#endif
#ifndef SECCOMP_FILTER_FLAG_SPEC_ALLOW
#define SECCOMP_FILTER_FLAG_SPEC_ALLOW (1UL << 2) /* 4.17 */
#endif

enum { SANDBOX_SETNS = 1, SANDBOX_KILL = 2, SANDBOX_ACCEPT = 4, SANDBOX_TERMINAL = 8, SANDBOX_FILES = 16 };
enum { SANDBOX_FILTER_MAX = 440, SANDBOX_X32 = 0x40000000 };
enum { SANDBOX_MAP_CREATE = 0, SANDBOX_MAP_UPDATE_ELEM = 2 }; /* of enum bpf_cmd */

/* Options. SANDBOX_SETNS: also allow setns(2), socket(2) for netlink, and bpf(2) to make maps. SANDBOX_KILL: also allow
 * signals to other processes. SANDBOX_ACCEPT: also allow accept4(2), and then nothing that could connect a socket to
 * elsewhere: not connect(2), and not shutdown(2), which makes a socket that listens one that can be connected.
 * SANDBOX_TERMINAL: also allow to set the modes of a terminal and to ask for its size. SANDBOX_FILES: also allow
 * making, writing, renaming and removing files.
 *
 * Conditions on an argument. SANDBOX_CLEAR: all bits of `value` are clear. SANDBOX_SET: all bits of `value` are set, or
 * the argument equals `other`. SANDBOX_EQUAL: it equals `value` or `other`. SANDBOX_FROM_TO: it is from `value` to
 * `other`. */
enum { SANDBOX_ANY, SANDBOX_CLEAR, SANDBOX_SET, SANDBOX_EQUAL, SANDBOX_FROM_TO };

struct sandbox_rule {
    int number;
    uint8_t how, argument;
    uint32_t value, other;
};

#define ALLOWED(name) {SYS_##name, SANDBOX_ANY, 0, 0, 0}

static const struct sandbox_rule nfct_fast_sandbox_rules[] = {
    /* The most frequent calls come first: kernels before 5.11 have no bitmap of calls that are always allowed. */
    ALLOWED(recvmmsg),
    ALLOWED(recvfrom),
    ALLOWED(read),
    ALLOWED(write),
    ALLOWED(futex),
    ALLOWED(close),
    ALLOWED(readlinkat),
    ALLOWED(newfstatat),
    /* Only for reading, and no new files. Not openat2(2), whose flags are in memory, where a filter cannot look. */
    {SYS_openat, SANDBOX_CLEAR, 2, O_WRONLY | O_RDWR | O_CREAT | O_TRUNC | O_APPEND, 0},
    ALLOWED(clock_nanosleep),
    ALLOWED(ppoll),
    ALLOWED(epoll_pwait),
    ALLOWED(sendto),
    ALLOWED(fstat),
    ALLOWED(getsockopt),
    ALLOWED(getdents64),
    {SYS_open_by_handle_at, SANDBOX_CLEAR, 2, O_WRONLY | O_RDWR | O_CREAT | O_TRUNC | O_APPEND, 0},
#ifdef SYS_poll
    ALLOWED(poll),
    ALLOWED(epoll_wait),
    ALLOWED(select),
#endif
    ALLOWED(pread64),
    ALLOWED(readv),
    ALLOWED(writev),
    ALLOWED(lseek),
    ALLOWED(recvmsg),
    ALLOWED(sendmsg),
    ALLOWED(sendmmsg),
    ALLOWED(pselect6),
    ALLOWED(epoll_ctl),
    ALLOWED(epoll_create1),
    ALLOWED(eventfd2),
    ALLOWED(pipe2),
    ALLOWED(dup),
    ALLOWED(dup3),
    ALLOWED(faccessat),
    ALLOWED(getcwd),
    ALLOWED(statfs),
    ALLOWED(fstatfs),
    ALLOWED(nanosleep),
    ALLOWED(clock_gettime),
    ALLOWED(clock_getres),
    ALLOWED(gettimeofday),
    /* For sockets that exist already, and those that SANDBOX_SETNS allows. */
    ALLOWED(bind),
    ALLOWED(connect),
    ALLOWED(setsockopt),
    ALLOWED(getsockname),
    ALLOWED(shutdown),
    /* Nothing that makes memory executable. */
    {SYS_mmap, SANDBOX_CLEAR, 2, PROT_EXEC, 0},
    {SYS_mprotect, SANDBOX_CLEAR, 2, PROT_EXEC, 0},
    ALLOWED(munmap),
    ALLOWED(mremap),
    ALLOWED(madvise),
    ALLOWED(brk),
    ALLOWED(mlock),
    ALLOWED(munlock),
    /* Threads, and the helper that reads command lines (helper.h), which shares the memory and this filter; no other
     * processes. clone3(2) fails with ENOSYS, and glibc falls back to clone(2). */
    {SYS_clone, SANDBOX_SET, 0, CLONE_VM | CLONE_THREAD, CLONE_VM | 0x1000},
    ALLOWED(exit),
    ALLOWED(exit_group),
    /* Also for that helper. Any pidfd refers to the helper, as pidfd_open(2) is not allowed. Sockets of another type
     * could be connected elsewhere, to a listening socket. */
    {SYS_socketpair, SANDBOX_EQUAL, 1, SOCK_SEQPACKET | SOCK_CLOEXEC, SOCK_SEQPACKET | SOCK_CLOEXEC},
    ALLOWED(close_range),
    ALLOWED(chdir),
    ALLOWED(pidfd_send_signal),
    ALLOWED(getcpu),
    ALLOWED(sched_setaffinity),
    ALLOWED(sched_getattr),
    ALLOWED(sched_setattr),
    ALLOWED(set_robust_list),
    ALLOWED(sched_yield),
    ALLOWED(sched_getaffinity),
    ALLOWED(gettid),
    ALLOWED(getpid),
    ALLOWED(getppid),
    ALLOWED(getuid),
    ALLOWED(geteuid),
    ALLOWED(getgid),
    ALLOWED(getegid),
    ALLOWED(getrandom),
    /* Anonymous memory with a descriptor. Nothing can execute it: see mmap(2) above. */
    ALLOWED(memfd_create),
    ALLOWED(uname),
    ALLOWED(getrusage),
    {SYS_prlimit64, SANDBOX_EQUAL, 2, 0, 0},
    ALLOWED(wait4),
    ALLOWED(waitid),
    ALLOWED(capget),
    ALLOWED(capset),
#ifdef SYS_rseq
    ALLOWED(rseq),
#endif
#ifdef SYS_membarrier
    ALLOWED(membarrier),
#endif
#ifdef SYS_statx
    ALLOWED(statx),
#endif
    ALLOWED(rt_sigaction),
    ALLOWED(rt_sigprocmask),
    ALLOWED(rt_sigreturn),
    ALLOWED(rt_sigtimedwait),
    ALLOWED(sigaltstack),
    ALLOWED(restart_syscall),
    /* Not F_SETOWN and F_SETSIG, which would signal other processes. */
    {SYS_fcntl, SANDBOX_CLEAR, 1, 8, 0},
    /* The name of a thread, and the signal that ends the helper with its parent. */
    {SYS_prctl, SANDBOX_EQUAL, 0, PR_SET_NAME, PR_SET_PDEATHSIG},
    /* Type and owner of a namespace (linux/nsfs.h); not TIOCSTI. */
    {SYS_ioctl, SANDBOX_FROM_TO, 1, 0xb701, 0xb704},
};

/* Of SANDBOX_FILES; before the others, as the first rule for a call is the one that counts. */
static const struct sandbox_rule nfct_fast_sandbox_files[] = {
    ALLOWED(openat),    ALLOWED(pwrite64),  ALLOWED(fdatasync),  ALLOWED(fsync),
    ALLOWED(ftruncate), ALLOWED(fallocate), ALLOWED(flock),      ALLOWED(fchmod),
    ALLOWED(umask),     ALLOWED(unlinkat),  ALLOWED(readlinkat),
#ifdef SYS_renameat
    ALLOWED(renameat),
#endif
    ALLOWED(renameat2),
#ifdef SYS_unlink
    ALLOWED(unlink),    ALLOWED(rename),    ALLOWED(access),     ALLOWED(readlink),
    ALLOWED(stat),      ALLOWED(lstat),     ALLOWED(open),
#endif
};

#undef ALLOWED

static inline struct sock_filter *nfct_fast_sandbox_load(struct sock_filter *at, uint32_t offset)
{
    *at++ = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offset);
    return at;
}

static inline struct sock_filter *nfct_fast_sandbox_allow(struct sock_filter *at, const struct sandbox_rule *rule)
{
    /* The kernel itself uses only 32 bits of each argument that is checked here. */
    uint32_t low =
        offsetof(struct seccomp_data, args) + 8 * rule->argument + (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? 4 : 0);
    struct sock_filter *jump = at++;
    if (rule->how != SANDBOX_ANY)
        at = nfct_fast_sandbox_load(at, low);
    if (rule->how == SANDBOX_CLEAR)
        *at++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, rule->value, 1, 0);
    if (rule->how == SANDBOX_SET) {
        if (rule->other)
            *at++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, rule->other, 2, 0);
        *at++ = (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, rule->value);
        *at++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, rule->value, 0, 1);
    }
    if (rule->how == SANDBOX_FROM_TO) {
        *at++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, rule->value, 0, 2);
        *at++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, rule->other, 1, 0);
    }
    if (rule->how == SANDBOX_EQUAL) {
        *at++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, rule->value, 1, 0);
        *at++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, rule->other, 0, 1);
    }
    *at++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    if (rule->how != SANDBOX_ANY)
        *at++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    *jump =
        (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)rule->number, 0, (uint8_t)(at - jump - 1));
    return at;
}

/* TCGETS2, TCSETS2, TCSETSW2 and TCSETSF2 of x86_64 and aarch64, which tcgetattr(3) and tcsetattr(3) use since glibc
 * 2.42. The kernel's headers define them by a structure that glibc's do not have. */
#define NFCT_FAST_TCGETS2 0x802c542a
#define NFCT_FAST_TCSETS2 0x402c542b
#define NFCT_FAST_TCSETSW2 0x402c542c
#define NFCT_FAST_TCSETSF2 0x402c542d

/* What curses asks of a terminal; not TIOCSTI, which types into it. Of other ioctl(2) the rules decide. */
static inline struct sock_filter *nfct_fast_sandbox_terminal(struct sock_filter *at)
{
    const uint32_t allowed[] = {TCGETS,
                                TCSETS,
                                TCSETSW,
                                TCSETSF,
                                NFCT_FAST_TCGETS2,
                                NFCT_FAST_TCSETS2,
                                NFCT_FAST_TCSETSW2,
                                NFCT_FAST_TCSETSF2,
                                TCFLSH,
                                TIOCGWINSZ};
    const uint32_t request = offsetof(struct seccomp_data, args) + 8 + (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? 4 : 0);
    const uint8_t count = sizeof(allowed) / sizeof(*allowed);
    *at++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, count + 3);
    at = nfct_fast_sandbox_load(at, request);
    for (uint8_t i = 0; i < count; i++)
        *at++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed[i], count - 1 - i, i + 1 == count);
    *at++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    return nfct_fast_sandbox_load(at, offsetof(struct seccomp_data, nr));
}

static inline int nfct_fast_sandbox_connects(int number)
{
    return number == SYS_connect || number == SYS_bind || number == SYS_shutdown;
}

/* Write the filter to out[SANDBOX_FILTER_MAX] and return its length in instructions. self: this process's id, the only
 * one to which signals are allowed. */
static inline int nfct_fast_sandbox_filter(struct sock_filter *out, int allowed, uint32_t self)
{
    const uint8_t how = allowed & SANDBOX_KILL ? SANDBOX_ANY : SANDBOX_EQUAL;
    const struct sandbox_rule signals[] = {{SYS_kill, how, 0, self, self}, {SYS_tgkill, SANDBOX_EQUAL, 0, self, self}};
    const struct sandbox_rule enters[] = {{SYS_setns, SANDBOX_EQUAL, 1, CLONE_NEWNET, CLONE_NEWNET},
                                          {SYS_socket, SANDBOX_EQUAL, 0, AF_NETLINK, AF_NETLINK},
                                          {SYS_bpf, SANDBOX_EQUAL, 0, SANDBOX_MAP_CREATE, SANDBOX_MAP_UPDATE_ELEM}};
    const struct sandbox_rule accepts = {SYS_accept4, SANDBOX_ANY, 0, 0, 0};
    struct sock_filter *at = nfct_fast_sandbox_load(out, offsetof(struct seccomp_data, arch));
    /* Another architecture's calls have other numbers. */
    *at++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NFCT_FAST_AUDIT_ARCH, 1, 0);
    *at++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL);
    at = nfct_fast_sandbox_load(at, offsetof(struct seccomp_data, nr));
#ifdef __x86_64__
    *at++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, SANDBOX_X32, 0, 1);
    *at++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS);
#endif
    for (size_t i = 0;
         allowed & SANDBOX_FILES && i < sizeof(nfct_fast_sandbox_files) / sizeof(*nfct_fast_sandbox_files); i++)
        at = nfct_fast_sandbox_allow(at, &nfct_fast_sandbox_files[i]);
    if (allowed & SANDBOX_TERMINAL)
        at = nfct_fast_sandbox_terminal(at);
    for (size_t i = 0; i < sizeof(nfct_fast_sandbox_rules) / sizeof(*nfct_fast_sandbox_rules); i++)
        if (!(allowed & SANDBOX_ACCEPT) || !nfct_fast_sandbox_connects(nfct_fast_sandbox_rules[i].number))
            at = nfct_fast_sandbox_allow(at, &nfct_fast_sandbox_rules[i]);
    if (allowed & SANDBOX_ACCEPT)
        at = nfct_fast_sandbox_allow(at, &accepts);
    for (size_t i = 0; i < 2; i++)
        at = nfct_fast_sandbox_allow(at, &signals[i]);
    for (size_t i = 0; i < (allowed & SANDBOX_SETNS ? sizeof(enters) / sizeof(*enters) : 0); i++)
        at = nfct_fast_sandbox_allow(at, &enters[i]);
    /* clone3(2), since 5.3, is 435 on every machine. */
    *at++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 435, 0, 1);
    *at++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS);
    *at++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    return (int)(at - out);
}

#endif
