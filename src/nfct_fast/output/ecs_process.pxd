"""An owner in the Elastic Common Schema."""
from nfct_fast.processes.identity cimport Identity
from nfct_fast.processes.process_texts cimport process_text_t
from nfct_fast.records.owner cimport owner_t
from nfct_fast.text.text_buffer cimport text_buffer_t

# Write process, user, group and container, each with a comma before it. texts: where processes' text is kept.
cdef void ecs_owner(text_buffer_t *out, const owner_t *owner, process_text_t *texts, Identity identity) noexcept nogil
# Write what ECS has no field for, as an object, with what opens it in `key`.
cdef void ecs_owner_details(text_buffer_t *out, const char *key, const owner_t *owner, process_text_t *texts,
                            Identity identity) noexcept nogil
