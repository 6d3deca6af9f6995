"""The checks by name. Importing the package registers them all."""

from gatebook.judge.checks import behaviour, facts, scenario, service, structure
from gatebook.judge.checks.registry import CHECKS, parameters, validate

__all__ = ["CHECKS", "behaviour", "facts", "parameters", "scenario", "service", "structure", "validate"]
