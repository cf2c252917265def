/* Messages over a UNIX socket, with or without a descriptor (SCM_RIGHTS). */
#ifndef NFCT_FAST_PASS_FD_H
#define NFCT_FAST_PASS_FD_H

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

union nfct_fast_handle {
    struct cmsghdr head;
    char bytes[CMSG_SPACE(sizeof(int))];
};

/* Send a message, and a descriptor with it unless `passed` is -1. Like sendmsg(2), but not interrupted by signals. */
static inline ssize_t nfct_fast_send(int fd, const void *data, size_t size, int passed)
{
    union nfct_fast_handle handle = {
        .head = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))}};
    struct iovec piece = {.iov_base = (void *)data, .iov_len = size};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
    ssize_t sent;
    memcpy(CMSG_DATA(&handle.head), &passed, sizeof(int));
    if (passed >= 0) {
        message.msg_control = &handle;
        message.msg_controllen = sizeof(handle);
    }
    do
        sent = sendmsg(fd, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent;
}

/* Receive a message, and in *passed the descriptor that came with it, which the caller must close, or -1. Like
 * recvmsg(2), but not interrupted by signals. */
static inline ssize_t nfct_fast_receive(int fd, void *data, size_t size, int flags, int *passed)
{
    union nfct_fast_handle handle;
    struct iovec piece = {.iov_base = data, .iov_len = size};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
    ssize_t got;
    *passed = -1;
    do {
        message.msg_control = &handle;
        message.msg_controllen = sizeof(handle);
        got = recvmsg(fd, &message, flags | MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR);
    if (got >= 0 && message.msg_controllen >= CMSG_LEN(sizeof(int)) && handle.head.cmsg_level == SOL_SOCKET &&
        handle.head.cmsg_type == SCM_RIGHTS)
        memcpy(passed, CMSG_DATA(&handle.head), sizeof(int));
    return got;
}

#endif
