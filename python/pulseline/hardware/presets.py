"""Named hardware, each number with its source.

Not used because they are known to be wrong: MNSIM's "ISAAC" ADC (9 times too high) and its 8-bit
DAC power (lacks a factor 1e-3).
"""

from __future__ import annotations

from dataclasses import replace

from ..errors import ConfigError
from .model import Hardware, Source

_CHIP = Source("abs", "IBM 64-core PCM chip, from its published TOPS and TOPS/W, 1-phase read")
_HERMES = Source("abs", "HERMES core: 8-bit current-controlled-oscillator ADC, one per line")
_RASCH = Source("mem", "Rasch et al. 2024")
_PANTHER = Source("file", "PANTHER: outer-product update of 128x128 in 20 ns, 88.8 pJ")
_ISAAC = Source("file", "ISAAC, 32 nm, via hwcomponents")
_RPU = Source("mem", "Gokmen & Vlasov 2016")
_DEFINITION = Source("definition", "the converters and the input are inside t_int_ns")

_PCM = Hardware(
    name="pcm_14nm",
    tile_rows=256,
    tile_cols=256,
    t_in_ns=0.0,
    t_int_ns=133.0 - 77.0,
    t_conv_ns=77.0,
    t_pulse_ns=5.0,
    bl=31,
    mac_fj=13.4e6 / 256**2,
    pulse_fj=50.0,
    sources=(
        ("t_int_ns", Source("derived", "133 ns per product (64-core chip) less 77 ns conversion")),
        ("t_conv_ns", _HERMES),
        ("mac_fj", Source("derived", "13.4 nJ per 256x256 product (64-core chip), converters too")),
        ("t_pulse_ns", _RASCH),
        ("bl", _RASCH),
        ("pulse_fj", Source("assumed", "V^2 G t at 1 V, 10 uS, 5 ns")),
    ),
)

_PCM_4PHASE = replace(
    _PCM,
    name="pcm_14nm_4phase",
    t_int_ns=521.0 - 77.0,
    mac_fj=52.9e6 / 256**2,
    sources=(
        ("t_int_ns", Source("derived", "521 ns per product (64-core chip) less 77 ns conversion")),
        ("t_conv_ns", _HERMES),
        ("mac_fj", Source("derived", "52.9 nJ per 256x256 product (64-core chip), converters too")),
        *_PCM.sources[3:],
    ),
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
    row_write_ns=11000.0 / 128,
    sources=(
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
        ("row_write_ns", Source("derived", "PANTHER: serial write of 128 rows in 11 us")),
    ),
)

_RPU_4096 = Hardware(
    name="rpu_4096",
    tile_rows=4096,
    tile_cols=4096,
    t_in_ns=0.0,
    t_int_ns=80.0,
    t_conv_ns=0.0,
    t_pulse_ns=1.0,
    bl=10,
    mac_fj=2e3 / 84,
    pulse_fj=1 / 24,
    sources=(
        ("t_int_ns", _RPU),
        ("t_conv_ns", _DEFINITION),
        ("mac_fj", Source("abs", "Gokmen & Vlasov 2016: 84 TOPS/W, two operations per MAC")),
        ("t_pulse_ns", _RPU),
        ("bl", _RPU),
        ("pulse_fj", Source("mem", "V^2 G t at 1 V, 24 MOhm, 1 ns")),
    ),
)

_PROJECTED = Hardware(
    name="projected_14nm",
    tile_rows=512,
    tile_cols=512,
    t_in_ns=0.0,
    t_int_ns=40.0,
    t_conv_ns=0.0,
    t_pulse_ns=5.0,
    bl=31,
    mac_fj=11.0,
    pulse_fj=5.0,
    sources=(
        ("t_int_ns", _RASCH),
        ("t_conv_ns", _DEFINITION),
        ("mac_fj", Source("abs", "arXiv 1707.09952: 8-bit training block in 14/16 nm")),
        ("t_pulse_ns", _RASCH),
        ("bl", _RASCH),
        ("pulse_fj", Source("assumed", "V^2 G t at 1 V, 1 uS, 5 ns")),
    ),
)

PRESETS = {
    hardware.name: hardware for hardware in (_PCM, _PCM_4PHASE, _RERAM, _RPU_4096, _PROJECTED)
}
DEFAULT = _PCM.name


def preset(name: str | Hardware = DEFAULT) -> Hardware:
    """The named preset (a Hardware is passed through); ConfigError if there is none."""
    if isinstance(name, Hardware):
        return name
    if name not in PRESETS:
        raise ConfigError(f"hardware {name!r} does not exist: use one of {', '.join(PRESETS)}")
    return PRESETS[name]
