// The native engine: Algorithm 1 as a sequence of products, each of whose operands is made while it is packed and
// whose results are spent tile by tile. The order of everything is pygan/trainer.py's.
#include <chrono>
#include <cmath>
#include <memory>

#include "engine_epilogues.h"
#include "engine_head.h"
#include "engine_operands.h"
#include "kernels.h"
#include "thread_team.h"

namespace pygan::cpu::PYGAN_ISA {
namespace {

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
  // rows: of outputs, and of gradients.
  Network(const Mlp& mlp, int kept_layers, int64_t rows, int64_t grad_rows)
      : mlp(mlp), y(size_t(kept_layers)), argmax(size_t(kept_layers)), biases(mlp.layers.size()) {
    int64_t widest = 0, most = 1;
    for (int l = 0; l < int(mlp.layers.size()); ++l) {
      const MlpLayer& layer = mlp.layers[size_t(l)];
      most = std::max({most, layer.rows(), layer.inputs + 1});
      if (layer.bias >= 0) biases[size_t(l)].assign(size_t(layer.rows() + kTileCols<T>), T(0));
      if (l >= kept_layers) continue;
      widest = std::max(widest, layer.outputs);
      y[size_t(l)].resize(size_t(rows * layer.outputs));
      if (layer.is_maxout()) argmax[size_t(l)].resize(size_t(rows * layer.outputs));
    }
    for (std::vector<T>& buffer : grads) buffer.resize(size_t(grad_rows * widest));
    sums.resize(size_t(most));
    bias_grad.resize(size_t(most));
    widest_ = widest;
  }

  const MlpLayer& layer(int l) const { return mlp.layers[size_t(l)]; }
  int last() const { return int(mlp.layers.size()) - 1; }
  int kept() const { return int(y.size()); }
  T* outputs(int l, int64_t row = 0) { return y[size_t(l)].data() + row * layer(l).outputs; }
  uint8_t* winners(int l, int64_t row) { return argmax[size_t(l)].data() + row * layer(l).outputs; }
  T* grad(int buffer, int64_t row) { return grads[buffer].data() + row * widest_; }
  T* param(int64_t at) const { return static_cast<T*>(mlp.params) + at; }
  T* state1(int64_t at) const { return static_cast<T*>(mlp.state1) + at; }
  T* state2(int64_t at) const { return mlp.state2 ? static_cast<T*>(mlp.state2) + at : nullptr; }
  const T* bias(int l) const { return layer(l).bias < 0 ? nullptr : biases[size_t(l)].data(); }
  // What a derivative is taken of where a gradient arrives at layer l: maxout's is MaxoutGrad's business.
  Activation derived(int l) const { return layer(l).is_maxout() ? Activation::identity : layer(l).activation; }

  void copy_bias(int l) {
    if (layer(l).bias >= 0) std::copy_n(param(layer(l).bias), layer(l).rows(), biases[size_t(l)].data());
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
  std::vector<std::vector<T>> y;
  std::vector<std::vector<uint8_t>> argmax;
  std::vector<std::vector<T>> biases;  // padded to whole tiles
  std::vector<T> grads[2];             // of the layer that is at work, and of the one below
  std::vector<double> sums;            // of gradients, by row of a weight
  std::vector<T> bias_grad;

 private:
  int64_t widest_;
};

template <class T>
class NativeEngine : public Engine {
 public:
  explicit NativeEngine(const Training& training)
      : t_(training),
        m_(training.batch),
        g_(training.generator, int(training.generator.layers.size()), training.simultaneous ? m_ : 2 * m_, m_),
        d_(training.discriminator, int(training.discriminator.layers.size()) - 1, 2 * m_,
           training.simultaneous ? 3 * m_ : 2 * m_),
        z_(size_t(2 * m_ * g_.layer(0).inputs)),
        indices_(size_t(m_)) {
    const int64_t k = d_.layer(d_.last()).inputs, blocks = Head<T>::blocks(2 * m_, k);
    parts_.resize(Sums<T>::size(blocks, k));
    head_statistics_.resize(size_t(blocks));
    head_total_.resize(size_t(k + 1));
  }

