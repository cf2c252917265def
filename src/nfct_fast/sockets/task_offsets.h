/* Find the offsets of what the BPF programs read of a process, in the kernel's BTF.
 * SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef NFCT_FAST_TASK_OFFSETS_H
#define NFCT_FAST_TASK_OFFSETS_H

#include <stddef.h>
#include <nfct_fast/sockets/btf.h>
#include <nfct_fast/processes/process_event.h>

#define TASK_TRACEPOINTS 3 /* fork, exec, exit: in the order of their programs in owners_skel.h */

struct task_types {
    struct task_offsets offsets;
    uint32_t tracepoints[TASK_TRACEPOINTS]; /* BTF type numbers of the tracepoints, by which programs are attached */
    const char *missing;                    /* name of the first member or type that was not found, or NULL */
};

struct task_wanted {
    const char *structure, *member;
    size_t into;
};

#define TASK_WANTED(structure, member, into) {structure, member, offsetof(struct task_offsets, into)}

/* A nested member, such as file.f_path.dentry, has an entry for each step; their offsets add up. */
static const struct task_wanted task_wanted[] = {
    TASK_WANTED("task_struct", "group_leader", group_leader),
    TASK_WANTED("task_struct", "pid", pid),
    TASK_WANTED("task_struct", "tgid", tgid),
    TASK_WANTED("task_struct", "start_boottime", start),
    TASK_WANTED("task_struct", "self_exec_id", exec_id),
    TASK_WANTED("task_struct", "comm", comm),
    TASK_WANTED("task_struct", "mm", mm),
    TASK_WANTED("task_struct", "signal", signal),
    TASK_WANTED("task_struct", "thread_pid", thread_pid),
    TASK_WANTED("task_struct", "cgroups", cgroups),
    TASK_WANTED("task_struct", "cred", cred),
    TASK_WANTED("cred", "uid", uid),
    TASK_WANTED("cred", "gid", gid),
    TASK_WANTED("task_struct", "flags", flags),
    TASK_WANTED("cred", "user_ns", user_ns),
    TASK_WANTED("user_namespace", "level", ns_level),
    TASK_WANTED("user_namespace", "parent", ns_parent),
    TASK_WANTED("user_namespace", "owner", ns_owner),
    TASK_WANTED("signal_struct", "live", live),
    TASK_WANTED("pid", "level", level),
    TASK_WANTED("pid", "numbers", numbers),
    TASK_WANTED("css_set", "dfl_cgrp", dfl_cgroup),
    TASK_WANTED("cgroup", "kn", kernfs),
    TASK_WANTED("kernfs_node", "id", kernfs_id),
    TASK_WANTED("mm_struct", "arg_start", arg_start),
    TASK_WANTED("mm_struct", "arg_end", arg_end),
    TASK_WANTED("mm_struct", "exe_file", exe_file),
    TASK_WANTED("file", "f_path", path_mount),
    TASK_WANTED("path", "mnt", path_mount),
    TASK_WANTED("file", "f_path", path_dentry),
    TASK_WANTED("path", "dentry", path_dentry),
    TASK_WANTED("file", "f_inode", file_inode),
    TASK_WANTED("inode", "i_ino", inode_number),
    TASK_WANTED("inode", "i_sb", superblock),
    TASK_WANTED("super_block", "s_dev", device),
    TASK_WANTED("dentry", "d_parent", parent),
    TASK_WANTED("dentry", "d_name", name),
    TASK_WANTED("qstr", "name", name),
    TASK_WANTED("dentry", "d_hash", unhashed),
    TASK_WANTED("hlist_bl_node", "pprev", unhashed),
    TASK_WANTED("vfsmount", "mnt_root", mount_root),
    TASK_WANTED("mount", "mnt", mount),
    TASK_WANTED("mount", "mnt_parent", mount_parent),
    TASK_WANTED("mount", "mnt_mountpoint", mountpoint),
};

/* With MPTCP a kernel thread connects the subflows: these lead from a subflow's socket to the MPTCP socket. */
static const struct task_wanted subflow_wanted[] = {
    TASK_WANTED("bpf_sock_addr_kern", "sk", hook_sock),
    TASK_WANTED("inet_connection_sock", "icsk_ulp_data", ulp_data),
    TASK_WANTED("mptcp_subflow_context", "tcp_sock", subflow_sock),
    TASK_WANTED("mptcp_subflow_context", "conn", subflow_conn),
    TASK_WANTED("sock_common", "skc_cookie", cookie),
};

static const char *const task_tracepoints[TASK_TRACEPOINTS] = {
    "btf_trace_sched_process_fork", "btf_trace_sched_process_exec", "btf_trace_sched_process_exit"};

/* Add up the offsets that `all` lists. Return 0, or -errno with out->missing set to what was not found. */
static inline int task_offsets_fill(struct task_types *out, const struct btf *btf, const struct task_wanted *all,
                                    size_t count)
{
    const char *last = "";
    int64_t number = 0;
    for (size_t i = 0; i < count; i++) {
        const struct task_wanted *wanted = &all[i];
        uint32_t *into = (uint32_t *)(void *)((char *)&out->offsets + wanted->into);
        if (strcmp(last, wanted->structure))
            number = btf_find(btf, BTF_STRUCT, last = wanted->structure);
        int64_t at = number < 0 ? number : btf_member(btf, number, wanted->member, 0);
        out->missing = wanted->member;
        if (at < 0 || at > 32000) /* a BPF instruction has a signed 16-bit offset */
            return at < 0 ? (int)at : -ERANGE;
        *into += (uint32_t)at;
    }
    return 0;
}

#define TASK_COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Fill in everything from the BTF. Return 0, or -errno with out->missing set to what was not found. */
static inline int task_types_fill(struct task_types *out, const struct btf *btf)
{
    int64_t number;
    struct btf_type_t upid;
    memset(out, 0, sizeof(*out));
    int rc = task_offsets_fill(out, btf, task_wanted, TASK_COUNT(task_wanted));
    if (rc < 0)
        return rc;
    out->offsets.has_subflows = task_offsets_fill(out, btf, subflow_wanted, TASK_COUNT(subflow_wanted)) == 0;
    out->missing = "upid";
    if ((number = btf_find(btf, BTF_STRUCT, "upid")) < 0)
        return (int)number;
    btf_type(btf, (uint32_t)number, &upid);
    out->offsets.upid_size = upid.size_or_type;
    number = btf_find(btf, BTF_STRUCT, "task_struct");
    if ((number = btf_member(btf, number, "loginuid", 0)) >= 0) { /* with CONFIG_AUDIT */
        out->offsets.login_uid = (uint32_t)number;
        out->offsets.has_login_uid = 1;
    }
    for (int i = 0; i < TASK_TRACEPOINTS; i++) {
        out->missing = task_tracepoints[i];
        if ((number = btf_find(btf, BTF_TYPEDEF, task_tracepoints[i])) < 0)
            return (int)number;
        out->tracepoints[i] = (uint32_t)number;
    }
    out->missing = NULL;
    out->offsets.known = 1;
    return 0;
}

/* The same from the file at `path`. Return 0 or -errno. */
static inline int task_types_read(struct task_types *out, const char *path)
{
    struct btf btf;
    int rc = btf_open(&btf, path);
    memset(out, 0, sizeof(*out));
    if (rc < 0)
        return rc;
    rc = task_types_fill(out, &btf);
    btf_close(&btf);
    return rc;
}

#endif
