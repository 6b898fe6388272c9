"""Physical tiles under a matrix."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import require
from ..settings import setting

__all__ = ["CROSSPOINTS", "CUDA_PRODUCTS", "Mapping"]

CUDA_PRODUCTS = ("torch", "fused")
CROSSPOINTS = ("auto", "stored", "drawn")
_MOST_LINES = 2**31 - 1  # of a physical tile: more than any matrix has


@dataclass(frozen=True)
class Mapping:
    """How one weight matrix lies on physical tiles.

    Attributes:
        tile_in, tile_out: largest number of inputs (columns) and outputs (rows) of a physical
            tile, up to 2^31 - 1; each tile has its own converters.
        omega: 0 programs weights as they are; > 0 scales them so that the largest magnitude is
            omega, and multiplies every read by the inverse (``out_scale``). "auto" does so only as
            far as the bounds of the crosspoints ask for it: to where they cut 5 % of the norm.
        cuda_products: what multiplies in reads of CUDA tensors: ``torch`` (cuBLAS, then a kernel
            per segment of inputs) or ``fused``, one kernel for both on tensor cores. Its float32
            factors are split into parts that tensor cores take (3xTF32); with S = sum |w q| over
            the n inputs of a physical tile its sums are within (48 + ceil(n / 16)) 2^-24 S, float32
            in order within n 2^-24 S. A sample's sums do not depend on its batch, and
            ``torch.backends`` settings do not apply. Reads with ``w_noise_type="pcm_read"``, which
            sum squares as well, stay with torch. It has not run on hardware yet: measure with
            ``bench/gpu_reads.py``. The CPU ignores it, and so does a state_dict.
        crosspoints: where the devices' parameters are. ``stored``: in memory, 8 to 20 bytes a
            crosspoint beside the 4 of its weight. ``drawn``: nowhere; they are functions of seed,
            array, row and column, and whoever needs one draws it anew. ``auto``: stored as long as
            all arrays of the process together store at most a quarter of the machine's memory
            (:class:`pulseline.arrays.Budget`), drawn beyond. No bit depends on it, and a state_dict
            does not hold it.

    Raises:
        ConfigError: a size < 1 or > 2^31 - 1, an omega out of range, unknown products or
            crosspoints.
    """

    tile_in: int = setting(512)
    tile_out: int = setting(512)
    omega: float | str = setting(0.0, inert=0.0)
    cuda_products: str = setting("torch", physics=False)
    crosspoints: str = setting("auto", physics=False)

    def __post_init__(self) -> None:
        for field in ("tile_in", "tile_out"):
            value = getattr(self, field)
            whole = isinstance(value, int) and not isinstance(value, bool)
            ok = whole and 1 <= value <= _MOST_LINES
            require(ok, self, field, f"use an integer from 1 to {_MOST_LINES}")
        number = isinstance(self.omega, (int, float)) and 0 <= self.omega < 1e30
        require(number or self.omega == "auto", self, "omega", "use a finite number >= 0 or 'auto'")
        for field, known in (("cuda_products", CUDA_PRODUCTS), ("crosspoints", CROSSPOINTS)):
            ok = getattr(self, field) in known
            require(ok, self, field, f"use one of {', '.join(known)}")
