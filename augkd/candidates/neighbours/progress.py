"""Progress of a neighbour search, in texts looked up: smooth within a block of texts, and it only ever grows.

A block is searched in several rounds, of which the first takes nearly all the time; so it alone moves the count, and
the last text of a block counts once the whole block is done.
"""

from __future__ import annotations

from augkd.workspace.progress import Steps


class SearchProgress:
    """Counts the texts looked up and passes every increase on."""

    def __init__(self, report: Steps | None, total: int) -> None:
        self._report, self._total = report, total
        self._done = 0

    def reach(self, done: int) -> None:
        """Reports `done` texts, unless as many were reported before."""
        if self._report is not None and done > self._done:
            self._done = done
            self._report(done, self._total)

    def block(self, start: int, size: int) -> Block:
        """The progress of `size` texts that come after the first `start`."""
        return Block(self, start, size)


class Block:
    """Progress of some of the texts; called as `Steps` of the search for them."""

    def __init__(self, whole: SearchProgress, start: int, size: int) -> None:
        self._whole, self._start, self._size = whole, start, size

    def __call__(self, done: int, total: int | None) -> None:
        if total:
            self._whole.reach(self._start + min(self._size * done // total, self._size - 1))

    def block(self, start: int, size: int) -> Block:
        """The progress of `size` of these texts, after their first `start`."""
        return Block(self._whole, self._start + start, size)

    def finish(self) -> None:
        """Reports all texts of the block as done."""
        self._whole.reach(self._start + self._size)
