"""Measurements of Gatebook itself, as ratios in one run: `python -m benchmarks` (README.md has the commands)."""
