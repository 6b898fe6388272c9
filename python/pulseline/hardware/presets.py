"""Named hardware, each number with its source.

Not used because they are known to be wrong: MNSIM's "ISAAC" ADC (9 times too high) and its 8-bit
DAC power (lacks a factor 1e-3).
"""

from __future__ import annotations

from typing import Any

from ..errors import ConfigError
from .model import Hardware, Source

__all__ = ["CONVERTERS", "DEFAULT", "PRESETS", "preset"]

_CHIP = Source("abs", "IBM 64-core PCM chip: cores of 256x256")
_HERMES = Source("abs", "HERMES core: 8-bit current-controlled-oscillator ADC, one per line")
_RASCH = Source("mem", "Rasch et al. 2024")
_PANTHER = Source("file", "PANTHER: outer-product update of 128x128 in 20 ns, 88.8 pJ")
_ISAAC = Source("file", "ISAAC, 32 nm, via hwcomponents")
_RPU = Source("mem", "Gokmen & Vlasov 2016")
_DEFINITION = Source("definition", "the converters and the input are inside t_int_ns")
_SIZE = Source("definition", "a choice: the size of a tile")
# Digital work of algorithms; counts are of float32, whose adder and multiplier were published at
# 45 nm. ISAAC's buffers are of 32 nm. Neither is scaled to the node of the crossbar.
_DIGITAL: dict[str, Any] = {
    "op_pj": (0.9 + 3.7) / 2,
    "byte_pj": 20.45 / 32,
    "endurance": 0.0,
}
_DIGITAL_SOURCES: tuple[tuple[str, Source], ...] = (
    (
        "op_pj",
        Source(
            "derived",
            "Horowitz 2014, 45 nm: 0.9 pJ a float32 addition, 3.7 pJ a multiplication; their mean",
        ),
    ),
    ("byte_pj", Source("derived", "ISAAC, 32 nm, via hwcomponents: eDRAM, 20.45 pJ per 256 bits")),
    ("endurance", Source("definition", "0: not known, wear is counted but has no limit")),
)
# What the sources of a whole product do not say apart from each other.
_WHOLE: tuple[tuple[str, Source], ...] = (
    ("t_in_ns", Source("definition", "the input pulse is inside t_int_ns")),
    ("adcs", Source("definition", "0: a converter for each line")),
    ("input_steps", Source("definition", "an input is applied once; its phases are in t_int_ns")),
    ("digital_pj", Source("definition", "not apart from the energy of a product")),
    ("row_write_ns", Source("definition", "0: not known, programming is not counted")),
    *_DIGITAL_SOURCES,
)

# Converters take more than half of an 8-bit product (50 to 70 % of the published cores); ISAAC's
# 8-bit ADC with its digital part and its DAC are 4 to 1.
CONVERTERS = 0.6
_SHARE = "60 % of the product's energy for converters (published: 50 to 70 %), ADC to DAC 4 to 1"
# C V^2 / 2 of one line, at 1 V, 0.2 fF of wire per crosspoint.
_LINE_FJ = 0.5 * 0.2
_LINE = Source("assumed", "C V^2 / 2 at 1 V, 0.2 fF of wire per crosspoint on the line")


def _split(pj: float, size: int, source: Source) -> dict[str, Any]:
    """Energies of a product of a size x size tile that takes ``pj``, with their sources."""
    per_line = CONVERTERS * pj / size
    numbers = {
        "mac_fj": (1 - CONVERTERS) * pj * 1000 / size**2,
        "dac_pj": per_line / 5,
        "adc_pj": per_line * 4 / 5,
        "line_fj": _LINE_FJ * size,
    }
    text = f"{source.text}; {_SHARE}"
    known = {name: Source("assumed", text) for name in ("mac_fj", "dac_pj", "adc_pj")}
    return {**numbers, "sources": (*known.items(), ("line_fj", _LINE))}


def _make(
    split: dict[str, Any], sources: tuple[tuple[str, Source], ...], **numbers: Any
) -> Hardware:
    return Hardware(
        **numbers, **_DIGITAL, **{**split, "sources": (*split["sources"], *sources, *_WHOLE)}
    )


_PCM = _make(
    _split(13.4e3, 256, Source("derived", "13.4 nJ per 256x256 product (64-core chip)")),
    (
        ("tile_rows", _CHIP),
        ("tile_cols", _CHIP),
        ("t_int_ns", Source("derived", "133 ns per product (64-core chip) less 77 ns conversion")),
        ("t_conv_ns", _HERMES),
        ("t_pulse_ns", _RASCH),
        ("bl", _RASCH),
        ("pulse_fj", Source("assumed", "V^2 G t at 1 V, 10 uS, 5 ns")),
    ),
    name="pcm_14nm",
    tile_rows=256,
    tile_cols=256,
    t_in_ns=0.0,
    t_int_ns=133.0 - 77.0,
    t_conv_ns=77.0,
    t_pulse_ns=5.0,
    bl=31,
    pulse_fj=50.0,
)

