"""The kernel's proc connector: subscribe to its messages, and parse them. Source: linux/cn_proc.h.

It exists only in the initial network namespace, and only for the initial pid and user namespaces.
"""
from libc.stdint cimport uint32_t
from libc.string cimport memcpy, memset

from linux_cn_proc cimport (CN_IDX_PROC, CN_VAL_PROC, NETLINK_CONNECTOR, PROC_CN_MCAST_IGNORE, PROC_CN_MCAST_LISTEN,
                            PROC_EVENT_EXEC, PROC_EVENT_EXIT, PROC_EVENT_FORK, PROC_EVENT_NONE, cn_msg, proc_event)
from linux_filter cimport (
    BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_MISC, BPF_RET, BPF_TAX, BPF_W, BPF_X, sock_filter,
)
from linux_netlink cimport NLMSG_DONE, nlmsghdr
from netinet_in cimport htonl
from sys_socket cimport POLLIN, poll, pollfd

from nfct_fast.kernel.netlink cimport NetlinkSocket

import os
import time

from nfct_fast.kernel.netns import Netns

cdef enum:
    BODY = sizeof(nlmsghdr) + sizeof(cn_msg)
    DATA = 16                # size of the first fields of proc_event: what, cpu, timestamp_ns
    FIRST = BODY + DATA      # offset of process_pid; in a fork event that of parent_pid


cdef sock_filter instruction(int code, uint32_t k, int jt=0, int jf=0) noexcept:
    cdef sock_filter result
    result.code, result.jt, result.jf, result.k = <unsigned short>code, <unsigned char>jt, <unsigned char>jf, k
    return result


cdef bytes process_filter():
    """Return a socket filter that accepts events of processes and rejects those of other threads (pid != tgid).

    Constants are swapped, since a classic BPF filter loads numbers as if they were in network order.
    """
    cdef sock_filter program[16]
    program[0] = instruction(BPF_LD | BPF_W | BPF_ABS, BODY)
    program[1] = instruction(BPF_JMP | BPF_JEQ | BPF_K, htonl(PROC_EVENT_NONE), 12)
    program[2] = instruction(BPF_JMP | BPF_JEQ | BPF_K, htonl(PROC_EVENT_EXEC), 11)
    program[3] = instruction(BPF_JMP | BPF_JEQ | BPF_K, htonl(PROC_EVENT_FORK), 2)
    program[4] = instruction(BPF_JMP | BPF_JEQ | BPF_K, htonl(PROC_EVENT_EXIT), 5)
    program[5] = instruction(BPF_RET | BPF_K, 0)
    program[6] = instruction(BPF_LD | BPF_W | BPF_ABS, FIRST + 8)
    program[7] = instruction(BPF_MISC | BPF_TAX, 0)
    program[8] = instruction(BPF_LD | BPF_W | BPF_ABS, FIRST + 12)
    program[9] = instruction(BPF_JMP | BPF_JEQ | BPF_X, 0, 4, 5)
    program[10] = instruction(BPF_LD | BPF_W | BPF_ABS, FIRST)
    program[11] = instruction(BPF_MISC | BPF_TAX, 0)
    program[12] = instruction(BPF_LD | BPF_W | BPF_ABS, FIRST + 4)
    program[13] = instruction(BPF_JMP | BPF_JEQ | BPF_X, 0, 0, 1)
    program[14] = instruction(BPF_RET | BPF_K, <uint32_t>0xffffffff)
    program[15] = instruction(BPF_RET | BPF_K, 0)
    return (<char *>program)[:sizeof(program)]


cdef bint connector_event(const void *data, size_t size, proc_event *event, uint32_t *ack) noexcept nogil:
    """Parse a datagram; return False if it is not an event. Copies it, as its proc_event is not aligned to 8 bytes."""
    cdef nlmsghdr header
    cdef cn_msg message
    cdef size_t length
    if data == NULL or size < BODY + DATA:
        return False
    memcpy(&header, data, sizeof(header))
    memcpy(&message, <const char *>data + sizeof(header), sizeof(message))
    if (header.nlmsg_type != NLMSG_DONE or header.nlmsg_len < BODY + DATA or header.nlmsg_len > size
            or message.id.idx != CN_IDX_PROC or message.id.val != CN_VAL_PROC):
        return False
    length = min(<size_t>message.len, header.nlmsg_len - <size_t>BODY, sizeof(proc_event))
    if length <= DATA:
        return False
    memset(event, 0, sizeof(event[0]))
    memcpy(event, <const char *>data + BODY, length)
    ack[0] = message.ack
    return True


