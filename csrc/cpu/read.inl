// The crossbar read. Every output of a physical tile is one chain of fma over its inputs in order,
// starting from zero; converters and noise follow while the sums are in the first-level cache, then
// segments add up in order. So a result does not depend on the instruction set (with FMA), on
// threads or on what else is in the batch. Included by kernels.inl.

namespace pulseline::cpu {
namespace {

constexpr int kTileRows = 6;                        // samples of a register tile
constexpr int kTileVectors = kLanes == 16 ? 4 : 2;  // output vectors of a register tile
constexpr int64_t kPanel = int64_t(kLanes) * kTileVectors;

// y[r][0..panel) (+)= sum over n of x[r][k] w[k][0..panel)
// FUSED: by fma whatever the hardware (updates), else by mac (reads).
template <int R, bool LOAD, bool FUSED = false>
PL_HD void register_tile(const float* x, int64_t x_stride, const float* w, int64_t w_stride,
                         int64_t n, float* y, int64_t y_stride) {
  F sum[R][kTileVectors];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kTileVectors; ++v)
      sum[r][v] = LOAD ? load(y + r * y_stride + v * kLanes) : F(0.0f);
  for (int64_t k = 0; k < n; ++k, ++x, w += w_stride) {
    F wv[kTileVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kTileVectors; ++v) wv[v] = load(w + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const F xv(x[r * x_stride]);
#pragma GCC unroll 4
      for (int v = 0; v < kTileVectors; ++v)
        sum[r][v] = FUSED ? fma(xv, wv[v], sum[r][v]) : mac(xv, wv[v], sum[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kTileVectors; ++v) store(y + r * y_stride + v * kLanes, sum[r][v]);
}

template <bool LOAD, bool FUSED = false>
void register_tile_of(int rows, const float* x, int64_t x_stride, const float* w, int64_t w_stride,
                      int64_t n, float* y, int64_t y_stride) {
  switch (rows) {
    case 1:
      return register_tile<1, LOAD, FUSED>(x, x_stride, w, w_stride, n, y, y_stride);
    case 2:
      return register_tile<2, LOAD, FUSED>(x, x_stride, w, w_stride, n, y, y_stride);
    case 3:
      return register_tile<3, LOAD, FUSED>(x, x_stride, w, w_stride, n, y, y_stride);
    case 4:
      return register_tile<4, LOAD, FUSED>(x, x_stride, w, w_stride, n, y, y_stride);
    case 5:
      return register_tile<5, LOAD, FUSED>(x, x_stride, w, w_stride, n, y, y_stride);
    default:
      return register_tile<6, LOAD, FUSED>(x, x_stride, w, w_stride, n, y, y_stride);
  }
}

// Samples of the next register tile when `left` remain: avoids a last tile of one or two.
PL_HD int tile_rows(int64_t left) {
  if (left == 8 || left == 4) return 4;
  if (left == 7 || left == 10) return 5;
  return left < kTileRows ? int(left) : kTileRows;
}

// A block of weights at the ragged edge, zero beyond `lines` and `depth`: edge[k][l] = w[l][k].
__attribute__((noinline)) void copy_edge(const float* w, int64_t stride, int64_t lines,
                                         int64_t depth, float* edge) {
  for (int64_t k = 0; k < kLanes; ++k)
    for (int64_t l = 0; l < kLanes; ++l)
      edge[k * kLanes + l] = k < depth && l < lines ? w[l * stride + k] : 0.0f;
}

// packed[k][0..panel) = w of outputs out0.. and inputs k0 + k, zero beyond the last output.
void pack_panel(const ReadPanel& p, int64_t k0, int64_t n) {
  const PlacedRead& a = *p.args;
  const int64_t outputs = p.out1 - p.out0;
  if (a.transposed) {
    for (int64_t k = 0; k < n; ++k)
      for (int v = 0; v < kTileVectors; ++v)
        store(p.packed + k * kPanel + v * kLanes,
              load_partial(a.w + (k0 + k) * a.cols + p.out0 + v * kLanes, outputs - v * kLanes));
    return;
  }
  for (int v = 0; v < kTileVectors; ++v) {
    for (int64_t k = 0; k < n; k += kLanes) {
      F r[kLanes];
      const float* w = a.w + (p.out0 + v * kLanes) * a.cols + k0 + k;
      const int64_t lines = outputs - v * kLanes, depth = n - k;
      float* packed = p.packed + k * kPanel + v * kLanes;
      if (lines >= kLanes && depth >= kLanes) {
        for (int l = 0; l < kLanes; ++l) __builtin_prefetch(w + l * a.cols + 2 * kLanes);
        load_transposed(w, a.cols, r);
#pragma GCC unroll 16
        for (int l = 0; l < kLanes; ++l) store(packed + l * kPanel, r[l]);
      } else {
        float edge[kLanes * kLanes];
        copy_edge(w, a.cols, lines, depth, edge);
        for (int l = 0; l < kLanes && l < depth; ++l)
          store(packed + l * kPanel, load(edge + l * kLanes));
      }
    }
  }
}

// Lanes that do not reach the ADC's bound; another round does not help a NaN.
PL_HD uint32_t below_bound(const PlacedRead& a, F y) {
  return ~to_bits(F(pulseline::as_float(pulseline::as_bits(a.adc.bound) - 1u)) < absolute(y));
}

// One vector of outputs through noise and ADC. `inside` collects the lanes within the bound.
template <bool NOISY>
PL_HD F convert_output(const PlacedRead& a, F y, F deviation, U base, Keys key, bool watch,
                       uint32_t& inside) {
  if (NOISY) y = fma(deviation, byte_sum_polynomial(byte_sum(hash(base, key.k0, key.k1))), y);
  if (watch) inside &= below_bound(a, y);
  return pass_finite(y, convert(a.adc, y));
}

// Noise, ADC, scale and accumulation of `rows` samples whose sums are ready.
template <bool NOISY, int VECTORS>
PL_HD void finish_rows(const ReadPanel& p, const float* sums, int64_t sum_stride, int64_t b0,
                       int rows, int64_t out0, int64_t out1) {
  const PlacedRead& a = *p.args;
  const bool watch = p.saturated != nullptr && a.adc.bound > 0.0f;
  const uint32_t all = (1u << kLanes) - 1u;
  U base[VECTORS];
#pragma GCC unroll 4
  for (int v = 0; v < VECTORS; ++v)
    base[v] = (lane_index() + U(uint32_t(a.output0 + out0 + v * kLanes))) * U(kColumnStride);
  for (int64_t b = b0; b < b0 + rows; ++b, sums += sum_stride) {
    const F deviation(p.deviation[b]), scale(p.scale[b]);
    const Keys key = p.keys[b];
    float* out = p.y + b * p.y_stride + out0;
    uint32_t inside = all;
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; ++v, out += kLanes) {
      const int64_t n = out1 - out0 - v * kLanes;
      uint32_t lanes = all;
      const F y =
          convert_output<NOISY>(a, load(sums + v * kLanes), deviation, base[v], key, watch, lanes);
      if (n >= kLanes) {
        inside &= lanes;
        store(out, p.first ? y * scale : mac(y, scale, load(out)));
      } else if (n > 0) {
        inside &= lanes | ~((1u << n) - 1u);
        store_partial(out, p.first ? y * scale : mac(y, scale, load_partial(out, n)), n);
      }
    }
    if (watch && (inside & all) != all) p.saturated[b] = 1;
  }
}

// Not inlined: GCC would spill the register tile's sums.
template <int VECTORS>
__attribute__((noinline)) void finish(const ReadPanel& p, const float* sums, int64_t sum_stride,
                                      int64_t b0, int rows, int64_t out0, int64_t out1) {
  const PlacedRead& a = *p.args;
  if (a.output_noise > 0.0f || a.weight_noise > 0.0f)
    finish_rows<true, VECTORS>(p, sums, sum_stride, b0, rows, out0, out1);
  else
    finish_rows<false, VECTORS>(p, sums, sum_stride, b0, rows, out0, out1);
}

// Few samples, W as it lies: blocks of weights are transposed in registers, nothing is stored.
// B samples, kGroups blocks of kLanes outputs.
template <int B>
struct FusedRows {
  static constexpr int kGroups = 1;
  F sum[kGroups][B];

  // Inputs k..k+kLanes of a whole block.
  PL_HD void add_block(int g, const float* w, int64_t cols, const float* x, int64_t stride) {
    F r[kLanes];
    // Sixteen rows and more are too many streams for the hardware to follow.
#pragma GCC unroll 16
    for (int l = 0; l < kLanes; ++l) __builtin_prefetch(w + l * cols + 2 * kLanes);
    load_transposed(w, cols, r);
#pragma GCC unroll 16
    for (int l = 0; l < kLanes; ++l)
#pragma GCC unroll 8
      for (int b = 0; b < B; ++b) sum[g][b] = mac(F(x[b * stride + l]), r[l], sum[g][b]);
  }
  // The same at the ragged edge; weights beyond it count as zero.
  PL_HD void add_edge(int g, const float* w, int64_t cols, int64_t lines, int64_t depth,
                      const float* x, int64_t stride) {
    float edge[kLanes * kLanes];
    copy_edge(w, cols, lines, depth, edge);
    for (int64_t l = 0; l < kLanes && l < depth; ++l)
#pragma GCC unroll 8
      for (int b = 0; b < B; ++b)
        sum[g][b] = mac(F(x[b * stride + l]), load(edge + l * kLanes), sum[g][b]);
  }
};

template <int B>
PL_HD void fused_rows(const ReadPanel& p, int64_t b0, int64_t out0) {
  constexpr int kGroups = FusedRows<B>::kGroups;
  const int64_t cols = p.args->cols, stride = p.stride, lines = p.out1 - out0;
  const float *w = p.args->w + out0 * cols, *x = p.input + b0 * stride;
  FusedRows<B> rows;
#pragma GCC unroll 4
  for (int g = 0; g < kGroups; ++g)
#pragma GCC unroll 8
    for (int b = 0; b < B; ++b) rows.sum[g][b] = F(0.0f);
  int64_t k = p.in0;
  if (lines >= kGroups * kLanes)
    for (; k + kLanes <= p.in1; k += kLanes)
#pragma GCC unroll 4
      for (int g = 0; g < kGroups; ++g)
        rows.add_block(g, w + g * kLanes * cols + k, cols, x + k, stride);
  for (; k < p.in1; k += kLanes)
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; ++g)
      rows.add_edge(g, w + g * kLanes * cols + k, cols, lines - g * kLanes, p.in1 - k, x + k,
                    stride);
  float sums[B * kGroups * kLanes];
#pragma GCC unroll 8
  for (int b = 0; b < B; ++b)
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; ++g) store(sums + (b * kGroups + g) * kLanes, rows.sum[g][b]);
  const int64_t end = kGroups * kLanes < lines ? out0 + kGroups * kLanes : p.out1;
  finish<kGroups>(p, sums, kGroups * kLanes, b0, B, out0, end);
}

// One sample: its sum is a chain whose steps wait for each other, so that two groups of outputs
// take turns. The second is a block behind: lines a power of two apart share a set of the
// first-level cache.
void fused_pair(const ReadPanel& p, int64_t b0, int64_t out0) {
  const int64_t cols = p.args->cols, stride = p.stride, blocks = (p.in1 - p.in0) / kLanes;
  const float* w[2] = {p.args->w + out0 * cols, p.args->w + (out0 + kLanes) * cols};
  const float* x = p.input + b0 * stride;
  F sum[2] = {F(0.0f), F(0.0f)};
  const auto add = [&](int g, int64_t k) PL_LAMBDA {
    F r[kLanes];
    load_transposed(w[g] + k, cols, r);
#pragma GCC unroll 16
    for (int l = 0; l < kLanes; ++l) sum[g] = mac(F(x[k + l]), r[l], sum[g]);
  };
  for (int64_t n = 0; n <= blocks; ++n) {
    const int64_t k = p.in0 + n * kLanes;
    if (n < blocks) add(0, k);
    if (n > 0) add(1, k - kLanes);
  }
  const int64_t k = p.in0 + blocks * kLanes;
  for (int g = 0; g < 2 && k < p.in1; ++g) {
    float edge[kLanes * kLanes];
    copy_edge(w[g] + k, cols, kLanes, p.in1 - k, edge);
    for (int64_t l = 0; k + l < p.in1; ++l)
      sum[g] = mac(F(x[k + l]), load(edge + l * kLanes), sum[g]);
  }
  float sums[2 * kLanes];
  store(sums, sum[0]);
  store(sums + kLanes, sum[1]);
  finish<2>(p, sums, 2 * kLanes, b0, 1, out0, out0 + 2 * kLanes);
}

template <int B>
void fused_panel(const ReadPanel& p, int64_t b0, int64_t out0, int64_t out1) {
  constexpr int kGroups = FusedRows<B>::kGroups;
  int64_t o = out0;
  for (; B == 1 && o + 2 * kLanes <= out1; o += 2 * kLanes) fused_pair(p, b0, o);
  for (; o < out1; o += kGroups * kLanes) fused_rows<B>(p, b0, o);
}

// Outputs outside, runs of at most eight samples inside: the weights stay in the nearest cache.
void read_fused(const ReadPanel& p) {
  const int64_t runs = (p.samples + 7) / 8, step = runs == 1 ? kPanel : kLanes;
  for (int64_t o = p.out0; o < p.out1; o += step) {
    const int64_t end = o + step < p.out1 ? o + step : p.out1;
    for (int64_t run = 0; run < runs; ++run) {
      const int64_t b = p.samples * run / runs, n = p.samples * (run + 1) / runs - b;
      switch (n) {
        case 1:
          fused_panel<1>(p, b, o, end);
          break;
        case 2:
          fused_panel<2>(p, b, o, end);
          break;
        case 3:
          fused_panel<3>(p, b, o, end);
          break;
        case 4:
          fused_panel<4>(p, b, o, end);
          break;
        case 5:
          fused_panel<5>(p, b, o, end);
          break;
        case 6:
          fused_panel<6>(p, b, o, end);
          break;
        case 7:
          fused_panel<7>(p, b, o, end);
          break;
        default:
          fused_panel<8>(p, b, o, end);
          break;
      }
    }
  }
}

// R lines of inputs of one transposed sample, added to the sums of all outputs.
template <int R>
PL_HD void add_lines(const ReadPanel& p, int64_t k, bool first) {
  const PlacedRead& a = *p.args;
  const float* w = a.w + k * a.cols + p.out0;
  const int64_t outputs = p.out1 - p.out0;
  F x[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) x[r] = F(p.input[k + r]);
  for (int64_t o = 0; o < outputs; o += kLanes) {
    const int64_t n = outputs - o;
    F sum = first ? F(0.0f) : load(p.sums + o);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const float* line = w + r * a.cols + o;
      sum = mac(x[r], n >= kLanes ? load(line) : load_partial(line, n), sum);
    }
    store(p.sums + o, sum);
  }
}

