"""What is told of records beside what they hold themselves."""
cimport cython
from nfct_fast.processes.identity cimport Identity
from nfct_fast.text.json_text cimport json_label, json_name, json_number
from nfct_fast.text.text_buffer cimport buffer_free, text_buffer_t

import os

cdef enum:
    SCHEMA = 1               # changes when a key that was there means something else, or is gone


cdef void _host(text_buffer_t *out, Identity identity):
    cdef bytes name = os.fsencode(identity.host.name)
    json_number(out, b',"schema":', SCHEMA)
    json_name(out, b',"host":', name, <int>len(name))
    for key, id in ((b',"machine_id":', identity.host.machine_id), (b',"boot_id":', identity.host.boot_id)):
        if id is not None:
            json_label(out, key, <bytes>id.encode("ascii"))


@cython.final
@cython.auto_pickle(False)
cdef class Presentation:
    """Immutable; shared by all records of a Conntrack.

    community_id: the seed of Community IDs, 0 to 65535, which JSON has then; None for none. Raises ValueError.
    identity: the arguments of an Identity; by default this host's.
    """

    def __cinit__(self, community_id=None, identity=()):
        self.identity = Identity(*identity)
        _host(&self.host, self.identity)
        self._name = os.fsencode(self.identity.host.name)
        self.name.at, self.name.size = self._name, len(self._name)
        if self.host.failed:
            raise MemoryError("host")
        if community_id is not None:
            if isinstance(community_id, bool) or not 0 <= community_id <= 65535:
                raise ValueError(f"community_id {community_id!r}: must be a seed from 0 to 65535")
            self.seed = community_id
            self.has_community_id = True

    def __dealloc__(self):
        buffer_free(&self.host)

    cdef tuple saved(self, uids, gids):
        """Return the arguments of one like it that knows the names of these users and groups, and no others."""
        return self.seed if self.has_community_id else None, self.identity.saved(uids, gids)
