// Register-tiled product. A is packed once for a chunk of rows and shared by the team; each thread then takes
// column panels of B, packs a panel into its own cache and runs it against all of A. With the small batches of
// GAN training (m of 64 to a few hundred) A stays in the second-level cache and B is read once.
#include "gemm.h"

#include <algorithm>

#include "workspace.h"

namespace pygan::cpu::PYGAN_ISA {
namespace {

// Sums over k go in blocks: a panel of B stays in cache, and rounding errors grow with the block.
constexpr int64_t kInnerBlock = 512;
// Elements of A packed at a time, and the rows that are worth packing B for.
constexpr int64_t kChunkElements = 1 << 20;
constexpr int64_t kChunkRows = 960;
constexpr int kPackCols = 64;  // width of the buffer between an operand and a transposed panel

template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(kVectorBytes)));
};

template <class T>
using Vector = typename VectorOf<T>::type;

// c (R x kTileCols) = [c +] a panel . b panel over kc steps, in R x V vector registers.
template <class T, int R, int V>
void micro_kernel(int64_t kc, const T* a, const T* b, T* c, bool accumulate) {
  Vector<T> sum[R][V] = {};
  for (int64_t k = 0; k < kc; ++k) {
    Vector<T> column[V];
    for (int v = 0; v < V; ++v) column[v] = *reinterpret_cast<const Vector<T>*>(b + v * kLanes<T>);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Vector<T> row = a[r] - Vector<T>{};
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) sum[r][v] += row * column[v];
    }
    a += kRegisterRows;
    b += kTileCols<T>;
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
      Vector<T>* out = reinterpret_cast<Vector<T>*>(c + r * kTileCols<T> + v * kLanes<T>);
      *out = accumulate ? *out + sum[r][v] : sum[r][v];
    }
}

template <class T>
using MicroKernel = void (*)(int64_t, const T*, const T*, T*, bool);

// Ragged edges run a kernel of their own size in place of multiplying padding.
template <class T>
MicroKernel<T> micro_kernel_for(int rows, int cols) {
  static constexpr MicroKernel<T> kOne[] = {
      micro_kernel<T, 1, 1>,  micro_kernel<T, 2, 1>,  micro_kernel<T, 3, 1>,
      micro_kernel<T, 4, 1>,  micro_kernel<T, 5, 1>,  micro_kernel<T, 6, 1>,
#if defined(__AVX512F__)
      micro_kernel<T, 7, 1>,  micro_kernel<T, 8, 1>,  micro_kernel<T, 9, 1>,
      micro_kernel<T, 10, 1>, micro_kernel<T, 11, 1>, micro_kernel<T, 12, 1>,
#endif
  };
  static constexpr MicroKernel<T> kTwo[] = {
      micro_kernel<T, 1, 2>,  micro_kernel<T, 2, 2>,  micro_kernel<T, 3, 2>,
      micro_kernel<T, 4, 2>,  micro_kernel<T, 5, 2>,  micro_kernel<T, 6, 2>,
#if defined(__AVX512F__)
      micro_kernel<T, 7, 2>,  micro_kernel<T, 8, 2>,  micro_kernel<T, 9, 2>,
      micro_kernel<T, 10, 2>, micro_kernel<T, 11, 2>, micro_kernel<T, 12, 2>,
#endif
  };
  static_assert(sizeof kOne / sizeof kOne[0] == kRegisterRows && sizeof kTwo / sizeof kTwo[0] == kRegisterRows);
  return cols > kLanes<T> ? kTwo[rows - 1] : kOne[rows - 1];
}

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

