"""A real pipeline through the queue: examples without doubles, an adapter on them, aligned, folded into its model, quantized, scored."""

from __future__ import annotations

from studio import api
from studio.jobs import store
from studio.jobs.supervisor import wait
from tests.train import align


def test_from_data_to_a_small_file_and_its_scores(tiny, chats, tmp_path):
    short = {"max_length": 64, "max_steps": 3, "bf16": "off", "eval_share": 0.0}
    run = api.submit({"kind": "flow", "method": "chain", "name": "All of it", "steps": [
        {"id": "data", "kind": "data", "method": "dedup", "dataset": str(chats)},
        {"id": "tuned", "kind": "sft", "method": "lora", "model": str(tiny), "dataset": "step:data", **short},
        {"id": "aligned", "kind": "align", "method": "dpo", "model": "step:tuned", **short,
         "dataset": str(align.pairs(tmp_path / "pairs.jsonl"))},
        {"id": "whole", "kind": "merge", "method": "adapter", "model": "step:aligned"},
        {"id": "half", "kind": "merge", "method": "mergekit", "config": {
            "merge_method": "linear", "dtype": "float32", "models": [
                {"model": "step:whole", "parameters": {"weight": 0.5}}, {"model": str(tiny), "parameters": {"weight": 0.5}}]}},
        {"id": "small", "kind": "quantize", "method": "gguf", "model": "step:half", "types": ["Q8_0"], "prove": False},
        {"id": "scores", "kind": "eval", "method": "compare", "models": [str(tiny), "step:tuned", "step:half"],
         "dataset": str(chats), "samples": 4, "max_new_tokens": 8}]})
    row = wait(run["id"], 400)
    assert row["state"] == "succeeded", row["reason"]
    steps = api.flow(run["id"])["steps"]
    assert [(step["state"], step["result"]["kind"]) for step in steps] == [
        ("succeeded", kind) for kind in ("dataset", "adapter", "adapter", "model", "model", "model", "file")]
    assert store.get(steps[1]["run"])["recipe"]["dataset"] == f"library:{steps[0]['result']['id']}"
    family = {node["id"] for node in api.lineage(steps[5]["result"]["id"])["nodes"]}
    assert {step["result"]["id"] for step in steps[:6]} <= family
    scored = store.get(steps[6]["run"])["summary"]["table"]
    assert [line["model"] for line in scored] == [str(tiny), *(f"library:{steps[i]['result']['id']}" for i in (1, 4))]
