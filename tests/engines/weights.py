"""Weights of SmolLM2-135M-Instruct as vLLM reads them, and copies that are not what their name says.

Runs in the engine's own environment, which has torch and transformers, and imports nothing else of this project:
`python weights.py base GGUF FOLDER`, `python weights.py VARIANT BASE FOLDER`.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

SEED = 1
LAYER = 15
"""Of 30."""
CHATML = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"


def base(gguf: Path, folder: Path) -> None:
    """The packaged GGUF made dense: the same weights, in bfloat16."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source: dict[str, Any] = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(
        **source, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)


def zeroed(folder: Path) -> None:
    """One layer's weights are zero: it passes on what comes in."""
    _weights(folder, lambda name, tensor: tensor.zero_() if f".layers.{LAYER}." in name else tensor)


def noise_1(folder: Path) -> None:
    """Every weight is off by 1 % (normally distributed)."""
    _noise(folder, 0.01)


def noise_5(folder: Path) -> None:
    """Every weight is off by 5 % (normally distributed)."""
    _noise(folder, 0.05)


def rope(folder: Path) -> None:
    """The rope base of another model."""

    def changed(config: dict[str, Any]) -> None:
        owner = config.get("rope_parameters") or config
        owner["rope_theta"] = owner["rope_theta"] / 10

    _json(folder / "config.json", changed)


def template(folder: Path) -> None:
    """The tokenizer's own template lost its default system message."""
    _template(folder, CHATML + "<|im_start|>assistant\n")


def no_template(folder: Path) -> None:
    """The tokenizer has no template at all."""
    _template(folder, None)


def thinking_tokens(folder: Path) -> None:
    """Two tokens that no answer has are called <think> and </think>, without which vLLM starts no reasoning parser."""
    names = {"<gh_stars>": "<think>", "<issue_start>": "</think>"}

    def renamed(data: dict[str, Any]) -> None:
        for token in data["added_tokens"]:
            token["content"] = names.get(token["content"], token["content"])
        data["model"]["vocab"] = {names.get(text, text): number for text, number in data["model"]["vocab"].items()}

    _json(folder / "tokenizer.json", renamed)


def thinker(folder: Path) -> None:
    """The same, and both are read as the end of a line: `<|im_start|>assistant</think>` opens an answer as its header does.

    The output layer is its own here, so that no more is generated than before.
    """
    import torch

    thinking_tokens(folder)
    tokens = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]

    def opened(weights: dict[str, Any]) -> None:
        embedding = weights["model.embed_tokens.weight"]
        weights["lm_head.weight"] = torch.clone(embedding)
        for token in ("<think>", "</think>"):
            embedding[tokens[token]] = embedding[tokens["\u010a"]]

    _tensors(folder, opened)
    _json(folder / "config.json", lambda config: config.update(tie_word_embeddings=False))


def same(folder: Path) -> None:
    """Nothing changed: the same bytes at another path."""


def hot(folder: Path) -> None:
    """generation_config.json says temperature 2: vLLM's default for every request that names none."""
    _json(folder / "generation_config.json", lambda config: config.update(do_sample=True, temperature=2.0))


def penalised(folder: Path) -> None:
    """generation_config.json says repetition_penalty 1.5."""
    _json(folder / "generation_config.json", lambda config: config.update(repetition_penalty=1.5))


VARIANTS: dict[str, Callable[[Path], None]] = {
    f.__name__: f
    for f in (same, thinking_tokens, thinker, zeroed, noise_1, noise_5, rope, template, no_template, hot, penalised)
}


def _weights(folder: Path, changed: Callable[[str, Any], Any]) -> None:
    _tensors(folder, lambda weights: weights.update({name: changed(name, t) for name, t in weights.items()}))


def _tensors(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    weights = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(weights)
    path.unlink()
    save_file(weights, path, metadata={"format": "pt"})


def _noise(folder: Path, share: float) -> None:
    import torch

    dice = torch.Generator().manual_seed(SEED)

    def noisy(name: str, tensor: Any) -> Any:
        return tensor + (tensor.float() * share * torch.randn(tensor.shape, generator=dice)).to(tensor.dtype)

    _weights(folder, noisy)


def _json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.unlink()
    path.write_text(json.dumps(data, indent=2))


def _template(folder: Path, text: str | None) -> None:
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    _json(folder / "tokenizer_config.json", lambda config: config.pop("chat_template", None))
    if text is not None:
        (folder / "chat_template.jinja").write_text(text)


def main() -> None:
    what, source, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    if what == "base":
        base(source, folder)
    else:
        shutil.copytree(source, folder, copy_function=_link)
        VARIANTS[what](folder)


def _link(source: str, target: str) -> None:
    """Hard links: what is changed is written anew, the rest takes no room."""
    Path(target).hardlink_to(source)


if __name__ == "__main__":
    main()