_PCM_4PHASE = _make(
    _split(52.9e3, 256, Source("derived", "52.9 nJ per 256x256 product (64-core chip)")),
    (
        ("tile_rows", _CHIP),
        ("tile_cols", _CHIP),
        ("t_int_ns", Source("derived", "521 ns per product (64-core chip) less 77 ns conversion")),
        ("t_conv_ns", _HERMES),
        ("t_pulse_ns", _RASCH),
        ("bl", _RASCH),
        ("pulse_fj", Source("assumed", "V^2 G t at 1 V, 10 uS, 5 ns")),
    ),
    name="pcm_14nm_4phase",
    tile_rows=256,
    tile_cols=256,
    t_in_ns=0.0,
    t_int_ns=521.0 - 77.0,
    t_conv_ns=77.0,
    t_pulse_ns=5.0,
    bl=31,
    pulse_fj=50.0,
)

# One 1-bit step of 128x128 costs 0.31 nJ (PANTHER); what is not converters is the array.
_STEP_PJ = 310.0
_EDGE_PJ = 128 * (1.67 + 0.417 + 0.021)

_RERAM = Hardware(
    name="reram_32nm",
    tile_rows=128,
    tile_cols=128,
    t_in_ns=0.0,
    t_int_ns=0.0,
    t_conv_ns=0.83,
    t_pulse_ns=10.0,
    bl=1,
    adcs=1,
    input_steps=8,
    mac_fj=(_STEP_PJ - _EDGE_PJ) * 1000 / 128**2,
    dac_pj=0.417,
    adc_pj=1.67,
    digital_pj=0.021,
    pulse_fj=5.4,
    line_fj=_LINE_FJ * 128,
    row_write_ns=11000.0 / 128,
    **_DIGITAL,
    sources=(
        ("tile_rows", _PANTHER),
        ("tile_cols", _PANTHER),
        ("t_in_ns", Source("definition", "overlaps the conversion of the step before")),
        ("t_int_ns", Source("definition", "overlaps the conversion of the step before")),
        ("t_conv_ns", _ISAAC),
        ("adcs", _ISAAC),
        ("input_steps", Source("definition", "8-bit inputs, one bit at a time")),
        ("mac_fj", Source("derived", "PANTHER's 0.31 nJ per 1-bit step less ISAAC's converters")),
        ("dac_pj", _ISAAC),
        ("adc_pj", _ISAAC),
        ("digital_pj", _ISAAC),
        ("t_pulse_ns", _PANTHER),
        ("bl", Source("definition", "one coincidence slot for each sign")),
        ("pulse_fj", _PANTHER),
        ("line_fj", _LINE),
        ("row_write_ns", Source("derived", "PANTHER: serial write of 128 rows in 11 us")),
        *_DIGITAL_SOURCES,
    ),
)

_RPU_4096 = _make(
    _split(
        2 * 4096**2 / 84,
        4096,
        Source("abs", "Gokmen & Vlasov 2016: 84 TOPS/W, two operations per MAC"),
    ),
    (
        ("tile_rows", _RPU),
        ("tile_cols", _RPU),
        ("t_int_ns", _RPU),
        ("t_conv_ns", _DEFINITION),
        ("t_pulse_ns", _RPU),
        ("bl", _RPU),
        ("pulse_fj", Source("mem", "V^2 G t at 1 V, 24 MOhm, 1 ns")),
    ),
    name="rpu_4096",
    tile_rows=4096,
    tile_cols=4096,
    t_in_ns=0.0,
    t_int_ns=80.0,
    t_conv_ns=0.0,
    t_pulse_ns=1.0,
    bl=10,
    pulse_fj=1 / 24,
)

_PROJECTED = _make(
    _split(11e-3 * 512**2, 512, Source("abs", "arXiv 1707.09952: 11 fJ per MAC, 8 bit, 14/16 nm")),
    (
        ("tile_rows", _SIZE),
        ("tile_cols", _SIZE),
        ("t_int_ns", _RASCH),
        ("t_conv_ns", _DEFINITION),
        ("t_pulse_ns", _RASCH),
        ("bl", _RASCH),
        ("pulse_fj", Source("assumed", "V^2 G t at 1 V, 1 uS, 5 ns")),
    ),
    name="projected_14nm",
    tile_rows=512,
    tile_cols=512,
    t_in_ns=0.0,
    t_int_ns=40.0,
    t_conv_ns=0.0,
    t_pulse_ns=5.0,
    bl=31,
    pulse_fj=5.0,
)

PRESETS = {
    hardware.name: hardware for hardware in (_PCM, _PCM_4PHASE, _RERAM, _RPU_4096, _PROJECTED)
}
DEFAULT = _PCM.name


def preset(name: str | Hardware = DEFAULT) -> Hardware:
    """The hardware of that name; one of one's own is passed through.

    Raises:
        ConfigError: there is no such name.
    """
    if isinstance(name, Hardware):
        return name
    if name not in PRESETS:
        raise ConfigError(f"hardware is {name!r}; use one of {', '.join(PRESETS)}")
    return PRESETS[name]
