"""A cgroup path -> the names people know it by."""

# A piece of the path it was found in: not copied, not terminated; size 0 is "none".
ctypedef struct span_t:
    const char *at
    size_t size

ctypedef struct cgroup_names_t:
    span_t unit          # as `systemctl status PID` and journalctl's _SYSTEMD_UNIT
    span_t user_unit     # _SYSTEMD_USER_UNIT: the unit of the user's own manager, who may call it anything
    span_t slice         # _SYSTEMD_SLICE, "-.slice" for the root slice
    span_t container     # id, or name where the runtime goes by names (lxc, systemd-nspawn, machines): the outermost
    span_t runtime       # docker, libpod, cri-containerd, crio, nerdctl, lxc, systemd-nspawn, machine; none if only the id shows
    # What the whole path says, where that is something else: others than the host's root can have written it.
    span_t claimed_unit
    span_t claimed_container     # the innermost
    span_t claimed_runtime

# trusted: how much of the path names levels that the host's root made, see CgroupFilesystem.trusted.
cdef void cgroup_names(const char *path, size_t size, size_t trusted, cgroup_names_t *out) noexcept nogil
