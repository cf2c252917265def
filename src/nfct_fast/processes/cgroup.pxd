"""The names in a cgroup path: systemd unit, slice and container."""

# A part of a text: a pointer into it, not terminated. Size 0: none.
ctypedef struct span_t:
    const char *at
    size_t size

ctypedef struct cgroup_names_t:
    span_t unit          # systemd unit as in `systemctl status PID`, journalctl's _SYSTEMD_UNIT
    span_t user_unit     # unit of the user's own service manager, _SYSTEMD_USER_UNIT; the user chooses its name
    span_t slice         # systemd slice, _SYSTEMD_SLICE; "-.slice" for the root slice
    span_t container     # container id (a name with lxc, systemd-nspawn and machines); the outermost if nested
    span_t runtime       # docker, libpod, cri-containerd, crio, nerdctl, lxc, systemd-nspawn, machine; or none
    # The same from the whole path, if that differs: someone other than the host's root may have chosen these.
    span_t claimed_unit
    span_t claimed_container     # the innermost container
    span_t claimed_runtime

# Find the names in a path. trusted: leading bytes of the path that name levels which the host's root made, see
# CgroupFilesystem.trusted().
cdef void cgroup_names(const char *path, size_t size, size_t trusted, cgroup_names_t *out) noexcept nogil
