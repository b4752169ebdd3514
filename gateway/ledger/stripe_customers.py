"""Which account a customer of Stripe's is."""

from collections.abc import Iterable

from sqlalchemy import insert, select, update

from gateway.domain.audit import Actor
from gateway.ledger.accounts import locked_account
from gateway.ledger.audit import write_audit
from gateway.ledger.database import Connection, Database, whole
from gateway.ledger.tables import accounts, stripe_customers


class CustomerBook(Database):
    """Raises Fault(LEDGER_UNAVAILABLE) where it can't answer."""

    @whole
    async def link_customer(self, customer_id: str, account_id: str, by: Actor, now_ms: int) -> bool:
        """Let the customer be that account's; whether that is new. Raises Fault(NOT_FOUND) without the account."""
        async with self.writing() as connection:
            return await put_customer(connection, customer_id, account_id, by, now_ms)

    @whole
    async def accounts_of_customers(self, customer_ids: Iterable[str]) -> dict[str, str]:
        """The accounts of those customers that have one."""
        table = stripe_customers
        found = select(table.c.id, table.c.account_id).where(table.c.id.in_(list(customer_ids)))
        async with self.reading() as connection:
            return {row[0]: row[1] for row in await connection.execute(found)}

    @whole
    async def accounts_among(self, account_ids: Iterable[str]) -> set[str]:
        """Those of the ids that are accounts."""
        found = select(accounts.c.id).where(accounts.c.id.in_(list(account_ids)))
        async with self.reading() as connection:
            return set(await connection.scalars(found))


async def account_of_customer(connection: Connection, customer_id: str) -> str:
    """The customer's account, "" where it has none."""
    found = select(stripe_customers.c.account_id).where(stripe_customers.c.id == customer_id)
    return str(await connection.scalar(found) or "")


async def is_account(connection: Connection, account_id: str) -> bool:
    """Whether there is such an account."""
    return await connection.scalar(select(accounts.c.id).where(accounts.c.id == account_id)) is not None


async def put_customer(connection: Connection, customer_id: str, account_id: str, by: Actor, now_ms: int) -> bool:
    """As `CustomerBook.link_customer`, within a transaction of the caller's."""
    await locked_account(connection, account_id)
    before = await account_of_customer(connection, customer_id)
    if before == account_id:
        return False
    row = {"account_id": account_id, "linked_ms": now_ms}
    if before:
        await connection.execute(update(stripe_customers).where(stripe_customers.c.id == customer_id).values(row))
    else:
        await connection.execute(insert(stripe_customers), row | {"id": customer_id})
    change = ({"customer_id": customer_id, "account_id": before} if before else None), {"customer_id": customer_id}
    await write_audit(connection, by, "customer", account_id, change, now_ms)
    return True
