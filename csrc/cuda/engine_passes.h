// The native engine's products; what engine_<math>.cu instantiates.
#pragma once

#include "engine_products.h"

namespace pygan::cuda {

template <class S, class Operand>
Copied<S> as_matrix(const Resources& run, const Operand& operand) {
  if (operand.is_matrix()) return operand.as_copied();
  const int64_t ld = ceil_div(operand.cols(), kVector<S>) * kVector<S>;
  S* const made = scratch<S>(run, size_t(operand.rows() * ld));
  make(run, operand, ld, made);
  return {made, operand.rows(), operand.cols(), ld};
}

template <class S>
Copied<S> as_matrix(const Resources& run, const Dense<S>& operand) {
  return make_copied<S>(run, operand);
}

// As gemm, with the tile that its table chooses: the small one makes its operands, the others find them made.
template <Math kMath, Along kAlongA, Along kAlongB, class OperandA, class OperandB, class Epilogue>
void fused_gemm(const Resources& run, unsigned* tickets, int64_t m, int64_t n, int64_t k, const OperandA& a,
                const OperandB& b, const Epilogue& epilogue, Stored<kMath>* row_sums = nullptr) {
  using S = Stored<kMath>;
  constexpr bool kOnlySmall = kMath == Math::fp64;
  const Plan plan = plan_product(m, n, ceil_div(k, kDepth<S>), epilogue.granule(), kOnlySmall,
                                 sizeof(BlockMemory<kMath, LargeTile, kAlongA, kAlongB>));
  if constexpr (!kOnlySmall) {
    if (plan.tile != TileChoice::small) {
      auto p = product<kMath>(m, n, k, as_matrix<S>(run, a), as_matrix<S>(run, b), epilogue, row_sums);
      p.tickets = tickets;
      if (plan.tile == TileChoice::large)
        launch_tiles<kMath, LargeTile, kAlongA, kAlongB>(run, p, plan.splits);
      else
        launch_tiles<kMath, MediumTile, kAlongA, kAlongB>(run, p, plan.splits);
      return;
    }
  }
  auto p = product<kMath>(m, n, k, a, b, epilogue, row_sums);
  p.tickets = tickets;
  launch_tiles<kMath, SmallTile, kAlongA, kAlongB>(run, p, plan.splits);
}

#define PYGAN_INSTANTIATE_ENGINE(math)                                                                            \
  template <>                                                                                                     \
  void engine_forward<math>(const Resources& run, unsigned* tickets, const BatchRows<Stored<math>>& x,            \
                            const Matrix& weight, const LayerOutput<Stored<math>>& output) {                      \
    fused_gemm<math, Along::inner, Along::inner>(run, tickets, x.rows(), weight.rows, weight.cols, x,             \
                                                 Dense<Stored<math>>(weight), FusedOutput<Stored<math>>(output)); \
  }                                                                                                               \
  template <>                                                                                                     \
  void engine_backward<math>(const Resources& run, unsigned* tickets, const GradRows<Stored<math>>& g,            \
                             const Matrix& weight, const StoreDerived<Stored<math>>& out) {                       \
    fused_gemm<math, Along::inner, Along::outer>(run, tickets, g.rows(), weight.cols, weight.rows, g,             \
                                                 Dense<Stored<math>>(weight), out);                               \
  }                                                                                                               \
  template <>                                                                                                     \
  void engine_update<math>(const Resources& run, unsigned* tickets, const GradRows<Stored<math>>& g,              \
                           const BatchRows<Stored<math>>& x, const UpdateLayer<Stored<math>>& out) {              \
    fused_gemm<math, Along::outer, Along::outer>(run, tickets, g.cols(), x.cols(), g.rows(), g, x, out,           \
                                                 out.bias.param);                                                 \
  }

}  // namespace pygan::cuda
