"""Which fold is whose: a stream as one answer and one answer as a stream, for each endpoint that streams."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..core import endpoint_folds
from ..core.types import Request
from .fold import fold, unfold

FOLDS: dict[str, Callable[[Iterable[bytes]], bytes]] = {
    "chat": fold,
    **endpoint_folds.FOLDS,
}
UNFOLDS: dict[str, Callable[[bytes], list[bytes]]] = {
    "chat": unfold,
    **endpoint_folds.UNFOLDS,
}


def folded(request: Request, chunks: Iterable[bytes]) -> bytes:
    """The whole answer to `request` that these chunks make."""
    return FOLDS[request.endpoint](chunks)


def unfolded(request: Request, body: bytes) -> list[bytes]:
    """The stream that this answer to `request` might have been."""
    return UNFOLDS[request.endpoint](body)
