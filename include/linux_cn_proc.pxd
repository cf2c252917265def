"""The connector for process events: <linux/connector.h>, <linux/cn_proc.h>."""
from libc.stdint cimport int32_t, uint16_t, uint32_t, uint64_t

cdef extern from "<linux/netlink.h>" nogil:
    enum:
        NETLINK_CONNECTOR

cdef extern from "<linux/connector.h>" nogil:
    enum:
        CN_IDX_PROC
        CN_VAL_PROC

    struct cb_id:
        uint32_t idx
        uint32_t val

    struct cn_msg:
        cb_id id
        uint32_t seq
        uint32_t ack
        uint16_t len
        uint16_t flags

cdef extern from "<linux/cn_proc.h>" nogil:
    enum:
        PROC_CN_MCAST_LISTEN
        PROC_CN_MCAST_IGNORE

    # Constants and not enumerators, since PROC_EVENT_EXIT does not fit in an int.
    const uint32_t PROC_EVENT_NONE
    const uint32_t PROC_EVENT_FORK
    const uint32_t PROC_EVENT_EXEC
    const uint32_t PROC_EVENT_UID
    const uint32_t PROC_EVENT_GID
    const uint32_t PROC_EVENT_COMM
    const uint32_t PROC_EVENT_EXIT

    struct ack_proc_event "proc_event_ack":
        uint32_t err

    struct fork_proc_event:
        int32_t parent_pid
        int32_t parent_tgid
        int32_t child_pid
        int32_t child_tgid

    struct exec_proc_event:
        int32_t process_pid
        int32_t process_tgid

    union proc_event_real_id:
        uint32_t ruid
        uint32_t rgid

    struct id_proc_event:
        int32_t process_pid
        int32_t process_tgid
        proc_event_real_id r

    struct comm_proc_event:
        int32_t process_pid
        int32_t process_tgid
        char comm[16]

    struct exit_proc_event:
        int32_t process_pid
        int32_t process_tgid

    union proc_event_data:
        ack_proc_event ack
        fork_proc_event fork
        exec_proc_event exec_ "exec"
        id_proc_event id
        comm_proc_event comm
        exit_proc_event exit

    struct proc_event:
        uint32_t what
        uint32_t cpu
        uint64_t timestamp_ns
        proc_event_data event_data
