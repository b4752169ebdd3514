"""Names of the Redis keys. `lua/README.md` says what each holds."""

from zlib import crc32

import msgspec


class AccountKeys(msgspec.Struct, frozen=True, gc=False):
    """The four keys that one account's calls touch, in the order in which the scripts take them."""

    account: bytes
    holds: bytes
    leases: bytes
    events: bytes


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
            prefix = f"{self._namespace}:{{{crc32(account_id.encode()) % self._partitions}}}"
            keys = self._keys[account_id] = AccountKeys(
                f"{prefix}:a:{account_id}".encode(),
                f"{prefix}:holds".encode(),
                f"{prefix}:leases".encode(),
                f"{prefix}:events".encode(),
            )
        return keys
