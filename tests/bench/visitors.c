/* Make the traffic that a server receives, or be that server.
 *
 *   visitors udp|syn COUNT RATE FROM TO PORT PORTS   send single packets with forged sources: flow i comes from port
 *                                                    1024 + i % 60000 of FROM + i / 60000, and goes to PORT + i % PORTS
 *   visitors connect COUNT RATE TO PORT PORTS        open connections and reset them at once
 *   visitors serve tcp|udp PORT PORTS CHILDREN OTHERS
 *
 * RATE is per second; 0 means as fast as possible. The first two print how many flows they made. If TO is on loopback,
 * connection i goes to TO + i / 20000. "serve" prints "ready" and runs until it is killed: it listens on PORTS ports,
 * and accepts and closes all connections. CHILDREN processes share its sockets by fork. In addition, OTHERS bound UDP
 * sockets are open on ports below 1024 of many addresses. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EACH = 5000 };

static int check(int result, const char *what)
{
    if (result < 0) {
        perror(what);
        exit(1);
    }
    return result;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void keep_pace(double start, long i, long rate)
{
    double when = start + (double)i / (rate ? rate : 1);
    if (!rate || i % 16 || when <= now())
        return;
    struct timespec t = {(time_t)when, (long)((when - (time_t)when) * 1e9)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
}

static uint32_t parse(const char *text)
{
    struct in_addr address;
    if (inet_pton(AF_INET, text, &address) != 1) {
        fprintf(stderr, "visitors: not an address: %s\n", text);
        exit(2);
    }
    return ntohl(address.s_addr);
}

static uint16_t tcp_checksum(const struct iphdr *ip, const void *segment, int size)
{
    const uint16_t *word = segment;
    uint32_t sum = (ip->saddr & 0xffff) + (ip->saddr >> 16) + (ip->daddr & 0xffff) + (ip->daddr >> 16) +
                   htons(IPPROTO_TCP) + htons(size);
    for (int i = 0; i < size / 2; i++)
        sum += word[i];
    sum = (sum & 0xffff) + (sum >> 16);
    return ~((sum & 0xffff) + (sum >> 16));
}

static long packets(int is_tcp, long count, long rate, uint32_t from, uint32_t to, int port, int ports)
{
    struct {
        struct iphdr ip;
        union {
            struct udphdr udp;
            struct tcphdr tcp;
        };
    } packet;
    int fd = check(socket(AF_INET, SOCK_RAW, IPPROTO_RAW), "socket"),
        l4 = is_tcp ? sizeof(packet.tcp) : sizeof(packet.udp);
    struct sockaddr_in target = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(to)};
    double start = now();
    long made = 0;
    for (long i = 0; i < count; i++) {
        keep_pace(start, i, rate);
        uint16_t source = htons(1024 + i % 60000), destination = htons(port + i % ports);
        memset(&packet, 0, sizeof(packet));
        packet.ip = (struct iphdr){.version = 4, .ihl = 5, .ttl = 64, .protocol = is_tcp ? IPPROTO_TCP : IPPROTO_UDP};
        packet.ip.saddr = htonl(from + i / 60000);
        packet.ip.daddr = target.sin_addr.s_addr;
        if (is_tcp) {
            packet.tcp = (struct tcphdr){
                .source = source, .dest = destination, .seq = htonl(i), .doff = 5, .syn = 1, .window = htons(1024)};
            packet.tcp.check = tcp_checksum(&packet.ip, &packet.tcp, l4);
        } else {
            packet.udp = (struct udphdr){.source = source, .dest = destination, .len = htons(l4)};
        }
        made += sendto(fd, &packet, sizeof(packet.ip) + l4, 0, (void *)&target, sizeof(target)) > 0;
    }
    return made;
}

static long connections(long count, long rate, uint32_t to, int port, int ports)
{
    struct linger reset = {1, 0}; /* leaves no TIME_WAIT, so that ports do not run out */
    double start = now();
    long made = 0;
    for (long i = 0; i < count; i++) {
        keep_pace(start, i, rate);
        struct sockaddr_in target = {.sin_family = AF_INET, .sin_port = htons(port + i % ports)};
        target.sin_addr.s_addr = htonl(to >> 24 == 127 ? to + i / 20000 : to);
        int fd = check(socket(AF_INET, SOCK_STREAM, 0), "socket");
        made += connect(fd, (void *)&target, sizeof(target)) == 0;
        check(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), "SO_LINGER");
        close(fd);
    }
    return made;
}

