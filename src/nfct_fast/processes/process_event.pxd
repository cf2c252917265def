from libc.stdint cimport uint16_t, uint32_t, uint64_t

cdef extern from "nfct_fast/processes/process_event.h" nogil:
    struct process_id:
        uint64_t start
        uint32_t tgid
        uint32_t exec "exec"

    enum: PROCESS_EVENT_FORK, PROCESS_EVENT_EXEC, PROCESS_EVENT_EXIT
    enum: PROCESS_EVENT_DELETED, PROCESS_EVENT_UNROOTED, PROCESS_EVENT_NO_ARGS
    enum: PROCESS_EVENT_EXIT_SIZE, PROCESS_EVENT_FORK_SIZE, PROCESS_PATH_MAX

    struct process_event:
        process_id id
        uint16_t kind
        uint16_t flags
        uint32_t ns_pid
        process_id parent
        uint64_t cgroup
        uint32_t uid
        uint32_t gid
        uint32_t login_uid
        char comm[16]
        uint64_t arg_start
        uint64_t args_size
        uint64_t inode
        uint32_t device
        uint16_t path_size
        uint16_t kept_size

cdef extern from "nfct_fast/processes/process_ring.h" nogil:
    enum: RING_DISCARDED
    struct process_ring:
        size_t size
    uint64_t ring_begin(const process_ring *self)
    const process_event *ring_next(const process_ring *self, uint64_t *at, uint32_t *length)
    void ring_release(process_ring *self, uint64_t at)
