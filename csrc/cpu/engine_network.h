// A network as the engine holds it: its parameters, the outputs that its layers keep, the gradients that go down.
#pragma once

#include <algorithm>
#include <vector>

#include "../core/training.h"
#include "engine_epilogues.h"
#include "workspace.h"

namespace pygan::cpu::PYGAN_ISA {

template <class T>
using Buffer = std::vector<T, Allocator<T>>;

// The rows of a pass through a network.
struct Rows {
  int64_t count;
  int64_t first;             // where their outputs lie among those that are kept
  int64_t split;             // rows above it drop by `top`, the others by `bottom`
  uint64_t top, bottom = 0;  // offsets of the first layer's masks
};

// A network's first input, summed over its columns and over its rows.
template <class T>
struct Source {
  const Operand<T>&by_row, &by_col;
};

// A network, the outputs that its layers keep, and the gradients that go down through them.
template <class T>
class Network {
 public:
  // rows: of outputs, and of gradients, which lie in two buffers by turns or, `all_grads`, in one for each layer.
  Network(const Mlp& mlp, int kept_layers, int64_t rows, int64_t grad_rows, bool all_grads)
      : mlp(mlp), y(size_t(kept_layers)), argmax(size_t(kept_layers)), biases(mlp.layers.size()) {
    grads.resize(size_t(std::max(1, all_grads ? kept_layers : std::min(kept_layers, 2))));
    sums.resize(mlp.layers.size());
    std::vector<int64_t> widest(grads.size(), 0);
    for (int l = 0; l < int(mlp.layers.size()); ++l) {
      const MlpLayer& layer = mlp.layers[size_t(l)];
      sums[size_t(l)].resize(size_t(layer.rows()));
      if (layer.bias >= 0) biases[size_t(l)].assign(size_t(layer.rows() + kTileCols<T>), T(0));
      if (l >= kept_layers) continue;
      int64_t& width = widest[size_t(l) % grads.size()];
      width = std::max(width, layer.outputs);
      y[size_t(l)].resize(size_t(rows * layer.outputs));
      if (layer.is_maxout()) argmax[size_t(l)].resize(size_t(rows * layer.outputs));
    }
    for (size_t i = 0; i < grads.size(); ++i) grads[i].resize(size_t(grad_rows * widest[i]));
  }

  const MlpLayer& layer(int l) const { return mlp.layers[size_t(l)]; }
  int last() const { return int(mlp.layers.size()) - 1; }
  int kept() const { return int(y.size()); }
  T* outputs(int l, int64_t row = 0) { return y[size_t(l)].data() + row * layer(l).outputs; }
  uint8_t* winners(int l, int64_t row) { return argmax[size_t(l)].data() + row * layer(l).outputs; }
  // The gradient of layer l's pre-activations (of a maxout layer's outputs). Without `all_grads` that of the layer above
  // is overwritten by that of the layer below.
  T* grad(int l, int64_t row) { return grads[size_t(l) % grads.size()].data() + row * layer(l).outputs; }
  T* param(int64_t at) const { return static_cast<T*>(mlp.params) + at; }
  T* state1(int64_t at) const { return static_cast<T*>(mlp.state1) + at; }
  T* state2(int64_t at) const { return mlp.state2 ? static_cast<T*>(mlp.state2) + at : nullptr; }
  const T* bias(int l) const { return layer(l).bias < 0 ? nullptr : biases[size_t(l)].data(); }
  // What a derivative is taken of where a gradient arrives at layer l: maxout's is MaxoutGrad's business.
  Activation derived(int l) const { return layer(l).is_maxout() ? Activation::identity : layer(l).activation; }

  void copy_bias(int l) {
    if (layer(l).bias >= 0) std::copy_n(param(layer(l).bias), layer(l).rows(), biases[size_t(l)].data());
  }

  // Of the rows of layer l's weight gradient; null without a bias.
  double* sums_of(int l) { return layer(l).bias < 0 ? nullptr : sums[size_t(l)].data(); }
  double* clear_sums(int l, int64_t first, int64_t last) {
    std::fill(sums[size_t(l)].begin() + first, sums[size_t(l)].begin() + last, 0.0);
    return sums_of(l);
  }

  Update<T> update(int64_t number, int64_t epoch) const {
    Update<T> update{};
    update.adam = mlp.adam;
    if (mlp.adam) {
      AdamUpdate op{};
      op.step = number + 1;
      op.lr = mlp.adam_rule.lr, op.eps = mlp.adam_rule.eps;
      op.beta1 = mlp.adam_rule.beta1, op.beta2 = mlp.adam_rule.beta2;
      update.adam_rule = rule_of<T>(op);
    } else {
      MomentumUpdate op{};
      op.lr = lr_at(mlp.momentum_rule, number), op.momentum = momentum_at(mlp.momentum_rule, epoch);
      update.momentum = rule_of<T>(op);
    }
    return update;
  }

  const Mlp mlp;
  std::vector<Buffer<T>> y;
  std::vector<std::vector<uint8_t>> argmax;
  std::vector<std::vector<T>> biases;  // padded to whole tiles
  std::vector<Buffer<T>> grads;
  std::vector<std::vector<double>> sums;  // of gradients, by row of a weight
};

}  // namespace pygan::cpu::PYGAN_ISA
