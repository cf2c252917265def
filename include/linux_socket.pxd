cdef extern from "<sys/socket.h>" nogil:
    enum:
        AF_INET
        AF_INET6
        AF_NETLINK
        SOCK_RAW
        SOCK_CLOEXEC
        SOL_NETLINK
        SOL_SOCKET
        SO_NETNS_COOKIE
        SO_ATTACH_FILTER
        MSG_DONTWAIT
        MSG_TRUNC

    ctypedef unsigned int socklen_t

    struct sockaddr:
        pass

    int socket(int domain, int type, int protocol)
    int connect(int fd, const sockaddr *address, socklen_t size)
    int bind(int fd, const sockaddr *address, socklen_t size)
    int getsockopt(int fd, int level, int name, void *value, socklen_t *size)
    int setsockopt(int fd, int level, int name, const void *value, socklen_t size)
    ssize_t send(int fd, const void *data, size_t size, int flags)
    ssize_t recv(int fd, void *data, size_t size, int flags)

