"""Turn connection tracking on by an nftables table of our own, which the kernel removes when our socket closes.

The table has the flag NFT_TABLE_F_OWNER (Linux 5.12): it belongs to the netlink socket that made it, is removed when
that closes, however the process ends, and nobody else can change it. Its one rule matches on the conntrack state and is
in a chain that no hook calls. That is enough: when a rule that uses `ct` is added, conntrack's own hooks are registered
for the families of its table, though no packet ever reaches the rule. Message formats: linux/netfilter/nf_tables.h,
nfnetlink.h.

If nothing else uses conntrack, chains at priority raw exempt unwanted protocols by `notrack`. They would harm rules
that are added later and rely on conntrack, as an untracked packet has no state and no NAT. So these chains are removed
at the first change to any ruleset of the namespace, which the kernel counts in a generation number (NFT_MSG_GETGEN).
"""

import errno
import os
import socket
import struct

from nfct_fast.kernel.fork_guard import ForkGuard

_NETLINK_NETFILTER = 12
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP, _NLM_F_CREATE, _NLM_F_APPEND = 1, 4, 0x300, 0x400, 0x800
_NFNL_MSG_BATCH_BEGIN, _NFNL_MSG_BATCH_END = 0x10, 0x11
_NFNL_BATCH_GENID = 1
_NFNL_SUBSYS_NFTABLES = 10
_NEWTABLE, _GETTABLE, _DELTABLE, _NEWCHAIN, _DELCHAIN, _NEWRULE, _DELRULE, _NEWGEN, _GETGEN = (
    (_NFNL_SUBSYS_NFTABLES << 8) | message for message in (0, 1, 2, 3, 5, 6, 8, 15, 16)
)
_NFPROTO_UNSPEC, _NFPROTO_INET, _NFPROTO_IPV4, _NFPROTO_IPV6 = 0, 1, 2, 10
_NFT_TABLE_F_OWNER = 2
_NFT_REG_1 = 1
_NFT_CT_STATE = 0
_NFT_META_NFPROTO, _NFT_META_L4PROTO = 15, 16
_NFT_CMP_EQ, _NFT_CMP_NEQ = 0, 1
_PRIORITY_RAW = -300
_HOOKS = {b"early\0": 0, b"early-out\0": 3}  # NF_INET_PRE_ROUTING, NF_INET_LOCAL_OUT
_NLA_F_NESTED = 0x8000
_CHAIN = b"load\0"
_LONGEST = 100  # most comparisons in a rule, which may have 128 expressions (NFT_RULE_MAXEXPRS)
_ERESTART = 85


def _attribute(kind, payload):
    if isinstance(payload, int):
        payload = struct.pack(">I", payload & 0xFFFFFFFF)
    data = struct.pack("=HH", 4 + len(payload), kind) + payload
    return data + bytes(-len(data) % 4)


def _nested(kind, *attributes):
    return _attribute(kind | _NLA_F_NESTED, b"".join(attributes))


def _message(kind, flags, sequence, family, resource, *attributes):
    body = struct.pack(">BBH", family, 0, resource) + b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(body), kind, _NLM_F_REQUEST | flags, sequence, 0) + body


def _expression(name, *attributes):
    return _nested(1, _attribute(1, name + b"\0"), _nested(2, *attributes))  # NFTA_LIST_ELEM: NFTA_EXPR_NAME, _DATA


def _load(name, key):
    return _expression(name, _attribute(1, _NFT_REG_1), _attribute(2, key))  # NFTA_CT_DREG or META, _KEY


def _compare(operation, number):
    return _expression(
        b"cmp", _attribute(1, _NFT_REG_1), _attribute(2, operation), _nested(3, _attribute(1, bytes([number])))
    )


