"""Waiting in an asyncio event loop, without a thread."""

import asyncio
import contextlib


async def next_batch(batches):
    """Return the next Batch. A cancellation comes at an await, where no batch is at hand."""
    await asyncio.sleep(0)  # other tasks have their turn even where a batch is always due
    while (batch := batches.take_now()) is None:
        await _readable(batches)
    return batch


async def _readable(batches):
    """Wait until there is something to take, what was gathered is due, or the Conntrack is closed."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def wake():
        if not ready.done():
            ready.set_result(None)

    def wake_from_any_thread():
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(wake)

    try:
        fd = batches.fileno()
    except ValueError:  # it was closed meanwhile
        return
    seconds = batches.seconds_left()
    timer = None if seconds is None else loop.call_later(seconds, wake)
    loop.add_reader(fd, wake)
    batches.waiters.add(wake_from_any_thread)
    try:
        if not batches.closed:  # after it was added: either this sees that it is closed, or close() finds it
            await ready
    finally:
        batches.waiters.discard(wake_from_any_thread)
        loop.remove_reader(fd)
        if timer is not None:
            timer.cancel()
