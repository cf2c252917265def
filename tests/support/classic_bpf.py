"""Runs a classic BPF program over a message as net/core/filter.c does, as far as filters use it."""

import struct


def find(data, at, end, kind):
    """The kernel's nla_find: the offset of an attribute, or 0."""
    while end - at >= 4:
        length, type = struct.unpack_from("=HH", data, at)
        if length < 4 or length > end - at:
            return 0
        if type & 0x3FFF == kind:
            return at
        at += length + -length % 4
    return 0


def interpret(program, data):
    """What the program returns: 0 if the message is refused. AssertionError if it reads beyond the end."""
    code, at, a, x, memory, steps = list(struct.iter_unpack("=HBBI", program)), 0, 0, 0, [None] * 16, 0
    assert 0 < len(code) <= 4096
    while True:
        op, yes, no, k = code[at]
        at += 1
        steps += 1
        assert steps <= len(code)
        offset, size = k, {0x30: 1, 0x50: 1, 0x48: 2, 0x40: 4}.get(op, 0)
        if op == 0x06:
            return k
        if op == 0x00:
            a = k
        elif op == 0x01:
            x = k
        elif op == 0x60:
            a = memory[k]
            assert a is not None
        elif op == 0x61:
            x = memory[k]
            assert x is not None
        elif op == 0x02:
            memory[k] = a
        elif op == 0x03:
            memory[k] = x
        elif op == 0x07:
            x = a
        elif op == 0x04:
            a = a + k & 0xFFFFFFFF
        elif op == 0x54:
            a &= k
        elif op == 0x05:
            at += k
        elif op == 0x15:
            at += yes if a == k else no
        elif op == 0x35:
            at += yes if a >= k else no
        elif op == 0x20 and k == 0xFFFFF000 + 12:
            a = find(data, a, len(data), x) if a <= len(data) - 4 else 0
        elif op == 0x20 and k == 0xFFFFF000 + 16:
            # bpf_skb_get_nlattr_nest
            length = struct.unpack_from("=H", data, a)[0] if a <= len(data) - 4 else 0
            a = find(data, a + 4, a + length, x) if a <= len(data) - 4 and length <= len(data) - a else 0
        elif size:
            offset += x if op != 0x30 else 0
            assert offset + size <= len(data), "it reads beyond the end"
            a = int.from_bytes(data[offset : offset + size], "big")
        else:
            raise AssertionError(f"unknown instruction {op:#x} {k:#x}")