def _notrack_rules(wanted):
    """Return rules, each a list of expressions, that exempt all but the (family, protocol) pairs in `wanted`."""
    families = sorted({family for family, _ in wanted})
    protocols = {family: {proto for known, proto in wanted if known == family} for family in families}
    alike = len(families) < 2 or protocols[families[0]] == protocols[families[1]]
    rules = []
    for family in families[:1] if alike else families:
        which = (
            []
            if alike
            else [
                _load(b"meta", _NFT_META_NFPROTO),
                _compare(_NFT_CMP_EQ, _NFPROTO_IPV4 if family == socket.AF_INET else _NFPROTO_IPV6),
            ]
        )
        unwanted = sorted(set(range(256)) - protocols[family])
        which.append(_load(b"meta", _NFT_META_L4PROTO))
        if len(protocols[family]) <= _LONGEST:
            rules.append(
                [
                    *which,
                    *(_compare(_NFT_CMP_NEQ, proto) for proto in sorted(protocols[family])),
                    _expression(b"notrack"),
                ]
            )
        else:
            rules += [[*which, _compare(_NFT_CMP_EQ, proto), _expression(b"notrack")] for proto in unwanted]
    return rules


def _replies(data):
    """Yield (kind, sequence, body) of each message in a datagram."""
    while len(data) >= 16:
        length, kind, _, sequence = struct.unpack_from("=IHHI", data)
        yield kind, sequence, data[16:length]
        data = data[max(16, length + -length % 4) :]


def _explain(number):
    if number == errno.EPERM:
        return PermissionError(number, "cannot turn connection tracking on: CAP_NET_ADMIN is needed (run as root)")
    if number in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOENT, errno.EAFNOSUPPORT):
        return OSError(
            number,
            "cannot turn connection tracking on: Linux 5.12 or later with nf_tables and its ct "
            f"expression is needed; the kernel says {os.strerror(number)}. "
            "Instead, add a firewall rule of your own that uses `ct state`",
        )
    return OSError(number, f"cannot turn connection tracking on: {os.strerror(number)}")


