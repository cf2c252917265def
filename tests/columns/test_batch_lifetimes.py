"""A batch's memory lives for as long as somebody uses a part of it, whoever drops it, where and in which order."""

import ctypes
import gc
import itertools
import threading

import pytest

from support.columns import reader
from support.events import saved
from support.wheel import is_source_tree

if not is_source_tree():
    pytest.importorskip("nfct_fast.testing.batch_hooks", reason="an installed wheel has no hooks for tests")

from nfct_fast.testing.batch_hooks import Rows, make_process  # noqa: E402

MESSAGES, _ = saved()


class Schema(ctypes.Structure):
    pass


class Array(ctypes.Structure):
    pass


class Stream(ctypes.Structure):
    pass


RELEASE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)  # called without the GIL
Schema._fields_ = [
    ("format", ctypes.c_char_p),
    ("name", ctypes.c_char_p),
    ("metadata", ctypes.c_char_p),
    ("flags", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("children", ctypes.POINTER(ctypes.POINTER(Schema))),
    ("dictionary", ctypes.POINTER(Schema)),
    ("release", RELEASE),
    ("private", ctypes.c_void_p),
]
Array._fields_ = [
    *((name, ctypes.c_int64) for name in ("length", "null_count", "offset", "n_buffers", "n_children")),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(Array))),
    ("dictionary", ctypes.POINTER(Array)),
    ("release", RELEASE),
    ("private", ctypes.c_void_p),
]
Stream._fields_ = [
    ("get_schema", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)),
    ("get_next", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)),
    ("get_last_error", ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p)),
    ("release", RELEASE),
    ("private", ctypes.c_void_p),
]


def pointed(capsule, name, kind):
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return kind.from_address(get(capsule, name))


def moved(one):
    """What a consumer does: copies the struct, and marks the old one as released."""
    copy = type(one).from_buffer_copy(one)
    one.release = RELEASE()
    return copy


def made(rounds=1, owners=None):
    rows = Rows()
    rows.fill(MESSAGES * rounds, owners or [make_process(1, comm=b"curl"), make_process(2, comm=b"\xff")])
    [batch] = rows.batches()
    return batch


def allocated():
    """Bytes that malloc() has handed out."""
    gc.collect()
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("glibc has mallinfo2() since 2.33")

    class Info(ctypes.Structure):
        _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd us fs uord ford k".split()]

    libc.mallinfo2.restype = Info
    info = libc.mallinfo2()
    return info.uord + info.hblkhd


def text_of(array, row):
    """A row of a dictionary-encoded column, read from memory."""
    index = ctypes.cast(array.buffers[1], ctypes.POINTER(ctypes.c_int32))[row]
    texts = array.dictionary.contents
    offsets = ctypes.cast(texts.buffers[1], ctypes.POINTER(ctypes.c_int32))
    return ctypes.string_at(texts.buffers[2] + offsets[index], offsets[index + 1] - offsets[index]).decode()


def test_the_structs():
    batch = made()
    schema_capsule, array_capsule = batch.__arrow_c_array__()
    schema = pointed(schema_capsule, b"arrow_schema", Schema)
    array = pointed(array_capsule, b"arrow_array", Array)
    assert schema.format == b"+s" and schema.n_children == array.n_children == len(batch.column_names)
    assert (array.length, array.null_count, array.offset, array.n_buffers) == (len(batch), 0, 0, 1)
    for i, name in enumerate(batch.column_names):
        assert schema.children[i].contents.name.decode() == name
        child = array.children[i].contents
        assert child.length == len(batch) and bool(child.dictionary) == bool(schema.children[i].contents.dictionary)
        assert bool(child.buffers[0]) == (child.null_count != 0)


@pytest.mark.parametrize("first", ["parent", "child", "batch"])
def test_a_column_outlives_its_batch(first):
    batch = made()
    number = batch.column_names.index("comm")
    wanted = [row["comm"] for row in batch.to_dicts()]
    capsules = batch.__arrow_c_array__()
    array = moved(pointed(capsules[1], b"arrow_array", Array))
    child = moved(array.children[number].contents)
    if first == "batch":
        del batch, capsules
    gc.collect()
    if first != "child":
        array.release(ctypes.addressof(array))
        assert not array.release
    assert [text_of(child, row) for row in range(child.length)] == wanted
    child.release(ctypes.addressof(child))
    assert not child.release
    if first == "child":
        array.release(ctypes.addressof(array))


