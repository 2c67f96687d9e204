"""Random orders that depend on a seed and on names alone: on no generator, and on no other name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def drawn_order(names: Iterable[str], *seed: int | str) -> list[str]:
    """The names in an order drawn by the seed, whatever the order they were given in.

    Sorted by a hash of seed and name, so a name that comes or goes leaves the others in their
    order.
    """

    def rank(name: str) -> tuple[bytes, str]:
        said = "\0".join([*map(str, seed), name]).encode(errors="surrogatepass")
        return hashlib.blake2b(said, digest_size=16).digest(), name

    return sorted(names, key=rank)
