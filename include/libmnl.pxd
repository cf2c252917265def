"""libmnl: walking netlink messages. <libmnl/libmnl.h>"""
from libc.stddef cimport size_t
from linux_netlink cimport nlmsghdr

cdef extern from "<libmnl/libmnl.h>" nogil:
    enum:
        MNL_CB_ERROR
        MNL_CB_STOP
        MNL_CB_OK

    # A C frame lies above it: a callback may not raise.
    ctypedef int (*mnl_cb_t)(const nlmsghdr *nlh, void *data) noexcept

    int mnl_cb_run(const void *buf, size_t numbytes, unsigned int seq, unsigned int portid,
                   mnl_cb_t cb_data, void *data)
