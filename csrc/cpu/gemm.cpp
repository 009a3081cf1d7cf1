// Register-tiled product, in two orders.
//
// By columns: A is packed once for a chunk of rows and shared by the team; each thread then takes column panels of B,
// packs a panel into its own cache and runs it against all of A. With the small batches of GAN training (m of 64 to a
// few hundred) A stays in the second-level cache and B, a layer's weight, is read once.
//
// By rows, where the result is what is large, as in a weight's gradient: B is packed whole, and each thread takes a few
// row panels of A through all of it. What the epilogue touches then lies along rows.
#include "gemm.h"

#include <algorithm>

#include "panels.h"
#include "workspace.h"

namespace pygan::cpu::PYGAN_ISA {
namespace {

// Sums over k go in blocks: a panel of B stays in cache, and rounding errors grow with the block.
constexpr int64_t kInnerBlock = 256;
// Elements of A packed at a time, and the rows that are worth packing B for.
constexpr int64_t kChunkElements = 1 << 20;
constexpr int64_t kChunkRows = 960;
// A sum over more than this, a weight's gradient of a large batch, goes in chunks, of fewer rows: what is packed of A
// is then no larger.
constexpr int64_t kInnerChunk = 2048;
constexpr int64_t kLongRows = 192;

template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(kVectorBytes)));
};

template <class T>
using Vector = typename VectorOf<T>::type;

// c (R x kTileCols, leading dimension ldc) = [c +] a panel . b panel over kc steps, in R x V vector registers.
template <class T, int R, int V>
void micro_kernel(int64_t kc, const T* a, const T* b, T* c, int64_t ldc, bool accumulate, const Fetch& fetch) {
  Vector<T> sum[R][V] = {};
  const auto step = [&]() __attribute__((always_inline)) {
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
  };
  int64_t k = 0;
  for (int64_t run = 0; run < fetch.runs; ++run) {
    const char* at = fetch.at + run * fetch.hop;
    for (const int64_t end = std::min(kc, k + fetch.steps); k < end; ++k, at += fetch.stride) {
      __builtin_prefetch(at, 0, 2);
      __builtin_prefetch(at + 64, 0, 2);
      step();
    }
  }
  for (; k < kc; ++k) step();
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
      Vector<T>* out = reinterpret_cast<Vector<T>*>(c + r * ldc + v * kLanes<T>);
      *out = accumulate ? *out + sum[r][v] : sum[r][v];
    }
}

