"""Text in CSV files that spreadsheets open."""

from __future__ import annotations

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how cells begin that spreadsheets execute


def csv_text(text: str) -> str:
    """Return the text of a cell, with an apostrophe before what a spreadsheet would execute.

    Numbers are left as they are.
    """
    if not text.startswith(FORMULA) or _is_number(text):
        return text
    return f"'{text}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
