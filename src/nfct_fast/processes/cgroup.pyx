"""The names in a cgroup path: systemd unit and slice, container.

This reads only the path, no file and no process. Names stay as systemd escapes them (`\\x2d`), so that systemctl and
journalctl accept them.

Whoever may write to a directory chooses the names below it. A user owns everything below user@UID.service, root of a
container everything below the container, and either can `mkdir docker-ID.scope` there. Therefore only levels that the
host's root made count; names from the rest of the path are kept apart, as claimed.
"""
from libc.string cimport memcmp, memset, strlen

cdef enum:
    ID_SIZE = 64    # docker, podman, containerd and cri-o: a SHA-256 in hex


cdef inline bint span_starts(span_t s, const char *lead) noexcept nogil:
    return s.size >= strlen(lead) and memcmp(s.at, lead, strlen(lead)) == 0


cdef inline bint span_ends(span_t s, const char *tail) noexcept nogil:
    cdef size_t n = strlen(tail)
    return s.size >= n and memcmp(s.at + s.size - n, tail, n) == 0


cdef inline bint span_is(span_t s, const char *text) noexcept nogil:
    return s.size == strlen(text) and memcmp(s.at, text, s.size) == 0


cdef inline span_t span_cut(span_t s, size_t lead, size_t tail) noexcept nogil:
    s.at += lead
    s.size -= lead + tail
    return s


cdef bint component_next(const char **p, const char *end, span_t *out) noexcept nogil:
    while p[0] < end and p[0][0] == c'/':
        p[0] += 1
    out.at = p[0]
    while p[0] < end and p[0][0] != c'/':
        p[0] += 1
    out.size = p[0] - out.at
    return out.size > 0


cdef bint unit_name(span_t component, span_t *out) noexcept nogil:
    # cg_unescape and unit_name_is_valid of systemd: a leading "_" is the cgroup's escape, not part of the name.
    cdef const char **suffixes = [b".service", b".scope", b".slice", b".socket", b".mount", b".swap", b".target",
                                  b".device", b".automount", b".timer", b".path"]
    cdef size_t i, j
    cdef char c
    if component.size and component.at[0] == c'_':
        component = span_cut(component, 1, 0)
    if component.size > 255:
        return False
    for i in range(11):
        if span_ends(component, suffixes[i]) and component.size > strlen(suffixes[i]):
            break
    else:
        return False
    if component.at[0] == c'@':
        return False
    for j in range(component.size):
        c = component.at[j]
        if not (c'a' <= c <= c'z' or c'A' <= c <= c'Z' or c'0' <= c <= c'9' or c == c':' or c == c'-' or c == c'_'
                or c == c'.' or c == c'\\' or c == c'@'):
            return False
    out[0] = component
    return True


cdef void unit_find(const char **p, const char *end, span_t *unit, span_t *slice_) noexcept nogil:
    # systemd's cg_path_get_unit: the first component below the run of slices, if that is a unit.
    cdef const char *before = p[0]
    cdef span_t component, name
    while component_next(p, end, &component):
        if not unit_name(component, &name):
            p[0] = before
            return
        if not span_ends(name, b".slice"):
            unit[0] = name
            return
        slice_[0] = name
        before = p[0]


cdef bint all_digits(span_t s) noexcept nogil:
    cdef size_t i
    for i in range(s.size):
        if not c'0' <= s.at[i] <= c'9':
            return False
    return s.size > 0


cdef bint user_manager(span_t unit) noexcept nogil:
    return (span_starts(unit, b"user@") and span_ends(unit, b".service")
            and all_digits(span_cut(unit, 5, 8)))


cdef bint container_id(span_t s) noexcept nogil:
    cdef int i
    cdef char c
    if s.size != ID_SIZE:
        return False
    for i in range(ID_SIZE):
        c = s.at[i]
        if not (c'0' <= c <= c'9' or c'a' <= c <= c'f'):
            return False
    return True


cdef bint prefixed_id(span_t s, bint is_unit, cgroup_names_t *out) noexcept nogil:
    # docker-ID.scope, libpod-ID.scope, cri-containerd-ID.scope, crio-ID; SLICE:cri-containerd:ID from a containerd that
    # is not configured for systemd. crio-conmon-ID and libpod-conmon-ID are monitors outside of the container. A scope
    # is a unit, and systemd makes it only where units are.
    cdef span_t id, lead
    cdef size_t i
    if span_ends(s, b".scope"):
        if not is_unit:
            return False
        s = span_cut(s, 0, 6)
    if s.size <= ID_SIZE + 1:
        return False
    id = span_cut(s, s.size - ID_SIZE, 0)
    lead = span_cut(s, 0, ID_SIZE + 1)
    if not container_id(id) or span_ends(lead, b"-conmon"):
        return False
    if lead.at[lead.size] != c'-' and lead.at[lead.size] != c':':
        return False
    for i in range(lead.size, 0, -1):
        if lead.at[i - 1] == c':':
            lead = span_cut(lead, i, 0)
            break
    out.container = id
    out.runtime = span_cut(lead, 0, 8) if span_is(lead, b"libpod-payload") else lead
    return True


