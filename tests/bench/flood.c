/* Make new flows at a steady rate, each to a different destination, and print how many were made.
 *
 *   flood COUNT RATE HOW ADDRESS [HOLD_MS]
 *
 * RATE is in flows a second; 0 means as fast as possible. HOW is "one" (one UDP socket), "fresh" (a new, unconnected
 * UDP socket for each flow), "connected" (a new connected one) or "tcp" (a SYN and nothing more). ADDRESS is the first
 * destination, IPv4 or IPv6: flow i goes to port 1024 + i % 60000 of ADDRESS + i / 60000. It is best routed to a dummy
 * interface, where no ICMP error comes back. HOLD_MS is how long the last 1,000 sockets stay open at the end.
 *
 * Only what was sent is counted: the kernel returns EPERM when its conntrack table is full.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PORTS = 60000, KEPT = 1000 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void pause_until(double when)
{
    struct timespec t = {(time_t)when, (long)((when - (time_t)when) * 1e9)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
}

static socklen_t parse(const char *text, struct sockaddr_storage *out)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)out;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;
    memset(out, 0, sizeof(*out));
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        return sizeof(*v4);
    }
    if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        return sizeof(*v6);
    }
    fprintf(stderr, "flood: not an address: %s\n", text);
    exit(2);
}

static void destination(const struct sockaddr_storage *base, long i, struct sockaddr_storage *out)
{
    unsigned char *last;
    *out = *base;
    if (base->ss_family == AF_INET) {
        struct sockaddr_in *v4 = (struct sockaddr_in *)out;
        v4->sin_port = htons(1024 + i % PORTS);
        last = (unsigned char *)&v4->sin_addr + 3;
    } else {
        struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;
        v6->sin6_port = htons(1024 + i % PORTS);
        last = v6->sin6_addr.s6_addr + 15;
    }
    *last += i / PORTS;
}

static int make_socket(int family, int is_tcp)
{
    int fd = socket(family, (is_tcp ? SOCK_STREAM | SOCK_NONBLOCK : SOCK_DGRAM) | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        perror("flood: socket");
        exit(1);
    }
    return fd;
}

int main(int argc, char **argv)
{
    if (argc < 5) {
        fprintf(stderr, "usage: flood COUNT RATE one|fresh|connected|tcp ADDRESS [HOLD_MS]\n");
        return 2;
    }
    long count = atol(argv[1]), rate = atol(argv[2]), made = 0;
    int is_fresh = strcmp(argv[3], "one") != 0, is_connected = strcmp(argv[3], "connected") == 0;
    int is_tcp = strcmp(argv[3], "tcp") == 0;
    int kept[KEPT], fd = -1;
    struct sockaddr_storage base, to;
    socklen_t length = parse(argv[4], &base);
    memset(kept, -1, sizeof(kept));
    if (!is_fresh)
        fd = make_socket(base.ss_family, 0);
    double start = now();
    for (long i = 0; i < count; i++) {
        if (rate && i % 16 == 0 && start + (double)i / rate > now())
            pause_until(start + (double)i / rate);
        destination(&base, i, &to);
        if (is_fresh) {
            if (kept[i % KEPT] >= 0)
                close(kept[i % KEPT]);
            fd = kept[i % KEPT] = make_socket(base.ss_family, is_tcp);
        }
        if (is_tcp) {
            made += connect(fd, (struct sockaddr *)&to, length) == 0 || errno == EINPROGRESS;
            continue;
        }
        if (is_connected && connect(fd, (struct sockaddr *)&to, length) < 0)
            continue;
        if (sendto(fd, "x", 1, 0, is_connected ? NULL : (struct sockaddr *)&to, is_connected ? 0 : length) == 1)
            made++;
    }
    printf("%ld made in %.3f s\n", made, now() - start);
    fflush(stdout);
    if (argc > 5)
        usleep(atol(argv[5]) * 1000);
    return 0;
}