  int64_t run(int64_t first, int64_t count, double seconds, double* statistics, const Resources& resources) override {
    const ThreadTeam team(worth_sharing() ? resources.threads : 1);
    workers_ = &team;
    head_scratch_.resize(size_t(team.threads) * Head<T>::scratch(d_.layer(d_.last()).inputs));
    for (Network<T>* network : {&g_, &d_})
      for (int l = 0; l <= network->last(); ++l) network->copy_bias(l);
    const auto start = std::chrono::steady_clock::now();
    int64_t done = 0;
    while (done < count) {
      double* const row = statistics + done * kStatistics;
      iterate(first + done, row);
      ++done;
      bool finite = true;
      for (int i = 0; i < kStatistics; ++i) finite = finite && std::isfinite(row[i]);
      if (!finite || std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() >= seconds) break;
    }
    return done;
  }

 private:
  // ---- Algorithm 1 ----

  void iterate(int64_t i, double* statistics) {
    const int64_t k = t_.k;
    HeadStatistics seen;
    for (int64_t j = 0; j < k; ++j) seen = discriminator_step(i * k + j, i, j == k - 1);
    const int64_t epoch = epoch_of(i * k + k - 1);
    if (t_.simultaneous) {
      update_generator(rows(m_, stream::g_in_d, i * k + k - 1), g_.update(i, epoch));
    } else {
      seen.g_loss = generator_loss(i).g_loss;
      Rows own = rows(m_, stream::g, i);
      own.first = m_;
      update_generator(own, g_.update(i, epoch));
    }
    statistics[0] = seen.d_loss, statistics[1] = seen.g_loss;
    statistics[2] = seen.d_real, statistics[3] = seen.d_fake;
  }

  // Step t of the discriminator, of iteration i. With the last one of an iteration goes the generator's: in a
  // simultaneous iteration the gradient of its outputs, from the same parameters; else its forward pass, whose
  // parameters are the same too, and whose rows then share each packed weight with those of the discriminator's step.
  HeadStatistics discriminator_step(int64_t t, int64_t i, bool last) {
    const bool with_generator = last && t_.simultaneous;
    generate(t, i, last && !t_.simultaneous);
    choose_minibatch(t);

    const DataRows<T> real_by_row(t_.data, indices_.data(), true), real_by_col(t_.data, indices_.data(), false);
    const Dense<T> fake_by_row(fake(), true), fake_by_col(fake(), false);
    const Stacked<T> by_row(real_by_row, fake_by_row, m_), by_col(real_by_col, fake_by_col, m_);
    const Source<T> x = {by_row, by_col};
    const Rows both = {2 * m_, 0, m_, make_offset(stream::d_real, uint64_t(t)),
                       make_offset(stream::d_fake, uint64_t(t))};
    forward(d_, x, both);

    const int l = d_.last();
    const RowMasks<T> masks = masks_of(d_, l, both), fake_masks = masks_of(d_, l, fakes_of(both));
    const InputGrad<T> d_below = below(d_, l, masks, 0, 0);
    const InputGrad<T> g_below = l > 0 ? below(d_, l, fake_masks, m_, 2 * m_) : into_generator(fake_masks);
    HeadStatistics statistics;
    with_input(d_, l, x, both, true, [&](const Operand<T>& input) {
      Head<T> head = head_of(input, both.count, m_);
      head.d_scale = t_.simultaneous ? 0.5 : 1.0;
      head.generator = with_generator ? &t_.generator_term : nullptr;
      head.d_below = l > 0 ? &d_below : nullptr;
      head.g_below = &g_below;
      statistics = run(head);
    });
    const Update<T> update = d_.update(t, epoch_of(t));
    if (with_generator && l > 0) down_to_generator(fakes_of(both), 2 * m_);
    update_head(update);
    backward(d_, l - 1, x, both, 0, &update, nullptr);
    return statistics;
  }

  // The generator's outputs for step t and, `also_own`, for its own step in iteration i.
  void generate(int64_t t, int64_t i, bool also_own) {
    Rows drawn = rows(m_, stream::g_in_d, t);
    draw_noise(stream::noise_d, t, 0);
    if (also_own) {
      draw_noise(stream::noise_g, i, m_);
      drawn.count = 2 * m_;
      drawn.bottom = make_offset(stream::g, uint64_t(i));
    }
    const Dense<T> z(noise(0, drawn.count), true);
    forward(g_, {z, z}, drawn);
  }

