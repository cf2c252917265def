/* Loads and attaches the owner programs with bpf(2) alone: no libbpf, no libelf, no clang. What is told of processes takes the kernel's BTF.
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Here and not in Cython: union bpf_attr is made of anonymous structs, which it cannot name. Everything is held by
 * file descriptors, so the kernel takes all of it away with the process, however that ends. */
#ifndef NFCT_FAST_OWNERS_LOAD_H
#define NFCT_FAST_OWNERS_LOAD_H

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <nfct_fast/sockets/bpf_old.h>
#include <nfct_fast/sockets/owners.h>
#include <nfct_fast/sockets/owners_skel.h>
#include <nfct_fast/processes/process_ring.h>
#include <nfct_fast/sockets/task_offsets.h>

#define OWNERS_LOG 16384
/* Bytes of process events: 7,000 programs that start and end while nobody looks. */
#define OWNERS_RING (4u << 20)
#define OWNERS_SCRATCH (sizeof(struct process_event) + PROCESS_PATH_MAX + 256 + PROCESS_ARGS_MAX)

struct owners {
    int maps[OWNERS_MAPS];
    int links[OWNERS_PROGRAMS];
    uint32_t records, buckets, cookies; /* powers of two */
    uint64_t seed;
    const struct owners_record *record;
    const struct owners_bucket *bucket;
    const uint64_t *cookie;
    const uint32_t *port;
    struct owners_watch *watch; /* the one thing that is written here */
    uint64_t turns;
    const struct owners_state *state;
    struct process_ring ring;
    const char *step;     /* what was being done when it failed */
    const char *program;  /* to which program, or NULL */
    char log[OWNERS_LOG]; /* the verifier's words, if it refused one */
};

static inline int owners_bpf(int command, void *attr, size_t size)
{
    int rc = (int)syscall(SYS_bpf, command, attr, size);
    return rc < 0 ? -errno : rc;
}

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
    owners_unmap(self->record, sizeof(*self->record) * self->records);
    owners_unmap(self->bucket, sizeof(*self->bucket) * self->buckets);
    owners_unmap(self->cookie, sizeof(*self->cookie) * self->cookies);
    owners_unmap(self->port, sizeof(*self->port) * OWNERS_PORT_PAGES * OWNERS_PORTS);
    owners_unmap(self->watch, sizeof(*self->watch) * OWNERS_WATCHES);
    owners_unmap(self->state, sizeof(*self->state));
    ring_unmap(&self->ring);
    owners_init(self);
}

static inline size_t owners_bytes(const struct owners *self)
{
    return sizeof(*self->record) * self->records + sizeof(*self->bucket) * self->buckets +
           sizeof(*self->cookie) * self->cookies + sizeof(*self->port) * OWNERS_PORT_PAGES * OWNERS_PORTS + sizeof(*self->watch) * OWNERS_WATCHES +
           self->ring.size;
}

static inline int owners_map(struct owners *self, int which, uint32_t type, const char *name, uint32_t flags,
                             uint32_t value, uint32_t entries)
{
    union bpf_attr attr;
    memset(&attr, 0, sizeof(attr));
    attr.map_type = type;
    attr.key_size = type == BPF_MAP_TYPE_RINGBUF ? 0 : 4;
    attr.value_size = value;
    attr.max_entries = entries;
    attr.map_flags = flags;
    strncpy(attr.map_name, name, sizeof(attr.map_name) - 1);
    self->maps[which] = owners_bpf(BPF_MAP_CREATE, &attr, sizeof(attr));
    return self->maps[which];
}

static inline int owners_mmap(struct owners *self, int which, size_t size, const void **at)
{
    int access = which == OWNERS_MAP_WATCHES ? PROT_READ | PROT_WRITE : PROT_READ;
    void *memory = mmap(NULL, owners_pages(size), access, MAP_SHARED, self->maps[which], 0);
    if (memory == MAP_FAILED)
        return -errno;
    *at = memory;
    return 0;
}

static inline int owners_set(struct owners *self, int which, const void *value)
{
    uint32_t zero = 0;
    union bpf_attr attr;
    memset(&attr, 0, sizeof(attr));
    attr.map_fd = self->maps[which];
    attr.key = (uint64_t)(uintptr_t)&zero;
    attr.value = (uint64_t)(uintptr_t)value;
    return owners_bpf(BPF_MAP_UPDATE_ELEM, &attr, sizeof(attr));
}

static inline int owners_configure(struct owners *self, const struct task_types *tasks)
{
    struct owners_config config = {.record_mask = self->records - 1, .bucket_mask = self->buckets - 1,
                                   .cookie_mask = self->cookies - 1, .ring_size = OWNERS_RING, .share = self->records / 4};
    if (tasks)
        config.task = tasks->offsets;
    struct owners_state state = {.head = 1};
    /* glibc's name for it is GLIBC_2.25; wheels keep to 2.17. */
    if (syscall(SYS_getrandom, &config.seed, sizeof(config.seed), 0) != sizeof(config.seed))
        return -errno;
    self->seed = config.seed;
    int rc = owners_set(self, OWNERS_MAP_STATE, &state);
    if (rc < 0)
        return rc;
    rc = owners_set(self, OWNERS_MAP_CONFIG, &config);
    if (rc < 0)
        return rc;
    union bpf_attr attr;
    memset(&attr, 0, sizeof(attr));
    attr.map_fd = self->maps[OWNERS_MAP_CONFIG];
    return owners_bpf(BPF_MAP_FREEZE, &attr, sizeof(attr));
}

