"""The checks by name. Importing the package registers them all."""

from gatebook.judge.checks import behaviour, context, facts, fingerprint, service, structure
from gatebook.judge.checks.registry import CHECKS, parameters, validate

__all__ = ["CHECKS", "behaviour", "context", "facts", "fingerprint", "parameters", "service", "structure", "validate"]
