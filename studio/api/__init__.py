"""The only door of the page, the command line and MCP into the core.

Plain dicts, lists and strings in and out; every refusal is a :class:`studio.errors.StudioError`. ``owner`` is the
person on a shared Space, whose own things alone are shown; ``None``, everywhere else, sees all.
"""

from studio.api.arena import (arena, arena_dataset, arena_poll, arena_setup, arena_start, arena_stop, arena_table,
                              arena_vote)
from studio.api.backends import backend_check, backends, keep_token
from studio.api.bench import (bench_delete, bench_form, bench_list, bench_load, bench_preview, bench_save, bench_suggest,
                              bench_try)
from studio.api.chat import (chat_ask, chat_branch, chat_choose, chat_delete, chat_export, chat_rows, chat_edit, chat_list, chat_load, chat_open, chat_poll,
                             chat_rename, chat_retry, chat_save, chat_settings, chat_setup, chat_stop, engine_for,
                             engines, unload)
from studio.api.data import inspect, preview, upload
from studio.api.datasets import (data_diff, data_edit, data_facets, data_list, data_open, data_pipeline,
                                 data_pipelines, data_redo, data_report, data_row, data_rows, data_save_pipeline,
                                 data_steps, data_undo)
from studio.api.estimate import measure
from studio.api.evals import eval_against, eval_methods, eval_results, eval_runs, eval_samples, eval_tasks, look_methods
from studio.api.family import family
from studio.api.flows import flow
from studio.api.insight import ablation, errors, errors_answers, errors_dataset, eval_pairs, insight_runs, leaderboard, report
from studio.api.lab import lab_decode, lab_speculative, lab_tokens, lab_ways
from studio.api.library import artifact, card, datasets, delete, hardware, hub_search, lineage, models, rename
from studio.api.merge import merge_check, merge_export, merge_import, merge_look, merge_methods
from studio.api.notify import notify_save, notify_settings, notify_test
from studio.api.page import extra_fields, workspace
from studio.api.quantize import exports, quantize_learn, quantize_run, quantize_types, variants
from studio.api.retrieval import (collection, collection_add, collection_build, collection_chunks, collection_document,
                                  collection_let_in, collection_remove, collection_save, collections, retrieval_ask,
                                  retrieval_poll, retrieval_stop)
from studio.api.rewards import rewards_catalogue, rewards_check, rewards_score, rewards_try
from studio.api.recipes import methods, presets, script, validate
from studio.api.runs import poll, remove, reorder, resume, run, runs, stop, submit, supervise
from studio.api.serve import (engine_load, engine_needs, engines_ended, serve_key, serve_list, serve_snippets,
                              serve_start, serve_stop)
from studio.api.sweeps import sweep, sweep_fields
from studio.api.tools import mcp_add, mcp_remove, tools, tools_ask, tools_decide, tools_delete, tools_open, tools_stop

__all__ = [
    "methods", "validate", "presets", "script", "measure", "notify_save", "notify_settings", "notify_test",
    "submit", "runs", "run", "poll", "stop", "resume", "remove", "reorder", "supervise",
    "models", "datasets", "artifact", "rename", "delete", "lineage", "card", "hub_search", "hardware",
    "rewards_catalogue", "rewards_check", "rewards_score", "rewards_try", "inspect", "preview", "upload",
    "extra_fields", "workspace", "merge_methods", "merge_check", "merge_look", "merge_export", "merge_import",
    "quantize_types", "quantize_run", "quantize_learn", "variants", "exports",
    "bench_delete", "bench_form", "bench_list", "bench_load", "bench_preview", "bench_save", "bench_suggest", "bench_try",
    "eval_against", "eval_methods", "eval_results", "eval_runs", "eval_samples", "eval_tasks", "look_methods",
    "sweep", "sweep_fields", "flow", "family", "backends", "backend_check", "keep_token",
    "arena", "arena_dataset", "arena_poll", "arena_setup", "arena_start", "arena_stop", "arena_table", "arena_vote",
    "eval_pairs", "errors", "errors_answers", "errors_dataset", "ablation", "leaderboard", "report", "insight_runs",
    "engine_load", "engine_needs", "engines_ended", "serve_key", "serve_list", "serve_snippets", "serve_start", "serve_stop",
    "lab_decode", "lab_speculative", "lab_tokens", "lab_ways", "engines", "engine_for", "unload", "chat_save", "chat_list", "chat_load", "chat_delete", "chat_rename",
    "chat_ask", "chat_branch", "chat_choose", "chat_export", "chat_rows", "chat_retry", "chat_edit", "chat_setup", "chat_stop", "chat_open", "chat_poll", "chat_settings",
    "mcp_add", "mcp_remove", "tools", "tools_ask", "tools_decide", "tools_delete", "tools_open", "tools_stop",
    "collections", "collection", "collection_save", "collection_add", "collection_remove", "collection_build", "collection_chunks",
    "collection_document", "collection_let_in", "retrieval_ask", "retrieval_poll", "retrieval_stop",
    "data_diff", "data_edit", "data_facets", "data_list", "data_open", "data_pipeline", "data_pipelines",
    "data_redo", "data_report", "data_row", "data_rows", "data_save_pipeline", "data_steps", "data_undo",
]