  // What the generator descends, and its gradient at the generator's outputs.
  HeadStatistics generator_loss(int64_t i) {
    const Dense<T> by_row(fake(m_), true), by_col(fake(m_), false);
    const Source<T> x = {by_row, by_col};
    const Rows own = rows(m_, stream::d_in_g, i);
    forward(d_, x, own);
    const int l = d_.last();
    const RowMasks<T> masks = masks_of(d_, l, own);
    const InputGrad<T> g_below = l > 0 ? below(d_, l, masks, 0, 0) : into_generator(masks);
    HeadStatistics statistics;
    with_input(d_, l, x, own, true, [&](const Operand<T>& input) {
      Head<T> head = head_of(input, own.count, 0);
      head.generator = &t_.generator_term;
      head.g_below = &g_below;
      statistics = run(head);
    });
    if (l > 0) down_to_generator(own, 0);
    return statistics;
  }

  void update_generator(const Rows& own, const Update<T>& update) {
    const Dense<T> by_row(noise(own.first, m_), true), by_col(noise(own.first, m_), false);
    backward(g_, g_.last(), {by_row, by_col}, own, 0, &update, nullptr);
  }

  // ---- its parts ----

  // z (m, inputs) of one step, into rows from `first` on. Drawn once: its products want it along rows and along columns.
  void draw_noise(uint64_t stream, int64_t step, int64_t first) {
    const int64_t size = m_ * g_.layer(0).inputs, chunk = 8192;
    constexpr double kCost = 20;  // of an element, in the time of a FLOP of a product
    T* const z = z_.data() + first * g_.layer(0).inputs;
    workers_->each((size + chunk - 1) / chunk, kCost * double(size), [&](int64_t c, int) {
      const int64_t begin = c * chunk, count = std::min(chunk, size - begin);
      noise_run(t_.noise, t_.seed, make_offset(stream, uint64_t(step)), begin, count, z + begin);
    });
  }

  Matrix noise(int64_t first, int64_t count) const {
    const int64_t n = g_.layer(0).inputs;
    return {z_.data() + first * n, count, n, n, 1};
  }

  static Rows rows(int64_t count, uint64_t stream, int64_t step) {
    return {count, 0, count, make_offset(stream, uint64_t(step)), 0};
  }

  Rows fakes_of(const Rows& both) const { return {m_, m_, m_, both.bottom}; }

  int64_t epoch_of(int64_t t) const { return 1 + t * m_ / t_.data.count; }

  void choose_minibatch(int64_t t) {
    minibatch_indices({t_.data.count, t * m_, m_, t_.seed, make_offset(stream::minibatch, 0), indices_.data(), {}});
  }

  // The generator's outputs: those for the discriminator's step, or from row m its own.
  Matrix fake(int64_t first = 0) {
    const int64_t d = t_.data.dim;
    return {g_.outputs(g_.last(), first), m_, d, d, 1};
  }

  // Where the outputs begin that the generator's own step is made of.
  int64_t own_rows() const { return t_.simultaneous ? 0 : m_; }

  RowMasks<T> masks_of(const Network<T>& net, int l, const Rows& rows) const {
    const uint64_t layer = make_offset(uint64_t(l), 0);
    return {net.layer(l).dropout, t_.seed, rows.top + layer, rows.bottom + layer, rows.split, net.layer(l).inputs};
  }

  // The gradient of layer l's input goes to the layer below, whose kept outputs begin at row `first`.
  InputGrad<T> below(Network<T>& net, int l, const RowMasks<T>& masks, int64_t first, int64_t grad_row,
                     int buffer = 0) {
    if (l == 0) return {masks, Activation::identity, 0, nullptr, nullptr, 0};  // never used
    return {masks,
            net.derived(l - 1),
            net.mlp.slope,
            net.outputs(l - 1, first),
            net.grad(buffer, grad_row),
            net.layer(l).inputs};
  }

  InputGrad<T> into_generator(const RowMasks<T>& masks) {
    const int l = g_.last();
    return {masks, g_.derived(l), g_.mlp.slope, g_.outputs(l, own_rows()), g_.grad(0, 0), t_.data.dim};
  }

  template <class F>
  void with_input(Network<T>& net, int l, const Source<T>& source, const Rows& rows, bool by_row, const F& f) {
    const auto dropped = [&](const Operand<T>& x) {
      if (net.layer(l).dropout > 0)
        f(Dropped<T>(x, masks_of(net, l, rows)));
      else
        f(x);
    };
    const int64_t k = net.layer(l).inputs;
    if (l == 0)
      dropped(by_row ? source.by_row : source.by_col);
    else
      dropped(Dense<T>(Matrix{net.outputs(l - 1, rows.first), rows.count, k, k, 1}, by_row));
  }

