"""Collections of documents, and questions answered from them."""

from __future__ import annotations

from typing import Any

from studio.api.who import scope, signed_in


def collections(owner: str | None = None) -> dict[str, Any]:
    """The collections at hand and what a new one may be made with: ``{collections, defaults, limits, embedders, asking}``."""
    from studio.retrieval import asking
    from studio.retrieval import collections as kept

    return {"collections": kept.listed(scope(owner)), "defaults": kept.DEFAULTS, "limits": {k: list(v) for k, v in kept.LIMITS.items()},
            "embedders": kept.embedders(), "asking": asking.DEFAULTS, "most_sources": asking.SOURCES}


def collection(id: str, owner: str | None = None) -> dict[str, Any]:
    """One collection; see :func:`studio.retrieval.collections.load`.

    Raises:
        StudioError: there is none.
    """
    from studio.retrieval import collections as kept

    return kept.load(id, scope(owner))


def collection_save(id: str | None, name: str = "", values: dict[str, Any] | None = None, owner: str | None = None) -> dict[str, Any]:
    """A new collection (``id`` is ``None``), or another name and other settings for one.

    Raises:
        StudioError: no name, bad settings, or there is none.
    """
    from studio.retrieval import collections as kept

    if id:
        return kept.change(id, name or None, values, scope(owner))
    return kept.create(name, values, signed_in(owner))


def collection_add(id: str, ref: str = "", title: str = "", text: str = "", owner: str | None = None) -> dict[str, Any]:
    """Put in a document: a file or dataset by its reference, or pasted text.

    Raises:
        StudioError: unreadable, empty, too large, there already, or another person's.
    """
    from studio.library.refs import check_owner
    from studio.retrieval import collections as kept

    signed_in(owner)
    if ref:
        check_owner(ref, scope(owner), "dataset")
    return kept.add(id, ref, title, text, scope(owner))


def collection_remove(id: str, document: str = "", owner: str | None = None) -> dict[str, Any] | None:
    """Take a document out of a collection, or without ``document`` delete the collection.

    Raises:
        StudioError: it is not there, or its index is being built.
    """
    from studio.retrieval import collections as kept

    signed_in(owner)
    return kept.remove(id, document, scope(owner)) if document else kept.delete(id, scope(owner))


def collection_build(id: str, owner: str | None = None) -> dict[str, Any]:
    """Build the index in the background.

    Raises:
        StudioError: nothing to build, or it is being built.
    """
    from studio.retrieval import collections as kept

    signed_in(owner)
    return kept.start(id, scope(owner))


def collection_chunks(id: str, document: str = "", flagged: bool = False, text: str = "", offset: int = 0, limit: int = 50,
                      owner: str | None = None) -> dict[str, Any]:
    """A page of a collection's chunks; see :func:`studio.retrieval.collections.chunks`.

    Raises:
        StudioError: no collection, or no index yet.
    """
    from studio.retrieval import collections as kept

    return kept.chunks(id, scope(owner), document, flagged, text, max(0, offset), min(200, max(1, limit)))


def collection_document(id: str, document: str, owner: str | None = None) -> dict[str, Any]:
    """A document of a collection as it was read.

    Raises:
        StudioError: it is not there.
    """
    from studio.retrieval import collections as kept

    return kept.document(id, document, scope(owner))


def collection_let_in(id: str, chunk: int, yes: bool, owner: str | None = None) -> dict[str, Any]:
    """Let a flagged chunk be used in answers, or no longer.

    Raises:
        StudioError: no such chunk.
    """
    from studio.retrieval import collections as kept

    signed_in(owner)
    return kept.let_in(id, chunk, yes, scope(owner))


def retrieval_ask(collection: str, question: str, model: str, how: dict[str, Any] | None = None,
                  settings: dict[str, Any] | None = None, owner: str | None = None) -> dict[str, Any]:
    """Ask a model from a collection, and beside it without; see :func:`studio.retrieval.asking.poll`.

    Raises:
        StudioError: nothing asked, no model or another person's, no index, unknown options.
    """
    from studio.chat import address
    from studio.library.refs import check_owner
    from studio.retrieval import asking

    how = how or {}
    for ref in filter(None, (model, how.get("reranker"))):
        if not address.is_address(str(ref)):
            check_owner(str(ref), scope(owner), "model")
    return asking.ask(collection, question, model, how, settings, signed_in(owner))


def retrieval_poll(id: str, owner: str | None = None) -> dict[str, Any]:
    """How a question stands.

    Raises:
        StudioError: it is not known any more.
    """
    from studio.retrieval import asking

    return asking.poll(id, scope(owner))


def retrieval_stop(id: str, owner: str | None = None) -> dict[str, Any]:
    """End the answers of a question where they are.

    Raises:
        StudioError: it is not known any more.
    """
    from studio.retrieval import asking

    return asking.stop(id, scope(owner))
