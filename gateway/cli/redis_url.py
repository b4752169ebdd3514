"""What a settings check can't see of `redis.url`: files that it names, and text that is no address after all."""

from gateway.cli.bad_input import BadInput
from gateway.quota.redis_address import place_of


def check_redis_url(url: str) -> None:
    """Raises BadInput, without a password in it, where the URL can't be used on this machine."""
    try:
        place_of(url)
    except ValueError as error:
        raise BadInput(f"redis.url: {error}") from error