def test_a_stream_gives_one_batch_and_ends():
    batch = made()
    capsule = batch.__arrow_c_stream__()
    stream = moved(pointed(capsule, b"arrow_array_stream", Stream))
    size = len(batch)
    del batch, capsule
    at, schema, arrays = ctypes.addressof(stream), Schema(), [Array() for _ in range(3)]
    assert stream.get_schema(at, ctypes.addressof(schema)) == 0 and schema.format == b"+s"
    assert [stream.get_next(at, ctypes.addressof(one)) for one in arrays] == [0, 0, 0]
    assert arrays[0].length == size and [bool(one.release) for one in arrays] == [True, False, False]
    stream.release(at)
    for one in (schema, arrays[0]):
        one.release(ctypes.addressof(one))


def test_releases_of_many_threads_without_the_gil():
    """Each child of many exports is moved out, and released by one of eight threads as the others are."""
    before = allocated()
    batch = made(20)
    left = []
    for _ in range(30):
        capsules = batch.__arrow_c_array__()
        array = moved(pointed(capsules[1], b"arrow_array", Array))
        left += [moved(array.children[i].contents) for i in range(array.n_children)]
        left.append(array)
    del batch, capsules
    threads = [
        threading.Thread(target=lambda part: [one.release(ctypes.addressof(one)) for one in part], args=(left[i::8],))
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not any(one.release for one in left)
    del left[:], threads
    assert allocated() - before < 1 << 20


ENDS = ("capsules", "pyarrow", "stream", "nothing")


def test_nothing_leaks():
    """Taken, half taken or never taken: malloc() has as much in use after 100 rounds as after 10."""
    owners = [make_process(i, comm=b"%d" % i, cmdline=b"x" * 1000) for i in range(100)]

    def use(end):
        batch = made(10, owners)
        assert batch.nbytes > 100_000
        if end == "capsules":
            batch.__arrow_c_schema__(), batch.__arrow_c_array__(), batch.__arrow_c_stream__(None)
        elif end == "pyarrow":
            pyarrow = reader("pyarrow")
            kept = pyarrow.record_batch(batch).column("comm")
            del batch
            assert len(kept.drop_null()) > 0
        elif end == "stream":
            stream = pointed(batch.__arrow_c_stream__(), b"arrow_array_stream", Stream)
            del stream

    for end in itertools.islice(itertools.cycle(ENDS), 12):
        use(end)
    before = allocated()
    for end in itertools.islice(itertools.cycle(ENDS), 100):
        use(end)
    assert allocated() - before < 400_000


def test_taken_twice():
    pyarrow = reader("pyarrow")
    batch = made()
    capsules = batch.__arrow_c_array__()

    class Taken:
        def __arrow_c_array__(self, requested_schema=None):
            return capsules

    pyarrow.record_batch(Taken()).validate(full=True)
    with pytest.raises((ValueError, pyarrow.ArrowInvalid)):
        pyarrow.record_batch(Taken())  # what was moved is not there a second time
    assert pyarrow.record_batch(batch).equals(pyarrow.record_batch(batch))


def test_in_another_thread_after_the_batch():
    pyarrow = reader("pyarrow")
    batch = made(5)
    wanted = [row["comm"] for row in batch.to_dicts()]
    taken = [pyarrow.table(batch)]
    del batch
    found = []
    thread = threading.Thread(target=lambda: found.extend(taken.pop()["comm"].to_pylist()))
    thread.start()
    thread.join()
    assert found == wanted and not taken


@pytest.mark.parametrize("asked", [None, "its own"])
def test_a_requested_schema_changes_nothing(asked):
    batch = made()
    schema = None if asked is None else batch.__arrow_c_schema__()
    _, array = batch.__arrow_c_array__(schema)
    assert pointed(array, b"arrow_array", Array).length == len(batch)
    batch.__arrow_c_stream__(requested_schema=schema)
