cdef extern from "nfct_fast/processes/owners_cgroup.h" nogil:
    int owners_cgroup_mount()
