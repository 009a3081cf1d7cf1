// What the native engine's products multiply: the rows a layer is given, and the gradient of its pre-activations.
#pragma once

#include "engine_counters.h"
#include "noise_block.h"
#include "operands.h"

namespace pygan::cuda {

enum class RowSource { dense, noise, gathered };

// The input of a layer, dropped out: a matrix in memory; noise; or rows of the data set and below them generated ones.
template <class S>
struct BatchRows {
  static constexpr bool kAlways = false;
  using T = Compute<S>;

  RowSource source;
  int64_t row_count, col_count;
  const S* data;  // dense rows, or the generated ones
  GroupedMask<T> mask;
  // gathered
  const void* set;  // bytes: b stands for low + b * scale
  const int64_t* index;
  int64_t real_rows;
  T low, scale;
  bool bytes;
  // noise
  NoiseKind kind;
  uint64_t seed;
  const uint64_t* offsets;  // of groups as the mask's

  bool vectorised;  // whole chunks of `data` and of the set can be read
  bool copied;

  static BatchRows dense(const S* data, int64_t rows, int64_t cols, const GroupedMask<T>& mask) {
    BatchRows made(RowSource::dense, data, rows, cols, mask);
    made.copied = made.vectorised && mask.mask.threshold == 0;
    return made;
  }

  static BatchRows noise(int64_t rows, int64_t cols, NoiseKind kind, uint64_t seed, const uint64_t* offsets,
                         const GroupedMask<T>& mask) {
    BatchRows made(RowSource::noise, nullptr, rows, cols, mask);
    made.kind = kind;
    made.seed = seed;
    made.offsets = offsets;
    return made;
  }

  // Row i of the set is row index[i] of `data`; `generated` lie below them, as many.
  static BatchRows gathered(const TrainingData& data, const int64_t* index, const S* generated, int64_t real_rows,
                            const GroupedMask<T>& mask) {
    BatchRows made(RowSource::gathered, generated, 2 * real_rows, data.dim, mask);
    made.set = data.rows;
    made.bytes = data.bytes;
    made.index = index;
    made.real_rows = real_rows;
    made.low = T(data.low);
    made.scale = T(data.scale);
    const size_t unit = data.bytes ? kVector<S> : kVectorBytes;
    made.vectorised &= reinterpret_cast<uintptr_t>(data.rows) % unit == 0;
    made.copied = made.vectorised && !data.bytes && mask.mask.threshold == 0;
    return made;
  }

  int64_t rows() const { return row_count; }
  int64_t cols() const { return col_count; }
  bool is_matrix() const { return copied && source == RowSource::dense; }
  Copied<S> as_copied() const { return {data, row_count, col_count, col_count}; }

  __device__ int valid(int64_t row, int64_t col) const {
    return valid_of_chunk<S>(row < row_count ? col_count - col : 0);
  }

  // Of rows in memory that are of type S.
  __device__ const S* at(int64_t row, int64_t col) const {
    if (source == RowSource::dense) return data + row * col_count + col;
    return row < real_rows ? static_cast<const S*>(set) + index[row] * col_count + col
                           : data + (row - real_rows) * col_count + col;
  }

  __device__ Chunk<S> chunk(int64_t row, int64_t col, int count) const {
    Chunk<S> chunk;
    T values[kVector<S>] = {};
    if (count > 0) {
      if (source == RowSource::noise)
        fill(values, row, col);
      else if (source == RowSource::gathered && bytes && row < real_rows)
        widen_bytes(static_cast<const uint8_t*>(set) + index[row] * col_count + col, count, values);
      else
        load_run(at(row, col), count, vectorised, values);
      if (mask.on()) mask.apply(values, row, col, col_count);
    }
#pragma unroll
    for (int i = 0; i < kVector<S>; ++i) chunk.value[i] = i < count ? narrow<S>(values[i]) : S{};
    return chunk;
  }

 private:
  BatchRows(RowSource source, const S* data, int64_t rows, int64_t cols, const GroupedMask<T>& mask)
      : source(source),
        row_count(rows),
        col_count(cols),
        data(data),
        mask(mask),
        set(nullptr),
        index(nullptr),
        real_rows(0),
        low(0),
        scale(0),
        bytes(false),
        kind(NoiseKind::normal),
        seed(0),
        offsets(nullptr),
        vectorised(reinterpret_cast<uintptr_t>(data) % kVectorBytes == 0 && cols % kVector<S> == 0),
        copied(false) {}

