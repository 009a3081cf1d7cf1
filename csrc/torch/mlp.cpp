// A whole MLP in one op call: layer by layer, each fused, with dropout counters that differ by layer.
#include <torch/library.h>

#include "../core/philox.h"
#include "checks.h"
#include "find_op.h"
#include "small_mlp.h"

namespace pygan {
namespace {

using at::Tensor;
using std::optional;

void check(const at::TensorList& weights, const c10::List<optional<Tensor>>& biases,
           const c10::List<std::string>& activations, at::ArrayRef<double> dropout, int64_t pieces) {
  const size_t layers = weights.size();
  const auto check_length = [&](const char* argument, size_t length) {
    TORCH_CHECK_VALUE(length == layers, "mlp: ", argument, " must have one entry for each of the ", layers,
                      " weights, got ", length);
  };
  TORCH_CHECK_VALUE(layers > 0, "mlp: weights must have at least one entry");
  check_length("biases", biases.size());
  check_length("activations", activations.size());
  check_length("dropout", dropout.size());
  bool any_maxout = false;
  for (size_t i = 0; i < layers; ++i) {
    TORCH_CHECK_VALUE(weights[i].dim() == 2, "mlp: weights[", i, "] must be 2-dimensional (n, k), got ",
                      weights[i].sym_sizes());
    if (parse_layer_activation("mlp", activations.get(i))) {
      check_pieces("mlp", pieces, weights[i]);
      any_maxout = true;
    }
  }
  TORCH_CHECK_VALUE(any_maxout || pieces == 1, "mlp: pieces is ", pieces, " but no activation is 'maxout'; expected 1");
  for (size_t i = 0; i + 1 < layers; ++i) {
    const c10::SymInt rows = weights[i].sym_size(0);
    const c10::SymInt outputs = activations.get(i) == "maxout" ? rows / pieces : rows;
    TORCH_CHECK_VALUE(weights[i + 1].sym_size(1) == outputs, "mlp: weights[", i + 1, "] ", weights[i + 1].sym_sizes(),
                      " must take the ", outputs, " outputs of weights[", i, "] ", weights[i].sym_sizes());
  }
}

Tensor layer_by_layer(const Tensor& x, at::TensorList weights, const c10::List<optional<Tensor>>& biases,
                      const c10::List<std::string>& activations, double slope, int64_t pieces,
                      at::ArrayRef<double> dropout, c10::SymInt seed, c10::SymInt offset) {
  static const auto linear_act = find_op<Tensor(const Tensor&, const Tensor&, const optional<Tensor>&, c10::string_view,
                                                double, double, c10::SymInt, c10::SymInt)>("pygan::linear_act");
  static const auto maxout =
      find_op<Tensor(const Tensor&, const Tensor&, const optional<Tensor>&, int64_t, double, c10::SymInt, c10::SymInt)>(
          "pygan::maxout");
  Tensor h = x;
  for (size_t i = 0; i < weights.size(); ++i) {
    const std::string activation = activations.get(i);
    const c10::SymInt layer_offset = offset + c10::SymInt(int64_t(make_offset(i, 0)));
    h = activation == "maxout"
            ? maxout.call(h, weights[i], biases.get(i), pieces, dropout[i], seed, layer_offset)
            : linear_act.call(h, weights[i], biases.get(i), activation, slope, dropout[i], seed, layer_offset);
  }
  return h;
}

// Each layer an op of its own: what torch.func.vmap batches.
Tensor checked_layer_by_layer(const Tensor& x, at::TensorList weights, const c10::List<optional<Tensor>>& biases,
                              const c10::List<std::string>& activations, double slope, int64_t pieces,
                              at::ArrayRef<double> dropout, c10::SymInt seed, c10::SymInt offset) {
  check(weights, biases, activations, dropout, pieces);
  return layer_by_layer(x, weights, biases, activations, slope, pieces, dropout, std::move(seed), std::move(offset));
}

Tensor mlp(const Tensor& x, at::TensorList weights, const c10::List<optional<Tensor>>& biases,
           const c10::List<std::string>& activations, double slope, int64_t pieces, at::ArrayRef<double> dropout,
           c10::SymInt seed, c10::SymInt offset) {
  check(weights, biases, activations, dropout, pieces);
  if (serves_small_mlp(x, weights, activations, dropout))
    return call_small_mlp(x, weights, biases, activations, slope).back();
  return layer_by_layer(x, weights, biases, activations, slope, pieces, dropout, std::move(seed), std::move(offset));
}

}  // namespace

TORCH_LIBRARY_IMPL(pygan, CompositeImplicitAutograd, m) { m.impl("mlp", mlp); }
// torch.func.vmap: the parts are batched
TORCH_LIBRARY_IMPL(pygan, FuncTorchBatchedDecomposition, m) { m.impl("mlp", checked_layer_by_layer); }

}  // namespace pygan
