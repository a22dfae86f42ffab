"""All that is wrong with a data set, told at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from mmfusion.errors import DataError

_SHOWN = 10


class Faults:
    """Gathers what is wrong with the files of some folders, so that one error lists it all."""

    def __init__(self) -> None:
        self._by_advice: dict[str, list[str]] = {}

    def add(self, fault: str, advice: str = "") -> None:
        """Note a fault.

        Args:
            fault: names a file or folder, and what is wrong with it.
            advice: what was expected; faults with the same one are told together.
        """
        self._by_advice.setdefault(advice, []).append(fault)

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note a `DataError` that is raised inside, which ends there, and go on behind it."""
        try:
            yield
        except DataError as error:
            self.add(str(error))

    @property
    def count(self) -> int:
        """How many faults were noted."""
        return sum(map(len, self._by_advice.values()))

    def complain(self) -> None:
        """Do nothing if all is well.

        Raises:
            DataError: if anything was noted; of many faults of a kind, the first ten and how
                many more there are.
        """
        if self._by_advice:
            raise DataError(
                "; ".join(
                    part
                    for advice, faults in self._by_advice.items()
                    for part in (listed(faults, "; "), advice)
                    if part
                )
            )


def listed(names: Iterable[str], separator: str = ", ") -> str:
    """Ten names, and how many more there are."""
    names = list(names)
    more = [f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return separator.join(names[:_SHOWN] + more)
