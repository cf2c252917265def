"""sock_diag from Python, for tests."""
from nfct_fast.sockets.socket_info cimport socket_info_t

# Return the socket as a dict. Unknown values are None.
cdef object sock_dict(const socket_info_t *sock)
