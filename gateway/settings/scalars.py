"""One YAML scalar as the value that its place calls for: the type decides how it is read, not the way it looks.

So a tier named `no` stays "no", and digits in a key are not rounded. A scalar with a placeholder may be a number even
in quotes. Texts of mistakes never quote the scalar.
"""

import re
from typing import Any

import msgspec
from msgspec import inspect

from gateway.settings.checks import did_you_mean

_WHOLE = re.compile(r"[+-]?(0|[1-9][0-9]*)(_[0-9]+)*")
_DECIMAL = re.compile(r"[+-]?([0-9]+(_[0-9]+)*(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_LONGEST_NUMBER = 32
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})


class ScalarError(ValueError):
    """A scalar that doesn't fit; its text says what is wrong and how to mend it."""


class Scalar(msgspec.Struct, frozen=True):
    """A scalar's text, placeholders filled. `plain` says that it is unquoted, `filled` that it had a placeholder."""

    text: str
    plain: bool
    filled: bool

    @property
    def is_null(self) -> bool:
        """Whether nothing is there."""
        return self.plain and not self.filled and self.text in _NULLS


def expected(kind: inspect.Type) -> str:
    """A type in words."""
    match kind:
        case inspect.Metadata():
            return expected(kind.type)
        case inspect.UnionType():
            return " or ".join(expected(one) for one in kind.types if not isinstance(one, inspect.NoneType))
        case inspect.IntType():
            return "a whole number"
        case inspect.FloatType():
            return "a number"
        case inspect.BoolType():
            return "true or false"
        case inspect.StructType() | inspect.DictType():
            return "a mapping"
        case inspect.VarTupleType():
            return "a list"
        case _:
            return "text"


def read_scalar(scalar: Scalar, kind: inspect.Type, extra: dict[str, Any]) -> object:
    """The value of a scalar where `kind` is called for; `extra` is its Meta's. Raises ScalarError."""
    if scalar.is_null:
        raise ScalarError(f"has no value; write {expected(kind)}, or take the key out")
    match kind:
        case inspect.IntType() | inspect.FloatType():
            return _number(scalar, kind)
        case inspect.BoolType():
            if scalar.text not in _BOOLEANS or not (scalar.plain or scalar.filled):
                raise _wrong_type(scalar, kind)
            return _BOOLEANS[scalar.text]
        case inspect.EnumType():
            return kind.cls(_one_of(scalar.text, [str(member.value) for member in kind.cls]))
        case inspect.LiteralType():
            return _one_of(scalar.text, [str(value) for value in kind.values])
        case inspect.StrType():
            return _text(scalar.text, kind, extra)
        case _:
            raise _wrong_type(scalar, kind)


def _number(scalar: Scalar, kind: inspect.IntType | inspect.FloatType) -> int | float:
    is_whole = isinstance(kind, inspect.IntType)
    shape = _WHOLE if is_whole else _DECIMAL
    if not shape.fullmatch(scalar.text) or not (scalar.plain or scalar.filled):
        raise _wrong_type(scalar, kind)
    if len(scalar.text) > _LONGEST_NUMBER:
        raise ScalarError(f"is out of range; it has to be {_range(kind)}")
    value = int(scalar.text) if is_whole else float(scalar.text)
    too_low = (kind.ge is not None and value < kind.ge) or (kind.gt is not None and value <= kind.gt)
    if too_low or (kind.le is not None and value > kind.le):
        raise ScalarError(f"is out of range; it has to be {_range(kind)}")
    return value


def _range(kind: inspect.IntType | inspect.FloatType) -> str:
    bounds = (("at least", kind.ge), ("more than", kind.gt), ("at most", kind.le))
    return " and ".join(f"{word} {bound:.17g}" for word, bound in bounds if bound is not None)


def _one_of(text: str, known: list[str]) -> str:
    if text not in known:
        raise ScalarError("is not a known word" + did_you_mean(text, known))
    return text


def _text(text: str, kind: inspect.StrType, extra: dict[str, Any]) -> str:
    if not text.isprintable():
        raise ScalarError("has a line end or another letter in it that can't be printed")
    if len(text) < (kind.min_length or 0):
        raise ScalarError("may not be empty")
    if kind.pattern is not None and not re.fullmatch(kind.pattern, text):
        raise ScalarError(f"has to be {extra['rule']}")
    problem = extra["check"](text) if "check" in extra else ""
    if problem:
        raise ScalarError(problem)
    return text


def _wrong_type(scalar: Scalar, kind: inspect.Type) -> ScalarError:
    quoted = not scalar.plain and not scalar.filled and (_WHOLE.fullmatch(scalar.text) or scalar.text in _BOOLEANS)
    return ScalarError(f"has to be {expected(kind)}" + (", without quotes" if quoted else ""))
