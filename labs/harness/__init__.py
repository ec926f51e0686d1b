"""What every lab stands on; a lab imports from here."""

from labs.harness.lab import Lab
from labs.harness.needs import feature, program, python_module, trial
from labs.harness.network import Namespace
from labs.harness.process import Background, Done
from labs.harness.session import Session
from labs.harness.view import both, cut, head, only
from labs.harness.world import World

__all__ = [
    "Background",
    "Done",
    "Lab",
    "Namespace",
    "Session",
    "World",
    "both",
    "cut",
    "feature",
    "head",
    "only",
    "program",
    "python_module",
    "trial",
]
