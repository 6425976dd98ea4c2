"""The page. Everything gradio lives here; of ``studio`` it knows only api, recipe, registry and errors."""
