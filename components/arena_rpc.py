"""What the arena's script may ask of the core; the rules are those of :mod:`components.rpc`."""

from __future__ import annotations

import gradio as gr

from components.rpc import answer, need_login, on_space, owner_of
from studio import api


def voter_of(request: gr.Request) -> str | None:
    """Who votes: the person signed in on a Space, the login where the studio asks for one, else nobody in particular.

    Raises:
        StudioError: a visitor of a Space who is not signed in.
    """
    return need_login(request) if on_space() else getattr(request, "username", None) or None


@answer
def arena(data: dict, request: gr.Request) -> dict:
    """What the arena is about, the models and datasets to choose from, and the ranking of one kind of prompt."""
    voter = owner_of(request) if on_space() else voter_of(request)
    found = api.arena(voter) | {"ranking": api.arena_table(str(data.get("tag") or ""))}
    if data.get("all") and found["may_change"]:
        owner = owner_of(request)
        found |= {"known": {"models": api.models(owner), "datasets": api.datasets(owner)}, "bounds": api.chat_settings()}
    return found


@answer
def arena_setup(data: dict, request: gr.Request) -> dict:
    return api.arena_setup(dict(data.get("values") or {}), voter_of(request))


@answer
def arena_start(data: dict, request: gr.Request) -> dict:
    return api.arena_start(str(data.get("prompt") or ""), voter_of(request))


@answer
def arena_poll(data: dict, request: gr.Request) -> dict:
    return api.arena_poll(str(data.get("id") or ""), voter_of(request))


@answer
def arena_stop(data: dict, request: gr.Request) -> dict:
    return api.arena_stop(str(data.get("id") or ""), voter_of(request))


@answer
def arena_vote(data: dict, request: gr.Request) -> dict:
    return api.arena_vote(str(data.get("id") or ""), str(data.get("vote") or ""), voter_of(request))


@answer
def arena_dataset(data: dict, request: gr.Request) -> dict:
    return api.arena_dataset(tag=str(data.get("tag") or ""), voter=voter_of(request))


FUNCTIONS = [arena, arena_setup, arena_start, arena_poll, arena_stop, arena_vote, arena_dataset]
