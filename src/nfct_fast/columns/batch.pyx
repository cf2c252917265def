"""`Batch`: rows of flows as columns, which others take by the Arrow PyCapsule interface."""
cimport cython
from cpython.pycapsule cimport PyCapsule_Destructor, PyCapsule_GetPointer, PyCapsule_New
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from nfct_fast.columns.table cimport (
    ALWAYS, COLUMNS, PLAIN, column_t, columns, dictionary_t, table_bytes, table_drop, table_t,
)

cdef extern from "nfct_fast/columns/export.h" nogil:
    struct ArrowSchema:
        void (*release)(ArrowSchema *)
    struct ArrowArray:
        void (*release)(ArrowArray *)
    struct ArrowArrayStream:
        void (*release)(ArrowArrayStream *)
    int export_schema "nfct_fast_export_schema"(const table_t *table, ArrowSchema *out)
    int export_array "nfct_fast_export_array"(table_t *table, ArrowArray *out)
    int export_stream "nfct_fast_export_stream"(table_t *table, ArrowArrayStream *out)


# A consumer takes what a capsule holds by moving it, which sets `release` to NULL. What nobody took is released here.
cdef void _free_schema(object capsule) noexcept:
    cdef ArrowSchema *schema = <ArrowSchema *>PyCapsule_GetPointer(capsule, b"arrow_schema")
    if schema.release != NULL:
        schema.release(schema)
    free(schema)


cdef void _free_array(object capsule) noexcept:
    cdef ArrowArray *array = <ArrowArray *>PyCapsule_GetPointer(capsule, b"arrow_array")
    if array.release != NULL:
        array.release(array)
    free(array)


cdef void _free_stream(object capsule) noexcept:
    cdef ArrowArrayStream *stream = <ArrowArrayStream *>PyCapsule_GetPointer(capsule, b"arrow_array_stream")
    if stream.release != NULL:
        stream.release(stream)
    free(stream)


cdef object _capsule(size_t size, const char *name, PyCapsule_Destructor destroy):
    """A capsule of a struct that counts as released until something is put into it."""
    cdef void *struct_at = calloc(1, size)
    if struct_at == NULL:
        raise MemoryError("capsule")
    try:
        return PyCapsule_New(struct_at, name, destroy)
    except BaseException:
        free(struct_at)
        raise


cdef list _texts(const dictionary_t *texts):
    return [texts.text[texts.offsets[i]:texts.offsets[i + 1]].decode() for i in range(texts.count)]


cdef object _value(const table_t *table, int number, int64_t row, list texts):
    cdef const column_t *column = &columns[number]
    cdef const void *data = table.data[number]
    cdef char kind = column.format[0]
    if column.valid != ALWAYS and not (<uint8_t *>table.valid[column.valid])[row >> 3] >> (row & 7) & 1:
        return None
    if kind == c"c":
        return texts[(<int8_t *>data)[row]]
    if kind == c"i":
        return (<int32_t *>data)[row] if column.dictionary == PLAIN else texts[(<int32_t *>data)[row]]
    if kind == c"u":
        return (<char *>table.text[number])[(<int32_t *>data)[row]:(<int32_t *>data)[row + 1]].decode()
    if kind == c"w":
        return (<char *>data + 16 * row)[:16]
    if kind == c"b":
        return bool((<uint8_t *>data)[row >> 3] >> (row & 7) & 1)
    if kind == c"C":
        return (<uint8_t *>data)[row]
    if kind == c"S":
        return (<uint16_t *>data)[row]
    if kind == c"I":
        return (<uint32_t *>data)[row]
    return (<uint64_t *>data)[row] if kind == c"L" else (<int64_t *>data)[row]


@cython.final
@cython.auto_pickle(False)
cdef class Batch:
    """Flows as columns, one row each, in memory that pyarrow, polars, duckdb and others read without a copy.

    `Conntrack.batches()` makes it. It is immutable, keeps its memory for as long as a reader uses it, and needs
    neither the Conntrack nor any other package. Give it to whatever reads the Arrow PyCapsule interface:
    `pyarrow.table(batch)`, `polars.DataFrame(batch)`, `duckdb.sql("from batch")`. What is unknown is null. README.md
    describes the columns.
    """

    def __init__(self):
        raise TypeError("a Batch cannot be made directly; Conntrack.batches() makes it")

    def __dealloc__(self):
        table_drop(self.table)

    def __len__(self):
        return self.table.rows

    @property
    def column_names(self) -> list:
        """The names of the columns, in their order: the same in every batch."""
        return [columns[i].name.decode() for i in range(COLUMNS)]

    @property
    def lost(self) -> int:
        """Events that were lost before the last row and after the previous batch: they are in no row."""
        return self.table.lost

    @property
    def lost_at_least(self) -> bool:
        """Whether `lost` is a lower bound."""
        return self.table.at_least

    @property
    def lost_since(self) -> int | None:
        """When none of them was lost yet, in ns since the epoch; None: not known, or nothing was lost."""
        return self.table.lost_since or None

    @property
    def lost_until(self) -> int | None:
        """When the last of them had been lost, in ns since the epoch; None: nothing was lost."""
        return self.table.lost_until or None

    @property
    def nbytes(self) -> int:
        """Bytes of memory that all columns take."""
        return table_bytes(self.table)

    def to_dicts(self) -> list:
        """Return the rows as dicts of Python objects: times in ns since the epoch, packed addresses as bytes."""
        names = self.column_names
        texts = [None if columns[i].dictionary == PLAIN else _texts(&self.table.dictionaries[columns[i].dictionary])
                 for i in range(COLUMNS)]
        return [{names[i]: _value(self.table, i, row, texts[i]) for i in range(COLUMNS)}
                for row in range(self.table.rows)]

    def __arrow_c_schema__(self):
        """Return the types of the columns: a PyCapsule of a struct ArrowSchema."""
        capsule = _capsule(sizeof(ArrowSchema), b"arrow_schema", _free_schema)
        if export_schema(self.table, <ArrowSchema *>PyCapsule_GetPointer(capsule, b"arrow_schema")) < 0:
            raise MemoryError("schema")
        return capsule

    def __arrow_c_array__(self, requested_schema=None):
        """Return the types and the columns: PyCapsules of a struct ArrowSchema and a struct ArrowArray.

        requested_schema: ignored, as the interface allows; whoever wants other types converts the columns.
        """
        schema = self.__arrow_c_schema__()
        capsule = _capsule(sizeof(ArrowArray), b"arrow_array", _free_array)
        if export_array(self.table, <ArrowArray *>PyCapsule_GetPointer(capsule, b"arrow_array")) < 0:
            raise MemoryError("array")
        return schema, capsule

    def __arrow_c_stream__(self, requested_schema=None):
        """Return a stream of one record batch: a PyCapsule of a struct ArrowArrayStream.

        requested_schema: as for __arrow_c_array__().
        """
        capsule = _capsule(sizeof(ArrowArrayStream), b"arrow_array_stream", _free_stream)
        if export_stream(self.table, <ArrowArrayStream *>PyCapsule_GetPointer(capsule, b"arrow_array_stream")) < 0:
            raise MemoryError("stream")
        return capsule

    def __repr__(self):
        return f"<Batch of {len(self)} rows>" if not self.lost else f"<Batch of {len(self)} rows, {self.lost} lost>"


cdef object batch_object(table_t *table):
    cdef Batch batch
    try:
        batch = Batch.__new__(Batch)
    except MemoryError:
        table_drop(table)
        raise
    batch.table = table
    return batch
