/* Load and attach the BPF programs with bpf(2) alone, without libbpf, libelf or clang. Process events need the kernel's
 * BTF. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * This is C because union bpf_attr consists of anonymous structs, which Cython cannot declare. File descriptors hold
 * everything, so the kernel removes it all when the process ends, however that happens. */
#ifndef NFCT_FAST_OWNERS_LOAD_H
#define NFCT_FAST_OWNERS_LOAD_H

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <nfct_fast/sockets/owners.h>
#include <nfct_fast/sockets/owners_maps.h>
#include <nfct_fast/sockets/owners_skel.h>
#include <nfct_fast/processes/process_ring.h>
#include <nfct_fast/sockets/task_offsets.h>

#define OWNERS_LOG 16384
/* Bytes of the ring of process events: room for 7,000 programs that start and exit between two readings. */
#define OWNERS_RING (4u << 20)
#define OWNERS_SCRATCH (sizeof(struct process_event) + PROCESS_PATH_MAX + 256 + PROCESS_ARGS_MAX)

struct owners {
    int maps[OWNERS_MAPS];
    int links[OWNERS_PROGRAMS];
    uint32_t records[2]; /* size of the small ring and of the larger one (0: there is none), powers of two */
    uint32_t buckets[2]; /* size of the tuple index of each ring, powers of two */
    uint32_t cookies;    /* size of the cookie index, a power of two */
    uint64_t seed;
    int retired;       /* look-ups skip the small ring */
    uint64_t grown_at; /* position, without OWNERS_GROWN, of the larger ring's first record; 0: it is not in use yet */
    const struct owners_record *record[2];
    const struct owners_bucket *bucket[2];
    const uint64_t *cookie;
    const uint32_t *port;
    struct owners_watch *watch; /* written by user space, like a few fields of the state */
    uint64_t watch_count;       /* watches made so far, see struct owners_watch */
    struct owners_state *state;
    struct process_ring ring;
    const char *step;     /* what failed: "map", "mmap", "load" or "attach" */
    const char *program;  /* the program that could not be loaded or attached, or NULL */
    char log[OWNERS_LOG]; /* the verifier's log if it rejected a program */
};

static inline void owners_init(struct owners *self)
{
    memset(self, 0, sizeof(*self));
    memset(self->maps, 0xff, sizeof(self->maps));
    memset(self->links, 0xff, sizeof(self->links));
}

static inline size_t owners_pages(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (size + page - 1) / page * page;
}

static inline void owners_unmap(const void *at, size_t size)
{
    if (at)
        munmap((void *)at, owners_pages(size));
}

static inline void owners_close(struct owners *self)
{
    for (size_t i = 0; i < OWNERS_PROGRAMS; i++)
        if (self->links[i] >= 0)
            close(self->links[i]);
    for (size_t i = 0; i < OWNERS_MAPS; i++)
        if (self->maps[i] >= 0)
            close(self->maps[i]);
    for (int i = 0; i < 2; i++) {
        owners_unmap(self->record[i], sizeof(*self->record[i]) * self->records[i]);
        owners_unmap(self->bucket[i], sizeof(*self->bucket[i]) * self->buckets[i]);
    }
    owners_unmap(self->cookie, sizeof(*self->cookie) * self->cookies);
    owners_unmap(self->port, sizeof(*self->port) * OWNERS_PORT_PAGES * OWNERS_PORTS);
    owners_unmap(self->watch, sizeof(*self->watch) * OWNERS_WATCHES);
    owners_unmap(self->state, sizeof(*self->state));
    ring_unmap(&self->ring);
    owners_init(self);
}

static inline size_t owners_bytes(const struct owners *self)
{
    size_t size = sizeof(*self->cookie) * self->cookies + sizeof(*self->port) * OWNERS_PORT_PAGES * OWNERS_PORTS +
                  sizeof(*self->watch) * OWNERS_WATCHES + self->ring.size;
    for (int i = 0; i < 2; i++)
        if (self->bucket[i])
            size += sizeof(*self->record[i]) * self->records[i] + sizeof(*self->bucket[i]) * self->buckets[i];
    return size;
}

static inline int owners_array(struct owners *self, int which, const char *name, uint32_t flags, uint32_t value,
                               uint32_t entries)
{
    return self->maps[which] = owners_map(BPF_MAP_TYPE_ARRAY, name, flags, value, entries, 0);
}