  struct alignas(kVector<S>) Bytes {
    uint8_t value[kVector<S>];
  };

  __device__ void widen_bytes(const uint8_t* from, int count, T (&values)[kVector<S>]) const {
    Bytes run;
    if (vectorised && count == kVector<S>)
      run = *reinterpret_cast<const Bytes*>(from);
    else
#pragma unroll
      for (int i = 0; i < kVector<S>; ++i) run.value[i] = i < count ? from[i] : uint8_t(0);
#pragma unroll
    for (int i = 0; i < kVector<S>; ++i) values[i] = T(run.value[i]) * scale + low;
  }

  // The noise from element (row, col) on.
  __device__ void fill(T (&values)[kVector<S>], int64_t row, int64_t col) const {
    constexpr int kBlocks = (kVector<S> + 3 + 3) / 4;  // a run may begin at any word of its first block
    const uint32_t group = uint32_t(row) / mask.group_rows;
    const uint64_t first = uint64_t(uint32_t(row) - group * mask.group_rows) * uint64_t(col_count) + uint64_t(col);
    const uint64_t offset = offsets[group];
    const int skipped = int(first % 4);
    float run[4 * kBlocks] = {};
#pragma unroll
    for (int b = 0; b < kBlocks; ++b)
      if (b * 4 < kVector<S> + skipped) noise_of_block(kind, philox_block(seed, offset, first / 4 + b), run + 4 * b);
    // shifted by two and by one: an index that is no constant would put the run into local memory
#pragma unroll
    for (int i = 0; i + 2 < 4 * kBlocks; ++i) run[i] = skipped & 2 ? run[i + 2] : run[i];
#pragma unroll
    for (int i = 0; i < kVector<S>; ++i) values[i] = T(skipped & 1 ? run[i + 1] : run[i]);
  }
};

// The gradient of a layer's pre-activations: as it lies there, or for maxout that of the units where the piece won.
template <class S>
struct GradRows {
  static constexpr bool kAlways = false;

  const S* g;             // (rows, cols / pieces)
  const uint8_t* argmax;  // likewise, or null
  int64_t row_count, col_count;
  int pieces;
  int64_t own_rows, back;  // the argmax of rows from `own_rows` on is that of the row so many before
  bool copied;

  GradRows(const S* g, const uint8_t* argmax, int64_t rows, int64_t cols, int64_t pieces, int64_t own_rows,
           int64_t back)
      : g(g),
        argmax(argmax),
        row_count(rows),
        col_count(cols),
        pieces(int(pieces)),
        own_rows(own_rows),
        back(back),
        copied(!argmax && reinterpret_cast<uintptr_t>(g) % kVectorBytes == 0 && cols % kVector<S> == 0) {}

  int64_t rows() const { return row_count; }
  int64_t cols() const { return col_count; }
  bool is_matrix() const { return copied; }
  Copied<S> as_copied() const { return {g, row_count, col_count, col_count}; }

  __device__ int valid(int64_t row, int64_t col) const {
    return valid_of_chunk<S>(row < row_count ? col_count - col : 0);
  }
  __device__ const S* at(int64_t row, int64_t col) const { return g + row * col_count + col; }

  __device__ Chunk<S> chunk(int64_t row, int64_t col, int count) const {
    Chunk<S> chunk;
    if (!argmax) {
#pragma unroll
      for (int i = 0; i < kVector<S>; ++i) chunk.value[i] = i < count ? *at(row, col + i) : S{};
      return chunk;
    }
    const int64_t units = col_count / pieces;
    const uint8_t* const winners = argmax + (row < own_rows ? row : row - back) * units;
    int unit = int(uint32_t(col) / uint32_t(pieces));
    int piece = int(col) - unit * pieces;
#pragma unroll
    for (int i = 0; i < kVector<S>; ++i) {
      chunk.value[i] = i < count && winners[unit] == piece ? g[row * units + unit] : S{};
      if (++piece == pieces) {
        piece = 0;
        ++unit;
      }
    }
    return chunk;
  }
};

}  // namespace pygan::cuda
