from nfct_fast.columns.table cimport table_t

cdef class Batch:
    cdef table_t *table      # a reference

cdef object batch_object(table_t *table)     # a Batch that takes over the reference
