/* Put load on the host as an unprivileged user can, until standard input is closed: storms MODE COUNT [UID]
 *
 *   forks     COUNT processes fork children that exit at once
 *   execs     COUNT processes start this program again and again
 *   living    COUNT processes have each sent one datagram from their own socket, and sleep
 *   threads   one process has COUNT threads, and sends a datagram from a fresh socket every millisecond
 *   sockets   one process connects COUNT datagram sockets, closes them, and starts again
 *
 * Prints "ready" when everything has been started. Datagrams go to port 9 on loopback. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <grp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static void check(int ok, const char *what)
{
    if (!ok) {
        perror(what);
        exit(1);
    }
}

static void send_one(int connected)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    check(fd >= 0, "socket");
    if (connected)
        check(connect(fd, (void *)&to, sizeof(to)) == 0, "connect");
    else if (sendto(fd, "x", 1, 0, (void *)&to, sizeof(to)) < 0)
        check(errno == EPERM || errno == ENOBUFS, "sendto"); /* the conntrack table is full */
    close(fd);
}

static void *wait_for_ever(void *unused)
{
    for (;;)
        pause();
    return unused;
}

static int is_over(int milliseconds)
{
    struct pollfd input = {.fd = 0, .events = POLLIN};
    return poll(&input, 1, milliseconds) != 0;
}

static pid_t started(void)
{
    pid_t pid = fork();
    if (pid == 0)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    return pid;
}

static void work(const char *mode, char *self)
{
    char *again[] = {self, "exit", NULL};
    while (!is_over(0)) {
        pid_t pid = fork();
        if (pid == 0) {
            if (!strcmp(mode, "execs"))
                execv("/proc/self/exe", again);
            _exit(0);
        }
        if (pid > 0)
            waitpid(pid, NULL, 0);
    }
    _exit(0);
}

int main(int count, char **arguments)
{
    if (count == 2 && !strcmp(arguments[1], "exit"))
        return 0;
    if (count < 3)
        return 2;
    const char *mode = arguments[1];
    int many = atoi(arguments[2]);
    if (count > 3) {
        uid_t uid = (uid_t)atoi(arguments[3]);
        check(setgroups(0, NULL) == 0 && setresgid(uid, uid, uid) == 0 && setresuid(uid, uid, uid) == 0, "setresuid");
    }
    signal(SIGCHLD, !strcmp(mode, "living") ? SIG_IGN : SIG_DFL);
    int sends = !strcmp(mode, "threads"), connects = !strcmp(mode, "sockets");
    for (int i = 0; i < many && !connects; i++) {
        if (sends) {
            pthread_t thread;
            pthread_attr_t small;
            pthread_attr_init(&small);
            pthread_attr_setstacksize(&small, 16384);
            int rc = pthread_create(&thread, &small, wait_for_ever, NULL);
            if (rc) {
                fprintf(stderr, "storms: %d threads: %s\n", i, strerror(rc));
                return 1;
            }
            continue;
        }
        pid_t pid = started();
        check(pid >= 0, "fork");
        if (pid)
            continue;
        if (strcmp(mode, "living"))
            work(mode, arguments[0]);
        send_one(0);
        wait_for_ever(NULL);
    }
    puts("ready");
    fflush(stdout);
    while (!is_over(connects ? 0 : 1))
        for (int i = 0; i < (connects ? many : sends); i++)
            send_one(connects);
    signal(SIGTERM, SIG_IGN);
    kill(0, SIGTERM); /* the process group */
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
        ;
    return 0;
}
