"""Cell: what a layer holds and an optimizer moves; its arrays are what devices hold.

A layer reads the cell and leaves pairs (x, d) pending; the optimizer has them pulsed. An algorithm
of a user's own is a subclass: it makes its arrays and says what an update does with them::

    class Copying(Cell):
        def __init__(self, rows, cols, crossbar, identity):
            super().__init__(rows, cols, crossbar, identity)   # array 0, which is read
            self.add_array()                                   # array 1

        def pulse(self, x, d, lr, batch=None):
            for part, border in self.spans(len(x), every=4):   # borders count the cell's samples
                self.arrays[1].pulse(x[part], d[part], lr, batch)
                if border is not None:
                    ...

Numbers of arrays: :mod:`pulseline.identity`. What else a cell keeps are buffers
(``register_buffer``); state_dict, ``.to``, deepcopy and pickle are torch's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..arrays import (
    AnalogParameter,
    Array,
    Form,
    Pairs,
    Patches,
    Settings,
    check_lr,
    collect,
    refuse_conversion,
)
from ..configs import Crossbar
from ..errors import ConfigError
from ..hardware import Work
from ..identity import Identity, identify
from ..ops import Batch, Counters, check_finite, check_tensor, refuse_matrix
from .numbers import enrol
from .patched import update_patches
from .saving import Saving

__all__ = ["Cell"]


class Cell(Settings, Saving):
    """A (rows, cols) matrix and the algorithm that trains it.

    Args:
        rows, cols: shape of the matrix.
        crossbar: of array 0, which is read, and of the others unless they get their own.
        identity: whose random numbers; array n draws as array n of it.
        blocks: of a block-diagonal matrix, see :class:`pulseline.Array`.

    Attributes:
        arrays: in order of their numbers; the first one is read.
        pending: pairs (x, d) that backward passes left; ``weight.grad`` is their sum. Of a
            convolution x are :class:`pulseline.arrays.Patches`, which hold its image.
        applied: how many of them a step has pulsed; as torch's gradients they stay, and are pulsed
            by the next one again, until they are forgotten.
        hooked: whether hooks on the weight want to see them.
        number: of this object in graphs of torch.compile, see :mod:`pulseline.cells.numbers`.
        samples: seen by updates so far.
        progress: other numbers that an algorithm continues from, by name; a state holds them.

    Raises:
        ConfigError: a size out of range.
    """

    arrays: Any  # a ModuleList of Array
    updating = False  # whether an update is under way, behind which it refreshes by itself

    def __init__(
        self, rows: int, cols: int, crossbar: Crossbar, identity: Identity, blocks: int = 1
    ) -> None:
        super().__init__()
        self._made_with, self._identity = crossbar, identity
        self.number = enrol(self)
        self.pending: Pairs = []
        self.applied = 0
        self.hooked = False
        self.samples = 0
        self.progress: dict[str, int | float] = {}
        self.arrays = nn.ModuleList()
        self._sizes, self._blocks = (rows, cols), blocks
        self.add_array()

    def add_array(self, crossbar: Crossbar | None = None, number: int | None = None) -> Array:
        """Make the next array.

        Args:
            crossbar: its devices; None: the cell's.
            number: of its draws; None: its place.
        """
        place = len(self.arrays) if number is None else number
        one = replace(self._identity, array=place)
        array = Array(*self._sizes, crossbar or self.crossbar, seed=one, blocks=self._blocks)
        self.arrays.append(array)
        self._own()
        if place and not array.held.is_meta:
            array.clip()  # stuck crosspoints hold what they are stuck at
        return array

    def _own(self) -> None:
        """Parameters lead to their cell, whoever made them."""
        for array in self.arrays:
            array._parameters["weight"].cell = self
            array._parameters["weight"].read = array is self.array

    # ---- what a layer, an optimizer and a pipeline call ----

    @property
    def array(self) -> Array:
        """Array 0, which is read."""
        first: Array = self._modules["arrays"]._modules["0"]  # type: ignore[union-attr, assignment]
        return first

    @property
    def weight(self) -> AnalogParameter:
        """The parameter of the array that is read."""
        parameter = self.array._parameters["weight"]
        return parameter  # type: ignore[return-value]

    @property
    def identity(self) -> Identity:
        """Whose random numbers the array that is read draws."""
        return self.array.identity

    @property
    def shape(self) -> torch.Size:
        """(rows, cols) of the matrix."""
        return self.array.shape

    def take_form(self, form: Form) -> None:
        """Have the parameters show their matrices in another shape."""
        for array in self.arrays:
            array.take_form(form)
        self._own()

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """(lo, hi) of what is read, in the units of ``weight``."""
        return self.array.bounds

    def read(self, v: Tensor, transposed: bool = False) -> Tensor:
        """A read in training, see :meth:`pulseline.Array.read`."""
        return self.array.read(v, transposed)

    def evaluate(self, v: Tensor, transposed: bool = False) -> Tensor:
        """A read that counts nothing, see :meth:`pulseline.Array.evaluate`."""
        return self.array.evaluate(v, transposed)

    def begin_evaluation(self) -> None:
        """Restart the draws of :meth:`evaluate`."""
        for array in self.arrays:
            array.begin_evaluation()

    def column(self, j: int) -> Tensor:
        """A read of input j alone, see :meth:`pulseline.Array.column`."""
        return self.array.column(j)

    def program(self, target: Tensor) -> None:
        """Write the matrix, in units of the layer, see :meth:`pulseline.Array.program`."""
        self.array.program(target)

    def initialise(self) -> None:
        """Program normals of standard deviation 1/sqrt(cols), a function of the identity."""
        self.array.initialise()

    def effective_weight(self) -> Tensor:
        """The matrix in units of the layer: a copy."""
        return self.array.effective_weight()

    def age(self, samples: int) -> None:
        """Let time pass on all arrays, see :meth:`pulseline.Array.age`."""
        for array in self.arrays:
            array.age(samples)

    def pulse(self, x: Tensor, d: Tensor, lr: float, batch: Batch | None = None) -> None:
        """Do what an update does: the one method that an algorithm writes.

        Args:
            x: (samples, cols) inputs. d: (samples, rows) errors. lr: learning rate, checked.
            batch: hand it on to :meth:`pulseline.Array.pulse`; call its ``launch`` before an array
                is read.
        """
        raise NotImplementedError

    def update(self, x: Tensor, d: Tensor, lr: float, batch: Batch | None = None) -> None:
        """Pulse ``W <- W - lr d x^T`` by the algorithm, samples in order.

        Args:
            x: (samples, cols) inputs. d: (samples, rows) errors. lr: learning rate >= 0.
            batch: on a GPU, whose launches this update shares.

        Raises:
            ConfigError: shapes, dtypes, lr < 0 or values that are not finite; weights untouched.
        """
        self.check_update(x, d, lr)
        self.pulse(x, d, lr, batch)

    def check_update(self, x: Tensor, d: Tensor, lr: float, finite: bool = True) -> None:
        """Refuse what :meth:`update` refuses.

        Args:
            x, d, lr: see there.
            finite: whether to look for NaN and infinity too: an array does so before it writes.

        Raises:
            ConfigError: see there.
        """
        check_lr(lr)
        rows, cols = self.shape
        for source, (name, t, size) in enumerate((("x", x, cols), ("d", d, rows)), 1):
            check_tensor(t)
            refuse_matrix(name, t, size)
            if finite:
                check_finite(source, t)
        if x.shape[0] != d.shape[0]:
            raise ConfigError(f"x has {len(x)} samples and d has {len(d)}; use as many of each")

    def spans(self, samples: int, every: int) -> Iterator[tuple[slice, int | None]]:
        """The samples of an update, cut behind every so many of the cell's.

        Args:
            samples: of this update. every: from one border to the next.

        Returns:
            (samples between borders, number of the border behind them or None), in order; however
            samples are cut into updates, the borders are the same.
        """
        first = 0
        while first < samples:
            last = min(first + every - self.samples % every, samples)
            self.samples += last - first
            border = self.samples // every - 1 if self.samples % every == 0 else None
            yield slice(first, last), border
            first = last

    @property
    def waits(self) -> bool:
        """Whether a pair is pending that no step has pulsed."""
        return len(self.pending) > self.applied

    def update_pending(self, lr: float, batch: Batch | None = None) -> None:
        """:meth:`update` with every pair that backward left, in order, and forget them.

        If a pair is refused nothing of it is written and all pairs stay.

        Args:
            lr: learning rate >= 0. batch: on a GPU, whose launches the updates share.

        Raises:
            ConfigError: a pair holds a NaN or an infinity, or lr < 0.
        """
        self.apply_pending(lr, batch)
        self.forget()

    def apply_pending(self, lr: float, batch: Batch | None = None) -> None:
        """As :meth:`update_pending`, but pairs stay, as gradients do behind a step of torch.

        Args:
            lr: learning rate >= 0. batch: on a GPU, whose launches the updates share.

        Raises:
            ConfigError: a pair holds a NaN or an infinity, or lr < 0.
        """
        pending = self.pending
        if not pending:
            return
        if isinstance(pending[0][0], Patches):
            update_patches(self, pending, lr, batch)
        else:
            if len(pending) == 1:
                x, d = pending[0]
            else:
                x, d = torch.cat([p[0] for p in pending]), torch.cat([p[1] for p in pending])
            self.update(x, d, lr, batch)
        self.__dict__["applied"] = len(pending)

    def pair(self, x: Tensor, d: Tensor, own: bool) -> tuple[Any, Tensor]:
        """What a backward pass leaves pending: copies, since the caller may reuse its buffers.

        Args:
            x: (samples, cols) inputs. d: (samples, rows) errors. own: d is nobody else's.
        """
        return x.clone(), d if own else d.clone()

    def forget(self, pairs: Iterable[tuple[Any, Tensor]] = ()) -> None:
        """Drop what is pending; ``pairs`` instead of it. Who took ``.grad`` keeps what it was."""
        held = self.__dict__  # not by attribute, which torch looks up in Python
        held["pending"] = list(pairs)
        held["applied"] = 0

    def counts(self) -> list[Counters]:
        """Samples that each array has read and pulsed, see :meth:`pulseline.Array.counts`."""
        return [array.counts() for array in self.arrays]

    @property
    def chop_period(self) -> float:
        """Samples between two flips of a line's sign, on average; 0: none flips."""
        return 0.0

    def refresh(self) -> None:
        """Called when an array was written: a cell that sums arrays does it anew."""

    def count_pulses(self) -> None:
        """Count the pulses of all arrays from now on."""
        for array in self.arrays:
            array.count_pulses()

    def transfers(self) -> int:
        """Column reads that moved what one array holds to another, so far."""
        return 0

    def work(self, step: float = 1.0, slots: Mapping[int, float] | None = None) -> Work:
        """What hardware does for a sample beside a read each way; here: one update and no more.

        Args:
            step: samples per step of the optimizer, for transfers that count steps.
            slots: of writes on arrays, by number, their counted means; absent: the most allowed.
        """
        return Work(crossbars=len(self.arrays))

    def reseed(self, seed: int | None = None) -> None:
        """Give all arrays devices and noise of their own, see :meth:`pulseline.Array.reseed`."""
        self._identity = replace(identify(seed), tile_id=self._identity.tile_id)
        for array in self.arrays:
            array.reseed(replace(self._identity, array=array.identity.array))

    def reconfigured(self, **settings: Any) -> list[Crossbar]:
        """The crossbars of all arrays with other settings, see :meth:`reconfigure`.

        Raises:
            ConfigError: a device cannot take one, or an update is pending.
        """
        made = [Crossbar.of(array.crossbar, **settings) for array in self.arrays]
        for crossbar in made:
            crossbar.update.resolve(crossbar.device.default_fidelity)
        collect(self.weight)
        if self.waits:
            raise ConfigError(
                f"an update of matrix {self.identity.tile_id} is pending, which other settings "
                "would change; call step() or zero_grad() before reconfigure"
            )
        return made

    def reconfigure(self, **settings: Any) -> None:
        """Read and pulse by other settings, see :func:`pulseline.nn.reconfigure`.

        Args:
            settings: ``io``, ``update``, ``mapping``.

        Raises:
            ConfigError: see :meth:`reconfigured`; nothing is changed.
        """
        made = self.reconfigured(**settings)
        self._made_with = Crossbar.of(self._made_with, **settings)
        for array, crossbar in zip(self.arrays, made, strict=True):
            array.take(crossbar)

    def check_updates(self, wait: bool = True) -> None:
        """See :meth:`pulseline.Array.check_updates`, of all arrays."""
        for array in self._modules["arrays"]._modules.values():  # type: ignore[union-attr]
            array._outcomes.check(wait)  # type: ignore[union-attr, operator]

    # ---- moves and copies ----

    def _apply(self, fn: Any, recurse: bool = True) -> Cell:
        refuse_conversion(fn)
        collect(self.weight)
        self.pending[:] = [
            (x.apply(fn) if isinstance(x, Patches) else fn(x), fn(d)) for x, d in self.pending
        ]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "pending": [], "applied": 0}  # as torch copies without gradients
        del state["number"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.number = enrol(self)
