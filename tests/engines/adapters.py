"""LoRA adapters of SmolLM2-135M-Instruct as vLLM loads them (`--enable-lora --lora-modules NAME=FOLDER`): small, and from a seed.

Tried on vLLM 0.32.0's CPU backend. What PEFT would save: adapter_config.json, and a pair of matrices a module, of which B A (times
lora_alpha / r) is added to the module's weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import numpy as np
from safetensors.numpy import save_file

from tests.engines.install import weights

Kind = Literal["right", "other", "zero"]
"""`other` has another seed, `zero` adds nothing (B = 0)."""
SEEDS: dict[Kind, int] = {"right": 1, "other": 2, "zero": 1}
RANK = 8
"""The smallest after 1 that `--max-lora-rank` takes."""
SIZE = 0.008
"""Standard deviation of B A; the weights have 0.2. Answers stay words, and first tokens move by half a nat and more (at 0.002 by 0.2)."""


def adapter(kind: Kind, folder: Path) -> Path:
    """Write the adapter into a folder of its own under `folder`, where it is not there yet. Raises CannotHave."""
    made = folder / f"adapter-{kind}"
    if (made / "adapter_config.json").exists():
        return made
    made.mkdir(parents=True, exist_ok=True)
    config = json.loads((weights() / "config.json").read_text())
    width, head = config["hidden_size"], config["head_dim"]
    out = {"q_proj": config["num_attention_heads"] * head, "v_proj": config["num_key_value_heads"] * head}
    dice, tensors = np.random.default_rng(SEEDS[kind]), {}
    for layer in range(config["num_hidden_layers"]):
        for module, rows in out.items():
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            a, b = dice.normal(0, 1, (RANK, width)), dice.normal(0, SIZE / RANK**0.5, (rows, RANK))
            tensors[f"{name}.lora_A.weight"] = a.astype(np.float32)
            tensors[f"{name}.lora_B.weight"] = (b * (kind != "zero")).astype(np.float32)
    save_file(tensors, made / "adapter_model.safetensors")
    told = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": RANK, "target_modules": sorted(out)}
    (made / "adapter_config.json").write_text(json.dumps(told))  # last: with it the adapter is whole
    return made
