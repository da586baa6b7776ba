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
        self._asked: set[str] = set()

    def of(self, group: str) -> Assurance:
        """The group's, with what was saved of it; one that only observes where that is of another source."""
        assurance = self._used.get(group)
        if assurance is None:
            assurance = self._used[group] = self._load(group)
            if len(self._used) > self._most:
                oldest, unused = self._used.popitem(last=False)
                self._saved[oldest] = unused.export()
        self._used.move_to_end(group)
        self._asked.add(group)
        return assurance

    def take(self, group: str, state: State) -> None:
        """Labels from elsewhere, instead of the group's own. Raises ValueError for what does not fit here."""
        self._used[group] = Assurance.restore(state, self.aims_of(group), self._source, self._draw)
        self._saved[group] = state

    def forget(self, group: str) -> None:
        """Observe anew."""
        self._used.pop(group, None)
        self._saved.pop(group, None)

    def save(self) -> list[str]:
        """Hand over what is in memory; whose may have changed since the last time."""
        asked, self._asked = self._asked, set()
        for group in asked & self._used.keys():
            self._saved[group] = self._used[group].export()
        return [group for group in asked if group in self._saved]

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
