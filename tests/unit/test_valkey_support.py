"""The throw-away Valkey that the other tests stand on."""

from tests.support.valkey import ValkeyServer, valkey, valkey_server  # noqa: F401  # pytest finds fixtures by name


def test_each_test_starts_with_an_empty_server(valkey: ValkeyServer) -> None:  # noqa: F811  # a fixture is a name twice
    """A test never sees another's keys; whoever reads a red test is hurt if it does."""
    assert valkey.call(b"DBSIZE") == b":0\r\n"

    assert valkey.call(b"SET left over") == b"+OK\r\n"
    assert valkey.call(b"DBSIZE") == b":1\r\n"


def test_a_killed_server_comes_back_on_the_same_address(valkey: ValkeyServer) -> None:  # noqa: F811
    """Fault tests kill the server and start it again under the same url."""
    url, pid = valkey.url, valkey.pid

    valkey.kill()
    valkey.start()

    assert valkey.url == url
    assert valkey.pid != pid
    assert valkey.call(b"PING") == b"+PONG\r\n"
