// The native engine's three products, instantiated once per kind of arithmetic: engine_<math>.cu.
#pragma once

#include <vector>

#include "engine_epilogues.h"
#include "engine_operands.h"

namespace pygan::cuda {

// y = f(x . weight^T + bias)
template <Math kMath, class S = Stored<kMath>>
void engine_forward(const Resources& run, unsigned* tickets, const BatchRows<S>& x, const Matrix& weight,
                    const LayerOutput<S>& output);

// The gradient of the layer before, from that of this one's pre-activations.
template <Math kMath, class S = Stored<kMath>>
void engine_backward(const Resources& run, unsigned* tickets, const GradRows<S>& g, const Matrix& weight,
                     const StoreDerived<S>& out);

// A layer's weight and bias, updated by g^T . x and the sums of g.
template <class S>
struct LayerUpdate {
  GradRows<S> g;
  BatchRows<S> x;
  UpdateLayer<S> out;
};

// As few launches as there can be: none of the layers waits for another.
template <Math kMath, class S = Stored<kMath>>
void engine_update(const Resources& run, unsigned* tickets, const std::vector<LayerUpdate<S>>& layers);

}  // namespace pygan::cuda
