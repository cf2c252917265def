"""sock_diag for tests in Python: find the socket of a tuple, and the sockets that share its port."""
cimport cython
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc

from linux_netlink cimport NETLINK_SOCK_DIAG
from netinet_in cimport IPPROTO_TCP

from nfct_fast.attribution.candidates cimport candidates_keep
from nfct_fast.events.flow cimport tuple_set, tuple_t
from nfct_fast.kernel.netlink_query cimport netquery_close, netquery_open, netquery_t
from nfct_fast.sockets.diag_message cimport diag_match_t, diag_reply
from nfct_fast.sockets.sock_diag cimport diag_lookup, diag_lookup_listener, diag_survey
from nfct_fast.sockets.socket_info cimport (
    SOCK_CGROUP, SOCK_COOKIE, SOCK_EXACT, SOCK_LISTENER, SOCK_UID, SOCK_WILDCARD, socket_info_t,
)

import os
import time

cdef enum:
    CANDIDATES = 256

KINDS = {SOCK_EXACT: "exact", SOCK_LISTENER: "listener", SOCK_WILDCARD: "wildcard"}


cdef object sock_dict(const socket_info_t *sock):
    return {
        "inode": sock.inode or None,
        "uid": sock.uid if sock.has & SOCK_UID else None,
        "cookie": sock.cookie if sock.has & SOCK_COOKIE else None,
        "cgroup_id": sock.cgroup_id if sock.has & SOCK_CGROUP else None,
        "kind": KINDS.get(sock.kind),
        "state": sock.state,
        "ambiguous": bool(sock.ambiguous),
    }


@cython.final
@cython.auto_pickle(False)
cdef class SockDiag:
    """A sock_diag socket in the network namespace of the thread that opens it. Raises OSError."""

    cdef netquery_t diag

    def __cinit__(self):
        self.diag.fd = -1

    def __init__(self):
        self.close()
        cdef int rc = netquery_open(&self.diag, NETLINK_SOCK_DIAG)
        if rc < 0:
            raise OSError(-rc, os.strerror(-rc), "socket(NETLINK_SOCK_DIAG)")

    def __dealloc__(self):
        netquery_close(&self.diag)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        """Close the socket; closing twice is harmless."""
        netquery_close(&self.diag)

    def fileno(self) -> int:
        """Return the file descriptor, or -1 when closed."""
        return self.diag.fd

    cdef diag_match_t *_survey(self, const tuple_t *tuple, int *count) except NULL:
        cdef diag_match_t *found = <diag_match_t *>malloc(CANDIDATES * sizeof(diag_match_t))
        if found == NULL:
            raise MemoryError
        with nogil:
            count[0] = diag_survey(&self.diag, tuple, found, CANDIDATES)
        if count[0] < 0:
            free(found)
            raise OSError(-count[0], os.strerror(-count[0]), "sock_diag")
        return found

    def find(self, proto, src, sport, dst, dport, *, listener=False, ifindex=0):
        """Find the socket whose local end is src:sport and whose remote end is dst:dport.

        Args:
            proto: IPPROTO_* number.
            src, dst: Addresses in any form that ipaddress accepts.
            listener: Find only the listener.
            ifindex: Index of the device that the socket is bound to; 0 for none.

        Returns:
            A dict, or None if there is no such socket. Unknown values are None; "ambiguous" is True if other sockets of
            the port match equally well.

        Raises:
            OSError: sock_diag failed.
        """
        cdef tuple_t tuple
        cdef socket_info_t sock
        cdef diag_match_t *found
        cdef int rc, count = 0
        cdef uint32_t device = ifindex
        cdef bint own_found = False
        tuple_set(&tuple, proto, src, sport, dst, dport)
        rc = (diag_lookup_listener if listener else diag_lookup)(&self.diag, &tuple, device, &sock)
        if rc < 0:
            raise OSError(-rc, os.strerror(-rc), "sock_diag")
        if rc == 0:
            return None
        if sock.kind != SOCK_EXACT:
            found = self._survey(&tuple, &count)
            sock.ambiguous = count > CANDIDATES or candidates_keep(
                found, count, &sock, &tuple, tuple.proto != IPPROTO_TCP, &own_found) > 1
            free(found)
        return sock_dict(&sock)

    def candidates(self, proto, src, sport, dst, dport):
        """Return every socket that could stand at src:sport (UDP), or listens there (TCP), as dicts; at most 256."""
        cdef tuple_t tuple
        cdef int i, count = 0
        tuple_set(&tuple, proto, src, sport, dst, dport)
        cdef diag_match_t *found = self._survey(&tuple, &count)
        try:
            return [sock_dict(&found[i].sock) for i in range(min(count, CANDIDATES))]
        finally:
            free(found)


def parse_reply(bytes data, uint32_t seq, proto, src, sport, dst, dport):
    """Parse the reply to request number `seq`. Return a dict, None if there is no such socket, or a negative errno."""
    cdef tuple_t tuple
    cdef diag_match_t match
    tuple_set(&tuple, proto, src, sport, dst, dport)
    cdef int rc = diag_reply(<const uint8_t *>data, len(data), seq, &tuple, &match)
    return rc if rc < 0 else sock_dict(&match.sock) if rc else None


def benchmark(SockDiag diag not None, proto, src, sport, dst, dport, bint survey, int count):
    """Look up one tuple `count` times, with or without a survey of its port. Return (ns for each, inode found)."""
    cdef tuple_t tuple
    cdef socket_info_t sock
    cdef diag_match_t found[CANDIDATES]
    cdef int _, rc = 0
    tuple_set(&tuple, proto, src, sport, dst, dport)
    start = time.perf_counter_ns()
    with nogil:
        for _ in range(count):
            rc = diag_lookup(&diag.diag, &tuple, 0, &sock)
            if survey and rc == 1:
                rc = 1 if diag_survey(&diag.diag, &tuple, found, CANDIDATES) >= 0 else 0
    return (time.perf_counter_ns() - start) / count, sock.inode if rc == 1 else None
