/* A process whose memory cannot be read by others: one thread reads, through /proc/self/mem, a page of a file whose
 * server does not reply, and holds the lock of its memory (mmap_lock) meanwhile; another waits to change the memory,
 * and every later reader waits behind it. The main thread goes on sending UDP datagrams, to PORT and the 999 ports
 * after it in turn.
 *
 *     hostage FUSE_DEVICE DIRECTORY ADDRESS PORT SECONDS [ARGUMENTS...]
 *
 * Needs no privilege: the file system is mounted in a user namespace of its own. Prints a line when it is ready, blocks
 * its memory when it has read a byte, and ends together with its server, which lives for SECONDS.
 *
 *     hostage FUSE_DEVICE DIRECTORY
 *
 * Only mounts and serves the file system, in this namespace; prints a line when it is there. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/fuse.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

enum { SIZE = 65536, NODE = 2 };

static void answer(int fuse, uint64_t unique, int error, const void *data, size_t size)
{
    char out[1024];
    struct fuse_out_header *head = (void *)out;
    head->len = sizeof(*head) + size;
    head->error = error;
    head->unique = unique;
    memcpy(out + sizeof(*head), data, size);
    if (write(fuse, out, head->len) < 0 && errno != ENOENT)
        err(1, "answer");
}

/* Serve a directory with one file, and never reply to a read of that file. */
static void serve(int fuse, int told)
{
    static char in[1 << 17];
    for (;;) {
        ssize_t got = read(fuse, in, sizeof(in));
        struct fuse_in_header *head = (void *)in;
        struct fuse_attr file = {.ino = NODE, .size = SIZE, .mode = S_IFREG | 0644, .nlink = 1, .blksize = 4096};
        struct fuse_attr root = {.ino = 1, .mode = S_IFDIR | 0755, .nlink = 2, .blksize = 4096};
        file.uid = root.uid = getuid();
        file.gid = root.gid = getgid();
        if (got < 0 && (errno == EINTR || errno == ENOENT || errno == EAGAIN))
            continue;
        if (got < (ssize_t)sizeof(*head))
            _exit(0);
        switch (head->opcode) {
        case FUSE_INIT: {
            struct fuse_init_out init = {
                .major = FUSE_KERNEL_VERSION, .minor = 31, .max_write = 4096, .max_readahead = 0};
            answer(fuse, head->unique, 0, &init, sizeof(init));
            break;
        }
        case FUSE_LOOKUP: {
            struct fuse_entry_out entry = {.nodeid = NODE, .attr_valid = 3600, .entry_valid = 3600, .attr = file};
            answer(fuse, head->unique, 0, &entry, sizeof(entry));
            break;
        }
        case FUSE_GETATTR: {
            struct fuse_attr_out attr = {.attr_valid = 3600, .attr = head->nodeid == NODE ? file : root};
            answer(fuse, head->unique, 0, &attr, sizeof(attr));
            break;
        }
        case FUSE_OPEN: {
            struct fuse_open_out open = {0};
            answer(fuse, head->unique, 0, &open, sizeof(open));
            break;
        }
        case FUSE_READ:
            if (write(told, "r", 1) != 1)
                _exit(1);
            break;
        case FUSE_FORGET:
        case FUSE_BATCH_FORGET:
        case FUSE_INTERRUPT:
            break;
        default:
            answer(fuse, head->unique, -ENOSYS, "", 0);
        }
    }
}

static void put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        err(1, "%s", path);
    close(fd);
}

static void *hold(void *page)
{
    char byte;
    int memory = open("/proc/self/mem", O_RDONLY);
    if (memory < 0)
        err(1, "/proc/self/mem");
    if (pread(memory, &byte, 1, (off_t)(uintptr_t)page) < 0) {
    }
    return NULL;
}

static void *want(void *told)
{
    char byte;
    if (read(*(int *)told, &byte, 1) != 1) /* the other one waits for its page */
        err(1, "the server");
    mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return NULL;
}

int main(int argc, char **argv)
{
    char text[128], path[4096], byte;
    int told[2], fuse, file, out;
    uid_t uid = getuid();
    gid_t gid = getgid();
    pthread_t one, other;
    pid_t server;
    void *page;
    if (argc == 3) {
        if ((fuse = open(argv[1], O_RDWR)) < 0)
            err(1, "%s", argv[1]);
        snprintf(text, sizeof(text), "fd=%d,rootmode=40000,user_id=%u,group_id=%u", fuse, uid, gid);
        if (mount("hostage", argv[2], "fuse", MS_NOSUID | MS_NODEV, text) != 0)
            err(1, "mount");
        puts("ready");
        fflush(stdout);
        serve(fuse, 1);
    }
    if (argc < 6)
        errx(2, "hostage FUSE_DEVICE DIRECTORY ADDRESS PORT SECONDS [ARGUMENTS...]");
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[4]))};
    if (inet_pton(AF_INET, argv[3], &to.sin_addr) != 1)
        errx(2, "%s", argv[3]);
    /* The server is a process of its own, which ends with this one or before it. */
    if (pipe(told) != 0 || unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0)
        err(1, "unshare");
    put("/proc/self/setgroups", "deny");
    snprintf(text, sizeof(text), "%u %u 1", uid, uid);
    put("/proc/self/uid_map", text);
    snprintf(text, sizeof(text), "%u %u 1", gid, gid);
    put("/proc/self/gid_map", text);
    if ((fuse = open(argv[1], O_RDWR)) < 0)
        err(1, "%s", argv[1]);
    snprintf(text, sizeof(text), "fd=%d,rootmode=40000,user_id=%u,group_id=%u", fuse, uid, gid);
    if (mount("hostage", argv[2], "fuse", MS_NOSUID | MS_NODEV, text) != 0)
        err(1, "mount");
    if ((server = fork()) == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(atoi(argv[5]));
        serve(fuse, told[1]);
    }
    close(fuse);
    snprintf(path, sizeof(path), "%s/file", argv[2]);
    if ((file = open(path, O_RDONLY)) < 0)
        err(1, "%s", path);
    if ((page = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, file, 0)) == MAP_FAILED)
        err(1, "mmap");
    if ((out = socket(AF_INET, SOCK_DGRAM, 0)) < 0)
        err(1, "socket");
    puts("ready");
    fflush(stdout);
    if (read(0, &byte, 1) != 1) /* wait for the signal to begin */
        return 0;
    /* Start both threads before the lock is taken, as starting one changes the memory. */
    if (pthread_create(&other, NULL, want, &told[0]) != 0 || pthread_create(&one, NULL, hold, page) != 0)
        errx(1, "pthread_create");
    for (int flow = 0;; flow++) {
        usleep(10000);
        to.sin_port = htons(atoi(argv[4]) + flow % 1000); /* each is a flow of its own */
        if (sendto(out, "x", 1, 0, (void *)&to, sizeof(to)) < 0 && errno != ECONNREFUSED)
            _exit(1);
    }
}
