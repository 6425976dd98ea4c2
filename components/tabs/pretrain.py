import gradio as gr
from components.shell import Shell


def build(shell: Shell) -> None:
    gr.Markdown("pretrain")
