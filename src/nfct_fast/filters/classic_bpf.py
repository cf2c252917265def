"""An assembler of classic BPF (linux/filter.h), whose conditional jumps reach only 255 instructions.

Instructions are added in order, with labels for what follows later. assemble() goes through them from the end, where
the distance of every jump is known, and puts a longer jump behind a conditional one that does not reach.
"""

import struct

LD_ABS_B = 0x30  # BPF_LD | BPF_B | BPF_ABS
LD_ABS_W = 0x20  # BPF_LD | BPF_W | BPF_ABS; with NLATTR and NLATTR_NEST a search for an attribute
LD_IND_B, LD_IND_H, LD_IND_W = 0x50, 0x48, 0x40  # from the offset in X
LD_IMM, LDX_IMM = 0x00, 0x01
LD_MEM, LDX_MEM = 0x60, 0x61
ST, STX = 0x02, 0x03
ADD, AND = 0x04, 0x54
JA, JEQ, JGE = 0x05, 0x15, 0x35
RET = 0x06
TAX = 0x07
NLATTR = 0xFFFFF000 + 12  # SKF_AD_OFF + SKF_AD_NLATTR
NLATTR_NEST = 0xFFFFF000 + 16
INSTRUCTION_LIMIT = 4096  # BPF_MAXINSNS
_NEAR = 250
ACCEPT, REFUSE = "accept", "refuse"  # labels of the last two instructions


class Assembler:
    """A program under construction."""

    def __init__(self):
        self._items = []  # (code, k), (code, k, label if true, label if not), or a label

    def add(self, code: int, k: int = 0) -> None:
        """Add an instruction that does not jump."""
        self._items.append((code, k))

    def jump(self, code: int, k: int, yes, no) -> None:
        """Add a conditional jump to two labels, of which None is what follows."""
        self._items.append((code, k, yes, no))

    def go(self, label) -> None:
        """Add a jump to a label."""
        self._items.append((JA, label, None))

    def place(self, label) -> None:
        """Have a label stand for what follows. Any object can be one."""
        self._items.append(label)

    def assemble(self) -> bytes | None:
        """Return an array of struct sock_filter; None if it is longer than the kernel takes."""
        # Both are counted from the end. Nothing else returns: the kernel checks that memory is written before it is
        # read, and takes a program to go on behind a return.
        code, places = [(RET, 0, 0, 0), (RET, 0, 0, 0xFFFFFFFF)], {REFUSE: 1, ACCEPT: 2}
        for item in reversed(self._items):
            places[None] = len(code)
            if not isinstance(item, tuple):
                places[item] = len(code)
            elif len(item) == 2:
                code.append((item[0], 0, 0, item[1]))
            elif len(item) == 3:
                self._reach(code, places, item[1])
            else:
                _, k, yes, no = item
                ends = [self._near(code, places, label) for label in (no, yes)]
                code.append((item[0], len(code) - ends[1], len(code) - ends[0], k))
            if len(code) > INSTRUCTION_LIMIT:
                return None
        return b"".join([struct.pack("=HBBI", *instruction) for instruction in reversed(code)])

    def _near(self, code, places, label):
        """The place of a label that a conditional jump reaches."""
        if label in places and len(code) - places[label] <= _NEAR:
            return places[label]
        self._reach(code, places, label)
        return len(code)

    @staticmethod
    def _reach(code, places, label):
        """Add an instruction that leads to a label, and stands for it from here on."""
        code.append((JA, 0, 0, len(code) - places[label]))
        places[label] = len(code)
