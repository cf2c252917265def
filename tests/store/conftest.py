import pytest

from support.store_checks import place


@pytest.fixture
def store():
    """The path of a store that is not there yet, where an unprivileged user can get."""
    with place() as path:
        yield path / "store"
