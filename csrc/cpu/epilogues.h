// The epilogues of gemm.h that layers share, and the backward pass that is the same for every layer: only the
// gradient of the pre-activations differs.
#pragma once

#include <vector>

#include "operands.h"
#include "workspace.h"

namespace pygan::cpu::PYGAN_ISA {

template <class T, class S>
inline void store_tile(const T* c, int rows, int cols, S* out, int64_t ld) {
  for (int r = 0; r < rows; ++r) store_row(c + r * kTileCols<T>, cols, out + r * ld);
}

// A bias in the type that is computed with, padded so that every tile can read whole vectors.
template <class S>
class PaddedBias {
  using T = Compute<S>;

 public:
  PaddedBias(const void* bias, int64_t n) : space_(bias ? Workspace::bytes_for<T>(n + kTileCols<T>) : 0) {
    if (!bias) return;
    values_ = space_.template take<T>(n + kTileCols<T>);
    load_row(static_cast<const S*>(bias), n, values_);
    for (int i = 0; i < kTileCols<T>; ++i) values_[n + i] = T(0);
  }

  const T* values() const { return values_; }

 private:
  Workspace space_;
  T* values_ = nullptr;
};

// Writes a product as it is.
template <class S>
class Store : public Epilogue<Compute<S>> {
 public:
  Store(void* out, int64_t ld) : out_(static_cast<S*>(out)), ld_(ld) {}

  void tile(Compute<S>* c, int64_t i, int rows, int64_t j, int cols, int) override {
    store_tile(c, rows, cols, out_ + i * ld_ + j, ld_);
  }

  bool takes_rows() const override { return true; }
  void whole_rows(Compute<S>* c, int64_t ld, int64_t i, int rows) override {
    for (int r = 0; r < rows; ++r) store_row(c + r * ld, ld_, out_ + (i + r) * ld_);
  }

 private:
  S* out_;
  int64_t ld_;
};

// Writes a product times the dropout mask of the element it lands on.
template <class S>
class StoreDropped : public Epilogue<Compute<S>> {
  using T = Compute<S>;

 public:
  StoreDropped(void* out, int64_t ld, const Dropout& dropout) : out_(static_cast<S*>(out)), ld_(ld), mask_(dropout) {}

  void tile(T* c, int64_t i, int rows, int64_t j, int cols, int) override {
    for (int r = 0; r < rows; ++r) mask_.apply(c + r * kTileCols<T>, cols, (i + r) * ld_ + j);
    store_tile(c, rows, cols, out_ + i * ld_ + j, ld_);
  }

  bool takes_rows() const override { return true; }
  void whole_rows(T* c, int64_t ld, int64_t i, int rows) override {
    for (int r = 0; r < rows; ++r) {
      mask_.apply(c + r * ld, ld_, (i + r) * ld_);
      store_row(c + r * ld, ld_, out_ + (i + r) * ld_);
    }
  }

 private:
  S* out_;
  int64_t ld_;
  DropoutMask<T> mask_;
};

// y = act(product + bias)
template <class S>
class BiasActivation : public Epilogue<Compute<S>> {
  using T = Compute<S>;

 public:
  // bias: padded to whole tiles, or null.
  BiasActivation(const T* bias, Activation activation, double slope, void* y, int64_t ld)
      : bias_(bias), y_(static_cast<S*>(y)), ld_(ld), activation_(activation), slope_(T(slope)) {}

  void tile(T* c, int64_t i, int rows, int64_t j, int cols, int) override {
    const T* bias = bias_ ? bias_ + j : nullptr;
    if constexpr (std::is_same_v<S, T>) {
      if (cols == kTileCols<T>) {
        for_activation(activation_,
                       Apply<kTileCols<T>>{c, kTileCols<T>, bias, y_ + i * ld_ + j, ld_, cols, rows, slope_});
        return;
      }
    }
    for_activation(activation_, Apply<kTileCols<T>>{c, kTileCols<T>, bias, c, kTileCols<T>, cols, rows, slope_});
    store_tile(c, rows, cols, y_ + i * ld_ + j, ld_);
  }

  bool takes_rows() const override { return true; }
  void whole_rows(T* c, int64_t ld, int64_t i, int rows) override {
    if constexpr (std::is_same_v<S, T>) {
      if (ld_ == kTileCols<T>)
        for_activation(activation_, Apply<kTileCols<T>>{c, ld, bias_, y_ + i * ld_, ld_, ld_, rows, slope_});
      else
        for_activation(activation_, Apply<0>{c, ld, bias_, y_ + i * ld_, ld_, ld_, rows, slope_});
    } else {
      for_activation(activation_, Apply<0>{c, ld, bias_, c, ld, ld_, rows, slope_});
      for (int r = 0; r < rows; ++r) store_row(c + r * ld, ld_, y_ + (i + r) * ld_);
    }
  }

 private:
  // From rows of c to rows of out; kCols: their length, where the compiler may know.
  template <int kCols>
  struct Apply {
    const T* c;
    int64_t ld;
    const T* bias;
    T* out;
    int64_t out_ld, length;
    int rows;
    T slope;

    template <Activation A>
    void operator()(ActivationTag<A>) const {
      const int64_t cols = kCols > 0 ? kCols : length;
      for (int r = 0; r < rows; ++r) {
        const T* row = c + r * ld;
        T* y = out + r * out_ld;
        if (bias)
#pragma omp simd
          for (int64_t l = 0; l < cols; ++l) y[l] = activate<A>(row[l] + bias[l], slope);
        else
#pragma omp simd
          for (int64_t l = 0; l < cols; ++l) y[l] = activate<A>(row[l], slope);
      }
    }
  };

