"""What several services must agree on to be one stream, and how many rows each gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chunkdl.errors import ConfigError


def portions(patients: Sequence[int], rows: int) -> tuple[int, ...]:
    """How many of so many rows each node gives: in proportion to its patients, at least one.

    What is left after rounding down goes to the largest remainders, the first of equals.

    Raises:
        ConfigError: there are fewer rows than nodes.
    """
    if rows < len(patients):
        raise ConfigError(
            f"batch_size={rows} is too small for {len(patients)} nodes; each gives at least a row"
        )
    free, total = rows - len(patients), sum(patients)
    shares = [free * count / total for count in patients]
    given = [1 + int(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda n: int(shares[n]) - shares[n])
    for node in by_remainder[: rows - sum(given)]:
        given[node] += 1
    return tuple(given)


def check_classes(of_services: Mapping[str, Sequence[str]]) -> None:
    """See that the annotated classes have the same numbers in all services.

    Args:
        of_services: names of the classes in their order, by address.

    Raises:
        ConfigError: they have not, so a row's class would depend on where it comes from.
    """
    (first, names), *others = of_services.items()
    for address, other in others:
        if list(other) != list(names):
            raise ConfigError(
                f"{first} has the annotated classes {list(names)} and {address} has {list(other)}, "
                "so the numbers in the column region mean other classes in each; give all of them "
                "the same list, such as region_names=['stroma', 'tumor']"
            )
