// Converters of a read with options (core/chain.h): one sample's DACs and one sample's ADCs in one
// physical tile; the product in between is read_panel's. Included by kernels.inl after read.inl.

namespace pulseline::cpu {
namespace {

PL_HD F line_normal(U base, Keys key) {
  return byte_sum_polynomial(byte_sum(hash(base, key.k0, key.k1)));
}
PL_HD F convert_by(const Converter& c, F v, bool stochastic, U base, Keys key) {
  return stochastic ? convert_stochastic(c, v, uniform24(hash(base, key.k0, key.k1)))
                    : convert(c, v);
}

void chain_input(ChainInput& job) {
  const ReadArgs& a = *job.args;
  const Chain& chain = *job.chain;
  for (int64_t i = job.in0; i < job.in1; i += kLanes) {
    const int64_t n = job.in1 - i;
    const U base = (lane_index() + U(uint32_t(i))) * U(kColumnStride);
    const F v = convert_by(a.dac, load_partial(job.x + i, n) / F(job.alpha_beta),
                           chain.input_stochastic, base, job.rounding);
    for (int pass = 0; pass < job.passes; ++pass) {
      F q = v;
      if (job.passes == 2) q = pass == 0 ? max(v, F(0.0f)) : min(v, F(0.0f)) * F(chain.input_gain);
      if (a.input_noise > 0.0f) q = fma(F(a.input_noise), line_normal(base, job.noise[pass]), q);
      store_partial(job.q[pass] + i, q, n);
      if (chain.pcm) store_partial(job.square[pass] + i, q * q, n);
    }
  }
  if (a.weight_noise > 0.0f && !chain.pcm)
    for (int pass = 0; pass < job.passes; ++pass)
      job.norm[pass] = norm_squared(job.q[pass] + job.in0, job.in1 - job.in0);
}

// Noise, non-linearity and ADC of outputs whose sum and squared weight noise are ready.
PL_HD F chain_convert(const ChainOutput& job, int64_t o, int64_t n, F y, F variance, Keys noise,
                      Keys rounding, uint32_t& inside) {
  const ReadArgs& a = *job.args;
  const U base = (lane_index() + U(uint32_t(job.out0 + o))) * U(kColumnStride);
  F deviation = job.line_noise ? load_partial(job.line_noise + o, n) : F(a.output_noise);
  if (a.weight_noise > 0.0f)
    deviation =
        square_root(fma(F(a.weight_noise * a.weight_noise), variance, deviation * deviation));
  if (a.output_noise > 0.0f || a.weight_noise > 0.0f)
    y = fma(deviation, line_normal(base, noise), y);
  if (job.line_bend) y = y / (F(1.0f) + load_partial(job.line_bend + o, n) * absolute(y));
  const uint32_t edge = n < kLanes ? ~((1u << n) - 1u) : 0u;
  if (a.adc.bound > 0.0f) inside &= to_bits(absolute(y) < F(a.adc.bound)) | edge;
  return convert_by(a.adc, y, job.chain->output_stochastic, base, rounding);
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
