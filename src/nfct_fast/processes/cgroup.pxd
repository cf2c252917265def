"""The names in a cgroup path: systemd unit, slice and container."""

# A part of a text, which it points into: not copied, not terminated. Size 0: none.
ctypedef struct span_t:
    const char *at
    size_t size

ctypedef struct cgroup_names_t:
    span_t unit          # as in `systemctl status PID` and journalctl's _SYSTEMD_UNIT
    span_t user_unit     # _SYSTEMD_USER_UNIT: the unit of the user's own manager; the user chooses its name
    span_t slice         # _SYSTEMD_SLICE, "-.slice" for the root slice
    span_t container     # id, or name with lxc, systemd-nspawn and machines; of nested ones the outermost
    span_t runtime       # docker, libpod, cri-containerd, crio, nerdctl, lxc, systemd-nspawn, machine; or none
    # The same by the whole path, where that differs: others than the host's root can have chosen these.
    span_t claimed_unit
    span_t claimed_container     # the innermost
    span_t claimed_runtime

# Find the names in a path. trusted: bytes of it that name levels which the host's root made, see
# CgroupFilesystem.trusted.
cdef void cgroup_names(const char *path, size_t size, size_t trusted, cgroup_names_t *out) noexcept nogil
