"""Chatting with models: engine processes that speak the OpenAI-compatible API, and the page's side of them."""
