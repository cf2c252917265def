"""The C libraries this was built with, as their own pkg-config files have it: they cannot be asked at run time."""

cdef extern from *:
    """
    #ifndef NFCT_FAST_LIBRARIES
    #define NFCT_FAST_LIBRARIES "unknown libraries"
    #endif
    """
    const char *NFCT_FAST_LIBRARIES

LIBRARIES = NFCT_FAST_LIBRARIES.decode()