template <class T>
using MicroKernel = void (*)(int64_t, const T*, const T*, T*, int64_t, bool, const Fetch&);

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

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Part of what a panel of an operand (pack_panel's arguments) lies in: `share` steps of the inner index, from
// part * share on.
template <class T>
Fetch memory_of_panel(const Operand<T>& operand, int64_t outer, int count, int64_t inner, int64_t kc, int64_t part,
                      int64_t share) {
  constexpr int64_t kPiece = 128 / int64_t(sizeof(T));
  const int64_t first = std::min(kc, part * share), last = std::min(kc, first + share);
  if (first == last) return {};
  int64_t ld = 0;
  if (operand.inner_is_col) {
    const T* source = operand.in_place(outer, count, inner + first, &ld);
    if (!source) return {};
    return {reinterpret_cast<const char*>(source), ld * int64_t(sizeof(T)), count, ceil_div(last - first, kPiece), 128};
  }
  const T* source = operand.in_place(inner + first, int(last - first), outer, &ld);
  if (!source) return {};
  return {reinterpret_cast<const char*>(source), ld * int64_t(sizeof(T)), last - first, 1, 0};
}

// By columns, a chunk of rows [m0, m0 + mc) and of k at a time: A is packed, then tasks are (column panel, group of row
// panels).
template <class T>
class ByColumns {
 public:
  static constexpr int kR = kRegisterRows;
  static constexpr int kC = kTileCols<T>;
  static constexpr int64_t kStepsAtOnce = 32;

  explicit ByColumns(const Gemm<T>& problem)
      : p_(problem),
        threads_(p_.workers->threads),
        inner_chunk_(p_.pieces > 1 ? p_.k : even_part(p_.k, kInnerChunk)),
        row_chunk_(ceil_div(std::min(p_.m, inner_chunk_ < p_.k
                                               ? kLongRows
                                               : std::max(kChunkRows, kChunkElements / std::max<int64_t>(p_.k, 1))),
                            kR) *
                   kR),
        col_panels_(ceil_div(p_.n, kC)),
        inner_block_(even_part(inner_chunk_, kInnerBlock)),
        // enough tasks to balance the team, none so short that packing B for it would show
        row_groups_(col_panels_ % threads_ == 0
                        ? 1
                        : std::clamp<int64_t>(ceil_div(4 * threads_, std::max<int64_t>(col_panels_, 1)), 1,
                                              ceil_div(row_chunk_, 8 * kR))),
        group_rows_(ceil_div(ceil_div(row_chunk_, kR), row_groups_) * kR),
        per_thread_(Workspace::bytes_for<T>(kC * inner_block_) + Workspace::bytes_for<T>(kPackBuffer<T>) +
                    Workspace::bytes_for<T>((inner_block_ < p_.k ? group_rows_ : kR) * kC)),
        results_(inner_chunk_ < p_.k ? row_chunk_ * col_panels_ * kC : 0),
        space_(Workspace::bytes_for<T>(row_chunk_ * inner_chunk_) + Workspace::bytes_for<T>(results_) +
               threads_ * (per_thread_ + sizeof(int64_t)) + 64) {
    a_ = space_.template take<T>(row_chunk_ * inner_chunk_);
    c_ = space_.template take<T>(results_);
    scratch_ = space_.template take<char>(threads_ * per_thread_);
    packed_panel_ = space_.template take<int64_t>(threads_);
  }

  void run() {
    for (m0_ = 0; m0_ < p_.m; m0_ += row_chunk_) {
      k0_ = 0;
      do {  // once even for k == 0: the epilogue still has a bias to apply
        const double flops = 2.0 * chunk_rows() * p_.n * chunk_inner() * p_.pieces;
        pack_a();
        std::fill_n(packed_panel_, threads_, int64_t(-1));
        p_.workers->each(col_panels_ * ceil_div(chunk_rows(), group_rows_), flops,
                         [this](int64_t task, int thread) { multiply(task, thread); });
        k0_ += inner_chunk_;
      } while (k0_ < p_.k);
    }
  }

 private:
  int64_t chunk_rows() const { return std::min(row_chunk_, p_.m - m0_); }
  int64_t chunk_inner() const { return std::min(inner_chunk_, p_.k - k0_); }

  // Panel by panel where A lies along k. Where it lies across, all panels of a few steps at a time: a panel is narrower
  // than a cache line, which its neighbours then find in the cache.
  void pack_a() {
    const int64_t panels = ceil_div(chunk_rows(), kR);
    const double flops = kPackCost * double(chunk_rows() * chunk_inner());
    if (p_.a->inner_is_col) {
      p_.workers->each(panels, flops, [this](int64_t panel, int thread) {
        pack_a(panel, 0, chunk_inner(), thread);
        if (p_.a_sum) sum_a(panel);
      });
      return;
    }
    p_.workers->each(ceil_div(chunk_inner(), kStepsAtOnce), flops, [this, panels](int64_t task, int thread) {
      const int64_t k = task * kStepsAtOnce;
      for (int64_t panel = 0; panel < panels; ++panel)
        pack_a(panel, k, std::min(kStepsAtOnce, chunk_inner() - k), thread);
    });
    if (p_.a_sum) p_.workers->each(panels, flops / 4, [this](int64_t panel, int) { sum_a(panel); });
  }

  int rows_of(int64_t panel) const { return int(std::min<int64_t>(kR, chunk_rows() - panel * kR)); }

  void pack_a(int64_t panel, int64_t k, int64_t kc, int thread) {
    T* buffer = reinterpret_cast<T*>(scratch_ + thread * per_thread_);
    pack_panel(*p_.a, m0_ + panel * kR, rows_of(panel), kR, k0_ + k, kc, a_ + panel * kR * inner_chunk_ + k * kR,
               buffer);
  }

  void sum_a(int64_t panel) {
    add_panel_sums(a_ + panel * kR * inner_chunk_, chunk_inner(), rows_of(panel), p_.a_sum + m0_ + panel * kR);
  }

  void multiply(int64_t task, int thread) {
    char* own = scratch_ + thread * per_thread_;
    T* b = reinterpret_cast<T*>(own);
    T* buffer = reinterpret_cast<T*>(own + Workspace::bytes_for<T>(kC * inner_block_));
    T* c = reinterpret_cast<T*>(own + Workspace::bytes_for<T>(kC * inner_block_) +
                                Workspace::bytes_for<T>(kPackBuffer<T>));
    const int64_t groups = ceil_div(chunk_rows(), group_rows_);
    const int64_t col_panel = task / groups, first = task % groups * group_rows_;
    const int64_t last = std::min(chunk_rows(), first + group_rows_);
    const int cols = int(std::min<int64_t>(kC, p_.n - col_panel * kC));
    for (int piece = 0; piece < p_.pieces; ++piece) {
      int64_t k = k0_;
      const int64_t end = k0_ + chunk_inner();
      do {
        const int64_t kc = std::min(inner_block_, end - k);
        const bool whole = inner_block_ >= p_.k && p_.pieces == 1;
        if (!whole || packed_panel_[thread] != col_panel)
          pack_panel(*p_.b[piece], col_panel * kC, cols, kC, k, kc, b, buffer);
        packed_panel_[thread] = col_panel;
        row_panels(first, last, col_panel, cols, piece, k, kc, b, c);
        k += kc;
      } while (k < end);
    }
  }

  void row_panels(int64_t first, int64_t last, int64_t col_panel, int cols, int piece, int64_t k, int64_t kc,
                  const T* b, T* c) {
    const bool blocked = inner_block_ < p_.k;
    const Block next = block_after(col_panel, piece, k + kc);
    const int64_t share = ceil_div(next.kc, ceil_div(last - first, kR));
    for (int64_t i = first; i < last; i += kR) {
      const int rows = int(std::min<int64_t>(kR, last - i));
      T* tile = results_ ? c_ + (col_panel * row_chunk_ + i) * kC : blocked ? c + (i - first) * kC : c;
      const Fetch fetch = next.kc == 0 ? Fetch{}
                                       : memory_of_panel(*p_.b[next.piece], next.col_panel * kC,
                                                         int(std::min<int64_t>(kC, p_.n - next.col_panel * kC)), next.k,
                                                         next.kc, (i - first) / kR, share);
      micro_kernel_for<T>(rows, cols)(kc, a_ + i * inner_chunk_ + (k - k0_) * kR, b, tile, kC, k > 0, fetch);
      if (k + kc == p_.k) p_.epilogue->tile(tile, m0_ + i, rows, col_panel * kC, cols, piece);
    }
  }

  struct Block {
    int64_t col_panel;
    int piece;
    int64_t k, kc;
  };

  // What a thread packs next, if threads come by turns; kc == 0: nothing.
  Block block_after(int64_t col_panel, int piece, int64_t k) const {
    const int64_t end = k0_ + chunk_inner();
    if (k < end) return {col_panel, piece, k, std::min(inner_block_, end - k)};
    if (piece + 1 < p_.pieces) return {col_panel, piece + 1, k0_, std::min(inner_block_, end - k0_)};
    const int64_t next = col_panel + (row_groups_ == 1 ? threads_ : 1);
    if (next >= col_panels_) return {0, 0, 0, 0};
    return {next, 0, k0_, std::min(inner_block_, end - k0_)};
  }

  const Gemm<T>& p_;
  const int threads_;
  const int64_t inner_chunk_, row_chunk_, col_panels_, inner_block_, row_groups_, group_rows_;
  const size_t per_thread_;
  const int64_t results_;  // elements of tiles that are kept from one chunk of k to the next
  Workspace space_;
  T *a_, *c_;
  char* scratch_;
  int64_t* packed_panel_;  // of B, by thread
  int64_t m0_ = 0, k0_ = 0;
};

// By rows: B is packed whole, then tasks are groups of row panels, whose results are consumed row by row.
template <class T>
class ByRows {
 public:
  static constexpr int kR = kRegisterRows;
  static constexpr int kC = kTileCols<T>;

  static bool suits(const Gemm<T>& p) {
    if (!p.epilogue->takes_rows() || p.pieces != 1 || p.n == 0 || p.k == 0) return false;
    const double packed = double(p.k) * double(p.n + kC);
    const bool large_result = 2.0 * double(p.m) * double(p.n) > double(p.m + p.n) * double(p.k);
    const bool sums_rows = !p.a->inner_is_col;  // a weight's gradient
    if (sums_rows && p.k <= kInnerBlock * 3 / 2 && packed <= kOwnCache && large_result) return true;
    return p.m >= kManyRows && p.k <= kInnerChunk && packed <= kSharedCache;
  }

  explicit ByRows(const Gemm<T>& problem)
      : p_(problem),
        product_(p_.n, p_.k),
        // panels of A that share a panel of B in the first-level cache, their results in the second-level one, and
        // enough tasks to balance the team
        group_(kR * std::clamp<int64_t>(std::min(ceil_div(p_.m, kR) / (4 * p_.workers->threads),
                                                 result() / (kR * ceil_div(p_.n, kC) * kC)),
                                        1, 4)),
        per_thread_(Workspace::bytes_for<T>(product_.scratch(group_))),
        space_(Workspace::bytes_for<T>(product_.packed()) + size_t(p_.workers->threads) * per_thread_) {
    b_ = space_.template take<T>(product_.packed());
    scratch_ = space_.template take<char>(size_t(p_.workers->threads) * per_thread_);
  }

  void run() {
    const double flops = 2.0 * double(p_.m) * double(p_.n) * double(p_.k);
    const auto own = [this](int thread) { return reinterpret_cast<T*>(scratch_ + size_t(thread) * per_thread_); };
    p_.workers->each(product_.panels(), kPackCost * double(p_.n * p_.k),
                     [&](int64_t panel, int thread) { product_.pack(*p_.b[0], panel, b_, own(thread)); });
    p_.workers->each(ceil_div(p_.m, group_), flops, [&](int64_t group, int thread) {
      product_.multiply(p_, b_, group * group_, std::min(p_.m, (group + 1) * group_), own(thread));
    });
  }

 private:
  // Elements of B that each thread's own cache holds; and the most of it that is read once for each group of rows, where
  // there are so many that the order by columns would read A, and write the result, from far away.
  static constexpr double kOwnCache = 1 << 18, kSharedCache = 1 << 21;
  static constexpr int64_t kManyRows = 256;

  // Elements of a group's result. Where the epilogue has memory of its own to merge them with, both share the cache.
  int64_t result() const { return p_.epilogue->streams() > 0 ? 1 << 14 : 1 << 16; }

  const Gemm<T>& p_;
  const RowProduct<T> product_;
  const int64_t group_;
  const size_t per_thread_;
  Workspace space_;
  T* b_;
  char* scratch_;
};

template <class T>
void run_gemm(const Gemm<T>& problem) {
  if (problem.m == 0 || (problem.n == 0 && !problem.a_sum)) return;
  if (ByRows<T>::suits(problem))
    ByRows<T>(problem).run();
  else
    ByColumns<T>(problem).run();
}

}  // namespace

