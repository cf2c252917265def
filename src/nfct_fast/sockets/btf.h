/* Read BTF, the kernel's description of its own types (Documentation/bpf/btf.rst): find the offset of a structure's
 * member, and the number of a type. SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The data is not trusted: every offset is checked against the size of what was read. */
#ifndef NFCT_FAST_BTF_H
#define NFCT_FAST_BTF_H

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BTF_MAGIC_LITTLE 0xeb9f
#define BTF_SIZE_MAX (64u << 20) /* bytes; the BTF of vmlinux takes 6 MB */
#define BTF_NESTED_MAX 8         /* levels of nested anonymous structures; the kernel has 3 */

enum btf_kind_number {
    BTF_INT = 1,
    BTF_ARRAY = 3,
    BTF_STRUCT = 4,
    BTF_UNION = 5,
    BTF_ENUM = 6,
    BTF_TYPEDEF = 8,
    BTF_FUNC_PROTO = 13,
    BTF_VAR = 14,
    BTF_DATASEC = 15,
    BTF_DECL_TAG = 17,
    BTF_ENUM64 = 19
};

struct btf_header_t {
    uint16_t magic;
    uint8_t version, flags;
    uint32_t header_size, type_offset, type_size, string_offset, string_size;
};

struct btf_type_t {
    uint32_t name, info, size_or_type;
};

struct btf_member_t {
    uint32_t name, type, offset; /* offset: in bits; in a structure with bit fields the upper byte is the width */
};

struct btf {
    unsigned char *data;
    const char *strings;
    uint32_t string_size;
    const unsigned char *types;
    uint32_t type_size;
    uint32_t *offsets; /* offsets[i]: where type number i begins in `types`, i from 1 */
    uint32_t count;    /* types */
};

static inline void btf_close(struct btf *self)
{
    free(self->data);
    free(self->offsets);
    memset(self, 0, sizeof(*self));
}

static inline unsigned btf_kind(const struct btf_type_t *type) { return type->info >> 24 & 0x1f; }
static inline unsigned btf_length(const struct btf_type_t *type) { return type->info & 0xffff; }

/* Return the number of bytes that follow the three words of a type, or -EINVAL for an unknown kind. */
static inline int64_t btf_rest(const struct btf_type_t *type)
{
    int64_t length = btf_length(type);
    switch (btf_kind(type)) {
    case BTF_INT:
    case BTF_VAR:
    case BTF_DECL_TAG:
        return 4;
    case BTF_ARRAY:
        return 12;
    case BTF_STRUCT:
    case BTF_UNION:
    case BTF_DATASEC:
    case BTF_ENUM64:
        return 12 * length;
    case BTF_ENUM:
    case BTF_FUNC_PROTO:
        return 8 * length;
    }
    return btf_kind(type) <= 18 ? 0 : -EINVAL; /* 18: BTF_KIND_TYPE_TAG, the last kind with nothing after the words */
}

static inline void btf_type(const struct btf *self, uint32_t number, struct btf_type_t *out)
{
    memcpy(out, self->types + self->offsets[number], sizeof(*out));
}

/* Index the types in `data`, which came from malloc() and now belongs to `self`. Return 0 or -errno; after an error
 * there is nothing to close. */
