cdef extern from "nfct_fast/owners_cgroup.h" nogil:
    int owners_cgroup_mount()