template <class T>
RowProduct<T>::RowProduct(int64_t n, int64_t k)
    : n_(n),
      k_(k),
      col_panels_(ceil_div(n, kTileCols<T>)),
      ld_(col_panels_ * kTileCols<T>),
      inner_block_(even_part(k, kInnerBlock)) {}

template <class T>
int64_t RowProduct<T>::panels() const {
  return ceil_div(k_, inner_block_) * col_panels_;
}

template <class T>
int64_t RowProduct<T>::packed() const {
  return ld_ * k_;
}

template <class T>
int64_t RowProduct<T>::pack_scratch() {
  return kPackBuffer<T>;
}

template <class T>
int64_t RowProduct<T>::scratch(int64_t rows) const {
  const int64_t whole = ceil_div(rows, kRegisterRows) * kRegisterRows;
  return round_up_to_line<T>(whole * k_) + round_up_to_line<T>(kPackBuffer<T>) + whole * ld_;
}

template <class T>
void RowProduct<T>::pack(const Operand<T>& b, int64_t panel, T* packed, T* scratch) const {
  const int64_t k = panel / col_panels_ * inner_block_, j = panel % col_panels_ * kTileCols<T>;
  pack_panel(b, j, int(std::min<int64_t>(kTileCols<T>, n_ - j)), kTileCols<T>, k, inner_at(k),
             packed + k * ld_ + j * inner_at(k), scratch);
}

