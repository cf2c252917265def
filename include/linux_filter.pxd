"""Classic BPF, as in socket filters: <linux/filter.h>."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef extern from "<linux/filter.h>" nogil:
    enum:
        BPF_LD
        BPF_W
        BPF_H
        BPF_B
        BPF_ABS
        BPF_JMP
        BPF_JEQ
        BPF_RET
        BPF_K
        BPF_X
        BPF_MISC
        BPF_TAX

    struct sock_filter:
        uint16_t code
        uint8_t jt
        uint8_t jf
        uint32_t k

    struct sock_fprog:
        unsigned short len
        sock_filter *filter
