from libc.stdint cimport uint8_t
from nfct_fast.events.flow cimport flow_t
from nfct_fast.records.owner cimport owner_t

ctypedef struct record_t:
    flow_t flow
    owner_t owner            # the originator where it is local, else the responder
    owner_t peer             # the responder of a flow whose both ends are local
    uint8_t direction        # DIRECTION_*; 0: not known

cdef void record_drop(record_t *record) noexcept nogil    # its references

cdef object flow_object(record_t *record)                 # takes the references over
