// What a whole iteration multiplies beside the operands of operands.h: rows of the data set, and two halves.
#pragma once

#include <algorithm>

#include "../core/training.h"
#include "operands.h"

namespace pygan::cpu::PYGAN_ISA {

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
