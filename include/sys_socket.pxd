"""Sockets, and calls that wait for them: <sys/socket.h>, <poll.h>, <sys/eventfd.h>."""
from libc.stdint cimport uint64_t

cdef extern from "<sys/socket.h>" nogil:
    """
    #ifndef SO_NETNS_COOKIE
    #define SO_NETNS_COOKIE 71    /* since Linux 5.14 */
    #endif
    """
    enum:
        AF_INET
        AF_INET6
        AF_NETLINK
        SOCK_RAW
        SOCK_CLOEXEC
        SOCK_NONBLOCK
        SOL_NETLINK
        SOL_SOCKET
        SO_NETNS_COOKIE
        SO_ERROR
        SO_RCVBUF
        SO_RCVBUFFORCE
        SO_MEMINFO
        SO_ATTACH_FILTER
        MSG_DONTWAIT
        MSG_TRUNC

    ctypedef unsigned int socklen_t

    struct sockaddr:
        pass

    struct iovec:
        void *iov_base
        size_t iov_len

    struct msghdr:
        void *msg_name
        socklen_t msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags

    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len

    struct timespec

    int socket(int domain, int type, int protocol)
    int connect(int fd, const sockaddr *addr, socklen_t len)
    int bind(int fd, const sockaddr *addr, socklen_t len)
    int setsockopt(int fd, int level, int name, const void *value, socklen_t len)
    int getsockopt(int fd, int level, int name, void *value, socklen_t *len)
    ssize_t send(int fd, const void *buf, size_t len, int flags)
    ssize_t sendto(int fd, const void *buf, size_t len, int flags, const sockaddr *to, socklen_t length)
    ssize_t recv(int fd, void *data, size_t size, int flags)
    ssize_t recvfrom(int fd, void *data, size_t size, int flags, sockaddr *from_, socklen_t *length)
    int recvmmsg(int fd, mmsghdr *vector, unsigned int count, int flags, timespec *timeout)

cdef extern from "<linux/filter.h>" nogil:
    struct sock_filter:
        pass

    struct sock_fprog:
        unsigned short len
        sock_filter *filter

cdef extern from "<poll.h>" nogil:
    enum:
        POLLIN
        POLLOUT
        POLLERR
        POLLHUP
        POLLNVAL

    struct pollfd:
        int fd
        short events
        short revents

    int poll(pollfd *fds, unsigned long count, int timeout)

cdef extern from "<sys/eventfd.h>" nogil:
    enum:
        EFD_CLOEXEC
        EFD_NONBLOCK

    int eventfd(unsigned int initial, int flags)
    int eventfd_write(int fd, uint64_t value)
    int eventfd_read(int fd, uint64_t *value)
