"""The status bits of a conntrack entry and their names."""
from libc.stdint cimport uint32_t
from libc.string cimport strlen
from nfct_fast.text.text_buffer cimport buffer_put, text_buffer_t

import enum

cdef enum:
    WORD_COUNT = 16

cdef extern from "nfct_fast/text/status_words.h" nogil:
    const char *const nfct_fast_status_words[WORD_COUNT]

Status = enum.IntFlag(
    "Status", {nfct_fast_status_words[i].decode(): 1 << i for i in range(WORD_COUNT)}, module=__name__)
Status.__doc__ = "Status bits of a conntrack entry: IPS_* of linux/netfilter/nf_conntrack_common.h."


cdef void status_put(text_buffer_t *out, uint32_t status, const char *between) noexcept nogil:
    """Append the names of the bits that are set, separated by `between`. Bits without a name are left out."""
    cdef int i
    cdef bint first = True
    for i in range(WORD_COUNT):
        if status >> i & 1:
            if not first:
                buffer_put(out, between, strlen(between))
            buffer_put(out, nfct_fast_status_words[i], strlen(nfct_fast_status_words[i]))
            first = False
