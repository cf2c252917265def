/* The ring of process events (BPF_MAP_TYPE_RINGBUF, Documentation/bpf/ringbuf.rst), read in place without a system
 * call.
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * This is C for the atomics. One reader at a time. */
#ifndef NFCT_FAST_PROCESS_RING_H
#define NFCT_FAST_PROCESS_RING_H

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <nfct_fast/processes/process_event.h>

#define RING_BUSY (1u << 31)
#define RING_DISCARDED (1u << 30)
#define RING_HEADER 8
#define RING_EVENT_MAX (RING_HEADER + sizeof(struct process_event) + PROCESS_PATH_MAX + 256 + PROCESS_ARGS_MAX)
#define RING_BUSY_LOOKS 20000 /* reads of a busy header: a writer takes 1 us, or longer if its vCPU is preempted */

struct process_ring {
    uint64_t *consumed; /* our page; the kernel's pages follow: its write position, and the data, mapped twice */
    const uint64_t *produced;
    const char *data;
    size_t size, page, mapped;
};

static inline void ring_unmap(struct process_ring *self)
{
    if (self->consumed)
        munmap(self->consumed, self->page);
    if (self->produced)
        munmap((void *)self->produced, self->mapped);
    memset(self, 0, sizeof(*self));
}

/* Map the ring of a BPF map. size: its max_entries. 0 or -errno. */
static inline int ring_map(struct process_ring *self, int fd, size_t size)
{
    void *memory;
    memset(self, 0, sizeof(*self));
    self->size = size;
    self->page = (size_t)sysconf(_SC_PAGESIZE);
    memory = mmap(NULL, self->page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        return -errno;
    self->consumed = (uint64_t *)memory;
    /* The kernel offers the data twice in a row, so that an event that wraps around is contiguous. Map no more of the
     * second copy than the longest event needs, as pages count as resident each time they are mapped. */
    self->mapped = self->page + size + (RING_EVENT_MAX + self->page - 1) / self->page * self->page;
    memory = mmap(NULL, self->mapped, PROT_READ, MAP_SHARED, fd, (off_t)self->page);
    if (memory == MAP_FAILED) {
        int rc = -errno;
        ring_unmap(self);
        return rc;
    }
    self->produced = (const uint64_t *)memory;
    self->data = (const char *)memory + self->page;
    return 0;
}

static inline uint64_t ring_begin(const struct process_ring *self) { return self->data ? *self->consumed : 0; }

/* Return the event at *at and its length, valid until ring_release(), and move *at past it. NULL: there is none yet. */
static inline const struct process_event *ring_next(const struct process_ring *self, uint64_t *at, uint32_t *length)
{
    if (!self->data || *at >= __atomic_load_n(self->produced, __ATOMIC_ACQUIRE))
        return NULL;
    const uint32_t *header = (const uint32_t *)(const void *)(self->data + (*at & (self->size - 1)));
    for (int looks = 0; looks < RING_BUSY_LOOKS; looks++) {
        *length = __atomic_load_n(header, __ATOMIC_ACQUIRE);
        if (*length & RING_BUSY)
            continue;
        *at += ((*length & ~RING_DISCARDED) + RING_HEADER + 7) & ~7ull;
        return (const struct process_event *)(const void *)((const char *)header + RING_HEADER);
    }
    return NULL;
}

/* Give the room of all events before `at` back to the kernel. */
static inline void ring_release(struct process_ring *self, uint64_t at)
{
    if (self->data)
        __atomic_store_n(self->consumed, at, __ATOMIC_RELEASE);
}

#endif
