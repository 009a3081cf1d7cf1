// The launches around the native engine's products: the counters of an iteration, the norms after an update.
#include "engine_prepare.h"

#include <cmath>

#include "../core/philox.h"
#include "block_sum.h"
#include "elements.h"
#include "ptx.h"

namespace pygan::cuda {
namespace {

constexpr int kPrepareThreads = 512;

struct Rule {
  bool adam;
  MomentumRule momentum;
  AdamRule adam_rule;

  explicit Rule(const Mlp& mlp) : adam(mlp.adam), momentum(mlp.momentum_rule), adam_rule(mlp.adam_rule) {}

  // Of update number `update` (from 0), in `epoch` (from 1): see Update.
  __device__ void rates(int64_t update, int64_t epoch, double* to) const {
    if (adam) {
      to[0] = adam_rule.lr / (1 - pow(adam_rule.beta1, double(update + 1)));
      to[1] = 1 / sqrt(1 - pow(adam_rule.beta2, double(update + 1)));
    } else {
      to[0] = lr_at(momentum, update);
      to[1] = momentum_at(momentum, epoch);
    }
  }
};

struct Settings {
  int64_t m, k, population;
  uint64_t seed;
  Rule generator, discriminator;
};

struct Begun {
  int64_t iteration;
  bool stopped;
};

__global__ void start_kernel(const Counters counters, int64_t first) { *counters.clock = {first, 0, 0, 0}; }

__device__ void prepare_step(const Settings& s, const Counters& c, int64_t iteration, int64_t step) {
  const bool own = step == s.k;  // the generator's
  const int64_t t = iteration * s.k + (own ? s.k - 1 : step), epoch = 1 + t * s.m / s.population;
  if (own) {
    c.noise[step] = make_offset(stream::noise_g, uint64_t(iteration));
    c.g_masks[step] = make_offset(stream::g, uint64_t(iteration));
    c.d_masks[2 * step] = make_offset(stream::d_in_g, uint64_t(iteration));
    s.generator.rates(iteration, epoch, c.rates + 2 * step);
  } else {
    c.noise[step] = make_offset(stream::noise_d, uint64_t(t));
    c.g_masks[step] = make_offset(stream::g_in_d, uint64_t(t));
    c.d_masks[2 * step] = make_offset(stream::d_real, uint64_t(t));
    c.d_masks[2 * step + 1] = make_offset(stream::d_fake, uint64_t(t));
    s.discriminator.rates(t, epoch, c.rates + 2 * step);
  }
}

__global__ void __launch_bounds__(kPrepareThreads, 1) prepare_kernel(const Settings s, const Counters c) {
  Begun& begun = shared_storage<Begun>();
  if (threadIdx.x == 0) {
    Clock& clock = *c.clock;
    if (clock.bad) clock.stopped = 1;
    begun = {clock.next, clock.stopped != 0};
    if (!clock.stopped) {
      ++clock.next;
      ++clock.done;
    }
  }
  __syncthreads();
  if (begun.stopped) return;
  const int64_t iteration = begun.iteration;
  for (int64_t step = threadIdx.x; step <= s.k; step += kPrepareThreads) prepare_step(s, c, iteration, step);
  const uint64_t population = uint64_t(s.population), offset = make_offset(stream::minibatch, 0);
  for (int64_t e = threadIdx.x; e < s.k * s.m; e += kPrepareThreads) {
    const uint64_t position = uint64_t(iteration * s.k * s.m + e), epoch = position / population;
    const Permutation permutation(population, s.seed, offset, uint32_t(epoch));
    c.rows[e] = int64_t(permutation(position - epoch * population));
  }
}

constexpr int kMatrices = 32;  // of a launch

template <class S>
struct Weights {
  S* weight[kMatrices];
  int64_t inputs[kMatrices], end[kMatrices];  // rows of this weight and of those before it
  int count;
};

// A warp a row.
template <class S>
__global__ void __launch_bounds__(kThreads, 1)
    norms_kernel(const Weights<S> weights, Compute<S> limit, const Clock* clock) {
  using T = Compute<S>;
  if (clock->stopped) return;
  const int64_t row = first_item() / kWarp;
  int i = 0;
  while (i < weights.count && row >= weights.end[i]) ++i;
  if (i == weights.count) return;
  const int64_t inputs = weights.inputs[i];
  S* const of_row = weights.weight[i] + (row - (i > 0 ? weights.end[i - 1] : 0)) * inputs;
  T sum = 0;
  for (int64_t j = threadIdx.x % kWarp; j < inputs; j += kWarp) {
    const T w = widen(of_row[j]);
    sum += w * w;
  }
  const T norm = square_root(warp_sum(sum));
  if (!(norm > limit)) return;
  const T factor = limit / (norm + T(1e-7));  // as torch.renorm
  for (int64_t j = threadIdx.x % kWarp; j < inputs; j += kWarp) of_row[j] = narrow<S>(widen(of_row[j]) * factor);
}

}  // namespace

void engine_start(const Resources& run, const Counters& counters, int64_t first) {
  launch(run, start_kernel, 1, 1, 0, counters, first);
}

void engine_prepare(const Resources& run, const Training& training, const Counters& counters) {
  const Settings settings = {training.batch,           training.k,
                             training.data.count,      training.seed,
                             Rule(training.generator), Rule(training.discriminator)};
  launch(run, prepare_kernel, 1, kPrepareThreads, sizeof(Begun), settings, counters);
}

template <class S>
void engine_limit_norms(const Resources& run, const Mlp& mlp, const Counters& counters) {
  if (mlp.adam || mlp.momentum_rule.max_column_norm == 0) return;
  Weights<S> weights;
  for (size_t next = 0; next < mlp.layers.size();) {
    int64_t rows = 0;
    for (weights.count = 0; weights.count < kMatrices && next < mlp.layers.size(); ++weights.count, ++next) {
      const MlpLayer& layer = mlp.layers[next];
      rows += layer.rows();
      weights.weight[weights.count] = static_cast<S*>(mlp.params) + layer.weight;
      weights.inputs[weights.count] = layer.inputs;
      weights.end[weights.count] = rows;
    }
    launch(run, norms_kernel<S>, unsigned(ceil_div(rows * kWarp, kThreads)), kThreads, 0, weights,
           Compute<S>(mlp.momentum_rule.max_column_norm), counters.clock);
  }
}

template void engine_limit_norms<float>(const Resources&, const Mlp&, const Counters&);
template void engine_limit_norms<double>(const Resources&, const Mlp&, const Counters&);
template void engine_limit_norms<BFloat16>(const Resources&, const Mlp&, const Counters&);
template void engine_limit_norms<Float16>(const Resources&, const Mlp&, const Counters&);

}  // namespace pygan::cuda