  const T* bias_;
  S* y_;
  int64_t ld_;
  Activation activation_;
  T slope_;
};

// The largest of the pieces, and which it was.
template <class S>
class MaxOverPieces : public Epilogue<Compute<S>> {
  using T = Compute<S>;

 public:
  // best is (m, units): y itself where T is S.
  MaxOverPieces(const T* bias, T* best, void* y, uint8_t* argmax, int64_t units, int pieces)
      : bias_(bias), best_(best), y_(static_cast<S*>(y)), argmax_(argmax), units_(units), pieces_(pieces) {}

  void tile(T* c, int64_t i, int rows, int64_t j, int cols, int piece) override {
    T bias[kTileCols<T>] = {};
    for (int l = 0; bias_ && l < cols; ++l) bias[l] = bias_[(j + l) * pieces_ + piece];
    for (int r = 0; r < rows; ++r) {
      T* best = best_ + (i + r) * units_ + j;
      merge(c + r * kTileCols<T>, bias, cols, piece, best, argmax_ + (i + r) * units_ + j);
      if constexpr (!std::is_same_v<S, T>)
        if (piece == pieces_ - 1) store_row(best, cols, y_ + (i + r) * units_ + j);
    }
  }

 private:
  // NaN wins and stays, the first of equals wins: as torch.max
  static void merge(const T* row, const T* bias, int cols, int piece, T* best, uint8_t* winner) {
    int l = 0;
#if defined(__AVX512F__)
    if constexpr (std::is_same_v<T, float>) {
      for (; l < cols; l += 16) {
        const __mmask16 lanes = cols - l < 16 ? __mmask16((1u << (cols - l)) - 1) : __mmask16(0xffff);
        const __m512 value = _mm512_add_ps(_mm512_loadu_ps(row + l), _mm512_loadu_ps(bias + l));
        const __m512 now = _mm512_maskz_loadu_ps(lanes, best + l);
        const __mmask16 better =
            piece == 0 ? lanes
                       : lanes & _mm512_cmp_ps_mask(value, now, _CMP_NLE_UQ) & _mm512_cmp_ps_mask(now, now, _CMP_ORD_Q);
        _mm512_mask_storeu_ps(best + l, better, value);
        _mm_mask_storeu_epi8(winner + l, better, _mm_set1_epi8(static_cast<char>(piece)));
      }
      return;
    }
#endif
    for (; l < cols; ++l) {
      const T value = row[l] + bias[l];
      const bool better = piece == 0 || value > best[l] || (value != value && best[l] == best[l]);
      best[l] = better ? value : best[l];
      winner[l] = better ? uint8_t(piece) : winner[l];
    }
  }

  const T* bias_;
  T* best_;
  S* y_;
  uint8_t* argmax_;
  int64_t units_;
  int pieces_;
};

// Calls f with the layer's input as an operand, dropped out where the layer drops.
template <class S, class F>
void with_input(const Matrix& x, const Dropout& dropout, bool inner_is_col, const F& f) {
  if (dropout.p > 0)
    f(Dropped<Compute<S>>(Dense<S>(x, inner_is_col), RowMasks<Compute<S>>(dropout, x.rows, x.cols)));
  else
    f(dense<S>(x, inner_is_col));
}

struct LayerBackward {
  Matrix x, weight;  // x is (m, k), weight (n, k)
  Dropout dropout;
  void *grad_x, *grad_weight, *grad_bias;  // null where not wanted
  const Workers* workers;
};

// grad_x = mask(g . weight), grad_weight = g^T . dropout(x), grad_bias = column sums of g, for g (m, n) given as
// an operand summed over its columns (by_row) and over its rows (by_col).
template <class S, class T = Compute<S>>
void layer_backward(const LayerBackward& op, const Operand<T>& by_row, const Operand<T>& by_col) {
  const int64_t m = op.x.rows, n = op.weight.rows, k = op.x.cols;
  if (op.grad_x) {
    const Dense<S> weight = dense<S>(op.weight, false);
    const Operand<T>* b = &weight;
    if (op.dropout.p > 0) {
      StoreDropped<S> epilogue(op.grad_x, k, op.dropout);
      gemm({m, k, n, &by_row, &b, 1, &epilogue, nullptr, op.workers});
    } else {
      Store<S> epilogue(op.grad_x, k);
      gemm({m, k, n, &by_row, &b, 1, &epilogue, nullptr, op.workers});
    }
  }
  if (!op.grad_weight && !op.grad_bias) return;
  // A bias gradient alone is the same product with no columns: the sums are taken while g is packed.
  const int64_t cols = op.grad_weight ? k : 0;
  std::vector<double> sums(op.grad_bias ? size_t(n) : 0, 0.0);
  Store<S> epilogue(op.grad_weight, k);
  with_input<S>(op.x, op.dropout, false, [&](const Operand<T>& x) {
    const Operand<T>* b = &x;
    gemm({n, cols, m, &by_col, &b, 1, &epilogue, op.grad_bias ? sums.data() : nullptr, op.workers});
  });
  for (int64_t j = 0; j < int64_t(sums.size()); ++j) {
    const T sum = T(sums[size_t(j)]);
    store_row(&sum, 1, static_cast<S*>(op.grad_bias) + j);
  }
}

}  // namespace pygan::cpu::PYGAN_ISA
