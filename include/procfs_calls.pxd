"""Calls that Cython's posix.* lacks, for reading /proc and cgroupfs by directory descriptor."""
from libc.stdint cimport int32_t, uint32_t

cdef extern from "fcntl.h" nogil:
    """
    /* O_PATH and open_by_handle_at are specific to Linux, and need _GNU_SOURCE, which Python.h defines. */
    #ifndef FILEID_KERNFS
    #define FILEID_KERNFS 0xfe    /* in linux/exportfs.h since Linux 6.16; the value is older */
    #endif
    """
    enum: O_PATH
    enum: O_CLOEXEC
    enum: AT_EMPTY_PATH
    enum: AT_SYMLINK_NOFOLLOW
    enum: FILEID_KERNFS
    struct file_handle:
        unsigned int handle_bytes
        int handle_type
        unsigned char f_handle[0]
    int open_by_handle_at(int mount_fd, file_handle *handle, int flags)

cdef extern from "unistd.h" nogil:
    ssize_t readlinkat(int dirfd, const char *path, char *buf, size_t size)
    long syscall(long number, ...)

cdef extern from "sys/syscall.h" nogil:
    enum: SYS_getdents64    # glibc has a wrapper since 2.30 only

cdef extern from "time.h" nogil:
    enum: CLOCK_BOOTTIME
