"""Tags: the path of indices that tells map items and loop rounds of one node apart; "" outside, "3", "3.0" inside."""

from __future__ import annotations


def child(tag: str, index: int) -> str:
    """The tag of an item or a round."""
    return f"{tag}.{index}" if tag else str(index)


def parent(tag: str) -> str:
    """The tag one level up."""
    return tag.rpartition(".")[0]


def last(tag: str) -> int:
    """The innermost index."""
    return int(tag.rpartition(".")[2])


def path(tag: str) -> tuple[int, ...]:
    """All indices, for comparing by number."""
    return tuple(map(int, tag.split("."))) if tag else ()


def prefix(tag: str, depth: int) -> str:
    """The outermost `depth` indices."""
    return ".".join(tag.split(".")[:depth]) if depth else ""
