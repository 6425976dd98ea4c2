"""The library's tables as SQLAlchemy sees them; ``migrations.py`` makes them."""

from __future__ import annotations

from sqlalchemy import JSON, Column, Float, Integer, MetaData, String, Table

_metadata = MetaData()

artifacts = Table(
    "artifacts", _metadata,
    Column("id", String, primary_key=True), Column("kind", String), Column("name", String), Column("path", String),
    Column("run_id", String), Column("owner", String), Column("created", Float), Column("size", Integer),
    Column("meta", JSON))

parents = Table(
    "parents", _metadata,
    Column("child_id", String, primary_key=True), Column("ref", String, primary_key=True),
    Column("role", String, primary_key=True))

chats = Table(
    "chats", _metadata,
    Column("id", String, primary_key=True), Column("title", String), Column("owner", String),
    Column("created", Float), Column("updated", Float), Column("data", JSON))

battles = Table(
    "battles", _metadata,
    Column("id", String, primary_key=True), Column("created", Float), Column("voter", String), Column("source", String),
    Column("prompt", JSON), Column("digest", String), Column("tag", String), Column("settings", JSON),
    Column("a", String), Column("b", String), Column("a_answer", JSON), Column("b_answer", JSON),
    Column("state", String), Column("vote", String), Column("voted", Float))