static inline int owners_mmap_fd(int fd, int access, size_t size, const void **at)
{
    void *memory = mmap(NULL, owners_pages(size), access, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        return -errno;
    *at = memory;
    return 0;
}

static inline int owners_mmap(struct owners *self, int which, size_t size, const void **at)
{
    int access = which == OWNERS_MAP_WATCHES || which == OWNERS_MAP_STATE ? PROT_READ | PROT_WRITE : PROT_READ;
    return owners_mmap_fd(self->maps[which], access, size, at);
}

/* Make the small map of a kind, map it at *at, and put it in an outer map that has room for the larger one. The mapping
 * and the outer map keep it alive. */
static inline int owners_small(struct owners *self, int which, unsigned int kind, uint32_t entries, size_t size,
                               const void **at)
{
    int fd = owners_growing_map(kind, entries);
    if (fd < 0)
        return fd;
    int rc = self->maps[which] = owners_map(BPF_MAP_TYPE_ARRAY_OF_MAPS, "nfct_growing", 0, 4, 2, fd);
    if (rc >= 0)
        rc = owners_put(self->maps[which], 0, &fd);
    if (rc >= 0)
        rc = owners_mmap_fd(fd, PROT_READ, size * entries, at);
    close(fd);
    return rc;
}

/* Map the larger map of a kind. The caller keeps the descriptor. */
static inline int owners_take_larger(struct owners *self, unsigned int kind, int fd)
{
    return kind == OWNERS_GROWING_RECORDS ? owners_mmap_fd(fd, PROT_READ, sizeof(*self->record[1]) * self->records[1],
                                                           (const void **)&self->record[1])
                                          : owners_mmap_fd(fd, PROT_READ, sizeof(*self->bucket[1]) * self->buckets[1],
                                                           (const void **)&self->bucket[1]);
}

/* Use the larger ring from now on, once both larger maps are mapped. Records whose position is taken already still go
 * to the small ring. */
static inline void owners_switch(struct owners *self)
{
    __atomic_store_n(&self->state->share, self->records[1] / 4, __ATOMIC_RELAXED);
    __atomic_store_n(&self->state->grown, 1, __ATOMIC_RELEASE);
    uint64_t head = __atomic_fetch_add(&self->state->head, OWNERS_GROWN, __ATOMIC_SEQ_CST);
    __atomic_store_n(&self->grown_at, head, __ATOMIC_RELEASE);
}

/* The position from which on records are in the larger ring; 0: it is not used yet. */
static inline uint64_t owners_grown_at(const struct owners *self)
{
    return __atomic_load_n(&self->grown_at, __ATOMIC_ACQUIRE);
}

/* Once the larger ring has been filled, have the programs stop using the small one. After a while look-ups can skip it,
 * too: owners_retired(). */
static inline void owners_retire(struct owners *self) { __atomic_store_n(&self->state->retired, 1, __ATOMIC_RELEASE); }

static inline void owners_retired(struct owners *self) { __atomic_store_n(&self->retired, 1, __ATOMIC_RELEASE); }

/* Return the number of records made so far. */
static inline uint64_t owners_written(const struct owners *self)
{
    return (__atomic_load_n(&self->state->head, __ATOMIC_ACQUIRE) & (OWNERS_GROWN - 1)) - 1;
}

static inline int owners_configure(struct owners *self, const struct task_types *tasks)
{
    struct owners_config config = {.cookie_mask = self->cookies - 1, .ring_size = OWNERS_RING};
    for (int i = 0; i < 2; i++) {
        config.record_mask[i] = self->records[i] ? self->records[i] - 1 : 0;
        config.bucket_mask[i] = self->buckets[i] ? self->buckets[i] - 1 : 0;
    }
    if (tasks)
        config.task = tasks->offsets;
    struct owners_state state = {.head = 1, .share = self->records[0] / 4};
    /* The system call, as glibc has getrandom() only since 2.25, and wheels have to run with 2.17. */
    if (syscall(SYS_getrandom, &config.seed, sizeof(config.seed), 0) != sizeof(config.seed))
        return -errno;
    self->seed = config.seed;
    int rc = owners_put(self->maps[OWNERS_MAP_STATE], 0, &state);
    if (rc < 0)
        return rc;
    rc = owners_put(self->maps[OWNERS_MAP_CONFIG], 0, &config);
    if (rc < 0)
        return rc;
    union bpf_attr attr;
    memset(&attr, 0, sizeof(attr));
    attr.map_fd = self->maps[OWNERS_MAP_CONFIG];
    return owners_bpf(BPF_MAP_FREEZE, &attr, sizeof(attr));
}

/* Load a program after replacing its references to maps with descriptors: of the map itself, or for the two variables
 * (config, state) of the map's only value. */
static inline int owners_program(struct owners *self, const struct owners_program *program, uint32_t traced)
{
    struct bpf_insn *code = malloc(program->length * sizeof(*code));
    struct bpf_load_attr attr;
    if (!code)
        return -ENOMEM;
    memcpy(code, program->code, program->length * sizeof(*code));
    for (uint32_t i = 0; i < program->relocated; i++) {
        struct bpf_insn *at = code + program->relocations[i].instruction;
        int map = program->relocations[i].map;
        if (map == OWNERS_MAP_CONFIG || map == OWNERS_MAP_STATE) {
            at[1].imm = at[0].imm; /* the offset into the variable, from clang */
            at[0].src_reg = BPF_PSEUDO_MAP_VALUE;
        } else {
            at[0].src_reg = BPF_PSEUDO_MAP_FD;
        }
        at[0].imm = self->maps[map];
    }
    memset(&attr, 0, sizeof(attr));
    attr.prog_type = program->type;
    attr.expected_attach_type = program->attach;
    attr.attach_btf_id = traced;
    attr.insns = (uint64_t)(uintptr_t)code;
    attr.insn_cnt = program->length;
    attr.license = (uint64_t)(uintptr_t)"GPL";
    strncpy(attr.prog_name, "nfct_owners", sizeof(attr.prog_name) - 1);
    int rc = owners_bpf(BPF_PROG_LOAD, &attr, sizeof(attr));
    if (rc < 0 && rc != -EPERM) { /* load it again only for the log: always writing one would slow down every start */
        attr.log_level = 1;
        attr.log_buf = (uint64_t)(uintptr_t)self->log;
        attr.log_size = sizeof(self->log);
        int again = owners_bpf(BPF_PROG_LOAD, &attr, sizeof(attr));
        rc = again == -ENOSPC ? rc : again;
        self->log[OWNERS_LOG - 1] = 0;
    }
    free(code);
    return rc;
}

/* Load a program and attach it to the cgroup, or to the tracepoint whose BTF type is `traced`. */
static inline int owners_attach(struct owners *self, uint32_t which, int cgroup, uint32_t traced)
{
    const struct owners_program *program = &owners_programs[which];
    self->program = program->name;
    self->step = "load";
    int fd = owners_program(self, program, traced);
    if (fd < 0)
        return fd;
    self->step = "attach";
    if (traced) {
        struct bpf_tracepoint_attr attr = {.prog_fd = fd};
        self->links[which] = owners_bpf(BPF_RAW_TRACEPOINT_OPEN, &attr, sizeof(attr));
    } else {
        struct bpf_link_attr attr = {.prog_fd = fd, .target_fd = cgroup, .attach_type = program->attach};
        self->links[which] = owners_bpf(BPF_LINK_CREATE, &attr, sizeof(attr));
    }
    close(fd);
    return self->links[which];
}

/* Attach all programs, the tracepoints first, so that the program to which a note refers is reported before the note.
 */
static inline int owners_attach_all(struct owners *self, int cgroup, int packets, const struct task_types *tasks)
{
    int rc;
    for (uint32_t i = OWNERS_PROGRAMS - TASK_TRACEPOINTS; tasks && i < OWNERS_PROGRAMS; i++)
        if ((rc = owners_attach(self, i, -1, tasks->tracepoints[i - (OWNERS_PROGRAMS - TASK_TRACEPOINTS)])) < 0)
            return rc;
    for (uint32_t i = 0; i < OWNERS_PROGRAMS - TASK_TRACEPOINTS; i++)
        if ((packets || owners_programs[i].type != BPF_PROG_TYPE_CGROUP_SKB) &&
            (rc = owners_attach(self, i, cgroup, 0)) < 0)
            return rc;
    return 0;
}

/* Make the maps, and load and attach the programs. Return 0 or -errno; on an error `step`, `program` and `log` say
 * where. records, larger and cookies are powers of two; larger is the size that the ring may grow to. packets: whether
 * to attach the program that runs for each packet. tasks: NULL for no process events, and notes without start time and
 * exec id. */
static inline int owners_open(struct owners *self, int cgroup, uint32_t records, uint32_t larger, uint32_t cookies,
                              int packets, const struct task_types *tasks)
{
    int rc;
    owners_init(self);
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    self->step = "big-endian machine";
    return -EOPNOTSUPP;
#endif
    self->records[0] = records;
    self->records[1] = larger > records ? larger : 0;
    /* With twice as many slots as records, 6 of 312,000 records made in a burst were displaced. */
    for (int i = 0; i < 2; i++)
        self->buckets[i] = self->records[i] / 4;
    self->cookies = cookies;
    self->step = "map"; /* the size of a value is a multiple of 8 bytes, so two ports share one */
    if ((rc = owners_small(self, OWNERS_MAP_RECORDS, OWNERS_GROWING_RECORDS, records, sizeof(*self->record[0]),
                           (const void **)&self->record[0])) < 0 ||
        (rc = owners_small(self, OWNERS_MAP_BUCKETS, OWNERS_GROWING_BUCKETS, self->buckets[0], sizeof(*self->bucket[0]),
                           (const void **)&self->bucket[0])) < 0 ||
        (rc = owners_array(self, OWNERS_MAP_COOKIES, "nfct_cookies", BPF_F_MMAPABLE, sizeof(*self->cookie), cookies)) <
            0 ||
        (rc = owners_array(self, OWNERS_MAP_PORTS, "nfct_ports", BPF_F_MMAPABLE, 2 * sizeof(*self->port),
                           OWNERS_PORT_PAGES * OWNERS_PORTS / 2)) < 0 ||
        (rc = owners_array(self, OWNERS_MAP_WATCHES, "nfct_watches", BPF_F_MMAPABLE, sizeof(*self->watch),
                           OWNERS_WATCHES)) < 0 ||
        (rc = owners_array(self, OWNERS_MAP_SHARES, "nfct_shares", 0, sizeof(uint64_t), OWNERS_SHARES)) < 0 ||
        (rc = owners_array(self, OWNERS_MAP_STATE, "nfct_state", BPF_F_MMAPABLE, sizeof(*self->state), 1)) < 0 ||
        (rc = owners_array(self, OWNERS_MAP_CONFIG, "nfct_config", BPF_F_RDONLY_PROG, sizeof(struct owners_config),
                           1)) < 0)
        return rc;
    if (tasks && ((rc = self->maps[OWNERS_MAP_EVENTS] =
                       owners_map(BPF_MAP_TYPE_RINGBUF, "nfct_processes", 0, 0, OWNERS_RING, 0)) < 0 ||
                  (rc = self->maps[OWNERS_MAP_SCRATCH] =
                       owners_map(BPF_MAP_TYPE_PERCPU_ARRAY, "nfct_scratch", 0, OWNERS_SCRATCH, 1, 0)) < 0))
        return rc;
    if ((rc = owners_configure(self, tasks)) < 0)
        return rc;
    self->step = "mmap";
    if ((rc = owners_mmap(self, OWNERS_MAP_COOKIES, sizeof(*self->cookie) * cookies, (const void **)&self->cookie)) <
            0 ||
        (rc = owners_mmap(self, OWNERS_MAP_PORTS, sizeof(*self->port) * OWNERS_PORT_PAGES * OWNERS_PORTS,
                          (const void **)&self->port)) < 0 ||
        (rc = owners_mmap(self, OWNERS_MAP_WATCHES, sizeof(*self->watch) * OWNERS_WATCHES,
                          (const void **)&self->watch)) < 0 ||
        (rc = owners_mmap(self, OWNERS_MAP_STATE, sizeof(*self->state), (const void **)&self->state)) < 0 ||
        (tasks && (rc = ring_map(&self->ring, self->maps[OWNERS_MAP_EVENTS], OWNERS_RING)) < 0))
        return rc;
    if ((rc = owners_attach_all(self, cgroup, packets, tasks)) < 0)
        return rc;
    self->step = self->program = NULL;
    return 0;
}

#endif
