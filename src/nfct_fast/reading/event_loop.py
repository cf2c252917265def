"""Waiting for flows in an event loop: asyncio's, or another one that has add_reader()."""

from asyncio import get_running_loop, sleep


async def give_way() -> None:
    """Let the loop's other tasks have a turn."""
    await sleep(0)


def _wake(future):
    if not future.done():
        future.set_result(None)


async def next_batch(batches):
    """Return the next Batch. A cancellation comes at an await, where no batch is at hand."""
    await give_way()  # even where a batch is always due
    while (batch := batches.take_now()) is None:
        await wait(batches.engine, batches.seconds_left())
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
