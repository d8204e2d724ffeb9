"""What onetrunk says when it cannot go on.

Every message is one line that says what was expected, what came, what exists, and what to type
next; `wrong` puts it together so that each place only names its facts.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class OnetrunkError(Exception):
    """Anything that onetrunk refuses or fails at; the command line prints no traceback."""


class BadInput(OnetrunkError, ValueError):
    """What the user gave cannot be used: exit code 2."""


class Failed(OnetrunkError, RuntimeError):
    """The input was right and the work failed: exit code 1."""


class Diverged(Failed):
    """Numbers of a network are no numbers any more: its settings do not suit it."""


class Missing(OnetrunkError, ImportError):
    """An optional package is not installed: exit code 2."""

    def __init__(self, package: str, extra: str, need: str) -> None:
        super().__init__(
            f"{need} needs the package {package}; next: pip install 'onetrunk[{extra}]'"
        )


def wrong(
    what: str,
    *,
    came: object = None,
    exists: Iterable[str] | None = None,
    next: str | None = None,
) -> BadInput:
    """A BadInput: what was expected, what came, what exists (nearest names first), what to do."""
    line = what
    if came is not None:
        line += f"; came: {came!r}" if isinstance(came, str) else f"; came: {came}"
    if exists is not None:
        names = [str(name) for name in exists]
        near = difflib.get_close_matches(str(came), names, n=3, cutoff=0.5) if came else []
        names = near + [name for name in names if name not in near]
        shown = ", ".join(names[:12]) + (f", … ({len(names)} in all)" if len(names) > 12 else "")
        line += f"; exists: {shown or 'nothing'}"
    if next is not None:
        line += f"; next: {next}"
    return BadInput(printable(line))


def printable(text: str) -> str:
    """One line that a terminal shows and never obeys: a file's name may hold anything."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )
