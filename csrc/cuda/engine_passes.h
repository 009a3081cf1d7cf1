// The native engine's products; what engine_<math>.cu instantiates.
#pragma once

#include <cstring>

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

// Products of one kind in one launch: those of the small tile that are not split. An array of products would need them
// to be made without arguments; bytes do not.
template <class P>
struct Group {
  static constexpr int kMost = (4096 - 64) / int(sizeof(P) + sizeof(unsigned));  // parameters of a kernel end at 4 KB

  alignas(P) unsigned char products[kMost * sizeof(P)];
  unsigned end[kMost];  // tiles of this product and of those before it
  int count;

  void add(P p) {
    static_assert(std::is_trivially_copyable_v<P>);
    p.tile_cols = SmallTile::kCols;
    p.slices_per_split = int(ceil_div(p.k, kDepth<std::decay_t<decltype(*p.row_sums.out)>>));
    const int64_t tiles = ceil_div(p.m, SmallTile::kRows) * ceil_div(p.n, SmallTile::kCols);
    std::memcpy(products + count * sizeof(P), &p, sizeof p);
    end[count] = unsigned(tiles) + (count ? end[count - 1] : 0);
    ++count;
  }
  __device__ const P& operator[](int i) const { return reinterpret_cast<const P*>(products)[i]; }
};

template <Math kMath, Along kAlongA, Along kAlongB, class P>
__global__ void __launch_bounds__(SmallTile::kThreads, SmallTile::kBlocks)
    gemm_group_kernel(const __grid_constant__ Group<P> group) {
  int i = 0;
  while (blockIdx.x >= group.end[i]) ++i;
  multiply_tile<kMath, SmallTile, kAlongA, kAlongB>(group[i], blockIdx.x - (i > 0 ? group.end[i - 1] : 0), {0, 1});
}

template <Math kMath, class S = Stored<kMath>>
void update_layers(const Resources& run, unsigned* tickets, const std::vector<LayerUpdate<S>>& layers) {
  using P = Product<kMath, GradRows<S>, BatchRows<S>, UpdateLayer<S>>;
  constexpr bool kOnlySmall = kMath == Math::fp64;
  constexpr Along kAlong = Along::outer;
  using Memory = BlockMemory<kMath, SmallTile, kAlong, kAlong>;
  Group<P> group;
  group.count = 0;
  const auto flush = [&] {
    if (group.count == 0) return;
    launch(run, gemm_group_kernel<kMath, kAlong, kAlong, P>, dim3(group.end[group.count - 1]),
           dim3(SmallTile::kThreads), sizeof(Memory), group);
    group.count = 0;
  };
  for (const LayerUpdate<S>& layer : layers) {
    const int64_t m = layer.g.cols(), n = layer.x.cols(), k = layer.g.rows();
    S* const row_sums = layer.out.bias.param;
    const Plan plan = plan_product(m, n, ceil_div(k, kDepth<S>), 1, kOnlySmall,
                                   sizeof(BlockMemory<kMath, LargeTile, kAlong, kAlong>));
    if (plan.tile == TileChoice::small && plan.splits == 1) {
      group.add(product<kMath>(m, n, k, layer.g, layer.x, layer.out, row_sums));
      if (group.count == Group<P>::kMost) flush();
    } else {
      fused_gemm<kMath, kAlong, kAlong>(run, tickets, m, n, k, layer.g, layer.x, layer.out, row_sums);
    }
  }
  flush();
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
  void engine_update<math>(const Resources& run, unsigned* tickets,                                               \
                           const std::vector<LayerUpdate<Stored<math>>>& layers) {                                \
    update_layers<math>(run, tickets, layers);                                                                    \
  }

}  // namespace pygan::cuda
