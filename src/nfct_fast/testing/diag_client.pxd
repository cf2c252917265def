"""sock_diag for tests."""
from nfct_fast.sockets.socket_info cimport socket_info_t

# A dict whose unknown values are None.
cdef object sock_dict(const socket_info_t *sock)
