"""What is told of records beside what they hold themselves."""
cimport cython
from nfct_fast.processes.identity cimport Identity


@cython.final
@cython.auto_pickle(False)
cdef class Presentation:
    """Immutable; shared by all records of a Conntrack.

    community_id: the seed of Community IDs, 0 to 65535, which JSON has then; None for none. Raises ValueError.
    identity: the arguments of an Identity; by default this host's.
    """

    def __cinit__(self, community_id=None, identity=()):
        self.identity = Identity(*identity)
        if community_id is not None:
            if isinstance(community_id, bool) or not 0 <= community_id <= 65535:
                raise ValueError(f"community_id {community_id!r}: must be a seed from 0 to 65535")
            self.seed = community_id
            self.has_community_id = True

    cdef tuple saved(self, uids, gids):
        """Return the arguments of one like it that knows the names of these users and groups, and no others."""
        return self.seed if self.has_community_id else None, self.identity.saved(uids, gids)
