// The one matrix product of the CPU backend: C[i, j] = sum_k A[i, k] B[j, k], whose operands are produced while
// they are packed and whose result is consumed tile by tile. Every layer, forward and backward, is this product
// with other operands (operands.h) and another epilogue.
#pragma once

#include <algorithm>
#include <cstdint>

#include "simd.h"
#include "workers.h"
#include "workspace.h"

namespace pygan::cpu::PYGAN_ISA {

template <class T>
constexpr int kLanes = kVectorBytes / int(sizeof(T));

// Columns of a register tile: two vectors.
template <class T>
constexpr int kTileCols = 2 * kLanes<T>;

// A matrix that is produced block by block. `inner_is_col` says which of its axes the product sums over.
template <class T>
class Operand {
 public:
  explicit Operand(bool inner_is_col) : inner_is_col(inner_is_col) {}
  virtual ~Operand() = default;

  // Writes rows [row, row + rows) x cols [col, col + cols) of the matrix to out, leading dimension ld.
  virtual void block(int64_t row, int rows, int64_t col, int cols, T* out, int64_t ld) const = 0;

  // The same rows in place, where they lie in memory as T with unit column stride; else null.
  virtual const T* in_place(int64_t row, int rows, int64_t col, int64_t* ld) const {
    (void)row, (void)rows, (void)col, (void)ld;
    return nullptr;
  }

  const bool inner_is_col;
};

// Consumes a finished tile: c[r * kTileCols + l] is C[i + r, j + l] of weight set `piece`. It may overwrite c.
template <class T>
class Epilogue {
 public:
  virtual ~Epilogue() = default;
  virtual void tile(T* c, int64_t i, int rows, int64_t j, int cols, int piece) = 0;

  // Whether whole rows are welcome in place of tiles, and such rows: c[r * ld + l] is C[i + r, l]. It may overwrite c.
  virtual bool takes_rows() const { return false; }
  virtual void whole_rows(T* c, int64_t ld, int64_t i, int rows) { (void)c, (void)ld, (void)i, (void)rows; }

  // What whole rows are merged into, to be fetched before: matrices like the result, each contiguous; one's row i.
  virtual int streams() const { return 0; }
  virtual const T* stream(int number, int64_t i) const {
    (void)number, (void)i;
    return nullptr;
  }
};

template <class T>
struct Gemm {
  int64_t m, n, k;
  const Operand<T>* a;
  // One B for each piece: for the same tile the epilogue sees piece 0, 1, ... in order, from one thread.
  const Operand<T>* const* b;
  int pieces;
  Epilogue<T>* epilogue;
  double* a_sum;  // null, or (m) that receives sum_k A[i, k]
  const Workers* workers;
};

// Memory to fetch while a tile is computed: `runs` times `steps` pieces of two cache lines, `stride` bytes apart. What
// is packed next is then in the second-level cache; the hardware's own guesses fail on rows that are pages apart.
struct Fetch {
  const char* at = nullptr;
  int64_t stride = 0, steps = 0;
  int64_t runs = 0, hop = 0;  // bytes from the beginning of a run to that of the next
};

void gemm(const Gemm<float>& problem);
void gemm(const Gemm<double>& problem);

constexpr double kPackCost = 12;  // of an element, in the time of a FLOP

// Elements up to the end of a cache line.
template <class T>
int64_t round_up_to_line(int64_t count) {
  return int64_t(Workspace::bytes_for<T>(size_t(count)) / sizeof(T));
}

// k in equal parts of at most half more than `size`.
inline int64_t even_part(int64_t k, int64_t size) {
  const int64_t parts = k <= size * 3 / 2 ? 1 : (k + size - 1) / size;
  return (k + parts - 1) / parts;
}

// The part of such a product that one thread does: B is packed whole, panel by panel, before; then come some rows of A
// at a time. The epilogue takes whole rows, and there is one piece.
template <class T>
class RowProduct {
 public:
  RowProduct(int64_t n, int64_t k);

  int64_t panels() const;  // of B
  int64_t packed() const;  // elements of B
  static int64_t pack_scratch();
  int64_t scratch(int64_t rows) const;  // elements, for so many rows at a time

  void pack(const Operand<T>& b, int64_t panel, T* packed, T* scratch) const;
  void multiply(const Gemm<T>& problem, const T* packed, int64_t first, int64_t last, T* scratch) const;

  // For a sum that is made of several, each over k steps from `inner` on: those of the steps [first, last), which lie
  // along the rows of B, packed; and c (last - first, ld()) = [c +] this sum's share of rows [first, last).
  int64_t ld() const { return ld_; }
  void pack_steps(const Operand<T>& b, int64_t inner, int64_t first, int64_t last, T* packed, T* scratch) const;
  void accumulate(const Operand<T>& a, double* a_sum, int64_t inner, const T* packed, int64_t first, int64_t last, T* c,
                  bool begun, const Epilogue<T>* next, T* scratch) const;

 private:
  Fetch part_of_stream(const Epilogue<T>& next, int stream, int64_t first, int64_t offset, int64_t share) const;
  int64_t inner_at(int64_t k) const { return std::min(inner_block_, k_ - k); }

  int64_t n_, k_, col_panels_, ld_, inner_block_;
};

}  // namespace pygan::cpu::PYGAN_ISA