cdef NetlinkSocket connector_open(int slots, int receive_buffer):
    try:
        return subscribed_socket(slots, receive_buffer)
    except ConnectionRefusedError:
        # This is not the initial network namespace, which is that of pid 1 and of kthreadd (pid 2). Root may be denied
        # access to pid 1.
        for path in ("/proc/1/ns/net", "/proc/2/ns/net", "/proc/self/ns/net"):
            try:
                with Netns(path) as initial, initial.entered():
                    return subscribed_socket(slots, receive_buffer)
            except OSError:
                continue
        raise


cdef NetlinkSocket subscribed_socket(int slots, int receive_buffer):
    try:
        sock = NetlinkSocket(NETLINK_CONNECTOR, slots, 128)
    except OSError as error:
        raise OSError(error.errno, "proc connector: this kernel has none (needs CONFIG_CONNECTOR)") from error
    try:
        sock.set_receive_buffer(receive_buffer)
        sock.attach_filter(process_filter())
        try:
            sock.join(CN_IDX_PROC)
        except PermissionError as error:
            raise PermissionError(error.errno, "proc connector: needs CAP_NET_ADMIN") from error
        subscribe(sock)
    except BaseException:
        sock.close()
        raise
    return sock


def check_connector():
    """Raise OSError, whose message says what is missing, unless the kernel would report processes here."""
    connector_close(connector_open(8, 4096))


cdef connector_close(NetlinkSocket sock):
    try:
        # Kernels before 6.6 count subscribers, and go on making events for one that closed its socket without
        # unsubscribing. A forked child must not do it, as that would unsubscribe its parent.
        if sock.fork_guard:
            sock.send(request(PROC_CN_MCAST_IGNORE, 0))
    except OSError:
        pass
    sock.close()


cdef bytes request(int what, uint32_t ack):
    cdef nlmsghdr header
    cdef cn_msg message
    cdef uint32_t operation = what
    memset(&header, 0, sizeof(header))
    memset(&message, 0, sizeof(message))
    header.nlmsg_len = BODY + sizeof(operation)
    header.nlmsg_type = NLMSG_DONE
    message.id.idx, message.id.val = CN_IDX_PROC, CN_VAL_PROC
    message.ack, message.len = ack, sizeof(operation)
    return ((<char *>&header)[:sizeof(header)] + (<char *>&message)[:sizeof(message)]
            + (<char *>&operation)[:sizeof(operation)])


cdef subscribe(NetlinkSocket sock):
    """Subscribe and wait for the kernel's acknowledgement, ignoring events that come before it."""
    cdef proc_event event
    cdef uint32_t ack
    cdef uint32_t mine = int.from_bytes(os.urandom(4), "little")
    cdef pollfd fds
    try:
        sock.send(request(PROC_CN_MCAST_LISTEN, mine))
    except ConnectionRefusedError as error:
        raise OSError(error.errno, "proc connector: it exists only in the initial network namespace, and needs "
                      "CONFIG_PROC_EVENTS") from error
    end = time.monotonic() + 0.2    # the kernel acknowledges within send()
    fds.fd, fds.events = sock.fd, POLLIN
    while time.monotonic() < end:
        poll(&fds, 1, 20)
        for datagram in sock.messages_now():
            if not connector_event(<char *><bytes>datagram, len(datagram), &event, &ack):
                continue
            if event.what == PROC_EVENT_NONE and ack == <uint32_t>(mine + 1):
                if event.event_data.ack.err:
                    raise OSError(event.event_data.ack.err, "proc connector: needs CAP_NET_ADMIN in the initial "
                                  f"user namespace: {os.strerror(event.event_data.ack.err)}")
                return
    raise PermissionError(1, "proc connector: no acknowledgement: it needs the initial pid and user namespaces, and "
                          "CONFIG_PROC_EVENTS")
