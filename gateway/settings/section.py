"""What the parts of gateway.yaml are made of: the section, and the kinds of value that several of them share."""

from typing import Annotated

import msgspec
from msgspec import Meta

_SECRETS = frozenset({"api_key", "api_keys", "secret", "url", "proxy", "webhook_secrets"})

Name = Annotated[
    str,
    Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$", extra={"rule": "1 to 64 letters, digits, - and _"}),
]
"""The name of a tier or upstream: it stands in headers, logs and metrics."""
Seconds = Annotated[float, Meta(gt=0, le=86_400)]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One mapping of the file. Its `repr` hides what may be secret, so that no log or traceback can leak it."""

    def __repr__(self) -> str:
        """The class and its values, secrets as dots."""
        shown = (
            f"{key}={'…' if key in _SECRETS and value else repr(value)}"
            for key, value in ((key, getattr(self, key)) for key in self.__struct_fields__)
        )
        return f"{type(self).__name__}({', '.join(shown)})"