inline void transpose_square(const float* in, int64_t ld, int rows, float* out, int64_t stride) {
  const __m256i lanes = _mm256_cmpgt_epi32(_mm256_set1_epi32(rows), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
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
    _mm256_maskstore_ps(out + i * stride, lanes, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
    _mm256_maskstore_ps(out + (i + 4) * stride, lanes, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
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

// panel[k * width + i] = operand(outer + i, inner + k), zero for i >= count.
template <class T>
void pack_panel(const Operand<T>& operand, int64_t outer, int count, int width, int64_t inner, int64_t kc, T* panel,
                T* buffer) {
  if (count < width) std::fill(panel, panel + kc * width, T(0));
  if (!operand.inner_is_col) {
    operand.block(inner, int(kc), outer, count, panel, width);
    return;
  }
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
  for (int64_t k0 = 0; k0 < kc; k0 += kRun) {
    T run[kRegisterRows] = {};
    const int64_t end = std::min(kc, k0 + kRun);
    for (int64_t k = k0; k < end; ++k)
      for (int i = 0; i < kRegisterRows; ++i) run[i] += panel[k * kRegisterRows + i];
    for (int i = 0; i < count; ++i) sums[i] += double(run[i]);
  }
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A chunk of rows [m0, m0 + mc) at a time: A is packed, then tasks are (column panel, group of row panels).
template <class T>
class Product {
 public:
  static constexpr int kR = kRegisterRows;
  static constexpr int kC = kTileCols<T>;

  explicit Product(const Gemm<T>& problem)
      : p_(problem),
        threads_(p_.workers->threads),
        row_chunk_(ceil_div(std::min(p_.m, std::max(kChunkRows, kChunkElements / std::max<int64_t>(p_.k, 1))), kR) *
                   kR),
        col_panels_(ceil_div(p_.n, kC)),
        inner_block_(p_.k <= kInnerBlock * 3 / 2 ? p_.k : ceil_div(p_.k, ceil_div(p_.k, kInnerBlock))),
        // enough tasks to balance the team, none so short that packing B for it would show
        row_groups_(std::clamp<int64_t>(ceil_div(4 * threads_, std::max<int64_t>(col_panels_, 1)), 1,
                                        ceil_div(row_chunk_, 8 * kR))),
        group_rows_(ceil_div(ceil_div(row_chunk_, kR), row_groups_) * kR),
        per_thread_(Workspace::bytes_for<T>(kC * inner_block_) + Workspace::bytes_for<T>(kC * kPackCols) +
                    Workspace::bytes_for<T>((inner_block_ < p_.k ? group_rows_ : kR) * kC)),
        space_(Workspace::bytes_for<T>(row_chunk_ * p_.k) + threads_ * (per_thread_ + sizeof(int64_t)) + 64) {
    a_ = space_.template take<T>(row_chunk_ * p_.k);
    scratch_ = space_.template take<char>(threads_ * per_thread_);
    packed_panel_ = space_.template take<int64_t>(threads_);
  }

  void run() {
    for (m0_ = 0; m0_ < p_.m; m0_ += row_chunk_) {
      const double flops = 2.0 * chunk_rows() * p_.n * p_.k * p_.pieces;
      p_.workers->each(ceil_div(chunk_rows(), kR), flops, [this](int64_t panel, int thread) { pack_a(panel, thread); });
      std::fill_n(packed_panel_, threads_, int64_t(-1));
      p_.workers->each(col_panels_ * ceil_div(chunk_rows(), group_rows_), flops,
                       [this](int64_t task, int thread) { multiply(task, thread); });
    }
  }

 private:
  int64_t chunk_rows() const { return std::min(row_chunk_, p_.m - m0_); }

  void pack_a(int64_t panel, int thread) {
    T* buffer = reinterpret_cast<T*>(scratch_ + thread * per_thread_);
    const int count = int(std::min<int64_t>(kR, chunk_rows() - panel * kR));
    T* packed = a_ + panel * kR * p_.k;
    pack_panel(*p_.a, m0_ + panel * kR, count, kR, 0, p_.k, packed, buffer);
    if (p_.a_sum) add_panel_sums(packed, p_.k, count, p_.a_sum + m0_ + panel * kR);
  }

  void multiply(int64_t task, int thread) {
    char* own = scratch_ + thread * per_thread_;
    T* b = reinterpret_cast<T*>(own);
    T* buffer = reinterpret_cast<T*>(own + Workspace::bytes_for<T>(kC * inner_block_));
    T* c = reinterpret_cast<T*>(own + Workspace::bytes_for<T>(kC * inner_block_) +
                                Workspace::bytes_for<T>(kC * kPackCols));
    const int64_t groups = ceil_div(chunk_rows(), group_rows_);
    const int64_t col_panel = task / groups, first = task % groups * group_rows_;
    const int64_t last = std::min(chunk_rows(), first + group_rows_);
    const int cols = int(std::min<int64_t>(kC, p_.n - col_panel * kC));
    for (int piece = 0; piece < p_.pieces; ++piece) {
      int64_t k = 0;
      do {  // once even for k == 0: the epilogue still has a bias to apply
        const int64_t kc = std::min(inner_block_, p_.k - k);
        const bool whole = inner_block_ >= p_.k && p_.pieces == 1;
        if (!whole || packed_panel_[thread] != col_panel)
          pack_panel(*p_.b[piece], col_panel * kC, cols, kC, k, kc, b, buffer);
        packed_panel_[thread] = col_panel;
        row_panels(first, last, col_panel, cols, piece, k, kc, b, c);
        k += kc;
      } while (k < p_.k);
    }
  }

  void row_panels(int64_t first, int64_t last, int64_t col_panel, int cols, int piece, int64_t k, int64_t kc,
                  const T* b, T* c) {
    const bool blocked = inner_block_ < p_.k;
    for (int64_t i = first; i < last; i += kR) {
      const int rows = int(std::min<int64_t>(kR, last - i));
      T* tile = blocked ? c + (i - first) * kC : c;
      micro_kernel_for<T>(rows, cols)(kc, a_ + i * p_.k + k * kR, b, tile, k > 0);
      if (k + kc == p_.k) p_.epilogue->tile(tile, m0_ + i, rows, col_panel * kC, cols, piece);
    }
  }

  const Gemm<T>& p_;
  const int threads_;
  const int64_t row_chunk_, col_panels_, inner_block_, row_groups_, group_rows_;
  const size_t per_thread_;
  Workspace space_;
  T* a_;
  char* scratch_;
  int64_t* packed_panel_;  // of B, by thread
  int64_t m0_ = 0;
};

template <class T>
void run_gemm(const Gemm<T>& problem) {
  if (problem.m == 0 || (problem.n == 0 && !problem.a_sum)) return;
  Product<T>(problem).run();
}

}  // namespace

void gemm(const Gemm<float>& problem) { run_gemm(problem); }
void gemm(const Gemm<double>& problem) { run_gemm(problem); }

}  // namespace pygan::cpu::PYGAN_ISA
