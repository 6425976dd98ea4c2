"""Atelier's core: recipes, jobs, library. Never imports gradio, and importing it never imports torch."""

__version__ = "0.1.0"
