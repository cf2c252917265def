"""The user that the program continues as once it needs root no longer."""

import pwd

USER = "nfct-fast"
NOBODY = 65534


def find_user(name=None) -> tuple[int, int]:
    """Return the user and group id of a user: by default `nfct-fast`, or nobody if there is no such user.

    Raises:
        LookupError: There is no user `name`.
    """
    for one in (USER, "nobody") if name is None else (name,):
        try:
            entry = pwd.getpwnam(one)
            return entry.pw_uid, entry.pw_gid
        except KeyError:
            continue
    if name is not None:
        raise LookupError(f"there is no user {name!r}")
    return NOBODY, NOBODY


def has_user() -> bool:
    """Whether there is the user that the program switches to by default, rather than nobody."""
    try:
        pwd.getpwnam(USER)
    except KeyError:
        return False
    return True