// One transposed sample: W as it lies in memory, from its first line to its last.
void read_lines(const ReadPanel& p) {
  int64_t k = p.in0;
  for (; k + 8 <= p.in1; k += 8) add_lines<8>(p, k, k == p.in0);
  for (; k < p.in1; ++k) add_lines<1>(p, k, k == p.in0);
  for (int64_t o = p.out0; o < p.out1; o += kPanel)
    finish<kTileVectors>(p, p.sums + (o - p.out0), kPanel, 0, 1, o,
                         o + kPanel < p.out1 ? o + kPanel : p.out1);
}

constexpr int64_t kFusedSamples = 16;  // above, packing pays

void read_panel(const ReadPanel& p) {
  const PlacedRead& a = *p.args;
  if (p.out1 - p.out0 > kPanel) return read_lines(p);
  if (!a.transposed && p.samples <= kFusedSamples) return read_fused(p);
  const bool natural = a.transposed && p.out1 - p.out0 == kPanel;
  for (int64_t k0 = p.in0; k0 < p.in1; k0 += kPackedInputs) {
    const int64_t n = p.in1 - k0 < kPackedInputs ? p.in1 - k0 : kPackedInputs;
    if (!natural) pack_panel(p, k0, n);
    const float* w = natural ? a.w + k0 * a.cols + p.out0 : p.packed;
    const int64_t w_stride = natural ? a.cols : kPanel;
    for (int64_t b = 0; b < p.samples;) {
      const int rows = tile_rows(p.samples - b);
      const float* x = p.input + b * p.stride + k0;
      float* sums = p.sums + b * kPanel;
      if (k0 == p.in0)
        register_tile_of<false>(rows, x, p.stride, w, w_stride, n, sums, kPanel);
      else
        register_tile_of<true>(rows, x, p.stride, w, w_stride, n, sums, kPanel);
      if (k0 + n == p.in1) finish<kTileVectors>(p, sums, kPanel, b, rows, p.out0, p.out1);
      b += rows;
    }
  }
}

