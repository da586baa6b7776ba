"""One `Assurance` a group: nobody's labels earn or spoil another tenant's hits."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Iterator, MutableMapping

from forebay.cache.aims import Aims
from forebay.cache.assurance import Assurance
from forebay.cache.label_rows import State


class Groups:
    """The groups in use are in memory, at most `most`; the others are in `saved`, which the caller keeps."""

    def __init__(
        self,
        aims_of: Callable[[str], Aims],
        source: str,
        saved: MutableMapping[str, State],
        most: int = 1000,
        draw: random.Random | None = None,
    ) -> None:
        """`aims_of`: what is asked of a group. `source`: what makes scores and answers, see `Assurance`."""
        self.aims_of = aims_of
        self._source = source
        self._saved = saved
        self._most = most
        self._draw = draw
        self._used: OrderedDict[str, Assurance] = OrderedDict()
        self._put_away: set[str] = set()
        self._handed_over: dict[str, int] = {}
        """Of those in memory: how many changes of theirs are in `saved`."""

    def of(self, group: str) -> Assurance:
        """The group's, with what was saved of it; one that only observes where that is of another source."""
        assurance = self._used.get(group)
        if assurance is None:
            assurance = self._used[group] = self._load(group)
            if len(self._used) > self._most:
                oldest, unused = self._used.popitem(last=False)
                self._saved[oldest] = unused.export()
                self._put_away.add(oldest)
                self._handed_over.pop(oldest, None)
        self._used.move_to_end(group)
        return assurance

    def take(self, group: str, state: State) -> None:
        """Labels from elsewhere, instead of the group's own. Raises ValueError for what does not fit here."""
        self._used[group] = Assurance.restore(state, self.aims_of(group), self._source, self._draw)
        self._handed_over.pop(group, None)
        self._saved[group] = state

    def forget(self, group: str) -> None:
        """Observe anew."""
        self._used.pop(group, None)
        self._handed_over.pop(group, None)
        self._saved.pop(group, None)

    def save(self) -> set[str]:
        """Hand over what is in memory; whose has changed since the last time."""
        changed, self._put_away = self._put_away, set()
        for group, assurance in self._used.items():
            if self._handed_over.get(group, 0) != assurance.num_changes:
                self._handed_over[group] = assurance.num_changes
                self._saved[group] = assurance.export()
                changed.add(group)
        return changed

    def __iter__(self) -> Iterator[tuple[str, Assurance]]:
        """Those in memory."""
        return iter(self._used.items())

    def _load(self, group: str) -> Assurance:
        aims, state = self.aims_of(group), self._saved.get(group)
        if state is not None:
            try:
                return Assurance.restore(state, aims, self._source, self._draw)
            except ValueError:
                pass  # made by another model or version: it says nothing of this one
        return Assurance(aims, self._source, self._draw)


def check_state(state: State, aims: Aims) -> Assurance:
    """What a state is, whatever its source; raises ValueError where it is none."""
    source = state.get("source")
    if not isinstance(source, str):
        raise ValueError("not the state of labels")
    return Assurance.restore(state, aims, source)
