"""Which owners cannot be found where the kernel does not take notes, in words for operators."""


def without_notes(why: str) -> str:
    """why: What `Resolver.bpf_missing` says."""
    return f"the owner of a socket that is closed at once cannot be found: {why}"


def without_programs(why: str) -> str:
    """why: What `SocketNotes.processes_missing` says."""
    return f"short-lived processes will have no command line, and no process its ancestors: {why}"
