"""What the house asks of a snippet, whatever language it is written in."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar


@dataclass(frozen=True)
class Snippet(ABC):
    """A named piece of tested code: `topic.name`."""

    language: ClassVar[str]  # as fences, editors and Pygments call it
    planted_by_hand: ClassVar[bool]  # its test file plants bugs under PLANTED; mutmut does otherwise
    stands_in: ClassVar[str]  # "module" or "source_file", as the page names the link to it
    copies: ClassVar[tuple[str, ...]]  # what its buttons copy: "snippet" as shown, "standalone" as it runs

    topic: str
    name: str

    @property
    def qualified(self) -> str:
        return f"{self.topic}.{self.name}"

    @property
    def owner(self) -> str:
        """The definition it belongs to: evidence and stand-alone form are the owner's."""
        return self.name.split(".")[0]

    @property
    def hash(self) -> str:
        """Of the stand-alone source: it changes when the snippet or any helper it uses does."""
        return hashlib.sha256(self.stand_alone.encode()).hexdigest()[:16]

    @property
    @abstractmethod
    def toolchain(self) -> str:
        """What runs its tests, with the version; empty where this machine lacks it."""

    @property
    @abstractmethod
    def path(self) -> Path:
        """The file it stands in."""

    @property
    @abstractmethod
    def lines(self) -> tuple[int, int]:
        """Its first and last line in that file."""

    @property
    @abstractmethod
    def source(self) -> str:
        """The text shown."""

    @property
    @abstractmethod
    def stand_alone(self) -> str:
        """The text that runs as pasted."""

    @property
    @abstractmethod
    def signature(self) -> str:
        """How it is called, in a line."""

    @property
    @abstractmethod
    def docstring(self) -> str:
        """Its documentation, without marks of comment."""

    @property
    @abstractmethod
    def calls(self) -> set[str]:
        """Names of the functions that its stand-alone form calls."""

    @abstractmethod
    def hollow(self) -> AbstractContextManager[None]:
        """For as long as the context lasts, the snippet does nothing and returns nothing."""
