// Algorithm 1 as a sequence of launches, the same in every iteration: what differs between iterations is in counters
// on the device. docs/kernels.md lists the launches.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <vector>

#include "backend.h"
#include "engine_head.h"
#include "engine_prepare.h"
#include "engine_products.h"
#include "graph.h"

namespace pygan::cuda {
namespace {

using Clocks = std::chrono::steady_clock;

constexpr int64_t kMostAtOnce = 4096;  // iterations between two looks at the statistics
constexpr int64_t kTogether = 8;       // iterations of a graph

// Calls f with the arithmetic for S, as a constant.
template <class S, class F>
void with_math(const Resources& run, const F& f) {
  if constexpr (std::is_same_v<S, float>)
    return run.allow_tf32 ? f(std::integral_constant<Math, Math::tf32>())
                          : f(std::integral_constant<Math, Math::fp32>());
  else if constexpr (std::is_same_v<S, double>)
    return f(std::integral_constant<Math, Math::fp64>());
  else if constexpr (std::is_same_v<S, BFloat16>)
    return f(std::integral_constant<Math, Math::bf16>());
  else
    return f(std::integral_constant<Math, Math::f16>());
}

template <class S>
class NativeEngine final : public Engine {
 public:
  explicit NativeEngine(const Training& training)
      : training_(training),
        m_(training.batch),
        k_(training.k),
        groups_(training.simultaneous ? k_ : k_ + 1),
        generator_(*this, training_.generator, groups_ * m_, m_, training.generator.layers.size()),
        discriminator_(*this, training_.discriminator, 2 * m_, training.simultaneous ? 3 * m_ : 2 * m_,
                       training.discriminator.layers.size() - 1) {
    counters_.clock = memory<Clock>(1);
    counters_.rows = memory<int64_t>(k_ * m_);
    counters_.noise = memory<uint64_t>(k_ + 1);
    counters_.g_masks = memory<uint64_t>(k_ + 1);
    counters_.d_masks = memory<uint64_t>(2 * k_ + 2);
    counters_.rates = memory<double>(2 * (k_ + 1));
    counters_.statistics = memory<double>(kMostAtOnce * kStatistics);
    ticket_count_ = device_limits().multiprocessors;  // a product that is split has fewer tiles
    tickets_ = memory<unsigned>(ticket_count_);
    if (only_head()) stacked_ = memory<S>(2 * m_ * training.data.dim);
  }

  int64_t run(int64_t first, int64_t count, double seconds, double* statistics, const Resources& run) override {
    const auto begin = Clocks::now();
    if (!ready_ || run.allow_tf32 != tf32_) {
      one_.clear();
      several_.clear();
      tf32_ = run.allow_tf32;
      ready_ = false;  // other products may ask for more memory
      const cudaStream_t stream = static_cast<cudaStream_t>(run.stream);
      check(cudaMemsetAsync(tickets_, 0, size_t(ticket_count_) * sizeof *tickets_, stream), "cudaMemsetAsync");
    }
    int64_t total = 0;
    for (double spent = 0; total < count;) {
      const double affordable = per_second_ * (seconds - spent);
      const int64_t most = std::min(count - total, kMostAtOnce);
      const int64_t n = affordable < 1 ? 1 : affordable < double(most) ? int64_t(affordable) : most;
      const int64_t done = run_some(first + total, n, statistics + total * kStatistics, run);
      const double now = std::chrono::duration<double>(Clocks::now() - begin).count();
      // a first measurement is of set-up more than of work
      per_second_ = std::min(double(n) / (now - spent), 16 * std::max(per_second_, 1 / (now - spent)));
      spent = now;
      total += done;
      if (done < n || spent >= seconds || !finite(statistics + (total - 1) * kStatistics)) break;
    }
    return total;
  }

  int64_t launches() const override { return launches_; }

 private:
  // What the passes over one network leave in memory.
  struct Network {
    const Mlp* mlp;
    std::vector<S*> y, grad;       // of the layers' outputs; grad is of their pre-activations
    std::vector<uint8_t*> argmax;  // null where a layer is no maxout

    // Of the first `stored` layers.
    Network(NativeEngine& engine, const Mlp& mlp, int64_t rows, int64_t grad_rows, size_t stored) : mlp(&mlp) {
      for (size_t l = 0; l < stored; ++l) {
        const MlpLayer& layer = mlp.layers[l];
        y.push_back(engine.memory<S>(rows * layer.outputs));
        grad.push_back(engine.memory<S>(grad_rows * layer.outputs));
        argmax.push_back(layer.is_maxout() ? engine.memory<uint8_t>(rows * layer.outputs) : nullptr);
      }
    }

