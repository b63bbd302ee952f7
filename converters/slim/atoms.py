"""Which channels are one and the same: a union-find over channel numbers.

Every channel that a layer produces is an *atom*. An addition makes two atoms one, a fixed size
(an input, an output of the network) holds an atom back. Atom 0 stands for everything that has no
channel; what becomes one with it cannot be dropped.
"""

from __future__ import annotations

import torch

Labels = torch.Tensor
"""int64, the shape of the tensor it describes: the atom of each element."""
FIXED = 0


class Atoms:
    """All channels of a network. Pure bookkeeping, no tensor of the network is read."""

    def __init__(self) -> None:
        self._parent = [FIXED]
        self._reason: dict[int, str] = {}
        self._normalised: set[int] = set()

    def fresh(self, count: int) -> Labels:
        """(count,) atoms nobody has yet."""
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        return torch.arange(first, first + count)

    def root(self, atom: int) -> int:
        """The atom that stands for all that are one with this one."""
        while self._parent[atom] != atom:
            self._parent[atom] = self._parent[self._parent[atom]]
            atom = self._parent[atom]
        return atom

    def roots(self, labels: Labels) -> Labels:
        """:meth:`root` of every element."""
        known, index = torch.unique(labels, return_inverse=True)
        return torch.tensor([self.root(int(a)) for a in known], dtype=torch.int64)[index]

    def unite(self, one: Labels, other: Labels, where: str) -> None:
        """Make the atoms of two equally shaped tensors one, element by element."""
        different = one != other
        if not bool(different.any()):
            return
        pairs = torch.stack((one[different].reshape(-1), other[different].reshape(-1)))
        for a, b in torch.unique(pairs, dim=1).T.tolist():
            self._join(self.root(a), self.root(b), where)

    def hold(self, labels: Labels, reason: str) -> None:
        """These channels cannot be dropped; the first reason stays."""
        for atom in torch.unique(labels).tolist():
            root = self.root(atom)
            if root != FIXED:
                self._reason.setdefault(root, reason)

    def normalise(self, labels: Labels) -> None:
        """Statistics are taken over these channels: dropping one changes what the others are."""
        for atom in torch.unique(labels).tolist():
            self._normalised.add(self.root(atom))

    def reason(self, root: int) -> str:
        """Why a channel is held back; empty when it may be dropped."""
        return self._reason.get(root, "")

    def is_normalised(self, root: int) -> bool:
        """See :meth:`normalise`."""
        return root in self._normalised

    def _join(self, a: int, b: int, where: str) -> None:
        if a == b:
            return
        if FIXED in (a, b):
            self._reason.setdefault(a or b, f"meets a tensor of fixed size at {where}")
            return
        first, second = min(a, b), max(a, b)
        self._parent[second] = first
        if second in self._reason:
            self._reason.setdefault(first, self._reason.pop(second))
        if second in self._normalised:
            self._normalised.add(first)
