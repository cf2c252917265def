/* Make the maps of the notes, and put them into the programs' outer maps. Also used by the helper process that has kept
 * the privilege for it. SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef NFCT_FAST_OWNERS_MAPS_H
#define NFCT_FAST_OWNERS_MAPS_H

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <nfct_fast/sockets/bpf_old.h>
#include <nfct_fast/sockets/owners.h>

#define OWNERS_RECORDS_MAX (1u << 24)

/* The kinds of map that exist in a small and a larger size. */
enum owners_growing { OWNERS_GROWING_RECORDS, OWNERS_GROWING_BUCKETS, OWNERS_GROWING };

static inline int owners_bpf(int command, void *attr, size_t size)
{
    int rc = (int)syscall(SYS_bpf, command, attr, size);
    return rc < 0 ? -errno : rc;
}

/* Make a map. For an array of maps, `like` is the descriptor of a map such as it will hold. Return a descriptor or
 * -errno. */
static inline int owners_map(uint32_t type, const char *name, uint32_t flags, uint32_t value, uint32_t entries,
                             int like)
{
    union bpf_attr attr;
    memset(&attr, 0, sizeof(attr));
    attr.map_type = type;
    attr.key_size = type == BPF_MAP_TYPE_RINGBUF ? 0 : 4;
    attr.value_size = value;
    attr.max_entries = entries;
    attr.map_flags = flags;
    attr.inner_map_fd = (uint32_t)like;
    strncpy(attr.map_name, name, sizeof(attr.map_name) - 1);
    return owners_bpf(BPF_MAP_CREATE, &attr, sizeof(attr));
}

static inline int owners_put(int map, uint32_t index, const void *value)
{
    union bpf_attr attr;
    memset(&attr, 0, sizeof(attr));
    attr.map_fd = (uint32_t)map;
    attr.key = (uint64_t)(uintptr_t)&index;
    attr.value = (uint64_t)(uintptr_t)value;
    return owners_bpf(BPF_MAP_UPDATE_ELEM, &attr, sizeof(attr));
}

/* Make a map of one of the two kinds. With BPF_F_INNER_MAP (Linux 5.10) an array of maps can hold different sizes. */
static inline int owners_growing_map(unsigned int kind, uint32_t entries)
{
    static const uint32_t sizes[OWNERS_GROWING] = {sizeof(struct owners_record), sizeof(struct owners_bucket)};
    if (kind >= OWNERS_GROWING || entries == 0 || entries > OWNERS_RECORDS_MAX)
        return -EINVAL;
    return owners_map(BPF_MAP_TYPE_ARRAY, kind == OWNERS_GROWING_RECORDS ? "nfct_records" : "nfct_buckets",
                      BPF_F_MMAPABLE | BPF_F_INNER_MAP, sizes[kind], entries, 0);
}

/* Make the larger map of a kind and put it in the outer map. Return its descriptor or -errno. */
static inline int owners_larger_map(int outer, unsigned int kind, uint32_t entries)
{
    int fd = owners_growing_map(kind, entries);
    if (fd < 0)
        return fd;
    int rc = owners_put(outer, 1, &fd);
    if (rc < 0) {
        close(fd);
        return rc;
    }
    return fd;
}

#endif
