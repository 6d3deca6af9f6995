"""Copies of the embedded model whose weights or tokenizer settings are not what their name says, and an adapter for it.

GGUF as in https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; only what is needed of it is read.
"""

from __future__ import annotations

import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

from gatebook.collect.embedded import model_file

MIB = 2**20
Q4_1, BLOCK_BYTES = 3, 20
"""A block of 32 weights: scale and minimum (2 bytes each), then 32 nibbles."""
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY, FLOAT, UINT = 8, 9, 6, 4
WIDTH, LAYERS = 576, 30
"""Of SmolLM2-135M."""


def zeroed(path: Path) -> None:
    """4 MiB in the middle of the file are zero: a damaged download that loads and answers fluently."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(bytes(4 * MIB))


def coarser(path: Path) -> None:
    """Every 4-bit weight keeps its upper three bits: a stronger quantisation under the same name."""
    data = bytearray(path.read_bytes())
    upper = bytes(n & 0xEE for n in range(256))
    for start, size in _tensors(data, Q4_1):
        for block in range(start, start + size, BLOCK_BYTES):
            data[block + 4 : block + BLOCK_BYTES] = data[block + 4 : block + BLOCK_BYTES].translate(upper)
    path.write_bytes(data)


def other_layer(path: Path) -> None:
    """Two tensors of one shape have changed places: other weights of the same size, count and file type."""
    data = bytearray(path.read_bytes())
    found = _tensors(data, Q4_1)
    first, second = next((a, b) for a in found[20:] for b in found[60:] if a != b and a[1] == b[1])
    one, two = (data[start : start + size] for start, size in (first, second))
    data[first[0] : sum(first)], data[second[0] : sum(second)] = two, one
    path.write_bytes(data)


def double_bos(path: Path) -> None:
    """The tokenizer puts a BOS of its own before the template's first token (llama.cpp PR#7332, #7898)."""
    data = bytearray(path.read_bytes())
    _overwrite(data, "tokenizer.ggml.add_bos_token", "<I?", 7, True)
    _overwrite(data, "tokenizer.ggml.bos_token_id", "<II", UINT, 0)
    path.write_bytes(data)


def _overwrite(data: bytearray, key: str, form: str, kind: int, value: int) -> None:
    at = data.index(key.encode()) + len(key)
    assert struct.unpack_from("<I", data, at)[0] == kind, f"{key} has another type now"
    struct.pack_into(form, data, at, kind, value)


CHANGES: dict[str, Callable[[Path], None]] = {f.__name__: f for f in (zeroed, coarser, other_layer, double_bos)}


def changed_model(change: str, folder: Path) -> Path:
    """The changed copy, made once."""
    path = folder / f"{change}.gguf"
    if not path.exists():
        making = path.with_suffix(".part")
        shutil.copyfile(model_file(), making)
        CHANGES[change](making)
        making.rename(path)
    return path


def adapter(folder: Path) -> Path:
    """A LoRA adapter of rank 1 on all attention queries, from a seed: what a fine-tuned deployment adds to its base."""
    path, dice = folder / "adapter.gguf", random.Random(1)
    if path.exists():
        return path
    metadata = [_pair("general.type", "adapter"), _pair("general.architecture", "llama"), _pair("adapter.type", "lora")]
    metadata += [_name("adapter.lora.alpha") + struct.pack("<If", FLOAT, 1.0)]
    infos, data = b"", b""
    for layer in range(LAYERS):
        for part, shape in (("lora_a", (WIDTH, 1)), ("lora_b", (1, WIDTH))):
            infos += _name(f"blk.{layer}.attn_q.weight.{part}") + struct.pack("<IQQIQ", 2, *shape, 0, len(data))
            data += struct.pack(f"<{WIDTH}f", *(dice.gauss(0, 0.1) for _ in range(WIDTH)))
    head = b"GGUF" + struct.pack("<IQQ", 3, 2 * LAYERS, len(metadata)) + b"".join(metadata) + infos
    path.write_bytes(head + bytes(-len(head) % 32) + data)
    return path


def _name(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def _pair(key: str, text: str) -> bytes:
    return _name(key) + struct.pack("<I", STRING) + _name(text)


def _tensors(data: bytearray, kind: int) -> list[tuple[int, int]]:
    """(start, bytes) of every tensor of one type, in the order of the file."""
    at = 4
    version, count, pairs = struct.unpack_from("<IQQ", data, at)
    assert version == 3, f"GGUF version {version}"
    at += 20
    for _ in range(pairs):
        at = _after_value(data, *_after_key(data, at))
    found = []
    for _ in range(count):
        at = _after_string(data, at)
        (rank,) = struct.unpack_from("<I", data, at)
        *shape, dtype, offset = struct.unpack_from(f"<{rank}QIQ", data, at + 4)
        at += 4 + 8 * rank + 12
        weights = 1
        for size in shape:
            weights *= size
        found.append((dtype, offset, weights // 32 * BLOCK_BYTES))
    start = at + -at % 32
    return [(start + offset, size) for dtype, offset, size in found if dtype == kind]


def _after_string(data: bytearray, at: int) -> int:
    return at + 8 + int(struct.unpack_from("<Q", data, at)[0])


def _after_key(data: bytearray, at: int) -> tuple[int, int]:
    at = _after_string(data, at)
    return at + 4, int(struct.unpack_from("<I", data, at)[0])


def _after_value(data: bytearray, at: int, kind: int) -> int:
    if kind == STRING:
        return _after_string(data, at)
    if kind != ARRAY:
        return at + SIZES[kind]
    item, count = struct.unpack_from("<IQ", data, at)
    at += 12
    if item != STRING:
        return at + SIZES[item] * int(count)
    for _ in range(count):
        at = _after_string(data, at)
    return at
