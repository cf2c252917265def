/* The identity of the running program, for the notes, and the events of fork, exec and exit.
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The tracepoints run in the system call of the process. An event is therefore in the ring before the first instruction
 * of the new program, and before any socket it makes. It wakes no reader. Fields of kernel structures are read at
 * offsets that the loader took from the kernel's BTF, and that are constants for the verifier. */
#ifndef NFCT_FAST_BPF_PROCESS_H
#define NFCT_FAST_BPF_PROCESS_H

#include "store.h"

#define at(base, offset) ((char *)(base) + config.task.offset)
#define field(type, base, offset) (*(type *)at(base, offset))

struct scratch_event {
    struct process_event event;
    char text[PROCESS_PATH_MAX + 256 + PROCESS_ARGS_MAX];
};

INLINE __u64 kernel_word(const void *from)
{
    __u64 word = 0;
    (void)bpf_probe_read_kernel(&word, sizeof(word), from); /* stays 0 if it cannot be read */
    return word;
}

INLINE void task_identity(char *task, struct process_id *id)
{
    char *leader = field(char *, task, group_leader);
    id->start = field(__u64, leader, start);
    id->tgid = field(__u32, task, tgid);
    id->exec = field(__u64, task, exec_id);
}

INLINE void task_comm(char *task, char *comm)
{
    char *leader = field(char *, task, group_leader);
    *(__u64 *)comm = field(__u64, leader, comm);
    *(__u64 *)(comm + 8) = *(__u64 *)(at(leader, comm) + 8);
}

INLINE void current_identity(struct process_id *id)
{
    if (config.task.known) {
        task_identity(bpf_get_current_task_btf(), id);
    } else {
        id->start = id->exec = 0;
        id->tgid = bpf_get_current_pid_tgid() >> 32;
    }
}

#define PF_KTHREAD 0x200000 /* linux/sched.h; unchanged since 2.6.27 */
#define USER_NAMESPACES 33  /* nested, and the initial one: the kernel's limit */

/* Return the user to charge for what the task does. In a user namespace one user can have many uids, so it is the owner
 * of the outermost one. */
INLINE __u32 task_account(char *task)
{
    char *cred = field(char *, task, cred);
    char *ns = field(char *, cred, user_ns);
    __u32 level = field(__u32, ns, ns_level);
    if (!level)
        return field(__u32, cred, uid);
    for (int i = 0; i < USER_NAMESPACES && level > 1; i++) {
        ns = field(char *, ns, ns_parent);
        level = field(__u32, ns, ns_level);
    }
    return field(__u32, ns, ns_owner);
}

INLINE int current_is_kernel(void)
{
    char *task = bpf_get_current_task_btf();
    return (field(__u32, task, flags) & PF_KTHREAD) != 0;
}

/* Fill in the running process. The record's key must be filled in already. */
INLINE void who_is_current(struct owners_record *record, const struct process_id *id)
{
    struct owners_who *who = &record->who;
    __u64 user = bpf_get_current_uid_gid();
    who->cgroup = bpf_get_current_cgroup_id();
    who->time = bpf_ktime_get_boot_ns();
    who->uid = user;
    who->gid = user >> 32;
    who->id = *id;
    if (config.task.known) {
        char *task = bpf_get_current_task_btf();
        task_comm(task, who->comm);
        record->key.flags |= current_is_kernel() ? OWNERS_KERNEL : 0;
    } else {
        bpf_get_current_comm(who->comm, sizeof(who->comm));
    }
}

INLINE __u32 current_account(void)
{
    return config.task.known ? task_account(bpf_get_current_task_btf()) : (__u32)bpf_get_current_uid_gid();
}

INLINE void event_send(struct process_event *event, __u64 size)
{
    __u64 flags = BPF_RB_NO_WAKEUP;
    /* The reader drains the ring whenever flows arrive. If none do, wake it once the ring is half full. */
    if (bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) > config.ring_size / 2) {
        flags = BPF_RB_FORCE_WAKEUP;
        __sync_fetch_and_add(&state.wakeups, 1);
    }
    if (bpf_ringbuf_output(&events, event, size, flags)) {
        *(volatile __u64 *)&state.lost_at = bpf_ktime_get_boot_ns();
        __sync_fetch_and_add(&state.events_lost, 1);
    }
}

INLINE struct scratch_event *event_begin(char *task, __u16 kind)
{
    __u32 zero = 0;
    struct scratch_event *scratch_at = bpf_map_lookup_elem(&scratch, &zero);
    if (!scratch_at)
        return 0;
    struct process_event *event = &scratch_at->event;
    task_identity(task, &event->id);
    event->kind = kind;
    event->flags = 0;
    event->ns_pid = 0;
    return scratch_at;
}

