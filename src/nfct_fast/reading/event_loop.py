"""Waiting in an asyncio event loop, without a thread."""

import asyncio
import contextlib

# Seconds between two looks for more rows while they come and the batch is not due: to be woken by each piece of a flood
# would take a sixth of all CPU time. The ring holds what 1.6 million flows per second bring meanwhile.
_PAUSE = 0.02


async def next_batch(batches):
    """Return the next Batch. A cancellation comes at an await, where no batch is at hand."""
    await asyncio.sleep(0)  # other tasks have their turn even where a batch is always due
    gathered = batches.gathered
    while (batch := batches.take_now()) is None:
        before, gathered = gathered, batches.gathered
        await _wait(batches, gathered > before)
    return batch


async def _wait(batches, pause):
    """Wait until there is something to take, what was gathered is due, or the Conntrack is closed.

    pause: wait for _PAUSE instead of something to take.
    """
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def wake():
        if not ready.done():
            ready.set_result(None)

    def wake_from_any_thread():
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(wake)

    fd, timer, seconds = -1, None, batches.seconds_left()
    batches.waiters.add(wake_from_any_thread)
    try:
        if batches.closed:  # after it was added: either this sees that it is closed, or close() finds it
            return
        if seconds is not None:
            timer = loop.call_later(min(seconds, _PAUSE) if pause else seconds, wake)
        if not pause:
            try:
                fd = batches.fileno()
            except ValueError:  # closed by another thread just now
                return
            loop.add_reader(fd, wake)
        await ready
    finally:
        batches.waiters.discard(wake_from_any_thread)
        if fd >= 0:
            loop.remove_reader(fd)
        if timer is not None:
            timer.cancel()
