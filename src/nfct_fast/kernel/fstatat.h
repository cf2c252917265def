/* fstatat(2) and fstat(2) without glibc's symbols, which need GLIBC_2.33 and would keep a wheel from older systems. On
 * the 64-bit machines that have a system call of this name, struct stat is the kernel's own. */
#ifndef NFCT_FAST_FSTATAT_H
#define NFCT_FAST_FSTATAT_H
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static inline int nfct_fstatat(int dirfd, const char *path, struct stat *st, int flags)
{
#if defined(SYS_newfstatat) && defined(__LP64__)
    return (int)syscall(SYS_newfstatat, dirfd, path, st, flags);
#else
    return fstatat(dirfd, path, st, flags);
#endif
}

static inline int nfct_fstat(int fd, struct stat *st)
{
#if defined(SYS_fstat) && defined(__LP64__)
    return (int)syscall(SYS_fstat, fd, st);
#else
    return fstat(fd, st);
#endif
}
#endif
