"""Small text for messages."""

import difflib
from collections.abc import Iterable, Sequence


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """" (did you mean 'x'?)", or "" where nothing is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""


def listed(names: Sequence[str], most: int = 4) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def count(n: int, noun: str) -> str:
    """"1 row", "2 rows"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
