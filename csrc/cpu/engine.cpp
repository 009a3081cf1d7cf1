// The native engine: Algorithm 1 as a sequence of products, each of whose operands is made while it is packed and
// whose results are spent while they are in a cache. The order of everything is pygan/trainer.py's.
#include <chrono>
#include <cmath>
#include <memory>

#include "engine_head.h"
#include "engine_network.h"
#include "engine_operands.h"
#include "engine_rows.h"
#include "kernels.h"
#include "thread_team.h"

namespace pygan::cpu::PYGAN_ISA {
namespace {

template <class T>
class NativeEngine : public Engine {
 public:
  explicit NativeEngine(const Training& training)
      : t_(training),
        m_(training.batch),
        small_(PackedNetwork<T>::suits(training.generator, training.discriminator, m_)),
        g_(training.generator, int(training.generator.layers.size()), training.simultaneous ? m_ : 2 * m_, m_, small_),
        d_(training.discriminator, int(training.discriminator.layers.size()) - 1, 2 * m_,
           training.simultaneous ? 3 * m_ : 2 * m_, small_),
        z_(size_t(2 * m_ * g_.layer(0).inputs)),
        indices_(size_t(m_)) {
    const int64_t k = d_.layer(d_.last()).inputs;
    int64_t blocks = Head<T>::blocks(2 * m_, k);
    if (small_) {
      part_rows_ = even_rows(m_, kMostRows);
      parts_of_m_ = (m_ + part_rows_ - 1) / part_rows_;
      blocks = 2 * parts_of_m_;
      packed_.reserve(2);
      packed_.emplace_back(g_.mlp, g_.kept(), m_, false);
      packed_.emplace_back(d_.mlp, d_.kept(), 2 * m_, true);
    }
    head_sums_.resize(Sums<T>::size(blocks, k));
    head_statistics_.resize(size_t(blocks));
    head_total_.resize(size_t(k + 1));
  }

  int64_t run(int64_t first, int64_t count, double seconds, double* statistics, const Resources& resources) override {
    const ThreadTeam team(worth_sharing() ? resources.threads : 1);
    workers_ = &team;
    int64_t scratch = int64_t(Head<T>::scratch(d_.layer(d_.last()).inputs));
    for (const PackedNetwork<T>& packed : packed_) scratch = std::max(scratch, packed.scratch(part_rows_));
    thread_scratch_ = round_up_to_line<T>(scratch);
    scratch_.resize(size_t(team.threads * thread_scratch_));
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
    if (small_) pack(g_);
    for (int64_t j = 0; j < k; ++j) seen = discriminator_step(i * k + j, i, j == k - 1);
    const int64_t epoch = epoch_of(i * k + k - 1);
    if (t_.simultaneous) {
      update_generator(rows(m_, stream::g_in_d, i * k + k - 1), g_.update(i, epoch));
    } else {
      seen.g_loss = generator_step(i, g_.update(i, epoch)).g_loss;
    }
    statistics[0] = seen.d_loss, statistics[1] = seen.g_loss;
    statistics[2] = seen.d_real, statistics[3] = seen.d_fake;
  }

