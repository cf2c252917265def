"""Waiting for flows in an event loop: asyncio's, or another one that has add_reader()."""

from asyncio import get_running_loop, sleep


async def give_way() -> None:
    """Let the loop's other tasks have a turn."""
    await sleep(0)


def _wake(future):
    if not future.done():
        future.set_result(None)


# Seconds between two looks for more rows while they come and the batch is not due: to be woken by each piece of a flood
# would take a sixth of all CPU time. The ring holds what 1.6 million flows per second bring meanwhile.
_PAUSE = 0.02


async def next_batch(batches):
    """Return the next Batch. A cancellation comes at an await, where no batch is at hand."""
    await give_way()  # even where a batch is always due
    gathered = batches.gathered
    while (batch := batches.take_now()) is None:
        before, gathered = gathered, batches.gathered
        left = batches.seconds_left()
        if gathered > before and left is not None:
            await sleep(min(_PAUSE, left))
        else:
            await wait(batches.engine, left)
    return batch


async def wait(engine, timeout=None) -> None:
    """Return when the engine may have something to take, its end included, or after `timeout` seconds.

    Nothing is taken, so that a cancellation loses nothing. The descriptor is in the loop for as long as this waits:
    whoever reads no more leaves nothing behind there, and another loop can go on. Raises RuntimeError if another
    thread or task is reading.
    """
    loop = get_running_loop()
    fd = engine.begin_wait()
    if fd < 0:
        return
    timer = None
    try:
        future = loop.create_future()
        loop.add_reader(fd, _wake, future)
        if timeout is not None:
            timer = loop.call_later(timeout, _wake, future)
        await future
    finally:
        # A forked child that drops this coroutine shares the loop's epoll instance with its parent.
        if engine.fork_guard:
            if timer is not None:
                timer.cancel()
            if not loop.is_closed():
                loop.remove_reader(fd)
            engine.end_wait()
