"""Weights that are a little worse: noise, or rounding to few bits a channel.

Runs in the engine's own environment: `python power_weights.py VARIANT BASE FOLDER`.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "engines"))
import weights  # type: ignore[import-not-found]  # noqa: E402


def rounded(folder: Path, bits: int) -> None:
    """Each row of each matrix of a layer, to the nearest of 2^bits - 1 even steps of its own (symmetric, absolute maximum)."""

    def coarse(name: str, tensor: Any) -> Any:
        if ".layers." not in name or tensor.dim() != 2:
            return tensor
        values = tensor.float()
        step = values.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / (2 ** (bits - 1) - 1)
        return ((values / step).round() * step).to(tensor.dtype)

    weights._weights(folder, coarse)


def main() -> None:
    variant, base, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    shutil.copytree(base, folder, copy_function=weights._link)
    if variant.startswith("noise_"):
        weights._noise(folder, int(variant.removeprefix("noise_")) / 100)
    else:
        rounded(folder, int(variant.removeprefix("int")))


if __name__ == "__main__":
    main()
