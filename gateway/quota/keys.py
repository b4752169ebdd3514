"""Names of the Redis keys. `lua/README.md` says what each holds."""

from typing import NamedTuple
from zlib import crc32


class AccountKeys(NamedTuple):
    """The four keys that one account's calls touch, in the order in which the scripts take them."""

    account: bytes
    holds: bytes
    leases: bytes
    events: bytes

    def marker(self, request_id: str) -> bytes:
        """The key that tells that a request of the account was reaped."""
        return self.holds.removesuffix(b"holds") + b"reaped:" + request_id.encode()

    def reported(self, request_id: str) -> bytes:
        """The key that holds what an app said at the end of a request of the account."""
        return self.holds.removesuffix(b"holds") + b"reported:" + request_id.encode()

    def bits(self, segment: str) -> bytes:
        """The key that tells which entries of a journal's segment were replayed to the account's partition."""
        return self.holds.removesuffix(b"holds") + b"journal:" + segment.encode()


class Keyspace:
    """All keys of one gateway fleet: `namespace`, and how many partitions its accounts are spread over."""

    REMEMBERED = 100_000

    def __init__(self, namespace: str, partitions: int) -> None:
        self._namespace = namespace
        self._partitions = partitions
        self._keys: dict[str, AccountKeys] = {}

    def of(self, account_id: str) -> AccountKeys:
        """The keys of an account."""
        keys = self._keys.get(account_id)
        if keys is None:
            if len(self._keys) >= self.REMEMBERED:
                self._keys.clear()
            keys = self._keys[account_id] = self._of(crc32(account_id.encode()) % self._partitions, account_id)
        return keys

    def everywhere(self) -> list[AccountKeys]:
        """The keys of each partition, those of no account."""
        return [self._of(partition, "") for partition in range(self._partitions)]

    def _of(self, partition: int, account_id: str) -> AccountKeys:
        prefix = f"{self._namespace}:{{{partition}}}"
        return AccountKeys(
            f"{prefix}:a:{account_id}".encode(),
            f"{prefix}:holds".encode(),
            f"{prefix}:leases".encode(),
            f"{prefix}:events".encode(),
        )