  // Step t of the discriminator, of iteration i. With the last one of an iteration goes the generator's: in a
  // simultaneous iteration the gradient of its outputs, from the same parameters; else its forward pass, whose
  // parameters are the same too, and whose rows then share each packed weight with those of the discriminator's step.
  HeadStatistics discriminator_step(int64_t t, int64_t i, bool last) {
    const bool with_generator = last && t_.simultaneous, also_own = last && !t_.simultaneous;
    draw_noise(stream::noise_d, t, 0);
    if (also_own) draw_noise(stream::noise_g, i, m_);
    choose_minibatch(t);

    Rows drawn = rows(m_, stream::g_in_d, t);
    if (also_own) drawn.count = 2 * m_, drawn.bottom = make_offset(stream::g, uint64_t(i));
    const Dense<T> z_by_row(noise(0, drawn.count), true), z_by_col(noise(0, drawn.count), false);
    const Source<T> z = {z_by_row, z_by_col};
    const DataRows<T> real_by_row(t_.data, indices_.data(), true), real_by_col(t_.data, indices_.data(), false);
    const Dense<T> fake_by_row(fake(), true), fake_by_col(fake(), false);
    const Stacked<T> by_row(real_by_row, fake_by_row, m_), by_col(real_by_col, fake_by_col, m_);
    const Source<T> x = {by_row, by_col};
    const Rows both = {2 * m_, 0, m_, make_offset(stream::d_real, uint64_t(t)),
                       make_offset(stream::d_fake, uint64_t(t))};

    const int l = d_.last();
    const RowMasks<T> masks = masks_of(d_, l, both), fake_masks = masks_of(d_, l, fakes_of(both));
    const InputGrad<T> d_below = below(d_, l, masks, 0, 0);
    const InputGrad<T> g_below = l > 0 ? below(d_, l, fake_masks, m_, 2 * m_) : into_generator(fake_masks);
    const Update<T> update = d_.update(t, epoch_of(t));
    HeadStatistics statistics;
    with_input(d_, l, x, both, true, [&](const Operand<T>& input) {
      Head<T> head = head_of(input, both.count, m_);
      head.d_scale = t_.simultaneous ? 0.5 : 1.0;
      head.generator = with_generator ? &t_.generator_term : nullptr;
      head.d_below = l > 0 ? &d_below : nullptr;
      head.g_below = &g_below;
      if (!small_) {
        forward(g_, z, drawn);
        forward(d_, x, both);
        statistics = run(head);
        if (with_generator) down_to_generator(fakes_of(both), 2 * m_, nullptr);
        return;
      }
      pack(d_);
      const Sums<T> sums(head_sums_.data(), 2 * parts_of_m_, head.k);
      // generated rows first: they take longest
      each_part(also_own ? 3 : 2, [&](int kind, int64_t number, const Part<T>& part) {
        const bool real = kind == 1;
        if (!real) forward(g_, z, drawn, kind == 2 ? part.at(m_) : part);
        if (kind == 2) return;
        const Part<T> here = real ? part : part.at(m_);
        const int64_t block = real ? number : parts_of_m_ + number;
        forward(d_, x, both, here);
        head_statistics_[size_t(block)] = {};
        head.some_rows(here.first, here.last, here.scratch, sums.block(block), head_statistics_[size_t(block)]);
        if (with_generator && !real) {
          down_to_generator(fakes_of(both), 2 * m_, &part);
          backward(g_, drawn, 0, &part);
        }
        backward(d_, both, 0, &here);
      });
      statistics = head.finish(sums, 2 * parts_of_m_, head_total_.data(), head_statistics_.data());
    });
    update_head(update);
    update_layers(d_, x, both, update);
    return statistics;
  }

  // What the generator descends, down to its parameters.
  HeadStatistics generator_step(int64_t i, const Update<T>& update) {
    const Dense<T> by_row(fake(m_), true), by_col(fake(m_), false);
    const Source<T> x = {by_row, by_col};
    const Rows in_d = rows(m_, stream::d_in_g, i);
    Rows own = rows(m_, stream::g, i);
    own.first = m_;

    const int l = d_.last();
    const RowMasks<T> masks = masks_of(d_, l, in_d);
    const InputGrad<T> g_below = l > 0 ? below(d_, l, masks, 0, 0) : into_generator(masks);
    HeadStatistics statistics;
    with_input(d_, l, x, in_d, true, [&](const Operand<T>& input) {
      Head<T> head = head_of(input, in_d.count, 0);
      head.generator = &t_.generator_term;
      head.g_below = &g_below;
      if (!small_) {
        forward(d_, x, in_d);
        statistics = run(head);
        down_to_generator(in_d, 0, nullptr);
        return;
      }
      pack(d_);
      const Sums<T> none(nullptr, 0, 0);
      each_part(1, [&](int, int64_t number, const Part<T>& part) {
        forward(d_, x, in_d, part);
        head_statistics_[size_t(number)] = {};
        head.some_rows(part.first, part.last, part.scratch, nullptr, head_statistics_[size_t(number)]);
        down_to_generator(in_d, 0, &part);
        backward(g_, own, 0, &part);
      });
      statistics = head.finish(none, parts_of_m_, nullptr, head_statistics_.data());
    });
    update_generator(own, update);
    return statistics;
  }

