"""The checks by name. Importing the package registers them all."""

from gatebook.judge.checks import behaviour, code, facts, injection, language, logs, service, structure
from gatebook.judge.checks.registry import CHECKS, parameters, validate

__all__ = [
    "CHECKS",
    "behaviour",
    "code",
    "facts",
    "injection",
    "language",
    "logs",
    "parameters",
    "service",
    "structure",
    "validate",
]
