/* Faults that a kernel produces rarely, injected into a program: preloaded, this replaces recvmmsg(), getsockopt()
 * and write().
 *
 * NFCT_FAULT selects the fault, NFCT_TIMES how often it happens (once by default), NFCT_AFTER after how many calls:
 *
 * nomem: queued events are thrown away and the call fails with ENOBUFS, without a drop being counted, as if the kernel
 * had no memory for an event.
 *
 * intr: a part of a dump is missing, and the last message of the next part has NLM_F_DUMP_INTR.
 *
 * broken: a dump ends in the middle: its part is thrown away and the call fails with EIO.
 *
 * late: after a loss, half a second passes between the moment the queue was empty and the moment that is returned.
 *
 * uncounted: drops are counted 30 ms after their overrun was reported.
 *
 * stuck: a write of more than a page to a regular file never returns. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static long setting(const char *name, long otherwise)
{
    const char *value = getenv(name);
    return value ? atol(value) : otherwise;
}

static struct nlmsghdr *last_message(struct mmsghdr *datagram)
{
    char *data = datagram->msg_hdr.msg_iov->iov_base;
    size_t at = 0;
    struct nlmsghdr *message = (struct nlmsghdr *)data;
    while (at + NLMSG_ALIGN(message->nlmsg_len) + sizeof(*message) <= datagram->msg_len) {
        at += NLMSG_ALIGN(message->nlmsg_len);
        message = (struct nlmsghdr *)(data + at);
    }
    return message;
}

static long long reported_at; /* the last overrun, in ms */

static long long milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

int recvmmsg(int fd, struct mmsghdr *vector, unsigned int count, int flags, struct timespec *timeout)
{
    static int (*real)(int, struct mmsghdr *, unsigned int, int, struct timespec *);
    static long answers, done;
    const char *fault = getenv("NFCT_FAULT");
    int got;
    if (!real)
        real = (int (*)(int, struct mmsghdr *, unsigned int, int, struct timespec *))dlsym(RTLD_NEXT, "recvmmsg");
    got = real(fd, vector, count, flags, timeout);
    if (fault && !strcmp(fault, "late") && got < 0) {
        static int lossy = -1;
        if (errno == ENOBUFS)
            lossy = fd;
        else if (errno == EAGAIN && fd == lossy) {
            lossy = -1;
            poll(NULL, 0, 500);
            errno = EAGAIN;
        }
    }
    if (fault && !strcmp(fault, "uncounted") && got < 0 && errno == ENOBUFS) {
        reported_at = milliseconds();
        errno = ENOBUFS;
    }
    if (!fault || !strcmp(fault, "late") || !strcmp(fault, "uncounted") || !strcmp(fault, "stuck") || got <= 0)
        return got;
    struct nlmsghdr *first = vector->msg_hdr.msg_iov->iov_base;
    int dumped = (first->nlmsg_flags & NLM_F_MULTI) != 0;
    if (dumped == !strcmp(fault, "nomem") || first->nlmsg_type == NLMSG_DONE || done >= setting("NFCT_TIMES", 1) ||
        answers++ < setting("NFCT_AFTER", 0))
        return got;
    done++;
    if (!strcmp(fault, "intr")) {
        got = real(fd, vector, count, flags, timeout);
        if (got > 0)
            last_message(vector)->nlmsg_flags |= NLM_F_DUMP_INTR;
        return got;
    }
    errno = strcmp(fault, "nomem") ? EIO : ENOBUFS;
    return -1;
}

int getsockopt(int fd, int level, int name, void *value, socklen_t *size)
{
    static int (*real)(int, int, int, void *, socklen_t *);
    static uint32_t dropped;
    const char *fault = getenv("NFCT_FAULT");
    uint32_t *drops = (uint32_t *)value + SK_MEMINFO_DROPS;
    int got;
    if (!real)
        real = (int (*)(int, int, int, void *, socklen_t *))dlsym(RTLD_NEXT, "getsockopt");
    got = real(fd, level, name, value, size);
    if (!fault || strcmp(fault, "uncounted") || got < 0 || level != SOL_SOCKET || name != SO_MEMINFO || *drops == 0)
        return got;
    if (milliseconds() < reported_at + 30)
        *drops = dropped;
    else
        dropped = *drops;
    return got;
}

ssize_t write(int fd, const void *data, size_t size)
{
    static ssize_t (*real)(int, const void *, size_t);
    const char *fault = getenv("NFCT_FAULT");
    struct stat status;
    if (!real)
        real = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    while (fault && !strcmp(fault, "stuck") && size > 4096 && fstat(fd, &status) == 0 && S_ISREG(status.st_mode))
        sleep(1);
    return real(fd, data, size);
}
