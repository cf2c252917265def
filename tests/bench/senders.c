/* Make flows as fast as one thread can.
 *
 *   senders ports MODE COUNT [PORT]      print the destination port, then the local port of each socket
 *   senders cost MODE COUNT ROUNDS A B   print for each round the CPU ns per socket or packet in cgroups A and B
 *
 * MODE: socket udp udp6 mapped cudp cudp6 tcp tcp6 bulk-tcp bulk-udp bulk-cudp. COUNT is a number of packets in the
 * bulk modes (64 KiB of a stream, 1400 bytes of UDP), else of sockets. Without PORT the program opens a sink itself. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void check(int ok, const char *what)
{
    if (!ok) {
        perror(what);
        exit(1);
    }
}

static struct sockaddr_storage address(const char *mode, int port, socklen_t *size)
{
    struct sockaddr_storage storage = {0};
    struct sockaddr_in *v4 = (void *)&storage;
    struct sockaddr_in6 *v6 = (void *)&storage;
    if (strstr(mode, "6") || strstr(mode, "mapped")) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        inet_pton(AF_INET6, strstr(mode, "mapped") ? "::ffff:127.0.0.1" : "::1", &v6->sin6_addr);
        *size = sizeof(*v6);
    } else {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        v4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        *size = sizeof(*v4);
    }
    return storage;
}

static int port_of(int fd)
{
    struct sockaddr_in6 name;
    socklen_t size = sizeof(name);
    check(getsockname(fd, (void *)&name, &size) == 0, "getsockname");
    return ntohs(name.sin6_port);
}

static double now(void)
{
    struct timespec time; /* CPU time, so that other processes on this CPU do not count */
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static void *drain(void *argument)
{
    static char buffer[1 << 18];
    int fd = accept((int)(long)argument, NULL, NULL);
    check(fd >= 0, "accept");
    while (recv(fd, buffer, sizeof(buffer), 0) > 0)
        ;
    close(fd);
    return NULL;
}

static int sink_open(int type, struct sockaddr_storage *to, socklen_t size)
{
    int sink = socket(to->ss_family, type, 0), small = 1;
    check(sink >= 0, "socket");
    /* A UDP sink is not read and is full after one packet. Without it, ICMP errors would be measured as well. */
    if (type == SOCK_DGRAM)
        check(setsockopt(sink, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)) == 0, "SO_RCVBUF");
    check(bind(sink, (void *)to, size) == 0, "bind");
    if (type == SOCK_STREAM)
        check(listen(sink, 4096) == 0, "listen");
    ((struct sockaddr_in *)to)->sin_port = htons(port_of(sink));
    return sink;
}

static double flows(const char *mode, long count, int port, int *ports, int *peer)
{
    static char buffer[1 << 16];
    int stream = strstr(mode, "tcp") != NULL, bulk = !strncmp(mode, "bulk", 4),
        type = stream ? SOCK_STREAM : SOCK_DGRAM;
    int connected = stream || strstr(mode, "cudp"), sends = strcmp(mode, "socket") != 0, fd = -1;
    size_t length = !bulk ? 1 : stream ? sizeof(buffer) : 1400;
    socklen_t size;
    struct sockaddr_storage to = address(mode, port, &size);
    int sink = port ? -1 : sink_open(type, &to, size);
    struct linger reset = {1, 0};
    if (peer)
        *peer = ntohs(((struct sockaddr_in *)&to)->sin_port);
    pthread_t reader;
    if (bulk && stream)
        check(pthread_create(&reader, NULL, drain, (void *)(long)sink) == 0, "pthread_create");
    double start = now();
    for (long i = 0; i < count; i++) {
        if (!bulk || i == 0) {
            fd = socket(to.ss_family, type, 0);
            check(fd >= 0, "socket");
            if (connected)
                check(connect(fd, (void *)&to, size) == 0, "connect");
        }
        if (connected && (bulk || !stream))
            check(send(fd, buffer, length, 0) >= 0 || errno == ECONNREFUSED, "send");
        else if (sends && !stream)
            check(sendto(fd, buffer, length, 0, (void *)&to, size) >= 0, "sendto");
        if (bulk)
            continue;
        if (ports)
            ports[i] = port_of(fd);
        if (stream) { /* a reset leaves no TIME_WAIT, so that ports do not run out */
            if (sink >= 0)
                close(accept(sink, NULL, NULL));
            check(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)) == 0, "SO_LINGER");
        }
        close(fd);
    }
    if (bulk)
        close(fd);
    if (bulk && stream)
        check(pthread_join(reader, NULL) == 0, "pthread_join");
    double each = (now() - start) / count;
    if (sink >= 0)
        close(sink);
    return each;
}

static void move_to(const char *cgroup)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
    FILE *file = fopen(path, "w");
    check(file && fprintf(file, "%d\n", (int)getpid()) > 0 && fclose(file) == 0, path);
}

int main(int argc, char **argv)
{
    check(argc > 3, "usage: see the top of senders.c");
    const char *mode = argv[2];
    long count = atol(argv[3]);
    if (!strcmp(argv[1], "ports")) {
        int *ports = calloc(count, sizeof(*ports));
        check(ports != NULL, "calloc");
        int peer;
        flows(mode, count, argc > 4 ? atoi(argv[4]) : 0, ports, &peer);
        printf("%d\n", peer);
        for (long i = 0; i < count; i++)
            printf("%d\n", ports[i]);
        return 0;
    }
    check(argc == 7, "usage: see the top of senders.c");
    for (long round = -1; round < atol(argv[4]); round++) { /* the first round warms up */
        double cost[2];
        for (int turn = 0; turn < 2; turn++) {
            int which = (turn + round) & 1; /* alternate which cgroup comes first */
            move_to(argv[5 + which]);
            cost[which] = flows(mode, count, 0, NULL, NULL);
        }
        if (round >= 0)
            printf("%.1f %.1f\n", cost[0], cost[1]);
    }
    return 0;
}
