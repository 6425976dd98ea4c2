"""A real pipeline through the queue: examples without doubles, an adapter on them, the adapter folded into its model."""

from __future__ import annotations

from studio import api
from studio.jobs import store
from studio.jobs.supervisor import wait


def test_from_data_to_a_merged_model(tiny, chats):
    run = api.submit({"kind": "flow", "method": "chain", "name": "All of it", "steps": [
        {"id": "data", "kind": "data", "method": "dedup", "dataset": str(chats)},
        {"id": "tuned", "kind": "sft", "method": "lora", "model": str(tiny), "dataset": "step:data", "max_length": 64,
         "max_steps": 3, "bf16": "off", "eval_share": 0.0},
        {"id": "whole", "kind": "merge", "method": "adapter", "model": "step:tuned"}]})
    row = wait(run["id"], 300)
    assert row["state"] == "succeeded", row["reason"]
    steps = api.flow(run["id"])["steps"]
    assert [(step["state"], step["result"]["kind"]) for step in steps] == [
        ("succeeded", "dataset"), ("succeeded", "adapter"), ("succeeded", "model")]
    assert store.get(steps[1]["run"])["recipe"]["dataset"] == f"library:{steps[0]['result']['id']}"
    family = {node["id"] for node in api.lineage(steps[2]["result"]["id"])["nodes"]}
    assert {step["result"]["id"] for step in steps} <= family
