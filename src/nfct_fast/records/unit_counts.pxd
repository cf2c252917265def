"""What the flows of each systemd unit and container come to, in a table of bounded size."""
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from nfct_fast.processes.cgroup cimport cgroup_names_t

cdef enum:
    UNITS_MOST = 1000        # units and containers that are told apart
    UNIT_ROOM = 320          # bytes of a name and its runtime; a part of a cgroup's path has 255 at most
    UNIT_OTHER = 0           # numbers of units: all for which there is no room,
    UNIT_UNKNOWN = 1         # and the flows of which no unit and no container is known

ctypedef struct unit_count_t:
    uint64_t flows
    uint64_t sent            # bytes from and to the owner, as counted by the kernel
    uint64_t received
    int64_t used             # CLOCK_MONOTONIC ns when it was last counted
    uint16_t size            # bytes of the name
    uint16_t runtime_size    # bytes of the container's runtime, which follow the name in `text`
    uint16_t is_container
    char text[UNIT_ROOM]

ctypedef struct unit_counts_t:
    unit_count_t *units
    uint16_t *slots          # 1 + the number of a unit, by the hash of its name; 0: none
    uint16_t *hints          # the unit that a process had last, by the process's address: to be confirmed by its name
    int count
    int64_t swept            # CLOCK_MONOTONIC ns when those that are not used any more were last looked for
    uint64_t key[2]          # of the hash

cdef int units_open(unit_counts_t *units) except -1
cdef void units_free(unit_counts_t *units) noexcept nogil
# The count of the container or else the unit in `names`, NULL for none. hint: the address of the process that has them.
cdef unit_count_t *units_find(unit_counts_t *units, const cgroup_names_t *names, const void *hint,
                              int64_t now) noexcept nogil
