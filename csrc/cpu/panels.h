// Operands packed for the product's micro-kernel: panels of a register tile's height or width, the inner index
// outermost. Packing a matrix along its rows turns it over, which happens in registers.
#pragma once

#include <algorithm>
#include <cstring>

#include "gemm.h"

namespace pygan::cpu::PYGAN_ISA {
namespace {

constexpr int kPackCols = 256;  // width of the buffer between an operand and a transposed panel
template <class T>
constexpr int kPackBuffer = kPackCols * (kTileCols<T> > kRegisterRows ? kTileCols<T> : kRegisterRows);

// A square of kSide x kSide floats, turned in registers; of its first `rows` rows alone where there are no more.
#if defined(__AVX512F__)
constexpr int kSide = 16;

inline void transpose_square(const float* in, int64_t ld, int rows, float* out, int64_t stride) {
  const __mmask16 lanes = __mmask16((1u << rows) - 1);
  __m512 r[16], t[16];
  for (int i = 0; i < 16; ++i) r[i] = i < rows ? _mm512_loadu_ps(in + i * ld) : _mm512_setzero_ps();
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 2; ++j) {
      const __m512d low = _mm512_castps_pd(t[i + j]), high = _mm512_castps_pd(t[i + j + 2]);
      r[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
      r[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
    }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 8; ++i) {
    _mm512_mask_storeu_ps(out + i * stride, lanes, _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88));
    _mm512_mask_storeu_ps(out + (i + 8) * stride, lanes, _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd));
  }
}
#elif defined(__AVX2__)
constexpr int kSide = 8;

// The first `count` of eight: in pieces, for masked stores take AMD's cores ten times as long.
inline void store_first(float* out, __m256 values, int count) {
  if (count == 8) return _mm256_storeu_ps(out, values);
  __m128 part = _mm256_castps256_ps128(values);
  if (count >= 4) {
    _mm_storeu_ps(out, part);
    part = _mm256_extractf128_ps(values, 1);
    out += 4, count -= 4;
  }
  if (count >= 2) {
    _mm_storel_pi(reinterpret_cast<__m64*>(out), part);
    part = _mm_movehl_ps(part, part);
    out += 2, count -= 2;
  }
  if (count == 1) _mm_store_ss(out, part);
}

inline void transpose_square(const float* in, int64_t ld, int rows, float* out, int64_t stride) {
  __m256 r[8], t[8];
  for (int i = 0; i < 8; ++i) r[i] = i < rows ? _mm256_loadu_ps(in + i * ld) : _mm256_setzero_ps();
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4)
    for (int j = 0; j < 2; ++j) {
      r[i + 2 * j] = _mm256_shuffle_ps(t[i + j], t[i + j + 2], 0x44);
      r[i + 2 * j + 1] = _mm256_shuffle_ps(t[i + j], t[i + j + 2], 0xee);
    }
  for (int i = 0; i < 4; ++i) {
    store_first(out + i * stride, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20), rows);
    store_first(out + (i + 4) * stride, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31), rows);
  }
}
#else
constexpr int kSide = 4;

inline void transpose_square(const float* in, int64_t ld, int rows, float* out, int64_t stride) {
  if (rows < kSide) {
    for (int i = 0; i < rows; ++i)
      for (int k = 0; k < kSide; ++k) out[k * stride + i] = in[i * ld + k];
    return;
  }
  typedef float Quad __attribute__((vector_size(16), aligned(4)));
  typedef int Pick __attribute__((vector_size(16)));
  const auto row = [&](int i) { return *reinterpret_cast<const Quad*>(in + i * ld); };
  const Quad t0 = __builtin_shuffle(row(0), row(1), Pick{0, 4, 1, 5});
  const Quad t1 = __builtin_shuffle(row(2), row(3), Pick{0, 4, 1, 5});
  const Quad t2 = __builtin_shuffle(row(0), row(1), Pick{2, 6, 3, 7});
  const Quad t3 = __builtin_shuffle(row(2), row(3), Pick{2, 6, 3, 7});
  *reinterpret_cast<Quad*>(out) = __builtin_shuffle(t0, t1, Pick{0, 1, 4, 5});
  *reinterpret_cast<Quad*>(out + stride) = __builtin_shuffle(t0, t1, Pick{2, 3, 6, 7});
  *reinterpret_cast<Quad*>(out + 2 * stride) = __builtin_shuffle(t2, t3, Pick{0, 1, 4, 5});
  *reinterpret_cast<Quad*>(out + 3 * stride) = __builtin_shuffle(t2, t3, Pick{2, 3, 6, 7});
}
#endif

