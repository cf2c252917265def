/* Mount cgroup v2 privately where it is not mounted: no path leads to the mount, and it ends with its descriptor.
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The system calls (Linux 5.2) are made by number, since glibc has wrappers only from 2.36 on. */
#ifndef NFCT_FAST_OWNERS_CGROUP_H
#define NFCT_FAST_OWNERS_CGROUP_H

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#include <nfct_fast/kernel/syscall_numbers.h>

/* Return a descriptor of the mount's root directory, or -errno. Needs CAP_SYS_ADMIN. */
static inline int owners_cgroup_mount(void)
{
    enum { CLOEXEC = 1, CMD_CREATE = 6 }; /* FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC; FSCONFIG_CMD_CREATE */
    int context = (int)syscall(SYS_fsopen, "cgroup2", CLOEXEC);
    if (context < 0)
        return -errno;
    int mount = -1, root = -1;
    if (syscall(SYS_fsconfig, context, CMD_CREATE, NULL, NULL, 0) == 0)
        mount = (int)syscall(SYS_fsmount, context, CLOEXEC, 0);
    if (mount >= 0)
        root = openat(mount, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int error = root < 0 ? errno : 0;
    if (mount >= 0)
        close(mount);
    close(context);
    return root < 0 ? -error : root;
}

#endif