/* Fds in place of names: a map itself, or for our two variables the address of its only value. */
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
            at[1].imm = at[0].imm; /* clang's offset into the variable */
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
    if (rc < 0 && rc != -EPERM) { /* once more for the reason: a log on the first try would cost every start */
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

/* To the cgroup; a tracepoint's program to the tracepoint, whose type is `traced`. */
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

/* The tracepoints first: what a note refers to is told before it. */
static inline int owners_attach_all(struct owners *self, int cgroup, int packets, const struct task_types *tasks)
{
    int rc;
    for (uint32_t i = OWNERS_PROGRAMS - TASK_TRACEPOINTS; tasks && i < OWNERS_PROGRAMS; i++)
        if ((rc = owners_attach(self, i, -1, tasks->tracepoints[i - (OWNERS_PROGRAMS - TASK_TRACEPOINTS)])) < 0)
            return rc;
    for (uint32_t i = 0; i < OWNERS_PROGRAMS - TASK_TRACEPOINTS; i++)
        if ((packets || owners_programs[i].type != BPF_PROG_TYPE_CGROUP_SKB) && (rc = owners_attach(self, i, cgroup, 0)) < 0)
            return rc;
    return 0;
}

/* 0 or -errno; after an error step, program and log say where. records and cookies are powers of two; packets says
 * whether the program that sees every packet is attached; tasks NULL: nothing is told of processes, and the notes have
 * neither start nor exec id. */
static inline int owners_open(struct owners *self, int cgroup, uint32_t records, uint32_t cookies, int packets,
                              const struct task_types *tasks)
{
    const uint32_t array = BPF_MAP_TYPE_ARRAY;
    int rc;
    owners_init(self);
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    self->step = "big-endian machine";
    return -EOPNOTSUPP;
#endif
    self->records = records;
    self->buckets = records / 4; /* twice as many slots as records: of 312,000 records made in a burst 6 were pushed out */
    self->cookies = cookies;
    self->step = "map"; /* a value takes a multiple of 8 bytes: two ports share one */
    if ((rc = owners_map(self, OWNERS_MAP_RECORDS, array, "nfct_records", BPF_F_MMAPABLE, sizeof(*self->record), records)) < 0 ||
        (rc = owners_map(self, OWNERS_MAP_BUCKETS, array, "nfct_buckets", BPF_F_MMAPABLE, sizeof(*self->bucket), self->buckets)) < 0 ||
        (rc = owners_map(self, OWNERS_MAP_COOKIES, array, "nfct_cookies", BPF_F_MMAPABLE, sizeof(*self->cookie), cookies)) < 0 ||
        (rc = owners_map(self, OWNERS_MAP_PORTS, array, "nfct_ports", BPF_F_MMAPABLE, 2 * sizeof(*self->port),
                         OWNERS_PORT_PAGES * OWNERS_PORTS / 2)) < 0 ||
        (rc = owners_map(self, OWNERS_MAP_WATCHES, array, "nfct_watches", BPF_F_MMAPABLE, sizeof(*self->watch), OWNERS_WATCHES)) < 0 ||
        (rc = owners_map(self, OWNERS_MAP_SHARES, array, "nfct_shares", 0, sizeof(uint64_t), OWNERS_SHARES)) < 0 ||
        (rc = owners_map(self, OWNERS_MAP_STATE, array, "nfct_state", BPF_F_MMAPABLE, sizeof(*self->state), 1)) < 0 ||
        (rc = owners_map(self, OWNERS_MAP_CONFIG, array, "nfct_config", BPF_F_RDONLY_PROG, sizeof(struct owners_config), 1)) < 0)
        return rc;
    if (tasks &&
        ((rc = owners_map(self, OWNERS_MAP_EVENTS, BPF_MAP_TYPE_RINGBUF, "nfct_processes", 0, 0, OWNERS_RING)) < 0 ||
         (rc = owners_map(self, OWNERS_MAP_SCRATCH, BPF_MAP_TYPE_PERCPU_ARRAY, "nfct_scratch", 0, OWNERS_SCRATCH, 1)) < 0))
        return rc;
    if ((rc = owners_configure(self, tasks)) < 0)
        return rc;
    self->step = "mmap";
    if ((rc = owners_mmap(self, OWNERS_MAP_RECORDS, sizeof(*self->record) * records, (const void **)&self->record)) < 0 ||
        (rc = owners_mmap(self, OWNERS_MAP_BUCKETS, sizeof(*self->bucket) * self->buckets, (const void **)&self->bucket)) < 0 ||
        (rc = owners_mmap(self, OWNERS_MAP_COOKIES, sizeof(*self->cookie) * cookies, (const void **)&self->cookie)) < 0 ||
        (rc = owners_mmap(self, OWNERS_MAP_PORTS, sizeof(*self->port) * OWNERS_PORT_PAGES * OWNERS_PORTS, (const void **)&self->port)) < 0 ||
        (rc = owners_mmap(self, OWNERS_MAP_WATCHES, sizeof(*self->watch) * OWNERS_WATCHES, (const void **)&self->watch)) < 0 ||
        (rc = owners_mmap(self, OWNERS_MAP_STATE, sizeof(*self->state), (const void **)&self->state)) < 0 ||
        (tasks && (rc = ring_map(&self->ring, self->maps[OWNERS_MAP_EVENTS], OWNERS_RING)) < 0))
        return rc;
    if ((rc = owners_attach_all(self, cgroup, packets, tasks)) < 0)
        return rc;
    self->step = self->program = NULL;
    return 0;
}

#endif
