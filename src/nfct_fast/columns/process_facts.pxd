"""The processes of one batch's rows, each with the numbers of its texts."""
from libc.stdint cimport int32_t, int64_t, uint64_t

from nfct_fast.columns.table cimport TEXTS, table_t
from nfct_fast.processes.identity cimport Identity
from nfct_fast.processes.process cimport process_t

ctypedef struct process_facts_t:
    process_t *process           # a reference
    int32_t texts[16]            # of TEXTS: numbers in the table's dictionaries; -1: unknown

# All zero: empty.
ctypedef struct facts_t:
    process_facts_t *at          # entry 0 stands for no process: all is unknown
    int32_t count                # of entries; 0 before the first
    int32_t room
    int32_t *slots               # entries by the address of their process; 0: none
    int32_t mask                 # slots - 1
    uint64_t bytes               # of all texts

# The entry of a process, NULL for none; its texts are added to the table if it is new. -1 without memory.
cdef int32_t facts_find(facts_t *facts, table_t *table, const uint64_t *key, process_t *process,
                        Identity identity) noexcept nogil
# Write the columns that are facts of a process, for all rows of one end: COLUMN_OWNER or COLUMN_PEER. Its OWNER_PID
# column has the entries of the rows' processes.
cdef void facts_spread(const facts_t *facts, table_t *table, int end) noexcept nogil
# Drop the references and be empty.
cdef void facts_clear(facts_t *facts) noexcept nogil
