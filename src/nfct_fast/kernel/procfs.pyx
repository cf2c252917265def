"""Read /proc without the GIL: small files as a whole, links of the form `socket:[N]`, numbered directories.

This module does not know what the files mean. Errors are negated errno values.
"""
from libc.errno cimport EINTR, EINVAL, ENAMETOOLONG, ERANGE, errno
from libc.stdint cimport int32_t, uint16_t, uint64_t
from libc.string cimport memcpy, strlen
from posix.fcntl cimport O_DIRECTORY, O_RDONLY, open as c_open, openat
from posix.unistd cimport close, read

from procfs_calls cimport O_CLOEXEC, O_PATH, SYS_getdents64, readlinkat, syscall


cdef int procfs_open(const char *path) noexcept nogil:
    cdef int fd = c_open(path, O_PATH | O_DIRECTORY | O_CLOEXEC)
    return fd if fd >= 0 else -errno


cdef ssize_t procfs_fill(int fd, char *buf, size_t size) noexcept nogil:
    cdef size_t have = 0
    cdef ssize_t got
    while have < size:
        got = read(fd, buf + have, size - have)
        if got < 0:
            if errno == EINTR:
                continue
            return -errno
        if got == 0:
            break
        have += got
    return have


cdef ssize_t procfs_read(int dirfd, const char *name, char *buf, size_t size) noexcept nogil:
    cdef int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC)
    cdef ssize_t got
    if fd < 0:
        return -errno
    got = procfs_fill(fd, buf, size)
    close(fd)
    return got


cdef ssize_t procfs_link(int dirfd, const char *name, char *buf, size_t size) noexcept nogil:
    cdef ssize_t got = readlinkat(dirfd, name, buf, size)
    if got < 0:
        return -errno
    if <size_t>got >= size:
        return -ENAMETOOLONG
    return got


cdef int procfs_link_number(int dirfd, const char *name, const char *kind, uint64_t *out) noexcept nogil:
    # `kind` is the text before the number, such as "socket:[". Returns 1, or 0 for a link of another kind.
    cdef char buf[64]
    cdef ssize_t got = readlinkat(dirfd, name, buf, sizeof(buf))
    cdef size_t lead = strlen(kind), i
    cdef const char *p = buf + lead
    if got < 0:
        return -errno
    if <size_t>got <= lead:
        return 0
    for i in range(lead):
        if buf[i] != kind[i]:
            return 0
    if procfs_decimal(&p, buf + got, out) <= 0 or p != buf + got - 1 or p[0] != c']':
        return 0
    return 1


cdef int procfs_name(char *out, int32_t pid, const char *rest) noexcept nogil:
    cdef char digits[16]
    cdef int n = 0, length = 0
    cdef size_t tail = strlen(rest)
    if pid < 0 or tail > 40:
        out[0] = 0
        return -EINVAL
    while True:
        digits[n] = <char>(c'0' + pid % 10)
        n += 1
        pid //= 10
        if pid == 0:
            break
    while n:
        n -= 1
        out[length] = digits[n]
        length += 1
    if tail:
        out[length] = c'/'
        length += 1
    memcpy(out + length, rest, tail + 1)
    return length + <int>tail


cdef int procfs_decimal(const char **p, const char *end, uint64_t *out) noexcept nogil:
    cdef uint64_t value = 0
    cdef unsigned char digit
    cdef int n = 0
    while p[0] < end:
        digit = <unsigned char>(p[0][0] - c'0')
        if digit > 9:
            break
        if value > (<uint64_t>-1 - digit) // 10:
            return -ERANGE
        value = value * 10 + digit
        p[0] += 1
        n += 1
    if n:
        out[0] = value
    return n


cdef int numbers_open(numbers_t *numbers, int dirfd, const char *name) noexcept nogil:
    numbers.count = 0
    numbers.fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    return 0 if numbers.fd >= 0 else -errno


cdef int numbers_next(numbers_t *numbers) noexcept nogil:
    # struct linux_dirent64 (getdents64(2)): u64 ino, s64 off, u16 reclen, u8 type, name. The smallest entry
    # with a digit takes 24 bytes, so that 24,000 bytes never hold more numbers than at[] does.
    cdef char buf[24000]
    cdef const char *entry
    cdef const char *name
    cdef const char *end
    cdef uint16_t length
    cdef uint64_t value
    cdef long got
    cdef int digits
    numbers.count = 0
    while numbers.count == 0:
        got = syscall(SYS_getdents64, numbers.fd, <char *>buf, <size_t>sizeof(buf))
        if got < 0:
            return -errno
        if got == 0:
            return 0
        entry = buf
        end = buf + got
        while entry < end:
            memcpy(&length, entry + 16, 2)
            name = entry + 19
            digits = procfs_decimal(&name, entry + length, &value)
            if digits > 0 and name[0] == 0 and value <= 0x7fffffff:
                numbers.at[numbers.count] = <int32_t>value
                numbers.count += 1
            entry += length
    return numbers.count


cdef void numbers_close(numbers_t *numbers) noexcept nogil:
    if numbers.fd >= 0:
        close(numbers.fd)
        numbers.fd = -1
