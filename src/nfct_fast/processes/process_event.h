/* The kernel's events of fork, exec and exit, and the offsets in its structures at which their contents are read.
 * Shared by bpf/process.h and the reader. SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef NFCT_FAST_PROCESS_EVENT_H
#define NFCT_FAST_PROCESS_EVENT_H

#include <linux/types.h>

/* The identity of one program in one process, never reused: a pid is reused only with a later start time, and every
 * execve increments exec. */
struct process_id {
    __u64 start; /* start time of the first thread (task_struct.start_boottime), ns; 0: task_struct cannot be read */
    __u32 tgid;
    __u32 exec; /* lower half of task_struct.self_exec_id (5.7), which fork copies and execve increments */
};

enum process_event_kind { PROCESS_EVENT_FORK = 1, PROCESS_EVENT_EXEC, PROCESS_EVENT_EXIT };

#define PROCESS_PATH_MAX 4096 /* longest path kept, in bytes; of a longer one nothing is kept */
#define PROCESS_PATH_DEPTH 64 /* most components of a path kept; of a deeper one nothing is kept */
#define PROCESS_ARGS_MAX 4096 /* bytes kept of the arguments */

enum process_event_flags {
    PROCESS_EVENT_DELETED = 1,  /* the executed file was deleted */
    PROCESS_EVENT_UNROOTED = 2, /* the executed file never had a path: a memfd */
    PROCESS_EVENT_NO_ARGS = 4,  /* the arguments could not be read */
};

/* All kinds have the first 24 bytes; EXIT has no more, FORK ends before arg_start. */
struct process_event {
    struct process_id id;
    __u16 kind;
    __u16 flags;
    __u32 ns_pid;             /* pid in the process's own pid namespace; 0: that is the initial one */
    struct process_id parent; /* FORK: the process that called fork, whatever CLONE_PARENT says */
    __u64 cgroup;
    __u32 uid; /* real user id; gid: real group id */
    __u32 gid;
    __u32 login_uid; /* audit login uid; 0xffffffff: not set */
    __u32 spare;
    char comm[16];
    __u64 arg_start; /* address of the arguments in the process's memory, as in /proc/PID/stat */
    __u64 args_size; /* bytes of all arguments */
    __u64 inode;     /* inode of the executed file; device: its device, major << 20 | minor */
    __u32 device;
    __u16 path_size; /* bytes of its path, which follows: last component first, a NUL after each; 0: not known */
    __u16 kept_size; /* bytes of the arguments that follow the path */
};

#define PROCESS_EVENT_EXIT_SIZE 24
#define PROCESS_EVENT_FORK_SIZE 88

/* Offsets in the kernel's structures, from its BTF. All 0: the kernel has no BTF, and task_struct is not read. */
struct task_offsets {
    __u32 known; /* 1: the rest is filled in */
    __u32 group_leader, pid, tgid, start, exec_id, comm, mm, login_uid, signal, thread_pid, cgroups; /* task_struct */
    __u32 has_login_uid;
    __u32 has_subflows; /* 1: the next five are filled in */
    __u32 hook_sock, ulp_data, subflow_sock, subflow_conn,
        cookie;                                   /* bpf_sock_addr_kern.sk, inet_connection_sock.icsk_ulp_data,
                                                     mptcp_subflow_context, sock_common.skc_cookie */
    __u32 flags, uid, gid, cred;                  /* task_struct.flags, cred, and task_struct.cred */
    __u32 user_ns, ns_level, ns_parent, ns_owner; /* cred.user_ns, user_namespace */
    __u32 live;                                   /* signal_struct */
    __u32 level, numbers, upid_size;              /* pid; upid.nr is its first member */
    __u32 dfl_cgroup, kernfs, kernfs_id;          /* css_set.dfl_cgrp, cgroup.kn, kernfs_node.id */
    __u32 arg_start, arg_end, exe_file;           /* mm_struct */
    __u32 path_mount, path_dentry, file_inode;    /* file, with f_path */
    __u32 inode_number, superblock, device;       /* inode.i_ino, inode.i_sb, super_block.s_dev */
    __u32 parent, name, unhashed;                 /* dentry.d_parent, .d_name.name, .d_hash.pprev */
    __u32 mount_root;                             /* vfsmount */
    __u32 mount, mount_parent, mountpoint;        /* struct mount: its vfsmount, and where it is mounted */
};

#endif