/* Fill in what the events of fork and exec have in common. */
INLINE void event_fill(struct process_event *event, char *task)
{
    char *cred = field(char *, task, cred), *pid = field(char *, task, thread_pid);
    char *set = field(char *, task, cgroups);
    char *cgroup = field(char *, set, dfl_cgroup);
    char *node = field(char *, cgroup, kernfs);
    __u32 level = field(__u32, pid, level);
    event->uid = field(__u32, cred, uid);
    event->gid = field(__u32, cred, gid);
    event->cgroup = field(__u64, node, kernfs_id);
    event->login_uid = config.task.has_login_uid ? field(__u32, task, login_uid) : ~0u;
    event->spare = 0;
    task_comm(task, event->comm);
    if (level) { /* numbers[level] has no fixed offset, as the verifier requires, so read the pointer as a number */
        const char *numbers = (const char *)kernel_word(at(task, thread_pid)) + config.task.numbers;
        event->ns_pid = kernel_word(numbers + level * config.task.upid_size);
    }
}

SEC("tp_btf/sched_process_fork") int process_fork(__u64 *args)
{
    char *parent = (char *)args[0], *child = (char *)args[1];
    if (field(__u32, child, pid) != field(__u32, child, tgid)) /* a thread, not a process */
        return 0;
    struct scratch_event *scratch_at = event_begin(child, PROCESS_EVENT_FORK);
    if (!scratch_at)
        return 0;
    task_identity(parent, &scratch_at->event.parent);
    event_fill(&scratch_at->event, child);
    event_send(&scratch_at->event, PROCESS_EVENT_FORK_SIZE);
    return 0;
}

SEC("tp_btf/sched_process_exit") int process_exit(__u64 *args)
{
    char *task = (char *)args[0];
    char *signal = field(char *, task, signal);
    if (field(__u32, signal, live)) /* other threads are still running */
        return 0;
    struct process_event event = {.kind = PROCESS_EVENT_EXIT};
    task_identity(task, &event.id);
    event_send(&event, PROCESS_EVENT_EXIT_SIZE);
    return 0;
}

/* Write the path of the executed file to the text, its last component first, and return its size. Follows the path up
 * to the root of the mount namespace as d_path() does, so that the path of a chroot is included.
 *
 * The size is kept in memory, of whose content the verifier knows nothing, so that every turn of the loop begins in the
 * same state for it. With the size in a register it verified 244,000 instructions: most of the time of a start. */
INLINE __u32 path_write(struct scratch_event *scratch_at, char *file)
{
    volatile __u16 *kept = &scratch_at->event.path_size;
    char *mount = (char *)kernel_word(at(file, path_mount)), *dentry = (char *)kernel_word(at(file, path_dentry));
    char *root = (char *)kernel_word(at(mount, mount_root));
    *kept = 0;
    if (dentry != root && !kernel_word(at(dentry, unhashed)))
        scratch_at->event.flags |= PROCESS_EVENT_DELETED;
    for (int i = 0; i < PROCESS_PATH_DEPTH; i++) {
        if (dentry == root) {
            char *outer = mount - config.task.mount, *above = (char *)kernel_word(at(outer, mount_parent));
            if (!above)
                return 0;
            if (above == outer) /* the root of the mount namespace */
                return *kept;
            dentry = (char *)kernel_word(at(outer, mountpoint));
            mount = at(above, mount);
            root = (char *)kernel_word(at(mount, mount_root));
            continue;
        }
        char *parent = (char *)kernel_word(at(dentry, parent));
        const void *name = (const void *)kernel_word(at(dentry, name));
        __u32 size = *kept;
        if (size > PROCESS_PATH_MAX)
            return 0;
        long written = bpf_probe_read_kernel_str(scratch_at->text + size, 256, name);
        if (written <= 1)
            return 0;
        *kept = size + (written & 511);
        if (parent == dentry) {
            scratch_at->event.flags |= PROCESS_EVENT_UNROOTED;
            return *kept;
        }
        dentry = parent;
    }
    return 0;
}

SEC("tp_btf/sched_process_exec") int process_exec(__u64 *args)
{
    char *task = (char *)args[0];
    char *mm = field(char *, task, mm);
    char *file = field(char *, mm, exe_file);
    char *inode = field(char *, file, file_inode);
    char *superblock = field(char *, inode, superblock);
    struct scratch_event *scratch_at = event_begin(task, PROCESS_EVENT_EXEC);
    if (!scratch_at)
        return 0;
    struct process_event *event = &scratch_at->event;
    event_fill(event, task);
    event->parent = (struct process_id){};
    event->arg_start = field(__u64, mm, arg_start);
    event->args_size = field(__u64, mm, arg_end) - event->arg_start;
    event->inode = field(__u64, inode, inode_number);
    event->device = field(__u32, superblock, device);
    __u32 size = path_write(scratch_at, file);
    if (size > PROCESS_PATH_MAX)
        size = 0;
    event->path_size = size;
    __u64 kept = event->args_size;
    if (kept > PROCESS_ARGS_MAX)
        kept = PROCESS_ARGS_MAX;
    if (bpf_probe_read_user(scratch_at->text + size, kept, (void *)event->arg_start)) {
        event->flags |= PROCESS_EVENT_NO_ARGS;
        kept = 0;
    }
    event->kept_size = kept;
    event_send(event, sizeof(*event) + size + kept);
    return 0;
}

#endif
