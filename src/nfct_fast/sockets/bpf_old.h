/* linux/bpf.h, supplemented by what it lacks before Linux 5.7, since a wheel is built with headers older than the
 * kernels it runs on. The newer names are enumerators, which #ifndef does not see, but redefining them as the same
 * numbers does no harm. */
#ifndef NFCT_FAST_BPF_OLD_H
#define NFCT_FAST_BPF_OLD_H
#include <linux/bpf.h>

#define BPF_RAW_TRACEPOINT_OPEN 17
#define BPF_MAP_FREEZE 22
#define BPF_LINK_CREATE 28

#define BPF_MAP_TYPE_RINGBUF 27

#define BPF_PROG_TYPE_CGROUP_SOCK_ADDR 18
#define BPF_PROG_TYPE_TRACING 26

#define BPF_CGROUP_INET4_CONNECT 10
#define BPF_CGROUP_INET6_CONNECT 11
#define BPF_CGROUP_INET4_POST_BIND 12
#define BPF_CGROUP_INET6_POST_BIND 13
#define BPF_CGROUP_UDP4_SENDMSG 14
#define BPF_CGROUP_UDP6_SENDMSG 15
#define BPF_CGROUP_INET_SOCK_RELEASE 34
#define BPF_TRACE_RAW_TP 23

#ifndef BPF_PSEUDO_MAP_VALUE
#define BPF_PSEUDO_MAP_VALUE 2
#endif
#ifndef BPF_F_RDONLY_PROG
#define BPF_F_RDONLY_PROG (1U << 7)
#endif
#ifndef BPF_F_MMAPABLE
#define BPF_F_MMAPABLE (1U << 10)
#endif
#ifndef BPF_F_INNER_MAP
#define BPF_F_INNER_MAP (1U << 12)
#endif

/* The parts of union bpf_attr that are used here and in which the older headers lack fields. */
struct bpf_load_attr {
    __u32 prog_type;
    __u32 insn_cnt;
    __aligned_u64 insns;
    __aligned_u64 license;
    __u32 log_level;
    __u32 log_size;
    __aligned_u64 log_buf;
    __u32 kern_version;
    __u32 prog_flags;
    char prog_name[16];
    __u32 prog_ifindex;
    __u32 expected_attach_type;
    __u32 prog_btf_fd;
    __u32 func_info_rec_size;
    __aligned_u64 func_info;
    __u32 func_info_cnt;
    __u32 line_info_rec_size;
    __aligned_u64 line_info;
    __u32 line_info_cnt;
    __u32 attach_btf_id;
};

struct bpf_tracepoint_attr {
    __aligned_u64 name;
    __u32 prog_fd;
};

struct bpf_link_attr {
    __u32 prog_fd;
    __u32 target_fd;
    __u32 attach_type;
    __u32 flags;
};

#endif
