/* The part of linux/landlock.h that is used here: headers older than 5.13 lack it, and libc has no wrappers. */
#ifndef NFCT_FAST_LANDLOCK_CALLS_H
#define NFCT_FAST_LANDLOCK_CALLS_H

#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef __NR_landlock_create_ruleset
enum { NFCT_FAST_LANDLOCK = __NR_landlock_create_ruleset };
#else
enum { NFCT_FAST_LANDLOCK = 444 }; /* the same on every architecture; the next two follow it */
#endif

struct nfct_fast_ruleset {
    uint64_t files;
    uint64_t net;    /* 6.7 */
    uint64_t scoped; /* 6.12 */
};

struct nfct_fast_beneath {
    uint64_t access;
    int32_t parent;
} __attribute__((packed));

enum {
    LANDLOCK_READ_FILE = 1 << 2,
    LANDLOCK_READ_DIR = 1 << 3,
    LANDLOCK_CHANGE = 1 << 1 | 1 << 5 | 1 << 8, /* write, remove and make regular files */
    LANDLOCK_TRUNCATE = 1 << 14,                /* 6.2 */
};

/* Return the version of the kernel's Landlock ABI, or -1 if it has no Landlock. */
static inline int nfct_fast_landlock_version(void) { return (int)syscall(NFCT_FAST_LANDLOCK, NULL, 0, 1U); }

/* Make a ruleset that denies everything that this ABI version can deny. Return its descriptor, or -1. */
static inline int nfct_fast_landlock_ruleset(int version)
{
    /* Rights on files: 13 in the first version; refer 2, truncate 3, ioctl of devices 5. TCP: 4. Abstract sockets: 6.
     * */
    struct nfct_fast_ruleset set = {
        .files = (1 << (version >= 5   ? 16
                        : version >= 3 ? 15
                        : version == 2 ? 14
                                       : 13)) -
                 1,
        .net = version >= 4 ? 3 : 0,
        .scoped = version >= 6 ? 1 : 0,
    };
    return (int)syscall(NFCT_FAST_LANDLOCK, &set, version >= 6 ? 24 : version >= 4 ? 16 : 8, 0U);
}

static inline int nfct_fast_landlock_allow(int set, int parent, uint64_t access)
{
    struct nfct_fast_beneath rule = {.access = access, .parent = parent};
    return (int)syscall(NFCT_FAST_LANDLOCK + 1, set, 1, &rule, 0U);
}

static inline int nfct_fast_landlock_restrict(int set) { return (int)syscall(NFCT_FAST_LANDLOCK + 2, set, 0U); }

#endif
