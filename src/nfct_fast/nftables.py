"""Turns connection tracking on by an nftables table of our own, which the kernel removes with its socket.

The table has NFT_TABLE_F_OWNER (Linux 5.12): it belongs to the netlink socket that made it, goes when that is closed,
however the process ends, and nobody else can change it. Its one rule loads the conntrack state and stands in a chain
that no hook calls: a rule that uses `ct` registers conntrack's own hooks when it is made, and no packet ever runs it.
Message formats: linux/netfilter/nf_tables.h, nfnetlink.h.
"""
import errno
import os
import socket
import struct

_NETLINK_NETFILTER = 12
_NLMSG_ERROR = 2
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_CREATE, _NLM_F_APPEND = 1, 4, 0x400, 0x800
_NFNL_MSG_BATCH_BEGIN, _NFNL_MSG_BATCH_END = 0x10, 0x11
_NFNL_SUBSYS_NFTABLES = 10
_NEWTABLE, _NEWCHAIN, _NEWRULE = ((_NFNL_SUBSYS_NFTABLES << 8) | message for message in (0, 3, 6))
_NFPROTO_UNSPEC, _NFPROTO_INET = 0, 1
_NFT_TABLE_F_OWNER = 2
_NFT_REG_1 = 1
_NFT_CT_STATE = 0
_NLA_F_NESTED = 0x8000
_CHAIN = b"load\0"


def _attribute(kind, payload):
    if isinstance(payload, int):
        payload = struct.pack(">I", payload)
    data = struct.pack("=HH", 4 + len(payload), kind) + payload
    return data + bytes(-len(data) % 4)


def _nested(kind, *attributes):
    return _attribute(kind | _NLA_F_NESTED, b"".join(attributes))


def _message(kind, flags, sequence, family, resource, *attributes):
    body = struct.pack(">BBH", family, 0, resource) + b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(body), kind, _NLM_F_REQUEST | flags, sequence, 0) + body


def _batch(name):
    ct_state = _nested(1,                                           # NFTA_LIST_ELEM
                       _attribute(1, b"ct\0"),                      # NFTA_EXPR_NAME
                       _nested(2,                                   # NFTA_EXPR_DATA
                               _attribute(1, _NFT_REG_1),           # NFTA_CT_DREG
                               _attribute(2, _NFT_CT_STATE)))       # NFTA_CT_KEY
    change = _NLM_F_ACK | _NLM_F_CREATE
    return b"".join((
        _message(_NFNL_MSG_BATCH_BEGIN, 0, 1, _NFPROTO_UNSPEC, _NFNL_SUBSYS_NFTABLES),
        _message(_NEWTABLE, change, 2, _NFPROTO_INET, 0, _attribute(1, name), _attribute(2, _NFT_TABLE_F_OWNER)),
        _message(_NEWCHAIN, change, 3, _NFPROTO_INET, 0, _attribute(1, name), _attribute(3, _CHAIN)),
        _message(_NEWRULE, change | _NLM_F_APPEND, 4, _NFPROTO_INET, 0, _attribute(1, name), _attribute(2, _CHAIN),
                 _nested(4, ct_state)),
        _message(_NFNL_MSG_BATCH_END, 0, 5, _NFPROTO_UNSPEC, _NFNL_SUBSYS_NFTABLES),
    ))


def _answers(data):
    """(sequence, errno) of each NLMSG_ERROR in a datagram."""
    while len(data) >= 36:
        length, kind = struct.unpack_from("=IH", data)
        if kind == _NLMSG_ERROR:
            code, = struct.unpack_from("=i", data, 16)
            sequence, = struct.unpack_from("=I", data, 28)
            yield sequence, -code
        data = data[max(16, length + -length % 4):]


def _explain(number):
    if number == errno.EPERM:
        return PermissionError(number, "tracking cannot be turned on: it needs CAP_NET_ADMIN (run as root)")
    if number in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOENT, errno.EAFNOSUPPORT):
        return OSError(number, "tracking cannot be turned on: it needs nf_tables with its ct expression and table "
                               f"owners (Linux 5.12 or later); the kernel says {os.strerror(number)}. "
                               "A rule of your own that uses `ct state` does as well")
    return OSError(number, f"tracking cannot be turned on: {os.strerror(number)}")


class TrackingTable:
    """Connection tracking, on in the calling thread's network namespace until close() or the end of the process.

    Needs CAP_NET_ADMIN and Linux 5.12. Raises OSError, PermissionError without the capability.
    """

    def __init__(self):
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        try:
            self._socket.bind((0, 0))
            self._socket.settimeout(5)
            # The port number of a socket is unique in its namespace, hence the table's name.
            self.name = f"nfct_fast_{self._socket.getsockname()[0]}"
            self._socket.send(_batch(self.name.encode() + b"\0"))
            self._await_answers({2, 3, 4})
        except BaseException:
            self._socket.close()
            raise

    def _await_answers(self, pending):
        while pending:
            for sequence, number in _answers(self._socket.recv(65536)):
                if number:
                    raise _explain(number)
                pending.discard(sequence)

    def close(self) -> None:
        """Remove the table; closing twice is harmless."""
        self._socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()
