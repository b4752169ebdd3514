"""Whether a request is within what its key is for. Asked only of keys that are not for everything."""

from gateway.domain.faults import MODEL_NOT_IN_KEY, ROUTE_NOT_IN_KEY, Fault
from gateway.domain.key_terms import KeyTerms

_SHOWN = 8


def check_scope(terms: KeyTerms, path: bytes, model: str | None, alias: str = "") -> None:
    """Raises Fault: ROUTE_NOT_IN_KEY, MODEL_NOT_IN_KEY. The texts say what the key is for.

    `model` is empty for a request that names none, None for one that is about no model. Where the request named it by
    an `alias`, a key that is for either is for it: an alias is the operator's own word for the model.
    """
    if not terms.takes_route(path.decode("latin-1")):
        raise Fault(ROUTE_NOT_IN_KEY, public=f"This API key is for {_listed(terms.routes)} alone.")
    if model is not None and terms.models and not (terms.takes_model(model) or terms.takes_model(alias)):
        raise Fault(MODEL_NOT_IN_KEY, public=f"This API key is for the models {_listed(terms.models)} alone.")


def _listed(globs: tuple[str, ...]) -> str:
    more = len(globs) - _SHOWN
    return ", ".join(globs[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
