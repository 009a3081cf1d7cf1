// What a whole iteration multiplies beside the operands of operands.h: noise, rows of the data set, two halves.
#pragma once

#include <algorithm>

#include "../core/training.h"
#include "operands.h"

namespace pygan::cpu::PYGAN_ISA {

// z (rows, cols), which never lies in memory.
template <class T>
class NoiseRows : public Operand<T> {
 public:
  NoiseRows(NoiseKind kind, uint64_t seed, uint64_t offset, int64_t cols, bool inner_is_col)
      : Operand<T>(inner_is_col), kind_(kind), seed_(seed), offset_(offset), cols_(cols) {}

  void block(int64_t row, int rows, int64_t col, int cols, T* out, int64_t ld) const override {
    if (cols == cols_) return whole_rows(row, rows, out, ld);
    for (int r = 0; r < rows; ++r) noise_run(kind_, seed_, offset_, (row + r) * cols_ + col, cols, out + r * ld);
  }

 private:
  // Many short rows are one run of numbers.
  void whole_rows(int64_t row, int rows, T* out, int64_t ld) const {
    T run[kWordsAtOnce];
    const int64_t first = row * cols_, end = (row + rows) * cols_;
    int64_t r = 0, c = 0;
    for (int64_t i = first / 4 * 4; i < end; i += kWordsAtOnce) {
      const int64_t begin = std::max(i, first), stop = std::min(i + kWordsAtOnce, end);
      noise_run(kind_, seed_, offset_, begin, stop - begin, run);
      for (int64_t j = 0; j < stop - begin; ++j) {
        out[r * ld + c] = run[j];
        if (++c == cols_) c = 0, ++r;
      }
    }
  }

  NoiseKind kind_;
  uint64_t seed_, offset_;
  int64_t cols_;
};

// Rows of the data set, gathered.
template <class T>
class DataRows : public Operand<T> {
 public:
  DataRows(const TrainingData& data, const int64_t* indices, bool inner_is_col)
      : Operand<T>(inner_is_col), data_(data), indices_(indices) {}

  void block(int64_t row, int rows, int64_t col, int cols, T* out, int64_t ld) const override {
    for (int r = 0; r < rows; ++r) {
      const int64_t first = indices_[row + r] * data_.dim + col;
      if (data_.bytes) {
        const uint8_t* in = static_cast<const uint8_t*>(data_.rows) + first;
        const T low = T(data_.low), scale = T(data_.scale);
#pragma omp simd
        for (int c = 0; c < cols; ++c) out[r * ld + c] = T(in[c]) * scale + low;
      } else {
        load_row(static_cast<const T*>(data_.rows) + first, cols, out + r * ld);
      }
    }
  }

 private:
  TrainingData data_;
  const int64_t* indices_;
};

// Rows [0, split) of one operand, then those of another.
template <class T>
class Stacked : public Operand<T> {
 public:
  Stacked(const Operand<T>& top, const Operand<T>& bottom, int64_t split)
      : Operand<T>(top.inner_is_col), top_(top), bottom_(bottom), split_(split) {}

  void block(int64_t row, int rows, int64_t col, int cols, T* out, int64_t ld) const override {
    const int above = int(std::clamp<int64_t>(split_ - row, 0, rows));
    if (above > 0) top_.block(row, above, col, cols, out, ld);
    if (above < rows) bottom_.block(row + above - split_, rows - above, col, cols, out + above * ld, ld);
  }

  const T* in_place(int64_t row, int rows, int64_t col, int64_t* ld) const override {
    if (row >= split_) return bottom_.in_place(row - split_, rows, col, ld);
    return row + rows <= split_ ? top_.in_place(row, rows, col, ld) : nullptr;
  }

 private:
  const Operand<T>&top_, &bottom_;
  int64_t split_;
};

}  // namespace pygan::cpu::PYGAN_ISA
