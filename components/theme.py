"""Gradio's theme variables pointed at the studio's own tokens (``assets/css/base.css``), light and dark alike."""

from __future__ import annotations

import gradio as gr
from gradio.themes.utils import colors, sizes

FONT = ["Inter", "ui-sans-serif", "system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]
MONO = ["ui-monospace", "SF Mono", "Cascadia Mono", "Menlo", "Consolas", "Liberation Mono", "monospace"]

_TOKENS = {
    "body_background_fill": "var(--st-bg)", "body_text_color": "var(--st-ink)",
    "body_text_color_subdued": "var(--st-muted)", "background_fill_primary": "var(--st-surface)",
    "background_fill_secondary": "var(--st-sunken)", "border_color_primary": "var(--st-line)",
    "border_color_accent": "var(--st-accent)", "color_accent": "var(--st-accent)",
    "color_accent_soft": "var(--st-accent-soft)", "link_text_color": "var(--st-accent-ink)",
    "block_background_fill": "transparent", "block_border_width": "0px", "block_shadow": "none",
    "block_padding": "0px", "block_radius": "6px", "block_label_text_color": "var(--st-muted)",
    "block_title_text_color": "var(--st-ink)", "block_title_text_weight": "550", "block_title_text_size": "12.5px",
    "block_info_text_size": "12px", "block_info_text_color": "var(--st-muted)",
    "input_background_fill": "var(--st-field)", "input_background_fill_focus": "var(--st-field)",
    "input_border_width": "1px", "input_border_color": "var(--st-line-strong)",
    "input_border_color_focus": "var(--st-accent)",
    "input_shadow": "none", "input_shadow_focus": "0 0 0 3px var(--st-ring)", "input_padding": "5px 9px",
    "input_text_size": "13px", "input_radius": "6px", "input_placeholder_color": "var(--st-faint)",
    "button_primary_background_fill": "var(--st-accent)",
    "button_primary_background_fill_hover": "var(--st-accent-deep)",
    "button_primary_text_color": "var(--st-on-accent)", "button_primary_border_color": "transparent",
    "button_secondary_background_fill": "var(--st-surface)",
    "button_secondary_background_fill_hover": "var(--st-sunken)", "button_secondary_text_color": "var(--st-ink)",
    "button_secondary_border_color": "var(--st-line-strong)", "button_border_width": "1px",
    "button_large_text_size": "13px", "button_medium_text_size": "13px", "button_small_text_size": "12px",
    "button_large_text_weight": "550", "button_medium_text_weight": "550", "button_small_text_weight": "500",
    "button_large_radius": "6px", "button_medium_radius": "6px", "button_small_radius": "5px",
    "button_large_padding": "7px 14px", "button_medium_padding": "6px 12px", "button_small_padding": "4px 9px",
    "checkbox_background_color": "var(--st-field)", "checkbox_background_color_selected": "var(--st-accent)",
    "checkbox_border_color": "var(--st-line-strong)", "checkbox_border_color_selected": "var(--st-accent)",
    "checkbox_label_background_fill": "transparent", "checkbox_label_background_fill_hover": "transparent",
    "checkbox_label_background_fill_selected": "transparent", "checkbox_label_border_width": "0px",
    "checkbox_label_padding": "4px 2px", "checkbox_label_text_color": "var(--st-ink)",
    "slider_color": "var(--st-accent)", "panel_background_fill": "transparent", "shadow_drop": "none",
    "error_background_fill": "var(--st-bad-soft)", "error_border_color": "var(--st-bad)",
    "error_text_color": "var(--st-bad)", "table_even_background_fill": "var(--st-surface)",
    "table_odd_background_fill": "var(--st-surface)", "code_background_fill": "var(--st-sunken)",
}


def studio() -> gr.themes.Base:
    theme = gr.themes.Base(primary_hue=colors.indigo, secondary_hue=colors.indigo, neutral_hue=colors.stone,
                           text_size=sizes.text_sm, spacing_size=sizes.spacing_sm, radius_size=sizes.radius_sm,
                           font=FONT, font_mono=MONO)
    known = vars(theme)
    values: dict[str, str] = {}
    for name, value in _TOKENS.items():
        values[name] = value
        if f"{name}_dark" in known:
            values[f"{name}_dark"] = value
    return theme.set(**values)