template <class T>
void RowProduct<T>::pack_steps(const Operand<T>& b, int64_t inner, int64_t first, int64_t last, T* packed,
                               T* scratch) const {
  constexpr int64_t kC = kTileCols<T>, kSteps = 8, kCols = kPackBuffer<T> / kSteps / kC * kC;
  for (int64_t step = first; step < last;) {
    const int64_t block = step / inner_block_ * inner_block_;
    const int64_t count = std::min({kSteps, last - step, block + inner_block_ - step});
    for (int64_t begin = 0; begin < n_; begin += kCols) {
      const int64_t cols = std::min(kCols, n_ - begin);
      int64_t ld = cols;
      const T* source = b.in_place(inner + step, int(count), begin, &ld);
      if (!source) {
        b.block(inner + step, int(count), begin, int(cols), scratch, cols);
        source = scratch, ld = cols;
      }
      for (int64_t j = 0; j < cols; j += kC) {
        T* const panel = packed + block * ld_ + (begin + j) * inner_at(block) + (step - block) * kC;
        if (j + kC <= cols)
          copy_rows<kC>(source + j, ld, count, panel);
        else
          copy_short_rows(source + j, ld, count, int(cols - j), int(kC), panel);
      }
    }
    step += count;
  }
}

template <class T>
void RowProduct<T>::accumulate(const Operand<T>& operand, double* a_sum, int64_t inner, const T* packed, int64_t first,
                               int64_t last, T* c, bool begun, const Epilogue<T>* next, T* scratch) const {
  constexpr int64_t kR = kRegisterRows, kC = kTileCols<T>;
  const auto rows_at = [last](int64_t i) { return int(std::min<int64_t>(kRegisterRows, last - i)); };
  T* const a = scratch;
  T* const buffer = a + round_up_to_line<T>(ceil_div(last - first, kR) * kR * k_);
  for (int64_t i = first; i < last; i += kR) {
    T* const panel = a + (i - first) * k_;
    pack_panel(operand, i, rows_at(i), kR, inner, k_, panel, buffer);
    if (a_sum) add_panel_sums(panel, k_, rows_at(i), a_sum + i);
  }
  const int streams = next ? next->streams() : 0;
  const int64_t calls = panels() * ceil_div(last - first, kR);
  const int64_t share = ceil_div((last - first) * n_ * streams, calls);
  int64_t call = 0;
  for (int64_t k = 0; k < k_; k += inner_block_)
    for (int64_t j = 0; j < n_; j += kC)
      for (int64_t i = first; i < last; i += kR, ++call)
        micro_kernel_for<T>(rows_at(i), int(std::min<int64_t>(kC, n_ - j)))(
            inner_at(k), a + (i - first) * k_ + k * kR, packed + k * ld_ + j * inner_at(k), c + (i - first) * ld_ + j,
            ld_, begun || k > 0,
            streams == 0 ? Fetch{} : part_of_stream(*next, int(call % streams), first, call / streams * share, share));
}