    int last() const { return int(mlp->layers.size()) - 1; }
    const MlpLayer& layer(int l) const { return mlp->layers[size_t(l)]; }
    Matrix weight(int l) const {
      const MlpLayer& of = layer(l);
      return {static_cast<const S*>(mlp->params) + of.weight, of.rows(), of.inputs, of.inputs, 1};
    }
    const S* bias(int l) const {
      return layer(l).bias < 0 ? nullptr : static_cast<const S*>(mlp->params) + layer(l).bias;
    }
    Activation activation(int l) const { return layer(l).is_maxout() ? Activation::identity : layer(l).activation; }
    S* rows(int l, int64_t row) const { return y[size_t(l)] + row * layer(l).outputs; }
    S* grads(int l, int64_t row) const { return grad[size_t(l)] + row * layer(l).outputs; }
    const uint8_t* winners(int l, int64_t row) const {
      return argmax[size_t(l)] ? argmax[size_t(l)] + row * layer(l).outputs : nullptr;
    }
  };

  // Some rows of a pass over a network: which they are, and the masks of their groups.
  struct Rows {
    int64_t begin, count;
    const uint64_t* masks;
  };

  // ---- memory ----

  template <class T>
  T* memory(int64_t count) {
    return static_cast<T*>(training_.memory(training_.owner, size_t(count) * sizeof(T)));
  }

  // Every iteration asks for the same blocks in the same order.
  static void* block(void* self, size_t bytes) {
    NativeEngine& engine = *static_cast<NativeEngine*>(self);
    auto& blocks = engine.blocks_;
    if (engine.next_block_ == blocks.size()) blocks.push_back({nullptr, 0});
    auto& [data, size] = blocks[engine.next_block_++];
    if (size < bytes) {
      data = engine.training_.memory(engine.training_.owner, bytes);
      size = bytes;
    }
    return data;
  }

  // ---- running ----

  static bool finite(const double* row) {
    for (int i = 0; i < kStatistics; ++i)
      if (!std::isfinite(row[i])) return false;
    return true;
  }

  // Runs n iterations and fetches their statistics; returns how many were run.
  int64_t run_some(int64_t first, int64_t n, double* statistics, const Resources& given) {
    Resources run = given;
    run.scratch = block;
    run.owner = this;
    engine_start(run, counters_, first);
    int64_t left = n;
    if (!ready_) {  // the first iteration takes the memory, which a capture could not
      iteration(run);
      ready_ = true;
      --left;
    }
    for (; left >= kTogether; left -= kTogether) replay(several_, kTogether, run);
    for (; left > 0; --left) replay(one_, 1, run);

    const cudaStream_t stream = static_cast<cudaStream_t>(run.stream);
    Clock clock;
    check(cudaMemcpyAsync(&clock, counters_.clock, sizeof clock, cudaMemcpyDeviceToHost, stream), "cudaMemcpyAsync");
    check(cudaMemcpyAsync(statistics, counters_.statistics, size_t(n) * kStatistics * sizeof(double),
                          cudaMemcpyDeviceToHost, stream),
          "cudaMemcpyAsync");
    check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
    return clock.done;
  }

  void replay(Graph& graph, int64_t iterations, const Resources& run) {
    if (!graph.captured())
      graph.capture([&](cudaStream_t stream) {
        Resources captured = run;
        captured.stream = stream;
        for (int64_t i = 0; i < iterations; ++i) iteration(captured);
      });
    graph.launch(run);
  }

  // ---- an iteration ----

  void iteration(const Resources& run) {
    const int64_t before = launched();
    next_block_ = 0;
    engine_prepare(run, training_, counters_);
    generate(run);
    for (int64_t step = 0; step < k_; ++step) discriminator_step(run, step);
    if (!training_.simultaneous) generator_loss(run);
    generator_update(run);
    launches_ = launched() - before;
  }

  bool only_head() const { return discriminator_.last() == 0; }

  // The rows that the generator's own step is made of.
  Rows own_rows() const { return {(groups_ - 1) * m_, m_, counters_.g_masks + groups_ - 1}; }

  const S* fake(int64_t group) const { return generator_.rows(generator_.last(), group * m_); }

  // All the generator's rows of the iteration: its parameters change only at the end.
  void generate(const Resources& run) {
    forward(run, generator_, noise({0, groups_ * m_, counters_.g_masks}), {0, groups_ * m_, counters_.g_masks});
  }