static int bound(int is_tcp, uint32_t to, int port)
{
    int fd = check(socket(AF_INET, (is_tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK, 0), "socket"), one = 1, rc = -1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(to)};
    if (is_tcp)
        check(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)), "SO_REUSEADDR");
    /* The processes of the previous round may still be exiting. */
    for (int tries = 0; tries < 500 && rc < 0; tries++) {
        rc = bind(fd, (void *)&address, sizeof(address));
        if (rc < 0 && errno == EADDRINUSE)
            usleep(10000);
    }
    check(rc, "bind");
    return fd;
}

static int listening(int is_tcp, int port)
{
    int fd = bound(is_tcp, 0, port);
    if (is_tcp)
        check(listen(fd, 4096), "listen");
    return fd;
}

/* Fork a process that the kernel kills when this one ends. Returns 0 in the child. */
static pid_t start(void)
{
    pid_t parent = getpid(), child = check(fork(), "fork");
    if (child == 0) {
        check(prctl(PR_SET_PDEATHSIG, SIGKILL), "prctl");
        if (getppid() != parent)
            exit(0);
    }
    return child;
}

static void sleep_on(void)
{
    for (;;)
        pause();
}

/* Open the other sockets, in several processes because the number of descriptors may be limited. */
static void others_open(int others)
{
    int ready[2];
    char word;
    check(pipe(ready), "pipe");
    for (int first = 0; first < others; first += EACH) {
        if (start())
            continue;
        for (int i = first; i < others && i < first + EACH; i++)
            bound(0, 0x7f010001 + i / 1000, 1 + i % 1000);
        check(write(ready[1], "x", 1), "write");
        sleep_on();
    }
    close(ready[1]);
    for (int first = 0; first < others; first += EACH)
        if (read(ready[0], &word, 1) != 1)
            exit(1);
}

static void serve(int is_tcp, int port, int ports, int children, int others)
{
    struct rlimit files;
    check(getrlimit(RLIMIT_NOFILE, &files), "RLIMIT_NOFILE");
    files.rlim_cur = files.rlim_max;
    check(setrlimit(RLIMIT_NOFILE, &files), "RLIMIT_NOFILE");
    others_open(others);
    int epoll = check(epoll_create1(0), "epoll");
    for (int i = 0; i < ports; i++) {
        struct epoll_event event = {.events = EPOLLIN};
        event.data.fd = listening(is_tcp, port + i);
        check(epoll_ctl(epoll, EPOLL_CTL_ADD, event.data.fd, &event), "epoll");
    }
    for (int i = 0; i < children; i++)
        if (start() == 0)
            sleep_on();
    puts("ready");
    fflush(stdout);
    for (;;) {
        static char buffer[2048];
        struct epoll_event ready[64];
        int count = epoll_wait(epoll, ready, 64, -1);
        for (int i = 0; i < count; i++) {
            int fd = ready[i].data.fd, got;
            if (!is_tcp)
                while (recv(fd, buffer, sizeof(buffer), 0) >= 0)
                    ;
            else
                while ((got = accept(fd, NULL, NULL)) >= 0)
                    close(got);
        }
    }
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    long made;
    if ((!strcmp(what, "udp") || !strcmp(what, "syn")) && argc == 8) {
        made = packets(*what == 's', atol(argv[2]), atol(argv[3]), parse(argv[4]), parse(argv[5]), atoi(argv[6]),
                       atoi(argv[7]));
    } else if (!strcmp(what, "connect") && argc == 7) {
        made = connections(atol(argv[2]), atol(argv[3]), parse(argv[4]), atoi(argv[5]), atoi(argv[6]));
    } else if (!strcmp(what, "serve") && argc == 7) {
        serve(!strcmp(argv[2], "tcp"), atoi(argv[3]), atoi(argv[4]), atoi(argv[5]), atoi(argv[6]));
        return 0;
    } else {
        fprintf(stderr, "usage: see the top of visitors.c\n");
        return 2;
    }
    printf("%ld made\n", made);
    return 0;
}
