"""The versions of the C libraries this was built with, from pkg-config: the libraries have no call that returns
them."""

cdef extern from *:
    """
    #ifndef NFCT_FAST_LIBRARIES
    #define NFCT_FAST_LIBRARIES "unknown libraries"
    #endif
    """
    const char *NFCT_FAST_LIBRARIES

LIBRARIES = NFCT_FAST_LIBRARIES.decode()
