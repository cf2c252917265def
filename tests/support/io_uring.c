/* Send one datagram and make one TCP connection on sockets that exist only in io_uring's own table, never as an fd of
 * the process. Prints their ports and the one connected to; exit status 77: io_uring cannot do this here (before 5.19,
 * or disabled). */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static int ring;
static unsigned *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_tail, *cq_mask;
static struct io_uring_sqe *sqes;
static struct io_uring_cqe *cqes;

static void absent(const char *what, int error)
{
    printf("%s: %s\n", what, strerror(error));
    exit(77);
}

static void setup(void)
{
    struct io_uring_params p = {0};
    ring = syscall(SYS_io_uring_setup, 4, &p);
    if (ring < 0)
        absent("io_uring_setup", errno);
    size_t size = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe), other = p.sq_off.array + p.sq_entries * 4;
    char *at = mmap(NULL, size > other ? size : other, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring,
                    IORING_OFF_SQ_RING);
    sqes = mmap(NULL, p.sq_entries * sizeof(*sqes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring,
                IORING_OFF_SQES);
    if (at == MAP_FAILED || (void *)sqes == MAP_FAILED)
        absent("mmap", errno);
    sq_tail = (void *)(at + p.sq_off.tail), sq_mask = (void *)(at + p.sq_off.ring_mask),
    sq_array = (void *)(at + p.sq_off.array);
    cq_head = (void *)(at + p.cq_off.head), cq_tail = (void *)(at + p.cq_off.tail),
    cq_mask = (void *)(at + p.cq_off.ring_mask);
    cqes = (void *)(at + p.cq_off.cqes);
    int table[2] = {-1, -1};
    if (syscall(SYS_io_uring_register, ring, IORING_REGISTER_FILES, table, 2) < 0)
        absent("io_uring_register", errno);
}

static int perform(struct io_uring_sqe sqe)
{
    unsigned tail = *sq_tail;
    sqes[tail & *sq_mask] = sqe;
    sq_array[tail & *sq_mask] = tail & *sq_mask;
    __atomic_store_n(sq_tail, tail + 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
        absent("io_uring_enter", errno);
    while (*cq_head == __atomic_load_n(cq_tail, __ATOMIC_ACQUIRE))
        ;
    int result = cqes[*cq_head & *cq_mask].res;
    __atomic_store_n(cq_head, *cq_head + 1, __ATOMIC_RELEASE);
    return result;
}

/* Binding names the port, which a socket without an fd could not be asked for; the port was found free just before. */
static int free_port(int type)
{
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(name);
    int fd = socket(AF_INET, type, 0);
    if (bind(fd, (void *)&name, size) || getsockname(fd, (void *)&name, &size))
        exit(1);
    close(fd);
    return ntohs(name.sin_port);
}

static int opened(int slot, int type)
{
    int rc =
        perform((struct io_uring_sqe){.opcode = IORING_OP_SOCKET, .fd = AF_INET, .off = type, .file_index = slot + 1});
    if (rc < 0)
        absent("IORING_OP_SOCKET", -rc);
    int port = free_port(type);
    struct sockaddr_in name = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    /* IORING_OP_BIND (6.11) is 56: it is newer than most installed headers. */
    rc = perform((struct io_uring_sqe){
        .opcode = 56, .flags = IOSQE_FIXED_FILE, .fd = slot, .addr = (unsigned long)&name, .off = sizeof(name)});
    if (rc < 0)
        absent("IORING_OP_BIND", -rc);
    return port;
}

int main(void)
{
    setup();
    int udp = opened(0, SOCK_DGRAM), tcp = opened(1, SOCK_STREAM);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct msghdr message = {.msg_name = &to, .msg_namelen = sizeof(to)};
    int rc = perform((struct io_uring_sqe){
        .opcode = IORING_OP_SENDMSG, .flags = IOSQE_FIXED_FILE, .fd = 0, .addr = (unsigned long)&message, .len = 1});
    if (rc < 0) {
        fprintf(stderr, "sendmsg: %s\n", strerror(-rc));
        return 1;
    }
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in peer = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(peer);
    if (bind(listener, (void *)&peer, size) || listen(listener, 1) || getsockname(listener, (void *)&peer, &size))
        return 1;
    rc = perform((struct io_uring_sqe){
        .opcode = IORING_OP_CONNECT, .flags = IOSQE_FIXED_FILE, .fd = 1, .addr = (unsigned long)&peer, .off = size});
    if (rc < 0) {
        fprintf(stderr, "connect: %s\n", strerror(-rc));
        return 1;
    }
    printf("%d %d %d\n", udp, tcp, ntohs(peer.sin_port));
    return 0;
}