template <class T>
void RowProduct<T>::multiply(const Gemm<T>& p, const T* packed, int64_t first, int64_t last, T* scratch) const {
  const int64_t panels = ceil_div(last - first, kRegisterRows);
  T* const c = scratch + round_up_to_line<T>(panels * kRegisterRows * k_) + round_up_to_line<T>(kPackBuffer<T>);
  accumulate(*p.a, p.a_sum, 0, packed, first, last, c, false, p.epilogue, scratch);
  p.epilogue->whole_rows(c, ld_, first, int(last - first));
}

// `share` elements of a stream of the epilogue, from row `first` and an offset on.
template <class T>
Fetch RowProduct<T>::part_of_stream(const Epilogue<T>& next, int stream, int64_t first, int64_t offset,
                                    int64_t share) const {
  const char* rows = reinterpret_cast<const char*>(next.stream(stream, first));
  constexpr int64_t kPiece = 128;
  return {rows + offset * int64_t(sizeof(T)), kPiece, ceil_div(share * int64_t(sizeof(T)), kPiece), 1, 0};
}

template class RowProduct<float>;
template class RowProduct<double>;

void gemm(const Gemm<float>& problem) { run_gemm(problem); }
void gemm(const Gemm<double>& problem) { run_gemm(problem); }

}  // namespace pygan::cpu::PYGAN_ISA