  void discriminator_step(const Resources& run, int64_t step) {
    const bool last = step == k_ - 1, with_generator = last && training_.simultaneous;
    const Rows rows = {0, 2 * m_, counters_.d_masks + 2 * step};
    const auto x = [&](const GroupedMask<Compute<S>>& masks) {
      return BatchRows<S>::gathered(training_.data, counters_.rows + step * m_, fake(step), m_, masks);
    };
    const auto first = x(mask(discriminator_, 0, rows));
    const S* hidden = stacked_;
    if (only_head())
      make(run, x(no_mask()), training_.data.dim, stacked_);
    else
      hidden = forward(run, discriminator_, first, rows);
    const HeadLoss loss = {
        true, with_generator, training_.generator_term, training_.smoothing, training_.simultaneous ? 0.5 : 1.0, last};
    head(run, hidden, rows, m_, loss, step);
    // where both losses are descended the generator's gradients lie below the discriminator's
    backward(run, discriminator_, {0, with_generator ? 3 * m_ : 2 * m_, rows.masks}, 2 * m_);
    if (with_generator && !only_head()) into_generator(run, {2 * m_, m_, rows.masks + 1}, m_);
    update(run, discriminator_, first, rows, counters_.rates + 2 * step, discriminator_.last());
    engine_limit_norms<S>(run, training_.discriminator, counters_);
  }

  void generator_loss(const Resources& run) {
    const Rows rows = {0, m_, counters_.d_masks + 2 * k_};
    const S* hidden = fake(k_);
    if (!only_head())
      hidden = forward(run, discriminator_,
                       BatchRows<S>::dense(hidden, m_, training_.data.dim, mask(discriminator_, 0, rows)), rows);
    head(run, hidden, rows, 0, {false, true, training_.generator_term, 0.0, 0.0, true}, k_);
    if (only_head()) return;
    backward(run, discriminator_, rows, m_);
    into_generator(run, rows, 0);
  }

  void generator_update(const Resources& run) {
    const Rows rows = own_rows();
    backward(run, generator_, {rows.begin, m_, rows.masks}, rows.begin + m_);
    update(run, generator_, noise(rows), rows, counters_.rates + 2 * k_, generator_.last() + 1);
    engine_limit_norms<S>(run, training_.generator, counters_);
  }

  // ---- parts of it ----

  GroupedMask<Compute<S>> mask(const Network& net, int l, const Rows& rows) const {
    return {net.layer(l).dropout, training_.seed, l, rows.masks, m_};
  }
  GroupedMask<Compute<S>> no_mask() const { return {0, 0, 0, nullptr, m_}; }

  // The generator's first input.
  BatchRows<S> noise(const Rows& rows) const {
    return BatchRows<S>::noise(rows.count, generator_.layer(0).inputs, training_.noise, training_.seed,
                               counters_.noise + rows.begin / m_, mask(generator_, 0, rows));
  }

  // What layer l is given.
  BatchRows<S> input(const Network& net, int l, const BatchRows<S>& first, const Rows& rows) const {
    if (l == 0) return first;
    return BatchRows<S>::dense(net.rows(l - 1, rows.begin), rows.count, net.layer(l).inputs, mask(net, l, rows));
  }

  // All layers whose outputs are kept; returns the last of these.
  const S* forward(const Resources& run, const Network& net, const BatchRows<S>& first, const Rows& rows) {
    const int stored = int(net.y.size());
    for (int l = 0; l < stored; ++l) {
      const BatchRows<S> x = input(net, l, first, rows);
      const Matrix weight = net.weight(l);
      const auto queue = [&](const LayerOutput<S>& output) {
        with_math<S>(run, [&](auto math) { engine_forward<math.value>(run, tickets_, x, weight, output); });
      };
      if (net.layer(l).is_maxout()) {
        MaxoutForward op{};
        op.weight = weight;
        op.bias = net.bias(l);
        op.pieces = net.layer(l).pieces;
        op.y = net.rows(l, rows.begin);
        op.argmax = net.argmax[size_t(l)] + rows.begin * net.layer(l).outputs;
        queue(LayerOutput<S>::of(op));
      } else {
        LinearActForward op{};
        op.weight = weight;
        op.bias = net.bias(l);
        op.activation = net.layer(l).activation;
        op.slope = net.mlp->slope;
        op.y = net.rows(l, rows.begin);
        queue(LayerOutput<S>::of(op));
      }
    }
    return net.rows(stored - 1, rows.begin);
  }