// out[k * stride + i] = in[i * ld + k] for i < rows, k < cols.
template <class T>
void transpose(const T* in, int64_t ld, int rows, int cols, T* out, int stride) {
  int done = 0;
  if constexpr (std::is_same_v<T, float>)
    for (; done + kSide <= cols; done += kSide)
      for (int i = 0; i < rows; i += kSide)
        transpose_square(in + i * ld + done, ld, std::min(kSide, rows - i), out + done * stride + i, stride);
  for (int i = 0; i < rows; ++i)
    for (int k = done; k < cols; ++k) out[k * stride + i] = in[i * ld + k];
}

template <int kWidth, class T>
void copy_rows(const T* in, int64_t ld, int64_t rows, T* out) {
  for (int64_t k = 0; k < rows; ++k) memcpy(out + k * kWidth, in + k * ld, kWidth * sizeof(T));
}

template <class T>
void copy_short_rows(const T* in, int64_t ld, int64_t rows, int count, int width, T* out) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, float>) {
    for (int first = 0; first < width; first += 16) {
      const auto lanes = [first](int n) {
        return __mmask16(n - first >= 16 ? 0xffff : (1u << std::max(n - first, 0)) - 1);
      };
      const __mmask16 read = lanes(count), written = lanes(width);
      for (int64_t k = 0; k < rows; ++k)
        _mm512_mask_storeu_ps(out + k * width + first, written, _mm512_maskz_loadu_ps(read, in + k * ld + first));
    }
    return;
  }
#endif
  for (int64_t k = 0; k < rows; ++k) {
    for (int i = 0; i < count; ++i) out[k * width + i] = in[k * ld + i];
    for (int i = count; i < width; ++i) out[k * width + i] = T(0);
  }
}

// panel[k * width + i] = operand(outer + i, inner + k), zero for i >= count.
template <class T>
void pack_panel(const Operand<T>& operand, int64_t outer, int count, int width, int64_t inner, int64_t kc, T* panel,
                T* buffer) {
  if (!operand.inner_is_col) {
    int64_t ld = 0;
    const T* source = operand.in_place(inner, int(kc), outer, &ld);
    if (source && count == kTileCols<T> && width == kTileCols<T>) return copy_rows<kTileCols<T>>(source, ld, kc, panel);
    if (source && count == kRegisterRows && width == kRegisterRows)
      return copy_rows<kRegisterRows>(source, ld, kc, panel);
    if (source) return copy_short_rows(source, ld, kc, count, width, panel);
    if (count < width) std::fill(panel, panel + kc * width, T(0));
    return operand.block(inner, int(kc), outer, count, panel, width);
  }
  if (count < width) std::fill(panel, panel + kc * width, T(0));
  for (int64_t k = 0; k < kc; k += kPackCols) {
    const int cols = int(std::min<int64_t>(kPackCols, kc - k));
    int64_t ld = kPackCols;
    const T* source = operand.in_place(outer, count, inner + k, &ld);
    if (!source) {
      operand.block(outer, count, inner + k, cols, buffer, kPackCols);
      source = buffer;
    }
    transpose(source, ld, count, cols, panel + k * width, width);
  }
}

// sums[i] += sum_k panel[k * kRegisterRows + i]; short fp32 runs, then double: many rows lose nothing.
template <class T>
void add_panel_sums(const T* panel, int64_t kc, int count, double* sums) {
  constexpr int64_t kRun = 32;
  constexpr int kSteps = 4;  // side by side: together they fill whole vectors
  for (int64_t k0 = 0; k0 < kc; k0 += kRun) {
    T run[kSteps * kRegisterRows] = {};
    const int64_t end = std::min(kc, k0 + kRun);
    int64_t k = k0;
    for (; k + kSteps <= end; k += kSteps)
      for (int i = 0; i < kSteps * kRegisterRows; ++i) run[i] += panel[k * kRegisterRows + i];
    for (; k < end; ++k)
      for (int i = 0; i < kRegisterRows; ++i) run[i] += panel[k * kRegisterRows + i];
    for (int i = 0; i < count; ++i) {
      T sum = run[i];
      for (int s = 1; s < kSteps; ++s) sum += run[s * kRegisterRows + i];
      sums[i] += double(sum);
    }
  }
}

}  // namespace
}  // namespace pygan::cpu::PYGAN_ISA