  void update_generator(const Rows& own, const Update<T>& update) {
    const Dense<T> by_row(noise(own.first, m_), true), by_col(noise(own.first, m_), false);
    update_layers(g_, {by_row, by_col}, own, update);
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
  InputGrad<T> below(Network<T>& net, int l, const RowMasks<T>& masks, int64_t first, int64_t grad_row) {
    if (l == 0) return {masks, Activation::identity, 0, nullptr, nullptr, 0};  // never used
    return {masks,
            net.derived(l - 1),
            net.mlp.slope,
            net.outputs(l - 1, first),
            net.grad(l - 1, grad_row),
            net.layer(l).inputs};
  }

  InputGrad<T> into_generator(const RowMasks<T>& masks) {
    const int l = g_.last();
    return {masks, g_.derived(l), g_.mlp.slope, g_.outputs(l, own_rows()), g_.grad(l, 0), t_.data.dim};
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

  void forward(Network<T>& net, const Source<T>& source, const Rows& rows, const Part<T>& part) {
    for (int l = 0; l < net.kept(); ++l) {
      const MlpLayer& layer = net.layer(l);
      with_input(net, l, source, rows, true, [&](const Operand<T>& x) {
        BiasActivation<T> epilogue(net.bias(l), layer.activation, net.mlp.slope, net.outputs(l, rows.first),
                                   layer.outputs);
        packed(net).forward(l).multiply(
            {rows.count, layer.outputs, layer.inputs, &x, nullptr, 1, &epilogue, nullptr, nullptr}, part);
      });
    }
  }

  // The gradient of layer l's pre-activations.
  template <class F>
  void with_gradient(Network<T>& net, int l, const Rows& rows, int64_t grad_row, bool by_row, const F& f) {
    const MlpLayer& layer = net.layer(l);
    const Matrix g = {net.grad(l, grad_row), rows.count, layer.outputs, layer.outputs, 1};
    if (layer.is_maxout())
      f(MaxoutGrad<T>(g, net.winners(l, rows.first), layer.pieces, by_row));
    else
      f(Dense<T>(g, by_row));
  }

  // From the gradient of layer l's pre-activations to that of its input, all rows or a part of them.
  void backward_layer(Network<T>& net, int l, const Rows& rows, int64_t grad_row, InputGrad<T>& next,
                      const Part<T>* part) {
    const MlpLayer& layer = net.layer(l);
    with_gradient(net, l, rows, grad_row, true, [&](const Operand<T>& g) {
      const Dense<T> weight(Matrix{net.param(layer.weight), layer.rows(), layer.inputs, layer.inputs, 1}, false);
      const Operand<T>* b = &weight;
      const Gemm<T> product = {rows.count, layer.inputs, layer.rows(), &g, &b, 1, &next, nullptr, workers_};
      if (part)
        packed(net).backward(l).multiply(product, *part);
      else
        gemm(product);
    });
  }

  void backward_layer(Network<T>& net, int l, const Rows& rows, int64_t grad_row, const Part<T>* part) {
    InputGrad<T> next = below(net, l, masks_of(net, l, rows), rows.first, grad_row);
    backward_layer(net, l, rows, grad_row, next, part);
  }

  // From the last layer that is kept to the first one's outputs.
  void backward(Network<T>& net, const Rows& rows, int64_t grad_row, const Part<T>* part) {
    for (int l = net.kept() - 1; l > 0; --l) backward_layer(net, l, rows, grad_row, part);
  }

  // Through the discriminator's layers below the last to the generator's outputs.
  void down_to_generator(const Rows& rows, int64_t grad_row, const Part<T>* part) {
    if (d_.kept() == 0) return;
    backward(d_, rows, grad_row, part);
    InputGrad<T> into = into_generator(masks_of(d_, 0, rows));
    backward_layer(d_, 0, rows, grad_row, into, part);
  }

  // Gradients go down and are spent. In a small network they have gone down.
  void update_layers(Network<T>& net, const Source<T>& source, const Rows& rows, const Update<T>& update) {
    if (small_) return update_layers_at_once(net, source, rows, update);
    for (int l = net.kept() - 1; l >= 0; --l) {
      if (l > 0) backward_layer(net, l, rows, 0, nullptr);
      const MlpLayer& layer = net.layer(l);
      UpdateWeight<T> epilogue = update_weight(net, l, update);
      with_gradient(net, l, rows, 0, false, [&](const Operand<T>& g) {
        with_input(net, l, source, rows, false, [&](const Operand<T>& x) {
          const Operand<T>* b = &x;
          gemm({layer.rows(), layer.inputs, rows.count, &g, &b, 1, &epilogue, net.clear_sums(l, 0, layer.rows()),
                workers_});
        });
      });
      update_bias(net, l, 0, layer.rows(), update);
      limit_norms(net, l);
    }
  }

  // The gradients of all weights, summed over some rows of the batch at a time.
  void update_layers_at_once(Network<T>& net, const Source<T>& source, const Rows& rows, const Update<T>& update) {
    const int64_t steps = packed(net).steps;
    double weights = 0;
    for (int l = 0; l < net.kept(); ++l) weights += double(net.layer(l).weights());
    for (int64_t begin = 0; begin < rows.count; begin += steps) {
      const int64_t end = std::min(rows.count, begin + steps);
      pack_inputs(net, source, rows, begin, end);
      workers_->each(int64_t(packed(net).update_tasks.size()), 2.0 * double(end - begin) * weights,
                     [&](int64_t task, int thread) { sum_weight_grad(net, task, rows, begin, end, update, thread); });
    }
  }

  void pack_inputs(Network<T>& net, const Source<T>& source, const Rows& rows, int64_t begin, int64_t end) {
    PackedNetwork<T>& all = packed(net);
    double inputs = 0;
    for (int l = 0; l < net.kept(); ++l) inputs += double(net.layer(l).inputs);
    const int64_t tasks = (end - begin + all.kStepsAtOnce - 1) / all.kStepsAtOnce;
    workers_->each(tasks * net.kept(), kPackCost * double(end - begin) * inputs, [&](int64_t task, int thread) {
      const int l = int(task / tasks);
      const int64_t first = task % tasks * all.kStepsAtOnce, last = std::min(end - begin, first + all.kStepsAtOnce);
      const RowProduct<T> product(net.layer(l).inputs, end - begin);
      with_input(net, l, source, rows, false, [&](const Operand<T>& x) {
        product.pack_steps(x, begin, first, last, all.inputs(l).panels.data(), scratch_of(thread));
      });
    });
  }

  // The share of rows [begin, end) of the batch in some rows of a weight's gradient. With the last it is spent.
  void sum_weight_grad(Network<T>& net, int64_t task, const Rows& rows, int64_t begin, int64_t end,
                       const Update<T>& update, int thread) {
    PackedNetwork<T>& all = packed(net);
    const auto [l, first] = all.update_tasks[size_t(task)];
    const MlpLayer& layer = net.layer(l);
    const int64_t last = std::min(layer.rows(), first + all.weight_rows(l));
    const RowProduct<T> product(layer.inputs, end - begin);
    T* const grad = all.weight_grad(l, first);
    UpdateWeight<T> spend = update_weight(net, l, update);
    if (begin == 0) net.clear_sums(l, first, last);
    with_gradient(net, l, rows, 0, false, [&, l = l, first = first](const Operand<T>& g) {
      product.accumulate(g, net.sums_of(l), begin, all.inputs(l).panels.data(), first, last, grad, begin > 0,
                         end == rows.count ? &spend : nullptr, scratch_of(thread));
    });
    if (end < rows.count) return;
    spend.whole_rows(grad, product.ld(), first, int(last - first));
    update_bias(net, l, first, last, update);
    limit_norms(net, l, first, last);
  }

  UpdateWeight<T> update_weight(Network<T>& net, int l, const Update<T>& update) {
    const MlpLayer& layer = net.layer(l);
    return {update, net.param(layer.weight), net.state1(layer.weight), net.state2(layer.weight), layer.inputs};
  }

  // From the sums of rows [first, last) of the weight's gradient.
  void update_bias(Network<T>& net, int l, int64_t first, int64_t last, const Update<T>& update) {
    if (net.layer(l).bias < 0) return;
    constexpr int64_t kAtOnce = 256;
    T grad[kAtOnce];
    for (; first < last; first += kAtOnce) {
      const int64_t count = std::min(kAtOnce, last - first);
      for (int64_t j = 0; j < count; ++j) grad[j] = T(net.sums[size_t(l)][size_t(first + j)]);
      update_bias(net, l, grad, first, count, update);
    }
  }

  void update_bias(Network<T>& net, int l, const T* grad, int64_t first, int64_t count, const Update<T>& update) {
    const int64_t at = net.layer(l).bias + first;
    update.run(net.param(at), grad, net.state1(at), net.state2(at), count);
    std::copy_n(net.param(at), count, net.biases[size_t(l)].data() + first);
  }

  // Each row of a weight to a norm of at most max_column_norm, as torch.renorm does.
  void limit_norms(Network<T>& net, int l) {
    if (norm_limit(net) <= 0) return;
    const MlpLayer& layer = net.layer(l);
    constexpr double kCost = 8;  // of an element, in the time of a FLOP of a product
    const int64_t together = std::max<int64_t>(1, 16384 / layer.inputs);
    workers_->each((layer.rows() + together - 1) / together, kCost * double(layer.weights()), [&](int64_t block, int) {
      limit_norms(net, l, block * together, std::min(layer.rows(), (block + 1) * together));
    });
  }

  void limit_norms(Network<T>& net, int l, int64_t first, int64_t last) {
    const MlpLayer& layer = net.layer(l);
    const double limit = norm_limit(net);
    if (limit <= 0) return;
    for (int64_t row = first; row < last; ++row)
      limit_norm(net.param(layer.weight) + row * layer.inputs, layer.inputs, T(limit));
  }

  static double norm_limit(const Network<T>& net) { return net.mlp.adam ? 0 : net.mlp.momentum_rule.max_column_norm; }

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
    return head.run(*workers_, scratch_.data(), size_t(thread_scratch_), head_sums_.data(), head_total_.data(),
                    head_statistics_.data());
  }

  // The gradient that the last run of the head left is spent.
  void update_head(const Update<T>& update) {
    const int l = d_.last();
    const MlpLayer& layer = d_.layer(l);
    update.run(d_.param(layer.weight), head_total_.data(), d_.state1(layer.weight), d_.state2(layer.weight),
               layer.inputs);
    if (layer.bias >= 0) update_bias(d_, l, head_total_.data() + layer.inputs, 0, 1, update);
    limit_norms(d_, l);
  }

  // ---- a small network, by rows ----

  PackedNetwork<T>& packed(const Network<T>& net) { return packed_[&net == &g_ ? 0 : 1]; }
  T* scratch_of(int thread) { return scratch_.data() + thread * thread_scratch_; }

  void pack(const Network<T>& net) {
    PackedNetwork<T>& weights = packed(net);
    workers_->each(weights.weight_tasks(), 2 * kPackCost * double(net.mlp.size),
                   [&](int64_t task, int thread) { weights.pack_weight(task, scratch_of(thread)); });
  }

  // f(kind, number, part) for every part of m rows, `kinds` times.
  template <class F>
  void each_part(int kinds, const F& f) {
    const double flops = 3.0 * kinds * double(m_) * double(g_.mlp.size + d_.mlp.size);
    workers_->each(kinds * parts_of_m_, flops, [&](int64_t task, int thread) {
      const int64_t number = task % parts_of_m_, first = number * part_rows_;
      f(int(task / parts_of_m_), number, Part<T>{first, std::min(m_, first + part_rows_), scratch_of(thread)});
    });
  }

  // Whether any phase of an iteration is large enough for two threads.
  bool worth_sharing() const {
    if (small_) return 6.0 * double(m_) * double(g_.mlp.size + d_.mlp.size) >= 8 * ThreadTeam::kWorth;
    double largest = 0;
    for (const Network<T>* network : {&g_, &d_})
      for (const MlpLayer& layer : network->mlp.layers)
        largest = std::max(largest, 2.0 * double(m_) * double(layer.weights()));
    return 2 * largest >= ThreadTeam::kWorth;
  }

  static constexpr int64_t kMostRows = 48;  // of a part

  const Training t_;
  const int64_t m_;
  const bool small_;
  Network<T> g_, d_;
  const Workers* workers_ = nullptr;
  Buffer<T> z_;
  std::vector<int64_t> indices_;  // of the minibatch's rows
  std::vector<T> head_sums_, head_total_;
  std::vector<HeadStatistics> head_statistics_;
  Buffer<T> scratch_;  // of threads
  int64_t thread_scratch_ = 0;
  std::vector<Dense<T>> pieces_;
  std::vector<const Operand<T>*> piece_operands_;
  std::vector<PackedNetwork<T>> packed_;  // small networks: the generator's, the discriminator's
  int64_t part_rows_ = 0, parts_of_m_ = 0;
};

}  // namespace

Engine* make_engine(const Training& training) {
  if (training.dtype == DType::f64) return new NativeEngine<double>(training);
  return new NativeEngine<float>(training);
}

}  // namespace pygan::cpu::PYGAN_ISA