class TrackingTable:
    """An nftables table that keeps connection tracking on in the calling thread's network namespace, until close().

    Needs CAP_NET_ADMIN and Linux 5.12. The kernel removes the table at the end of the process.

    Args:
        wanted: Pairs of address family and protocol number to track; None for all. Only these families are tracked, and
            only these protocols as long as nothing else uses conntrack: `restricted` is true then.
        is_unshared: A function that returns whether nothing but nftables rules can use conntrack here.

    Raises:
        PermissionError: CAP_NET_ADMIN is missing.
        OSError: Tracking cannot be turned on; the message says why.
    """

    def __init__(self, wanted=None, is_unshared=lambda: False):
        self._mark = ForkGuard()
        self._sequence = 0
        families = {family for family, _ in wanted or ()}
        self.family = {(socket.AF_INET,): _NFPROTO_IPV4, (socket.AF_INET6,): _NFPROTO_IPV6}.get(
            tuple(families), _NFPROTO_INET
        )
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        try:
            self._socket.bind((0, 0))
            self._socket.connect((0, 0))  # to the kernel, so that datagrams from processes are refused
            self._socket.settimeout(5)
            # A netlink socket's port number is unique in its namespace, and so is the table's name.
            self.name = f"nfct_fast_{self._socket.getsockname()[0]}"
            self._name = self.name.encode() + b"\0"
            self._turn_on(_notrack_rules(wanted) if wanted else [], is_unshared)
        except BaseException:
            self._socket.close()
            raise

    def _turn_on(self, rules, is_unshared):
        while True:
            generation = self._generation()
            self.restricted = bool(rules) and is_unshared() and not self._has_tables()
            try:
                self._commit(self._table() + (self._notrack_chains(rules) if self.restricted else []), generation)
            except OSError as error:
                if error.errno == _ERESTART:  # someone changed a ruleset meanwhile
                    continue
                if not self.restricted:
                    raise _explain(error.errno) from None
                rules = []  # this kernel has no `notrack`
            else:
                break
        # Each change increments the generation, which skips 0.
        self._expected = generation % 0xFFFFFFFF + 1

    def _table(self):
        change = _NLM_F_CREATE
        return [
            (_NEWTABLE, change, _attribute(1, self._name), _attribute(2, _NFT_TABLE_F_OWNER)),
            (_NEWCHAIN, change, _attribute(1, self._name), _attribute(3, _CHAIN)),
            (
                _NEWRULE,
                change | _NLM_F_APPEND,
                _attribute(1, self._name),
                _attribute(2, _CHAIN),
                _nested(4, _load(b"ct", _NFT_CT_STATE)),
            ),
        ]

    def _notrack_chains(self, rules):
        """Return the messages that add the chains with `notrack` rules."""
        messages = []
        for chain, hook in _HOOKS.items():
            messages.append(
                (
                    _NEWCHAIN,
                    _NLM_F_CREATE,
                    _attribute(1, self._name),
                    _attribute(3, chain),
                    _nested(4, _attribute(1, hook), _attribute(2, _PRIORITY_RAW)),
                    _attribute(7, b"filter\0"),
                )
            )
            messages += [
                (
                    _NEWRULE,
                    _NLM_F_CREATE | _NLM_F_APPEND,
                    _attribute(1, self._name),
                    _attribute(2, chain),
                    _nested(4, *rule),
                )
                for rule in rules
            ]
        return messages

    def relax_if_changed(self, is_unshared) -> bool:
        """Remove the `notrack` chains if a ruleset was changed or something else may use conntrack.

        To be called about once a second. Takes two system calls, and none once tracking is not restricted.

        Returns:
            Whether the chains were removed.

        Raises:
            OSError: The kernel refuses.
        """
        if not self.restricted or self._generation() == self._expected and is_unshared():
            return False
        messages = []
        for chain in _HOOKS:
            messages += [
                (_DELRULE, 0, _attribute(1, self._name), _attribute(2, chain)),
                (_DELCHAIN, 0, _attribute(1, self._name), _attribute(3, chain)),
            ]
        self._commit(messages)
        self.restricted = False
        return True

    def _commit(self, messages, generation=None):
        """Apply the messages as one transaction. OSError with the kernel's errno."""
        check = [] if generation is None else [_attribute(_NFNL_BATCH_GENID, generation)]
        # After an error, replies to later messages may stay unread, so no sequence number may be used twice.
        first, last = self._sequence + 1, self._sequence + len(messages) + 2
        self._sequence = last
        batch = [_message(_NFNL_MSG_BATCH_BEGIN, 0, first, _NFPROTO_UNSPEC, _NFNL_SUBSYS_NFTABLES, *check)]
        for sequence, (kind, flags, *attributes) in enumerate(messages, first + 1):
            batch.append(_message(kind, flags | _NLM_F_ACK, sequence, self.family, 0, *attributes))
        batch.append(_message(_NFNL_MSG_BATCH_END, 0, last, _NFPROTO_UNSPEC, _NFNL_SUBSYS_NFTABLES))
        self._socket.send(b"".join(batch))
        pending = set(range(first + 1, last))
        while pending:
            for kind, sequence, body in _replies(self._socket.recv(65536)):
                if kind == _NLMSG_ERROR and first <= sequence <= last:
                    if number := -struct.unpack_from("=i", body)[0]:
                        raise OSError(number, os.strerror(number))
                pending.discard(sequence)

    def _query(self, kind, flags):
        """Send a request and return the bodies of the replies."""
        self._sequence += 1
        self._socket.send(_message(kind, flags, self._sequence, _NFPROTO_UNSPEC, 0))
        bodies = []
        while True:
            for kind, sequence, body in _replies(self._socket.recv(65536)):
                if sequence != self._sequence:
                    continue
                if kind == _NLMSG_ERROR:
                    raise _explain(-struct.unpack_from("=i", body)[0])
                if kind == _NLMSG_DONE:
                    return bodies
                bodies.append(body)
                if not flags:
                    return bodies

    def _generation(self):
        [body] = self._query(_GETGEN, 0)
        return struct.unpack_from(">I", body, 4 + 4)[0]  # after nfgenmsg, NFTA_GEN_ID comes first

    def _has_tables(self):
        return bool(self._query(_GETTABLE, _NLM_F_DUMP))

    def close(self) -> None:
        """Remove the table; closing twice is harmless. In a forked child only close the socket."""
        if self._mark and self._socket.fileno() >= 0:
            try:
                # Remove it explicitly, because a child process may hold the socket open.
                self._commit([(_DELTABLE, 0, _attribute(1, self._name))])
            except OSError:
                pass  # closing the socket removes it
        self._socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()