  // All layers whose outputs are kept.
  void forward(Network<T>& net, const Source<T>& source, const Rows& rows) {
    for (int l = 0; l < net.kept(); ++l) {
      const MlpLayer& layer = net.layer(l);
      with_input(net, l, source, rows, true, [&](const Operand<T>& x) {
        T* const y = net.outputs(l, rows.first);
        const T* const w = net.param(layer.weight);
        if (layer.is_maxout()) {
          MaxOverPieces<T> epilogue(net.bias(l), y, y, net.winners(l, rows.first), layer.outputs, int(layer.pieces));
          pieces_.clear(), piece_operands_.clear();
          for (int64_t p = 0; p < layer.pieces; ++p)
            pieces_.emplace_back(
                Matrix{w + p * layer.inputs, layer.outputs, layer.inputs, layer.pieces * layer.inputs, 1}, true);
          for (const Dense<T>& piece : pieces_) piece_operands_.push_back(&piece);
          gemm({rows.count, layer.outputs, layer.inputs, &x, piece_operands_.data(), int(layer.pieces), &epilogue,
                nullptr, workers_});
        } else {
          BiasActivation<T> epilogue(net.bias(l), layer.activation, net.mlp.slope, y, layer.outputs);
          const Dense<T> weight(Matrix{w, layer.outputs, layer.inputs, layer.inputs, 1}, true);
          const Operand<T>* b = &weight;
          gemm({rows.count, layer.outputs, layer.inputs, &x, &b, 1, &epilogue, nullptr, workers_});
        }
      });
    }
  }

  // The gradient of layer l's pre-activations, in rows from grad_row of a buffer.
  template <class F>
  void with_gradient(Network<T>& net, int l, const Rows& rows, int64_t grad_row, int buffer, bool by_row, const F& f) {
    const MlpLayer& layer = net.layer(l);
    const Matrix g = {net.grad(buffer, grad_row), rows.count, layer.outputs, layer.outputs, 1};
    if (layer.is_maxout())
      f(MaxoutGrad<T>(g, net.winners(l, rows.first), layer.pieces, by_row));
    else
      f(Dense<T>(g, by_row));
  }

  // From layer `top`, whose gradient lies in buffer 0, to the first. `update`: the parameters on the way are changed;
  // `into`: where the gradient of the network's input goes.
  void backward(Network<T>& net, int top, const Source<T>& source, const Rows& rows, int64_t grad_row,
                const Update<T>* update, InputGrad<T>* into) {
    int buffer = 0;
    for (int l = top; l >= 0; --l, buffer = 1 - buffer) {
      const MlpLayer& layer = net.layer(l);
      if (l > 0 || into) {
        with_gradient(net, l, rows, grad_row, buffer, true, [&](const Operand<T>& g) {
          InputGrad<T> next = below(net, l, masks_of(net, l, rows), rows.first, grad_row, 1 - buffer);
          const Dense<T> weight(Matrix{net.param(layer.weight), layer.rows(), layer.inputs, layer.inputs, 1}, false);
          const Operand<T>* b = &weight;
          gemm({rows.count, layer.inputs, layer.rows(), &g, &b, 1, l > 0 ? &next : into, nullptr, workers_});
        });
      }
      if (update) update_layer(net, l, source, rows, grad_row, buffer, *update);
    }
  }

  // Through the discriminator's layers below the last to the generator's outputs.
  void down_to_generator(const Rows& rows, int64_t grad_row) {
    const Dense<T> unused(fake(), true);
    InputGrad<T> into = into_generator(masks_of(d_, 0, rows));
    backward(d_, d_.last() - 1, {unused, unused}, rows, grad_row, nullptr, &into);
  }

