from enum import IntFlag

class Status(IntFlag):
    EXPECTED = 1
    SEEN_REPLY = 2
    ASSURED = 4
    CONFIRMED = 8
    SRC_NAT = 16
    DST_NAT = 32
    SEQ_ADJUST = 64
    SRC_NAT_DONE = 128
    DST_NAT_DONE = 256
    DYING = 512
    FIXED_TIMEOUT = 1024
    TEMPLATE = 2048
    NAT_CLASH = 4096
    HELPER = 8192
    OFFLOAD = 16384
    HW_OFFLOAD = 32768
