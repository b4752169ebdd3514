"""What a command raises when what it was given can't be used."""


class BadInput(Exception):  # noqa: N818  # like Fault, named for what it is
    """The text says what is wrong and, where it can, what to write instead. The command ends with status 2."""
