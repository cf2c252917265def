"""What stands in a recording.

A header of 16 bytes: "\\x89NFCTrec", the version, and 0x01020304, a uint32_t each (recording_host.py). Then chunks: a
chunk_t, `size` bytes that begin with the struct of its type, and zeros up to the next multiple of 8. Numbers are in the
byte order of the host that recorded, which the header tells. The first chunk is CHUNK_HOST, the last one CHUNK_END; a
file without it was cut off. A process is written once, into a slot that flows then name; a slot may be used again.

Each change of a struct, or a new type of chunk, is a new version, which older programs refuse. This one is 2, which has
whole flows and who responded; of format 1, which had zeros in these places, flows are played as they were.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from nfct_fast.events.flow cimport FLOW_FORGOTTEN, FLOW_RECOVERED

cdef enum:
    CHUNK_MAX = 1 << 17          # bytes of a chunk, without its chunk_t
    SLOTS = 2048                 # of processes
    ANCESTORS_MAX = 64           # of one process

cdef enum:
    MARKS = FLOW_RECOVERED | FLOW_FORGOTTEN

cdef enum:
    CHUNK_HOST = 1               # JSON: what recorded, and on which host
    CHUNK_PROCESS = 2            # process_chunk_t
    CHUNK_FLOW = 3               # flow_chunk_t
    CHUNK_LOSS = 4               # loss_chunk_t
    CHUNK_END = 5                # end_chunk_t
    CHUNK_SEEN = 6               # to a store only: seen_chunk_t

cdef packed struct chunk_t:
    uint32_t size
    uint32_t type                # CHUNK_*

cdef inline size_t chunk_step(const chunk_t *chunk) noexcept nogil:
    """From one chunk to the next."""
    return sizeof(chunk_t) + ((<size_t>chunk.size + 7) & ~<size_t>7)

# As process_t; then the bytes of comm, exe, cmdline and cgroup, and the ancestors, the nearest first.
cdef packed struct process_chunk_t:
    uint32_t slot
    uint32_t has
    int32_t pid
    int32_t ppid
    uint32_t uid
    uint32_t gid
    uint32_t login_uid
    uint32_t ns_pid
    uint64_t start
    uint64_t start_ns
    uint64_t netns
    uint64_t cmdline_whole
    uint64_t exe_dev
    uint64_t exe_inode
    uint32_t comm_size
    uint32_t exe_size
    uint32_t cmdline_size
    uint32_t cgroup_size
    uint32_t cgroup_trusted
    uint32_t ancestors           # how many follow

# As ancestor_t; then the bytes of comm and exe.
cdef packed struct ancestor_part_t:
    uint64_t start_ns
    int32_t pid
    uint16_t comm_size
    uint16_t exe_size

# As owner_t; then the slots of others, a uint32_t each.
cdef packed struct owner_part_t:
    uint64_t inode
    uint64_t cookie
    uint64_t cgroup_id
    uint32_t uid
    uint32_t gid
    uint32_t process             # a slot + 1; 0: none
    uint32_t cgroup              # likewise
    uint8_t other_count
    uint8_t has
    uint8_t match
    uint8_t reason

# Then the conntrack message (NETLINK_NETFILTER) as the kernel sent it, or one that was made for a flow which was read
# from a table; and the owner_part_t of owner and peer.
cdef packed struct flow_chunk_t:
    int64_t time                 # ns since the epoch when it was received
    uint64_t netns               # inode of the namespace it came from
    int64_t began                # as in record_t
    uint32_t message_size
    uint16_t has                 # MARKS of flow_t.has, which a message does not hold
    uint8_t type                 # EVENT_*: of a whole flow, whose message is that of its end, EVENT_FLOW
    uint8_t direction            # DIRECTION_*
    uint8_t is_responder         # as in record_t
    uint8_t seen                 # SEEN_* of first_seen
    uint8_t unused[6]

# As loss_t.
cdef packed struct loss_chunk_t:
    int64_t time
    int64_t since
    uint64_t netns
    uint64_t events
    uint32_t at_least
    uint32_t unused

# Then seen_entry_t: what is to be remembered of the marks of the flows before it; see seen/seen_file.py.
cdef packed struct seen_chunk_t:
    uint8_t key[16]
    uint32_t limit
    uint32_t unused

# What the file holds, for whoever wants to know that it is whole.
cdef packed struct end_chunk_t:
    uint64_t flows
    uint64_t losses
