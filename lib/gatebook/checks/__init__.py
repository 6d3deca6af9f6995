"""The checks by name. Importing the package imports every module of it, and with that registers them all."""

from importlib import import_module
from pkgutil import iter_modules

from gatebook.checks.registry import CHECKS, parameters, validate

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["CHECKS", "parameters", "validate"]
