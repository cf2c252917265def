"""Stores made of recordings, by the code that the storing process has for it."""

import os

from nfct_fast.store.finishing import finish
from nfct_fast.store.hour_file import Claims, HourFile, connect
from nfct_fast.store.rows import RowMaker
from support.described_flows import record

_GATHERED = 10_000  # flows committed at once


def store_recording(directory, fd, finished=True):
    """Store what a descriptor has, whose records are in order of their hours. Unfinished files have few indexes."""
    maker, file = RowMaker(fd), None

    def end():
        if file is not None:
            file.commit()
            path = file.path
            file.close()
            if finished:
                connection = connect(path)
                finish(path, connection)
                connection.close()

    while maker.read():
        while (hour := maker.take(None if file is None else file.rows)) is not None:
            end()
            file = HourFile(directory, hour, maker.beginning, Claims(), print)
        if file is not None and len(file.rows) > _GATHERED:
            file.commit()
    end()


def make_store(directory, flows, finished=True):
    """Store flows as of support.described_flows, which have to be in order of their hours."""
    fd = os.memfd_create("recording")
    try:
        os.write(fd, record(flows))
        os.lseek(fd, 0, os.SEEK_SET)
        store_recording(str(directory), fd, finished)
    finally:
        os.close(fd)
