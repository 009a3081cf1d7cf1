// A small network by rows: its weights are packed once for a step, then each thread takes a few rows at a time through
// all layers, whose activations stay in its first caches, and the weights' gradients of all layers are one phase more.
// An iteration has some ten phases then; product by product it has forty, which threads that wait for one another
// spend a quarter of it between.
#pragma once

#include <algorithm>
#include <vector>

#include "engine_head.h"
#include "engine_network.h"

namespace pygan::cpu::PYGAN_ISA {

// Rows in each of an even number of parts, alike, of at most `most`; no fewer than a register tile has.
inline int64_t even_rows(int64_t rows, int64_t most) {
  const int64_t pairs = (rows + 2 * most - 1) / (2 * most);
  return std::max<int64_t>(kRegisterRows, (rows + 2 * pairs - 1) / (2 * pairs));
}

// Rows [first, last) of a pass, and a thread's scratch.
template <class T>
struct Part {
  int64_t first, last;
  T* scratch;
  Part at(int64_t offset) const { return {first + offset, last + offset, scratch}; }
};

// A matrix packed panel by panel for products that share it.
template <class T>
struct Packed {
  RowProduct<T> product;
  Buffer<T> panels;

  Packed(int64_t n, int64_t k) : product(n, k) { panels.resize(size_t(product.packed())); }

  void pack(const Operand<T>& b, int64_t panel, T* scratch) { product.pack(b, panel, panels.data(), scratch); }
  // The product's B is what was packed.
  void multiply(const Gemm<T>& problem, const Part<T>& part) {
    product.multiply(problem, panels.data(), part.first, part.last, part.scratch);
  }
};

// What the products of a small network share: its weights, in the order of the forward and of the backward pass, and
// the inputs of its layers, which the weights' gradients sum over.
template <class T>
class PackedNetwork {
 public:
  // Of a layer, a panel to be packed or the first of some rows of the weight.
  struct Task {
    int layer;
    int64_t at;
  };

  // Both networks' weights, which each part reads, are few beside the caches or beside the rows. Else their products
  // want all rows at once.
  static bool suits(const Mlp& generator, const Mlp& discriminator, int64_t batch) {
    int64_t weights = 0;
    for (const Mlp* mlp : {&generator, &discriminator})
      for (const MlpLayer& layer : mlp->layers) {
        if (layer.is_maxout() || std::max(layer.inputs, layer.outputs) > kWidest) return false;
        weights += layer.weights();
      }
    return weights <= std::clamp(batch * 1024, kFewWeights, kMostWeights);
  }

  // layers: how many are products; rows: of the pass whose gradients are spent.
  PackedNetwork(const Mlp& mlp, int layers, int64_t rows, bool into_input) : steps(even_part(rows, kSteps)), mlp_(mlp) {
    for (int l = 0; l < layers; ++l) {
      forward_.emplace_back(layer(l).outputs, layer(l).inputs);
      add_panels(forward_.back(), l, forward_tasks_);
      backward_.emplace_back(layer(l).inputs, layer(l).outputs);
      if (l > 0 || into_input) add_panels(backward_.back(), l, backward_tasks_);
      inputs_.emplace_back(layer(l).inputs, steps);
      weight_grads_.emplace_back(size_t(layer(l).outputs * inputs_.back().product.ld()));
      for (int64_t row = 0; row < layer(l).outputs; row += weight_rows(l)) update_tasks.push_back({l, row});
    }
  }

  int64_t weight_tasks() const { return int64_t(forward_tasks_.size() + backward_tasks_.size()); }
  void pack_weight(int64_t task, T* scratch) {
    const int64_t forward = int64_t(forward_tasks_.size());
    const bool down = task >= forward;
    const Task& t = down ? backward_tasks_[size_t(task - forward)] : forward_tasks_[size_t(task)];
    const MlpLayer& of = layer(t.layer);
    const T* const weight = static_cast<const T*>(mlp_.params) + of.weight;
    const Dense<T> operand(Matrix{weight, of.outputs, of.inputs, of.inputs, 1}, !down);
    (down ? backward_ : forward_)[size_t(t.layer)].pack(operand, t.at, scratch);
  }

  Packed<T>& forward(int l) { return forward_[size_t(l)]; }
  Packed<T>& backward(int l) { return backward_[size_t(l)]; }
  // The inputs of layer l in one of the sums that its weight's gradient is made of, and rows of the gradient.
  Packed<T>& inputs(int l) { return inputs_[size_t(l)]; }
  T* weight_grad(int l, int64_t row) { return weight_grads_[size_t(l)].data() + row * inputs(l).product.ld(); }

  // Elements, for any of the products with so many rows at a time.
  int64_t scratch(int64_t rows) const {
    int64_t most = RowProduct<T>::pack_scratch();
    for (const Packed<T>& packed : forward_) most = std::max(most, packed.product.scratch(rows));
    for (const Packed<T>& packed : backward_) most = std::max(most, packed.product.scratch(rows));
    for (const Packed<T>& packed : inputs_) most = std::max(most, packed.product.scratch(kWeightRows));
    return most;
  }

  static constexpr int64_t kStepsAtOnce = 32;

  // Of a gradient of layer l, in a task.
  int64_t weight_rows(int l) const { return even_rows(layer(l).outputs, kWeightRows); }

  const int64_t steps;  // of the batch, in one of those sums
  std::vector<Task> update_tasks;

 private:
  static constexpr int64_t kWeightRows = 24;
  static constexpr int64_t kFewWeights = 1 << 16, kMostWeights = 1 << 20;
  static constexpr int64_t kWidest = 4096;  // of rows that a part holds dozens of
  static constexpr int64_t kSteps = 512;

  const MlpLayer& layer(int l) const { return mlp_.layers[size_t(l)]; }

  static void add_panels(const Packed<T>& packed, int l, std::vector<Task>& tasks) {
    for (int64_t panel = 0; panel < packed.product.panels(); ++panel) tasks.push_back({l, panel});
  }

  const Mlp& mlp_;
  std::vector<Packed<T>> forward_, backward_, inputs_;
  std::vector<Buffer<T>> weight_grads_;
  std::vector<Task> forward_tasks_, backward_tasks_;
};

}  // namespace pygan::cpu::PYGAN_ISA
