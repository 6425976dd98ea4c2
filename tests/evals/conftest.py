"""The fixtures of the training tests: a workspace for each test, a tiny model, chats."""

from tests.train.conftest import _home, chats, tiny  # noqa: F401
