/* Receive conntrack events, one datagram per system call, and do nothing else: an upper limit for other programs.
 *
 *   limit raw|decode RCVBUF
 *
 * "decode" also parses each event into the same object. RCVBUF is in bytes. Prints "ready", and on SIGTERM the number
 * of NEW events received and the number that the kernel dropped.
 */
#include <errno.h>
#include <linux/netfilter/nfnetlink_compat.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <libnetfilter_conntrack/libnetfilter_conntrack.h>

static volatile sig_atomic_t stop;

static void on_term(int number)
{
    (void)number;
    stop = 1;
}

static void check(int result, const char *what)
{
    if (result < 0) {
        perror(what);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: limit raw|decode RCVBUF\n");
        return 2;
    }
    int is_decoding = strcmp(argv[1], "decode") == 0, rcvbuf = atoi(argv[2]), group = NFNLGRP_CONNTRACK_NEW;
    char buffer[8192];
    long events = 0, errors = 0;
    struct sigaction action = {.sa_handler = on_term};
    struct sockaddr_nl address = {.nl_family = AF_NETLINK};
    struct nf_conntrack *ct = nfct_new();
    int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);
    check(fd, "socket");
    check(sigaction(SIGTERM, &action, NULL), "sigaction");
    check(setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &rcvbuf, sizeof(rcvbuf)), "SO_RCVBUFFORCE");
    check(bind(fd, (struct sockaddr *)&address, sizeof(address)), "bind");
    check(setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)), "join");
    puts("ready");
    fflush(stdout);
    while (!stop) {
        ssize_t size = recv(fd, buffer, sizeof(buffer), 0);
        if (size < 0) {
            if (errno == EINTR || errno == ENOBUFS)
                continue;
            check(-1, "recv");
        }
        if (is_decoding && nfct_nlmsg_parse((struct nlmsghdr *)buffer, ct) < 0)
            errors++;
        events++;
    }
    unsigned info[SK_MEMINFO_VARS] = {0};
    socklen_t length = sizeof(info);
    check(getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &length), "SO_MEMINFO");
    printf("%ld events, %u dropped, %ld errors\n", events, info[SK_MEMINFO_DROPS], errors);
    nfct_destroy(ct);
    return 0;
}
