from nfct_fast.events.flow cimport flow_t
from nfct_fast.text.text_buffer cimport text_buffer_t

# Append the conntrack message that decodes to this flow, but for its time and namespace.
cdef void message_put(text_buffer_t *out, const flow_t *flow) noexcept nogil
