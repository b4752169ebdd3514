"""Names of the Redis keys. `lua/README.md` says what each holds."""

from collections.abc import Sequence
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

    @property
    def era(self) -> bytes:
        """The key that names the span since which the server has lost nothing of the account's partition."""
        return self.holds.removesuffix(b"holds") + b"era"

    def reported(self, request_id: str) -> bytes:
        """The key that holds what an app said at the end of a request of the account."""
        return self.holds.removesuffix(b"holds") + b"reported:" + request_id.encode()

    def bits(self, segment: str) -> bytes:
        """The key that tells which entries of a journal's segment were replayed to the account's partition."""
        return self.holds.removesuffix(b"holds") + b"journal:" + segment.encode()


def partition_of(account_id: str, partitions: int) -> int:
    """Which of so many partitions an account is in."""
    return crc32(account_id.encode()) % partitions


def era_of(eras: Sequence[str], account_id: str) -> str:
    """An account's among the eras of all partitions; empty where none is known."""
    return eras[partition_of(account_id, len(eras))] if eras else ""


class Keyspace:
    """All keys of one gateway fleet: `namespace`, and how many partitions its accounts are spread over."""

    REMEMBERED = 100_000

    def __init__(self, namespace: str, partitions: int) -> None:
        self._namespace = namespace
        self.partitions = partitions
        self._keys: dict[str, AccountKeys] = {}

    def of(self, account_id: str) -> AccountKeys:
        """The keys of an account."""
        keys = self._keys.get(account_id)
        if keys is None:
            if len(self._keys) >= self.REMEMBERED:
                self._keys.clear()
            keys = self._keys[account_id] = self._of(self.partition(account_id), account_id)
        return keys

    def partition(self, account_id: str) -> int:
        """The number of the partition that an account is in."""
        return partition_of(account_id, self.partitions)

    def everywhere(self) -> list[AccountKeys]:
        """The keys of each partition, those of no account."""
        return [self._of(partition, "") for partition in range(self.partitions)]

    def _of(self, partition: int, account_id: str) -> AccountKeys:
        prefix = f"{self._namespace}:{{{partition}}}"
        return AccountKeys(
            f"{prefix}:a:{account_id}".encode(),
            f"{prefix}:holds".encode(),
            f"{prefix}:leases".encode(),
            f"{prefix}:events".encode(),
        )