// ||q||^2 of a segment: 16 strided partial sums by fma, then halves added. `before`: lines of the
// segment in front of these, which are 0.
PL_HD float norm_squared(const float* q, int64_t n, int64_t before) {
  float s[16] = {};
  if (before % 16) {
    for (int64_t k = 0; k < n; ++k) {
      float& sum = s[(before + k) % 16];
      sum = pulseline::fma(q[k], q[k], sum);
    }
  } else {
    F part[16 / kLanes];
    for (int v = 0; v < 16 / kLanes; ++v) part[v] = F(0.0f);
    for (int64_t k = 0; k < n; k += 16)
      for (int v = 0; v < 16 / kLanes; ++v) {
        const F x = load_partial(q + k + v * kLanes, n - k - v * kLanes);
        part[v] = fma(x, x, part[v]);
      }
    for (int v = 0; v < 16 / kLanes; ++v) store(s + v * kLanes, part[v]);
  }
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) s[i] += s[i + half];
  return s[0];
}

void prepare_input(const InputJob& job) {
  const PlacedRead& a = *job.args;
  const int64_t n = a.transposed ? a.rows : a.cols;
  for (int64_t i = 0; i < n; i += kLanes) {
    F v = convert(a.dac, load_partial(job.x + i, n - i) / F(job.alpha_beta));
    if (a.input_noise > 0.0f) {
      const U base = (lane_index() + U(uint32_t(a.input0 + i))) * U(kColumnStride);
      const U h = hash(base, job.noise.k0, job.noise.k1);
      v = fma(F(a.input_noise), byte_sum_polynomial(byte_sum(h)), v);
    }
    store_partial(job.q + i, v, n - i);
  }
  const float variance = a.output_noise * a.output_noise;
  float* deviation = job.deviation;
  for (int64_t i = 0; i < n; deviation += job.deviation_stride) {
    const int64_t before = (a.input0 + i) % a.tile_in, left = a.tile_in - before;
    const int64_t length = n - i < left ? n - i : left;
    *deviation = a.weight_noise > 0.0f ? pulseline::square_root(pulseline::fma(
                                             a.weight_noise * a.weight_noise,
                                             norm_squared(job.q + i, length, before), variance))
                                       : a.output_noise;
    i += length;
  }
}

// The ideal device's update: a register tile of W rows, samples as the inner dimension.
void accumulate_outer(const OuterJob& job, int64_t row0, int64_t row1) {
  for (int64_t j = 0; j < job.cols; j += kPanel) {
    const int64_t n = job.cols - j;
    for (int64_t i = row0; i < row1;) {
      const int rows = tile_rows(row1 - i);
      const float* a = job.a + i * job.a_stride;
      float* w = job.w + i * job.cols + j;
      if (n >= kPanel) {
        register_tile_of<true, true>(rows, a, job.a_stride, job.x + j, job.x_stride, job.batch, w,
                                     job.cols);
      } else {
        for (int r = 0; r < rows; ++r)
          for (int v = 0; v < kTileVectors; ++v) {
            const int64_t o = v * kLanes;
            F sum = load_partial(w + r * job.cols + o, n - o);
            for (int64_t b = 0; b < job.batch; ++b)
              sum = fma(F(a[r * job.a_stride + b]),
                        load_partial(job.x + b * job.x_stride + j + o, n - o), sum);
            store_partial(w + r * job.cols + o, sum, n - o);
          }
      }
      i += rows;
    }
  }
}

}  // namespace
}  // namespace pulseline::cpu