  void head(const Resources& run, const S* hidden, const Rows& rows, int64_t real_rows, const HeadLoss& loss,
            int64_t step) {
    const Network& d = discriminator_;
    const int l = d.last(), below = l - 1;
    const Activation activation = only_head() ? generator_.activation(generator_.last()) : d.activation(below);
    S* const d_grad = loss.discriminator && !only_head() ? d.grads(below, 0) : nullptr;
    S* const g_grad = !loss.generator ? nullptr
                      : only_head()   ? generator_.grads(generator_.last(), 0)
                                      : d.grads(below, loss.discriminator ? 2 * m_ : 0);
    const double slope = only_head() ? training_.generator.slope : training_.discriminator.slope;
    Update<S> weight, bias;
    if (loss.discriminator) {
      weight = updated(d, d.layer(l).weight, counters_.rates + 2 * step);
      bias = updated(d, d.layer(l).bias, counters_.rates + 2 * step);
    }
    engine_head<S>(run, tickets_,
                   {hidden, rows.count, real_rows, m_, d.layer(l).inputs, static_cast<const S*>(d.weight(l).data),
                    d.bias(l), mask(d, l, rows), activation, slope, d_grad, g_grad, loss, weight, bias, &counters_});
  }

  Update<S> updated(const Network& net, int64_t tensor, const double* rates) const {
    return Update<S>(*net.mlp, tensor, counters_.clock, rates);
  }

  // From the last layer's gradients to the first's. Rows of the gradients begin at 0; those from `own` on (of the
  // pass's rows) belong to the outputs of m rows before.
  void backward(const Resources& run, const Network& net, const Rows& rows, int64_t own) {
    const int64_t own_rows = own - rows.begin;
    for (int l = int(net.y.size()) - 1; l > 0; --l) {
      const MlpLayer& layer = net.layer(l);
      const GradRows<S> g(net.grads(l, 0), net.winners(l, rows.begin), rows.count, layer.rows(), layer.pieces, own_rows,
                          m_);
      const StoreDerived<S> out(net.grads(l - 1, 0), net.rows(l - 1, rows.begin), layer.inputs, net.activation(l - 1),
                                net.mlp->slope, mask(net, l, rows), own_rows, m_);
      with_math<S>(run, [&](auto math) { engine_backward<math.value>(run, tickets_, g, net.weight(l), out); });
    }
  }

  // Through the discriminator's first layer: `rows` are of its gradients, `winners` the first of their outputs.
  void into_generator(const Resources& run, const Rows& rows, int64_t winners) {
    const Network &d = discriminator_, &net = generator_;
    const int last = net.last();
    const MlpLayer& layer = d.layer(0);
    const GradRows<S> g(d.grads(0, rows.begin), d.winners(0, winners), m_, layer.rows(), layer.pieces, m_, 0);
    const StoreDerived<S> out(net.grads(last, 0), fake(groups_ - 1), layer.inputs, net.activation(last), net.mlp->slope,
                              mask(d, 0, rows), m_, 0);
    with_math<S>(run, [&](auto math) { engine_backward<math.value>(run, tickets_, g, d.weight(0), out); });
  }

  // Weights and biases of the first layers.
  void update(const Resources& run, const Network& net, const BatchRows<S>& first, const Rows& rows,
              const double* rates, int layers) {
    std::vector<LayerUpdate<S>> updates;
    for (int l = 0; l < layers; ++l) {
      const MlpLayer& layer = net.layer(l);
      const GradRows<S> g(net.grads(l, 0), net.winners(l, rows.begin), rows.count, layer.rows(), layer.pieces,
                          rows.count, 0);
      updates.push_back({g,
                         input(net, l, first, rows),
                         {updated(net, layer.weight, rates), updated(net, layer.bias, rates), layer.inputs}});
    }
    with_math<S>(run, [&](auto math) { engine_update<math.value>(run, tickets_, updates); });
  }

  const Training training_;
  const int64_t m_, k_, groups_;  // groups of m rows that the generator makes
  Network generator_, discriminator_;
  Counters counters_;
  unsigned* tickets_;
  int64_t ticket_count_;
  S* stacked_ = nullptr;  // the discriminator's rows, where its head is all of it
  std::vector<std::pair<void*, size_t>> blocks_;
  size_t next_block_ = 0;
  bool ready_ = false, tf32_ = false;
  Graph one_, several_;
  double per_second_ = 0;
  int64_t launches_ = 0;
};

}  // namespace

Engine* make_engine(const Training& training) {
  Engine* engine = nullptr;
  for_dtype(training.dtype,
            [&](auto* tag) { engine = new NativeEngine<std::remove_pointer_t<decltype(tag)>>(training); });
  return engine;
}

}  // namespace pygan::cuda
