"""Convolutions with their kernels on crossbars: torch.nn's six classes, one read per position."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..arrays import Form
from ..cells import make_cell
from ..configs import Crossbar
from ..errors import ConfigError
from ..identity import check_integer, identify
from .base import AnalogLayer
from .compiled import compiled_read
from .convolved import Convolved
from .windows import PADDINGS, Windows

__all__ = [
    "AnalogConv",
    "AnalogConv1d",
    "AnalogConv2d",
    "AnalogConv3d",
    "AnalogConvTranspose1d",
    "AnalogConvTranspose2d",
    "AnalogConvTranspose3d",
]

_Number = int | tuple[int, ...]
_SIZES = ("depth", "height", "width")


class AnalogConv(AnalogLayer):
    """What the six classes share: the matrix has an output channel a row, a patch a column.

    Every output position is one read and one rank-1 update, in raster order within a sample.
    Positions are unfolded in chunks, so that memory stays bounded, and chunks, threads and cuts of
    a batch change no bit. ``weight`` has torch's shape. A layer of several groups is one
    block-diagonal array, of which only the blocks exist: each has noise, bound and update
    management of its own and draws what it would draw in the whole matrix.

    Constructors take the arguments of torch.nn's classes, by name also ``crossbar``, ``seed``,
    ``tile_id`` and ``device``, ``io``, ``update``, ``mapping``, ``algorithm``, see
    :class:`pulseline.nn.AnalogLinear`.

    Attributes:
        windows: which elements are multiplied, see :class:`pulseline.nn.windows.Windows`.
    """

    dims: ClassVar[int]
    transposed: ClassVar[bool] = False
    windows: Windows

    def _build(self, given: dict[str, Any], settings: dict[str, Any]) -> None:
        """Check and hold everything.

        Args:
            given: torch's arguments by name. settings: ``crossbar``, ``seed``, ``tile_id`` and
                the crossbar's by name.
        """
        for name in ("in_channels", "out_channels", "groups"):
            check_integer(name, given[name], 31)
            if given[name] < 1:
                raise ConfigError(f"{name} is {given[name]}; use an integer >= 1")
        self.in_channels, self.out_channels = given["in_channels"], given["out_channels"]
        self.groups = given["groups"]
        for name in ("in_channels", "out_channels"):
            if given[name] % self.groups:
                text = f"use a multiple of groups = {self.groups}"
                raise ConfigError(f"{name} is {given[name]}; {text}")
        self.kernel_size = self._tuple("kernel_size", given["kernel_size"], 1)
        self.stride = self._tuple("stride", given["stride"], 1)
        self.dilation = self._tuple("dilation", given["dilation"], 1)
        self.output_padding = self._tuple("output_padding", given.get("output_padding", 0), 0)
        self.padding_mode = given["padding_mode"]
        self.padding: str | tuple[int, ...] = given["padding"]
        if not isinstance(self.padding, str):
            self.padding = self._tuple("padding", self.padding, 0)
        self.windows = self._windows()
        self._told = self.windows.text, self.windows.least  # for graphs: two guards, not fifty
        crossbar = Crossbar.of(settings.pop("crossbar", None), **_rest(settings))
        one = identify(settings.get("seed"), settings.get("tile_id"))
        columns = self.in_channels * math.prod(self.kernel_size)
        cell = make_cell(self.out_channels, columns, crossbar, one, self.groups)
        channels = (self.out_channels, self.in_channels // self.groups)
        if self.transposed:
            channels = (self.in_channels, self.out_channels // self.groups)
        cell.take_form(Form((*channels, *self.kernel_size), self.transposed, self.groups))
        self._hold(cell, self.out_channels, given["bias"])

    def _tuple(self, name: str, value: Any, least: int) -> tuple[int, ...]:
        """A number per dimension."""
        found = (value,) * self.dims if isinstance(value, int) else value
        ok = isinstance(found, (tuple, list)) and len(found) == self.dims
        if not ok or not all(type(n) is int and least <= n < 1 << 31 for n in found):
            raise ConfigError(
                f"{name} is {value!r:.60}; use an integer >= {least} or {self.dims} of them"
            )
        return tuple(found)

    def _windows(self) -> Windows:
        if self.padding_mode not in PADDINGS[: 1 if self.transposed else 4]:
            known = ", ".join(PADDINGS[: 1 if self.transposed else 4])
            raise ConfigError(f"padding_mode is {self.padding_mode!r:.60}; use one of {known}")
        for extra, s, d in zip(self.output_padding, self.stride, self.dilation, strict=True):
            if extra >= max(s, d):
                raise ConfigError(
                    f"output_padding is {extra}; use less than stride {s} or dilation {d}"
                )
        return Windows(
            self.in_channels,
            self.out_channels,
            self.kernel_size,
            self.stride,
            self.dilation,
            self._padding(),
            self.padding_mode,
            self.transposed,
            self.output_padding,
        )

    def _padding(self) -> tuple[tuple[int, int], ...]:
        """Elements in front and behind."""
        if not isinstance(self.padding, str):
            return tuple((n, n) for n in self.padding)
        if self.transposed or self.padding not in ("same", "valid"):
            words = "" if self.transposed else ", 'same' or 'valid'"
            raise ConfigError(f"padding is {self.padding!r:.60}; use integers >= 0{words}")
        if self.padding == "valid":
            return ((0, 0),) * self.dims
        if max(self.stride) > 1:
            raise ConfigError(f"padding is 'same' with stride {self.stride}; use stride 1")
        both = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
        return tuple((n // 2, n - n // 2) for n in both)

    def forward(self, x: Tensor) -> Tensor:
        return self._convolve(x, self.windows)

    def _convolve(self, x: Tensor, windows: Windows) -> Tensor:
        given, x = x, self._input(x)
        single = x.dim() == self.dims + 1
        self._check(x)
        if single:
            x = x[None]
        cell: Any = self._modules["cell"]  # not by attribute: torch looks those up in Python
        if torch.compiler.is_compiling():
            whole = windows is self.windows
            text, least = self._told if whole else (windows.text, windows.least)
            if any(n < m for n, m in zip(x.shape[2:], least, strict=True)):
                windows.shape(tuple(x.shape[2:]))  # which says so
            y = compiled_read(x, cell, self.training, self.out_channels, text)
        else:
            y = self._product(x, Convolved(cell, windows, tuple(x.shape[2:])))
        b = self._parameters["bias"]
        if b is not None:
            y = y + b.view(-1, *(1,) * self.dims)
        y = y[0] if single else y
        return y if given.dtype is torch.float32 else y.to(given.dtype)

    def _check(self, x: Tensor) -> None:
        lead = x.dim() - self.dims - 1
        if lead not in (0, 1) or x.shape[lead] != self.in_channels:
            sizes = ", ".join(_SIZES[-self.dims :])
            raise ConfigError(
                f"x has shape {tuple(x.shape)}; use (samples, {self.in_channels}, {sizes})"
            )
        if x.dtype is not torch.float32:
            raise ConfigError(f"x has dtype {x.dtype}; convert it with .float()")

    def shell(self) -> nn.Module:
        """Torch's layer without values."""
        names = ["in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation"]
        names += ["groups", "padding_mode", *(["output_padding"] if self.transposed else [])]
        given = {name: getattr(self, name) for name in names}
        bias = self.bias is not None
        return self.digital(**given, bias=bias, device="meta", dtype=torch.float32)

    def extra_repr(self) -> str:
        """Sizes, what differs from the defaults, device and identity."""
        found = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"]
        defaults: dict[str, Any] = {
            "stride": (1,) * self.dims,
            "padding": (0,) * self.dims,
            "dilation": (1,) * self.dims,
            "output_padding": (0,) * self.dims,
            "groups": 1,
            "padding_mode": "zeros",
        }
        for name, default in defaults.items():
            value = getattr(self, name)
            if value != default:
                found.append(f"{name}={value!r}")
        return ", ".join([*found, f"bias={self.bias is not None}", self._devices()])