cdef void machine_find(span_t s, const char *p, const char *end, cgroup_names_t *out) noexcept nogil:
    # systemd-nspawn@NAME.service/payload and machine-NAME.scope; "supervisor" is nspawn itself, outside of the
    # container.
    cdef span_t below
    cdef bint nspawn = span_starts(s, b"systemd-nspawn@") and span_ends(s, b".service")
    if not nspawn and not (span_starts(s, b"machine-") and span_ends(s, b".scope")):
        return
    if component_next(&p, end, &below) and span_is(below, b"supervisor"):
        return
    if nspawn:
        out.runtime = span_cut(s, 0, s.size - 14)
        out.container = span_cut(s, 15, 8)
    else:
        out.runtime = span_cut(s, 0, s.size - 7)
        out.container = span_cut(s, 8, 6)


cdef void container_find(const char *p, const char *end, const cgroup_names_t *found, bint innermost,
                         cgroup_names_t *out) noexcept nogil:
    # The first match is the outermost container, whose root may choose the names below it; the last is the innermost.
    cdef span_t s, last, older
    last.size = 0
    older.size = 0
    last.at = older.at = p
    while component_next(&p, end, &s) and (innermost or out.container.size == 0):
        if prefixed_id(s, innermost or s.at == found.unit.at, out):
            pass
        elif container_id(s):
            if innermost or not span_is(last, b"libpod_parent"):     # a pod, with its containers below
                out.container = s
                out.runtime = last
                if not span_is(last, b"docker"):    # /docker/ID and /kubepods/.../podUID/ID by the cgroupfs driver
                    out.runtime.size = 0
        elif span_starts(s, b"lxc.payload.") and s.size > 12:
            out.runtime = span_cut(s, 0, s.size - 3)
            out.container = span_cut(s, 12, 0)
        elif span_is(last, b"lxc.payload") or (span_is(last, b"lxc") and older.size == 0):
            out.runtime = span_cut(last, 0, last.size - 3)
            out.container = s
        else:
            machine_find(s, p, end, out)
        older = last
        last = s


cdef void names_find(const char *path, const char *end, cgroup_names_t *out) noexcept nogil:
    # The path given here has only levels that the host's root made.
    cdef const char **root = [b"-.slice"]
    cdef const char *p = path
    unit_find(&p, end, &out.unit, &out.slice)
    if out.unit.size and not out.slice.size:
        out.slice.at = root[0]
        out.slice.size = strlen(root[0])
    container_find(path, p if user_manager(out.unit) else end, out, False, out)


cdef void cgroup_names(const char *path, size_t size, size_t trusted, cgroup_names_t *out) noexcept nogil:
    cdef const char *p = path
    cdef const char *end = path + size
    cdef span_t ignored
    cdef cgroup_names_t whole
    memset(out, 0, sizeof(out[0]))
    memset(&whole, 0, sizeof(whole))
    if size >= 3 and memcmp(path, b"/..", 3) == 0:
        return    # outside of our cgroup namespace: the levels above are hidden
    names_find(path, path + min(size, trusted), out)
    unit_find(&p, end, &whole.unit, &whole.slice)
    if out.unit.size and (
            user_manager(out.unit) or span_starts(out.unit, b"session-") and span_ends(out.unit, b".scope")):
        unit_find(&p, end, &out.user_unit, &ignored)
    container_find(path, end, &whole, True, &whole)
    if whole.unit.at != out.unit.at:
        out.claimed_unit = whole.unit
    if whole.container.at != out.container.at:
        out.claimed_container = whole.container
        out.claimed_runtime = whole.runtime


cdef object span_str(span_t s):
    return s.at[:s.size].decode("utf-8", "surrogateescape") if s.size else None


def names(path, trusted=None):
    """Find the names in a cgroup path. Reads only the path, and never blocks.

    Args:
        path: As in /proc/PID/cgroup, a str or bytes.
        trusted: Leading bytes of the path that name levels which the host's root made, see
            CgroupFilesystem.trusted_of(); None: all.

    Returns:
        A dict of unit (as `systemctl status PID` prints it), user_unit, slice, container, runtime, claimed_unit,
        claimed_container and claimed_runtime, each a str or None. Someone other than the host's root may have chosen
        the claimed names; a user chooses the user_unit.
    """
    cdef bytes raw = path if isinstance(path, bytes) else path.encode("utf-8", "surrogateescape")
    cdef cgroup_names_t found
    cgroup_names(raw, len(raw), len(raw) if trusted is None else trusted, &found)
    return {"unit": span_str(found.unit), "user_unit": span_str(found.user_unit), "slice": span_str(found.slice),
            "container": span_str(found.container), "runtime": span_str(found.runtime),
            "claimed_unit": span_str(found.claimed_unit), "claimed_container": span_str(found.claimed_container),
            "claimed_runtime": span_str(found.claimed_runtime)}
