/* Read /proc/PID/cmdline in a helper process (helper.h), which receives a descriptor of /proc/PID and sends the bytes
 * back.
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * It receives a descriptor and not a pid, because the descriptor returns ESRCH once the process has ended, even if the
 * pid is used again. One request at a time; the caller reads other facts of the process meanwhile (1,000 processes take
 * 67 ms, and 54 ms if the caller reads everything itself). */
#ifndef NFCT_FAST_CMDLINE_HELPER_H
#define NFCT_FAST_CMDLINE_HELPER_H

#include <nfct_fast/kernel/helper.h>

enum { CMDLINE_COUNTED = 1 << 20 }; /* most bytes that are read beyond the limit to find out the size */

struct cmdline_request {
    uint32_t number; /* request number, not 0, by which the caller recognizes a late reply */
    uint32_t limit;  /* most bytes to send back */
    uint64_t known;  /* size of the command line if the caller knows it, else 0 */
};

/* One message of a reply, followed by bytes of the command line. There are several if one buffer cannot hold them. */
struct cmdline_reply {
    uint32_t number;
    int32_t error;      /* 0 or -errno */
    uint64_t full_size; /* in the last message: size of the command line without its final NUL */
    uint32_t last;      /* 1: this is the last message of the reply */
};

union cmdline_handle {
    struct cmsghdr head;
    char bytes[CMSG_SPACE(sizeof(int))];
};

/* ---- In the helper ---- */

/* Read `size` bytes, fewer only at the end of the file. */
HELPER_CODE long cmdline_fill(long file, char *buf, long size)
{
    long have = 0, got;
    while (have < size) {
        got = helper_raw(SYS_read, file, (long)(buf + have), size - have, 0);
        if (got < 0)
            return got;
        if (got == 0)
            break;
        have += got;
    }
    return have;
}

HELPER_CODE void cmdline_send(int fd, struct cmdline_reply *answer, char *buf, long size)
{
    struct iovec pieces[2];
    struct msghdr message;
    pieces[0].iov_base = answer;
    pieces[0].iov_len = sizeof(*answer);
    pieces[1].iov_base = buf;
    pieces[1].iov_len = (size_t)size;
    message.msg_name = 0;
    message.msg_namelen = 0;
    message.msg_iov = pieces;
    message.msg_iovlen = 2;
    message.msg_control = 0;
    message.msg_controllen = 0;
    message.msg_flags = 0;
    if (helper_raw(SYS_sendmsg, fd, (long)&message, MSG_NOSIGNAL, 0) < 0)
        helper_raw(SYS_exit_group, 1, 0, 0, 0);
}

HELPER_CODE void cmdline_read(int fd, struct helper_room *room, const struct cmdline_request *ask, long file)
{
    struct cmdline_reply answer;
    char rest[4096], last = 1;
    long have = 0, got = file < 0 ? file : 0, size = 0;
    answer.number = ask->number;
    answer.error = 0;
    answer.full_size = 0;
    answer.last = 0;
    while (got >= 0 && have < ask->limit) {
        long want = ask->limit - have < HELPER_BUFFER ? ask->limit - have : HELPER_BUFFER;
        size = got = cmdline_fill(file, room->buffer, want);
        if (got <= 0)
            break;
        have += got;
        last = room->buffer[got - 1];
        if (got < want || have == ask->limit)
            break;
        cmdline_send(fd, &answer, room->buffer, got);
        size = 0;
    }
    answer.full_size = (uint64_t)have;
    if (got >= 0 && have == ask->limit && ask->known > ask->limit) {
        answer.full_size = ask->known; /* from stat, which saves reading up to 128 KB only to count them */
        last = 0;
    } else if (got >= 0 && have == ask->limit) {
        /* PR_SET_MM_MAP, which needs no privilege, can make a command line terabytes large: do not count to its end. */
        while (answer.full_size - ask->limit < CMDLINE_COUNTED && (got = cmdline_fill(file, rest, sizeof(rest))) > 0) {
            answer.full_size += (uint64_t)got;
            last = rest[got - 1];
        }
    }
    if (answer.full_size && last == 0)
        answer.full_size--;
    answer.last = 1;
    answer.error = got < 0 ? (int32_t)got : 0;
    __atomic_store_n(&room->inside, 0, __ATOMIC_RELEASE);
    cmdline_send(fd, &answer, room->buffer, got < 0 ? 0 : size);
}

HELPER_CODE void cmdline_work(int fd, struct helper_room *room)
{
    struct cmdline_request ask;
    union cmdline_handle handle;
    struct iovec piece;
    struct msghdr message;
    piece.iov_base = &ask;
    piece.iov_len = sizeof(ask);
    for (;;) {
        long file, directory;
        message.msg_name = 0;
        message.msg_namelen = 0;
        message.msg_iov = &piece;
        message.msg_iovlen = 1;
        message.msg_control = &handle;
        message.msg_controllen = sizeof(handle);
        message.msg_flags = 0;
        if (helper_raw(SYS_recvmsg, fd, (long)&message, MSG_CMSG_CLOEXEC, 0) != sizeof(ask))
            return;
        /* The message arrives without a descriptor if the helper is at its limit of descriptors. */
        directory = -1;
        if (message.msg_controllen >= sizeof(struct cmsghdr))
            directory = *(const int *)(const void *)CMSG_DATA(&handle.head);
        __atomic_store_n(&room->inside, ask.number, __ATOMIC_RELEASE);
        file = directory < 0 ? -EMFILE : helper_raw(SYS_openat, directory, (long)"cmdline", O_RDONLY | O_CLOEXEC, 0);
        cmdline_read(fd, room, &ask, file);
        if (file >= 0)
            helper_raw(SYS_close, file, 0, 0, 0);
        if (directory >= 0)
            helper_raw(SYS_close, directory, 0, 0, 0);
    }
}

/* ---- In the program ---- */

static inline int cmdline_start(struct helper *helper) { return helper_start(helper, cmdline_work); }

/* Send a request without waiting. 0 or -errno. directory: a descriptor of /proc/PID (O_PATH will do), which may be
 * closed afterwards. */
static inline int cmdline_post(struct helper *helper, const struct cmdline_request *ask, int directory)
{
    union cmdline_handle handle = {
        .head = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))}};
    struct iovec piece = {.iov_base = (void *)ask, .iov_len = sizeof(*ask)};
    struct msghdr message = {
        .msg_iov = &piece, .msg_iovlen = 1, .msg_control = &handle, .msg_controllen = sizeof(handle)};
    ssize_t sent;
    helper_follow(helper);
    memcpy(CMSG_DATA(&handle.head), &directory, sizeof(int));
    do
        sent = sendmsg(helper->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : 0;
}

/* Receive the next message of a reply, with up to `size` bytes into buf. Return how many, or as helper_receive(). */
static inline ssize_t cmdline_receive(const struct helper *helper, struct cmdline_reply *answer, char *buf, size_t size,
                                      int64_t until)
{
    struct iovec pieces[2] = {{.iov_base = answer, .iov_len = sizeof(*answer)}, {.iov_base = buf, .iov_len = size}};
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = 2};
    ssize_t got = helper_receive(helper, &message, until);
    if (got < 0)
        return got;
    return (size_t)got < sizeof(*answer) ? -EPIPE : got - (ssize_t)sizeof(*answer);
}

/* Whether this request keeps the helper waiting. */
static inline int cmdline_is_inside(const struct helper *helper, uint32_t number)
{
    return __atomic_load_n(&helper->room->inside, __ATOMIC_ACQUIRE) == number;
}

#endif
