"""Real inference servers for the tests: each in an environment of its own below `.engines/`, pinned, started with any arguments.

`python -m tests.engines prepare vllm` installs, `python -m tests.engines serve vllm [ARGUMENT...]` runs one until Ctrl-C.
"""
