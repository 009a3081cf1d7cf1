// Where the products of a whole iteration go beside epilogues.h: into the gradient of the layer below, and into the
// parameters themselves.
#pragma once

#include "epilogues.h"
#include "optimizer_rows.h"

namespace pygan::cpu::PYGAN_ISA {

// The gradient of a layer's input becomes that of the pre-activations below: times the dropout mask of the input,
// times the activation's derivative at the output y that was the input.
template <class T>
class InputGrad : public Epilogue<T> {
 public:
  // y, out: contiguous rows of `cols`. Below maxout, the derivative is left to MaxoutGrad: activation is identity.
  InputGrad(const RowMasks<T>& masks, Activation activation, double slope, const T* y, T* out, int64_t cols)
      : masks_(masks), activation_(activation), slope_(T(slope)), y_(y), out_(out), cols_(cols) {}

  void tile(T* c, int64_t i, int rows, int64_t j, int cols, int) override {
    for_activation(activation_, [&](auto tag) {
      for (int r = 0; r < rows; ++r) put<decltype(tag)::kValue>(c + r * kTileCols<T>, i + r, j, cols);
    });
  }

  bool takes_rows() const override { return true; }
  void whole_rows(T* c, int64_t ld, int64_t i, int rows) override {
    for (int r = 0; r < rows; ++r) row(c + r * ld, i + r, cols_);
  }

  // Elements [0, n) of a row; `values` may be changed.
  void row(T* values, int64_t row, int64_t n) const {
    for_activation(activation_, [&](auto tag) { put<decltype(tag)::kValue>(values, row, 0, n); });
  }

 private:
  template <Activation A>
  void put(T* values, int64_t row, int64_t col, int64_t n) const {
    if (masks_.on()) masks_.apply(values, n, row, col);
    const T* y = y_ + row * cols_ + col;
    T* out = out_ + row * cols_ + col;
    const T slope = slope_;
#pragma omp simd
    for (int64_t l = 0; l < n; ++l) {
      if constexpr (A == Activation::identity)
        out[l] = values[l];
      else
        out[l] = times_derivative<A>(values[l], y[l], slope);
    }
  }

  const RowMasks<T> masks_;
  Activation activation_;
  T slope_;
  const T* y_;
  T* out_;
  int64_t cols_;
};

// One update of a network: its rule with the numbers of this step.
template <class T>
struct Update {
  bool adam;
  Momentum<T> momentum;
  Adam<T> adam_rule;

  void run(T* param, const T* grad, T* state1, T* state2, int64_t n) const {
    if (adam)
      update_run(adam_rule, param, grad, state1, state2, n);
    else
      update_run(momentum, param, grad, state1, state2, n);
  }
};

// A weight's gradient is spent as soon as some rows of it are whole.
template <class T>
class UpdateWeight : public Epilogue<T> {
 public:
  // The parameter and its states lie alike, in rows of ld.
  UpdateWeight(const Update<T>& update, T* param, T* state1, T* state2, int64_t ld)
      : update_(update), param_(param), state1_(state1), state2_(state2), ld_(ld) {}

  void tile(T* c, int64_t i, int rows, int64_t j, int cols, int) override {
    for (int r = 0; r < rows; ++r) run(c + r * kTileCols<T>, (i + r) * ld_ + j, cols);
  }

  bool takes_rows() const override { return true; }
  void whole_rows(T* c, int64_t ld, int64_t i, int rows) override {
    for (int r = 0; r < rows; ++r) run(c + r * ld, (i + r) * ld_, ld_);
  }
  int streams() const override { return state2_ ? 3 : 2; }
  const T* stream(int number, int64_t i) const override {
    return (number == 0 ? param_ : number == 1 ? state1_ : state2_) + i * ld_;
  }

 private:
  void run(const T* grad, int64_t at, int64_t n) const {
    update_.run(param_ + at, grad, state1_ + at, state2_ ? state2_ + at : nullptr, n);
  }

  const Update<T>& update_;
  T *param_, *state1_, *state2_;
  int64_t ld_;
};

}  // namespace pygan::cpu::PYGAN_ISA
