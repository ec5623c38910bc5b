"""What is installed for a peer: which environment holds it, its distribution, and what to import."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Package:
    """A distribution in an environment of its own; `how` says in the tables how it is run."""

    environment: str
    distribution: str
    module: str
    how: str
