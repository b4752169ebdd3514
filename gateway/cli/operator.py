"""Who sits at the command line, as the audit names them."""

import os
import pwd

from gateway.domain.audit import Actor


def operator() -> Actor:
    """The user that this process runs as: `cli:ann`; by number where the machine knows no name."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = str(os.getuid())
    return Actor(f"cli:{name}")
