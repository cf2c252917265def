from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

cdef extern from "nfct_fast/processes/cmdline_helper.h" nogil:
    struct helper:
        int pid
        unsigned int ending_count

    struct cmdline_request:
        uint32_t number
        uint32_t limit
        uint64_t known

    struct cmdline_reply:
        uint32_t number
        int32_t error
        uint64_t full_size
        uint32_t last

    void helper_init(helper *self)
    void helper_kill(helper *self, uint64_t whose)
    int helper_kept(helper *self, uint64_t whose)
    void helper_reap(helper *self)
    bint helper_is_blocked(const helper *self)
    void helper_close(helper *self)

    int cmdline_start(helper *helper)
    int cmdline_post(helper *helper, const cmdline_request *ask, int directory)
    ssize_t cmdline_receive(const helper *helper, cmdline_reply *answer, char *buf, size_t size, int64_t until)
    bint cmdline_is_inside(const helper *helper, uint32_t number)
