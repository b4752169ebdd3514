"""The dialects by the name they have in gateway.yaml."""

from gateway.dialects.dialect import Dialect
from gateway.dialects.openai import OpenAI
from gateway.dialects.plain import Plain

_ALL: tuple[Dialect, ...] = (OpenAI(), Plain())

DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in _ALL}
