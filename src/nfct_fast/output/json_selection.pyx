"""Some keys of a JSON line, in the order that the line has."""
cimport cython
from libc.string cimport memchr, memcmp
from nfct_fast.output.formatter cimport Formatter
from nfct_fast.records.record cimport RECORD_LOSS, record_t
from nfct_fast.text.text_buffer cimport buffer_free, buffer_put, text_buffer_t

cdef enum:
    WANTED = 64              # keys that can be chosen

# A key: one of the top, or one within an object there.
cdef struct key_t:
    const char *outer
    size_t outer_size
    const char *inner        # NULL: the whole value of `outer`
    size_t inner_size


cdef size_t _after_string(const char *data, size_t at, size_t length) noexcept nogil:
    """Return where the last quote of the string is that begins after the quote at data[at]."""
    cdef size_t end = at
    cdef size_t slashes
    while True:
        end = <const char *>memchr(data + end + 1, c'"', length - end - 1) - data
        slashes = 0
        while data[end - 1 - slashes] == c"\\":
            slashes += 1
        if slashes % 2 == 0:
            return end


cdef size_t _skip(const char *data, size_t at, size_t length) noexcept nogil:
    """Return where the value that begins at data[at] ends. The text is our own, hence valid and without blanks."""
    cdef int depth = 0
    while True:
        if data[at] == c'"':
            at = _after_string(data, at, length)
        elif data[at] == c"{" or data[at] == c"[":
            depth += 1
        elif data[at] == c"}" or data[at] == c"]":
            depth -= 1
        at += 1
        if depth == 0 and (data[at] == c"," or data[at] == c"}" or data[at] == c"]"):
            return at


cdef bint _is(const char *name, size_t size, const char *data, size_t length) noexcept nogil:
    return size == length and memcmp(name, data, size) == 0


@cython.final
@cython.auto_pickle(False)
cdef class JsonSelection(Formatter):
    """A format with those keys of a JSON format that were chosen; a LOST record is whole.

    Args:
        whole: The Formatter whose lines it cuts, such as JsonLines.
        keys: Names of keys of the top ("proto"), or within an object there ("owner.comm").
    """
    cdef Formatter whole
    cdef list names
    cdef key_t keys[WANTED]
    cdef int count
    cdef text_buffer_t line

    def __cinit__(self, Formatter whole not None, keys):
        cdef bytes outer, inner
        if len(keys) > WANTED:
            raise ValueError(f"more than {WANTED} fields")
        self.whole, self.names = whole, []
        for name in keys:
            outer, _, inner = name.encode("ascii").partition(b".")
            self.names += outer, inner
            self.keys[self.count].outer, self.keys[self.count].outer_size = outer, len(outer)
            if inner:
                self.keys[self.count].inner = inner
            self.keys[self.count].inner_size = len(inner)
            self.count += 1

    def __dealloc__(self):
        buffer_free(&self.line)

    cdef void put(self, text_buffer_t *out, const record_t *record) noexcept nogil:
        if record.kind == RECORD_LOSS:
            self.whole.put(out, record)
            return
        self.line.length = 0
        self.whole.put(&self.line, record)
        if self.line.failed or self.line.length == 0:
            out.failed = out.failed or self.line.failed
            self.line.failed = False
            return
        self._put_members(out, NULL, 0, 0)
        buffer_put(out, b"\n", 1)

    cdef size_t _put_members(self, text_buffer_t *out, const char *outer, size_t outer_size, size_t at) noexcept nogil:
        """Append the object at self.line.data[at], that of the key `outer`, or the whole one if that is NULL; return
        where it ends."""
        cdef const char *data = self.line.data
        cdef size_t begin, size
        cdef bint first = True
        cdef int wanted
        buffer_put(out, b"{", 1)
        at += 1
        while data[at] != c"}":
            begin = at + 1                      # the key, which has no escapes
            at = begin
            while data[at] != c'"':
                at += 1
            size = at - begin
            at += 2
            wanted = self._wanted(outer, outer_size, data + begin, size)
            if wanted == 1 and data[at] != c"{":
                wanted = 0
            if wanted and not first:
                buffer_put(out, b",", 1)
            first = first and not wanted
            if wanted == 1:
                buffer_put(out, data + begin - 1, at - begin + 1)
                at = self._put_members(out, data + begin, size, at)
            else:
                at = _skip(data, at, self.line.length)
                if wanted:
                    buffer_put(out, data + begin - 1, at - begin + 1)
            if data[at] == c",":
                at += 1
        buffer_put(out, b"}", 1)
        return at + 1

    cdef int _wanted(self, const char *outer, size_t outer_size, const char *key, size_t size) noexcept nogil:
        """2: with its value; 1: some of the keys in its value; 0: not at all."""
        cdef int i
        cdef int wanted = 0
        for i in range(self.count):
            if outer != NULL:
                if (self.keys[i].inner != NULL and _is(self.keys[i].outer, self.keys[i].outer_size, outer, outer_size)
                        and _is(self.keys[i].inner, self.keys[i].inner_size, key, size)):
                    return 2
            elif _is(self.keys[i].outer, self.keys[i].outer_size, key, size):
                if self.keys[i].inner == NULL:
                    return 2
                wanted = 1
        return wanted
