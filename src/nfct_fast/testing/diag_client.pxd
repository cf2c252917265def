"""sock_diag for tests in Python."""
from nfct_fast.sockets.socket_info cimport socket_info_t

# Return the socket as a dict. Unknown values are None.
cdef object sock_dict(const socket_info_t *sock)