def _rest(settings: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in settings.items() if k not in ("seed", "tile_id")}


class _Conv(AnalogConv):
    """A convolution, see :class:`AnalogConv`.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: as of
            torch.nn's.
        settings: ``padding_mode`` as of torch.nn's; ``crossbar``, ``seed``, ``tile_id``, and
            ``device``, ``io``, ``update``, ``mapping``, ``algorithm`` by name, see
            :class:`pulseline.nn.AnalogLinear`.

    Raises:
        ConfigError: an argument or an input that makes no convolution, in one sentence.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _Number,
        stride: _Number = 1,
        padding: _Number | str = 0,
        dilation: _Number = 1,
        groups: int = 1,
        bias: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__()
        given = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "kernel_size": kernel_size,
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "groups": groups,
            "bias": bias,
            "padding_mode": settings.pop("padding_mode", "zeros"),
        }
        self._build(given, settings)


class _ConvTranspose(AnalogConv):
    """A transposed convolution, see :class:`AnalogConv`: one read per output position.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias: as
            of torch.nn's.
        settings: ``dilation`` as of torch.nn's; ``crossbar``, ``seed``, ``tile_id``, and
            ``device``, ``io``, ``update``, ``mapping``, ``algorithm`` by name, see
            :class:`pulseline.nn.AnalogLinear`.

    Raises:
        ConfigError: an argument or an input that makes no convolution, in one sentence.
    """

    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _Number,
        stride: _Number = 1,
        padding: _Number = 0,
        output_padding: _Number = 0,
        groups: int = 1,
        bias: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__()
        given = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "kernel_size": kernel_size,
            "stride": stride,
            "padding": padding,
            "output_padding": output_padding,
            "groups": groups,
            "bias": bias,
            "dilation": settings.pop("dilation", 1),
            "padding_mode": settings.pop("padding_mode", "zeros"),
        }
        self._build(given, settings)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """As torch's.

        Args:
            x: (samples, channels, ...). output_size: sizes of the output, instead of
                output_padding.

        Raises:
            ConfigError: no output_padding below the stride gives these sizes.
        """
        if output_size is None:
            return self._convolve(x, self.windows)
        self._check(self._input(x))
        sizes = tuple(int(n) for n in output_size)
        sizes = sizes[len(sizes) - self.dims :] if len(sizes) in (x.dim(), self.dims) else sizes
        bare = self.windows._replace(extra=(0,) * self.dims)
        least = bare.sizes(tuple(x.shape[-self.dims :]))
        extra = tuple(n - m for n, m in zip(sizes, least, strict=False))
        fits = all(0 <= n < s for n, s in zip(extra, self.stride, strict=False))
        if len(sizes) != self.dims or not fits:
            most = tuple(n + s - 1 for n, s in zip(least, self.stride, strict=True))
            raise ConfigError(f"output_size is {sizes}; use sizes from {least} to {most}")
        # plain integers also where torch.compile has symbols: a graph is of one of them
        extra = tuple(
            next(k for k in range(s) if k == n) for n, s in zip(extra, self.stride, strict=True)
        )
        return self._convolve(x, self.windows._replace(extra=extra))


class AnalogConv1d(_Conv):
    """torch.nn.Conv1d, one read per output position, see :class:`AnalogConv`."""

    digital = nn.Conv1d
    dims = 1


class AnalogConv2d(_Conv):
    """torch.nn.Conv2d, one read per output position, see :class:`AnalogConv`."""

    digital = nn.Conv2d
    dims = 2


class AnalogConv3d(_Conv):
    """torch.nn.Conv3d, one read per output position, see :class:`AnalogConv`."""

    digital = nn.Conv3d
    dims = 3


class AnalogConvTranspose1d(_ConvTranspose):
    """torch.nn.ConvTranspose1d, one read per output position, see :class:`AnalogConv`."""

    digital = nn.ConvTranspose1d
    dims = 1


class AnalogConvTranspose2d(_ConvTranspose):
    """torch.nn.ConvTranspose2d, one read per output position, see :class:`AnalogConv`."""

    digital = nn.ConvTranspose2d
    dims = 2


class AnalogConvTranspose3d(_ConvTranspose):
    """torch.nn.ConvTranspose3d, one read per output position, see :class:`AnalogConv`."""

    digital = nn.ConvTranspose3d
    dims = 3
