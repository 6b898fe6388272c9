// Converters of a read with options (core/chain.h): one sample's DACs and one sample's ADCs in one
// physical tile; the product in between is read_panel's. Included by kernels.inl after read.inl.

namespace pulseline::cpu {
namespace {

void chain_input(ChainInput& job) {
  const PlacedRead& a = *job.args;
  const Chain& chain = *job.chain;
  for (int64_t i = job.in0; i < job.in1; i += kLanes) {
    const int64_t n = job.in1 - i;
    const U base = (lane_index() + U(uint32_t(a.input0 + i))) * U(kColumnStride);
    const F v =
        input_level(a, chain, load_partial(job.x + i, n), job.alpha_beta, base, job.rounding);
    for (int pass = 0; pass < job.passes; ++pass) {
      const F q = input_pass(a, chain, v, pass, job.passes, base, job.noise[pass]);
      store_partial(job.q[pass] + i, q, n);
      if (chain.pcm) store_partial(job.square[pass] + i, q * q, n);
    }
  }
  const int64_t before = (a.input0 + job.in0) % a.tile_in;
  if (a.weight_noise > 0.0f && !chain.pcm)
    for (int pass = 0; pass < job.passes; ++pass)
      job.norm[pass] = norm_squared(job.q[pass] + job.in0, job.in1 - job.in0, before);
}

// Noise, non-linearity and ADC of outputs whose sum and squared weight noise are ready.
PL_HD F chain_convert(const ChainOutput& job, int64_t o, int64_t n, F y, F variance, Keys noise,
                      Keys rounding, uint32_t& inside) {
  const PlacedRead& a = *job.args;
  const U base = (lane_index() + U(uint32_t(a.output0 + job.out0 + o))) * U(kColumnStride);
  const F deviation = job.line_noise ? load_partial(job.line_noise + o, n) : F(a.output_noise);
  const F bend = job.line_bend ? load_partial(job.line_bend + o, n) : F(0.0f);
  y = output_level(a, y, variance, deviation, job.line_bend != nullptr, bend, base, noise);
  const uint32_t edge = n < kLanes ? ~((1u << n) - 1u) : 0u;
  if (a.adc.bound > 0.0f) inside &= below_bound(a, y) | edge;
  return pass_finite(y, convert_line(a.adc, y, job.chain->output_stochastic != 0, base, rounding));
}

bool chain_output(const ChainOutput& job) {
  const Chain& chain = *job.chain;
  const uint32_t all = (1u << kLanes) - 1u;
  const F gain(chain.output_gain);
  uint32_t inside = all;
  for (int64_t o = 0; o < job.outputs; o += kLanes) {
    const int64_t n = job.outputs - o;
    F y[2], variance[2];
    for (int pass = 0; pass < job.passes; ++pass) {
      y[pass] = load_partial(job.sums[pass] + o, n);
      variance[pass] = chain.pcm ? load_partial(job.squares[pass] + o, n) : F(job.norm[pass]);
      if (pass == 0) continue;
      y[1] = y[1] * gain;
      variance[1] = variance[1] * (gain * gain);
    }
    F result;
    if (chain.passes == kDigitalSum) {
      result = chain_convert(job, o, n, y[0], variance[0], job.noise[0], job.rounding[0], inside) +
               chain_convert(job, o, n, y[1], variance[1], job.noise[1], job.rounding[1], inside);
    } else {
      const bool two = chain.passes == kAnalogSum;
      result = chain_convert(job, o, n, two ? y[0] + y[1] : y[0],
                             two ? variance[0] + variance[1] : variance[0], job.noise[0],
                             job.rounding[0], inside);
    }
    store_partial(job.converted + o, result, n);
  }
  return (inside & all) != all;
}

// y = q scale or y + q scale: segments add up in order, as in a read without options.
void chain_add(float* y, const float* q, float scale, int64_t n, bool first) {
  for (int64_t o = 0; o < n; o += kLanes) {
    const F v = load_partial(q + o, n - o);
    store_partial(y + o, first ? v * F(scale) : mac(v, F(scale), load_partial(y + o, n - o)),
                  n - o);
  }
}

}  // namespace
}  // namespace pulseline::cpu