static inline int btf_parse(struct btf *self, unsigned char *data, size_t size)
{
    struct btf_header_t header;
    uint32_t room = 4096;
    memset(self, 0, sizeof(*self));
    self->data = data;
    if (size < sizeof(header))
        goto invalid;
    memcpy(&header, data, sizeof(header));
    if (header.magic != BTF_MAGIC_LITTLE || header.version != 1 || header.header_size < sizeof(header) ||
        header.header_size > size)
        goto invalid;
    size -= header.header_size;
    if (header.type_offset > size || header.type_size > size - header.type_offset || header.string_offset > size ||
        header.string_size > size - header.string_offset || header.string_size == 0 || header.type_offset % 4)
        goto invalid;
    self->types = data + header.header_size + header.type_offset;
    self->type_size = header.type_size;
    self->strings = (const char *)data + header.header_size + header.string_offset;
    self->string_size = header.string_size;
    if (self->strings[self->string_size - 1])
        goto invalid;
    for (uint32_t at = 0; at < self->type_size;) {
        struct btf_type_t type;
        int64_t rest;
        if (self->type_size - at < sizeof(type))
            goto invalid;
        memcpy(&type, self->types + at, sizeof(type));
        rest = btf_rest(&type);
        if (rest < 0 || rest > (int64_t)(self->type_size - at - sizeof(type)))
            goto invalid;
        if (!self->offsets || self->count + 2 > room) {
            uint32_t *grown = (uint32_t *)realloc(self->offsets, sizeof(*grown) * (room *= 2));
            if (!grown) {
                btf_close(self);
                return -ENOMEM;
            }
            self->offsets = grown;
        }
        self->offsets[++self->count] = at;
        at += (uint32_t)(sizeof(type) + rest);
    }
    return 0;
invalid:
    btf_close(self);
    return -EINVAL;
}

/* Read and index the file at `path`. Return 0 or -errno. */
static inline int btf_open(struct btf *self, const char *path)
{
    unsigned char *data = NULL;
    size_t room = 0, have = 0;
    int rc = 0, fd = open(path, O_RDONLY | O_CLOEXEC);
    memset(self, 0, sizeof(*self));
    if (fd < 0)
        return -errno;
    for (;;) {
        if (have == room) { /* read to the end instead of calling fstat(), which is another symbol since glibc 2.33 */
            room = room ? 2 * room : 8u << 20;
            unsigned char *grown = room > BTF_SIZE_MAX ? NULL : (unsigned char *)realloc(data, room);
            if (!grown) {
                rc = -ENOMEM;
                break;
            }
            data = grown;
        }
        ssize_t got = read(fd, data + have, room - have);
        if (got > 0)
            have += (size_t)got;
        else if (got == 0 || errno != EINTR) {
            rc = got < 0 ? -errno : 0;
            break;
        }
    }
    close(fd);
    if (rc) {
        free(data);
        return rc;
    }
    return btf_parse(self, data, have);
}

static inline int btf_is_named(const struct btf *self, uint32_t name, const char *wanted)
{
    return name < self->string_size && strcmp(self->strings + name, wanted) == 0;
}

/* Return the number of the first type of that kind and name, or -ENOENT. */
static inline int64_t btf_find(const struct btf *self, unsigned kind, const char *name)
{
    for (uint32_t number = 1; number <= self->count; number++) {
        struct btf_type_t type;
        btf_type(self, number, &type);
        if (btf_kind(&type) == kind && btf_is_named(self, type.name, name))
            return number;
    }
    return -ENOENT;
}

/* Return the offset in bytes of a member, which may be in an anonymous structure within; -ENOENT if there is none,
 * -EINVAL for a bit field. */
static inline int64_t btf_member(const struct btf *self, int64_t number, const char *name, int depth)
{
    struct btf_type_t type;
    if (number < 1 || number > self->count || depth > BTF_NESTED_MAX)
        return -ENOENT;
    btf_type(self, (uint32_t)number, &type);
    if (btf_kind(&type) != BTF_STRUCT && btf_kind(&type) != BTF_UNION) /* follow typedef, const, volatile and tags */
        return btf_kind(&type) >= BTF_TYPEDEF && btf_rest(&type) == 0
                   ? btf_member(self, type.size_or_type, name, depth + 1)
                   : -ENOENT;
    for (unsigned i = 0; i < btf_length(&type); i++) {
        struct btf_member_t member;
        memcpy(&member, self->types + self->offsets[number] + sizeof(type) + i * sizeof(member), sizeof(member));
        uint32_t bits = type.info >> 31 ? member.offset & 0xffffff : member.offset;
        if (btf_is_named(self, member.name, name))
            return bits % 8 || (type.info >> 31 && member.offset >> 24) ? -EINVAL : (int64_t)(bits / 8);
        if (member.name == 0) {
            int64_t within = btf_member(self, member.type, name, depth + 1);
            if (within >= 0)
                return within + bits / 8;
        }
    }
    return -ENOENT;
}

#endif
