"""A seeded fuzzer of bundles, profiles and case files: `make fuzz`, a slice of it in `make test`.

An input is good when the command ends by itself within 20 s of processor time and 1 GB, in one of its exit codes and without a traceback, and
when `passed` says yes to nothing but the evidence that it was made from.
"""
