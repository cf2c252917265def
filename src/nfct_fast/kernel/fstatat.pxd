from posix.stat cimport struct_stat

cdef extern from "nfct_fast/kernel/fstatat.h" nogil:
    int fstatat "nfct_fstatat" (int dirfd, const char *path, struct_stat *st, int flags)
    int fstat "nfct_fstat" (int fd, struct_stat *st)