  void update_layer(Network<T>& net, int l, const Source<T>& source, const Rows& rows, int64_t grad_row, int buffer,
                    const Update<T>& update) {
    const MlpLayer& layer = net.layer(l);
    UpdateWeight<T> epilogue(update, net.param(layer.weight), net.state1(layer.weight), net.state2(layer.weight),
                             layer.inputs);
    std::fill_n(net.sums.data(), layer.rows(), 0.0);
    with_gradient(net, l, rows, grad_row, buffer, false, [&](const Operand<T>& g) {
      with_input(net, l, source, rows, false, [&](const Operand<T>& x) {
        const Operand<T>* b = &x;
        gemm({layer.rows(), layer.inputs, rows.count, &g, &b, 1, &epilogue, layer.bias >= 0 ? net.sums.data() : nullptr,
              workers_});
      });
    });
    for (int64_t j = 0; j < layer.rows(); ++j) net.bias_grad[size_t(j)] = T(net.sums[size_t(j)]);
    update_bias(net, l, net.bias_grad.data(), update);
    limit_norms(net, l);
  }

  void update_bias(Network<T>& net, int l, const T* grad, const Update<T>& update) {
    const MlpLayer& layer = net.layer(l);
    if (layer.bias < 0) return;
    update.run(net.param(layer.bias), grad, net.state1(layer.bias), net.state2(layer.bias), layer.rows());
    net.copy_bias(l);
  }

  // Each row of a weight to a norm of at most max_column_norm, as torch.renorm does.
  void limit_norms(Network<T>& net, int l) {
    const double limit = net.mlp.adam ? 0 : net.mlp.momentum_rule.max_column_norm;
    if (limit <= 0) return;
    const MlpLayer& layer = net.layer(l);
    const int64_t n = layer.inputs;
    constexpr double kCost = 8;  // of an element, in the time of a FLOP of a product
    const int64_t together = std::max<int64_t>(1, 16384 / n), blocks = (layer.rows() + together - 1) / together;
    workers_->each(blocks, kCost * double(layer.weights()), [&](int64_t block, int) {
      const int64_t end = std::min(layer.rows(), (block + 1) * together);
      for (int64_t row = block * together; row < end; ++row) limit_norm(net.param(layer.weight) + row * n, n, T(limit));
    });
  }

  static void limit_norm(T* w, int64_t n, T limit) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < n; ++j) sum += double(w[j]) * double(w[j]);
    const T norm = T(std::sqrt(sum));
    if (!(norm > limit)) return;
    const T scale = limit / (norm + T(1e-7));
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) w[j] *= scale;
  }

  Head<T> head_of(const Operand<T>& x, int64_t rows, int64_t real_rows) const {
    const MlpLayer& layer = d_.layer(d_.last());
    const T bias = layer.bias < 0 ? T(0) : *d_.param(layer.bias);
    return {x,   rows,    layer.inputs, real_rows, d_.param(layer.weight), bias, t_.smoothing,
            0.0, nullptr, nullptr,      nullptr};
  }

  HeadStatistics run(const Head<T>& head) {
    return head.run(*workers_, head_scratch_.data(), parts_.data(), head_total_.data(), head_statistics_.data());
  }

  // The gradient that the last run of the head left is spent.
  void update_head(const Update<T>& update) {
    const int l = d_.last();
    const MlpLayer& layer = d_.layer(l);
    update.run(d_.param(layer.weight), head_total_.data(), d_.state1(layer.weight), d_.state2(layer.weight),
               layer.inputs);
    update_bias(d_, l, head_total_.data() + layer.inputs, update);
    limit_norms(d_, l);
  }

  // Whether any product of an iteration is large enough for two threads.
  bool worth_sharing() const {
    double largest = 0;
    for (const Network<T>* network : {&g_, &d_})
      for (const MlpLayer& layer : network->mlp.layers)
        largest = std::max(largest, 2.0 * double(m_) * double(layer.weights()));
    return 2 * largest >= ThreadTeam::kWorth;
  }

  const Training t_;
  const int64_t m_;
  Network<T> g_, d_;
  const Workers* workers_ = nullptr;
  std::vector<T> z_;
  std::vector<int64_t> indices_;  // of the minibatch's rows
  std::vector<T> parts_, head_total_, head_scratch_;
  std::vector<HeadStatistics> head_statistics_;
  std::vector<Dense<T>> pieces_;
  std::vector<const Operand<T>*> piece_operands_;
};

}  // namespace

Engine* make_engine(const Training& training) {
  if (training.dtype == DType::f64) return new NativeEngine<double>(training);
  return new NativeEngine<float>(training);
}

}  // namespace pygan::cpu::PYGAN_ISA
