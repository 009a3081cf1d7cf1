// Runs kernels of the CUDA backend on the emulator, a case a line of standard input, and prints for each whether its
// results are those of plain loops in double; with an argument, also what its memory accesses cost. The cases:
//
//   <pass> <arithmetic> <m> <n> <k> <variant>   a layer's forward, grad_x or grad_w, or the finish of a
//                                               maxout whose product is there; variants are in Layer
//   <op> <dtype> <n>                            elementwise: accesses alone are looked at
//   <op> <dtype> <rows> <width>                 an MLP of three layers in one launch: accesses alone
//   batch_norm <dtype> <m> <n> <k>              linear_batch_norm_act forward and backward: accesses alone
//   head <dtype> <rows> <width>                 head_loss forward and backward: accesses alone
//   parzen <dtype> <rows> <samples> <dim>       parzen_log_likelihood
//   engine <arithmetic> <update> <m> <dropout> <hidden>
//                                               iterations of the native engine, whose discriminator's last hidden
//                                               layer is as wide: likewise, and that they are finite

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <memory>
#include <sstream>

#include "../../csrc/core/parzen.h"
#include "../../csrc/core/philox.h"
#include "../../csrc/core/training.h"
#include "../../csrc/cuda/backend.h"
#include "../../csrc/cuda/layer.h"
#include "cases/cases.h"
#include "simt.h"

namespace {

using cases::DeviceArray;
using namespace pygan;
using namespace pygan::cuda;

// Memory that ops asked for while a case ran.
std::vector<std::unique_ptr<DeviceArray<char>>> scratches;

Resources resources(bool allow_tf32 = false) {
  Resources result;
  result.allow_tf32 = allow_tf32;
  result.scratch = [](void*, size_t bytes) -> void* {
    return scratches.emplace_back(std::make_unique<DeviceArray<char>>(bytes))->data();
  };
  return result;
}

// On the device and, in double, on the host. Multiples of 1/8 up to 1: every sum of their products is exact in fp32,
// so results do not depend on the order of a sum.
template <class S>
struct Values {
  int64_t rows, cols;
  std::vector<double> host;
  DeviceArray<S> device;

  Values(int64_t rows, int64_t cols, uint64_t stream)
      : rows(rows), cols(cols), host(made(rows * cols, stream)), device(stored(host)) {}

  double operator()(int64_t i, int64_t j) const { return host[size_t(i * cols + j)]; }
  Matrix view() const { return {device.data(), rows, cols, cols, 1}; }

  static std::vector<double> made(int64_t count, uint64_t stream) {
    std::vector<double> values(static_cast<size_t>(count));
    for (size_t i = 0; i < values.size(); ++i) values[i] = double(philox_block(7, stream, i).word[0] % 17) / 8 - 1;
    return values;
  }
  static std::vector<S> stored(const std::vector<double>& values) {
    std::vector<S> result;
    for (const double value : values) result.push_back(narrow<S>(Compute<S>(value)));
    return result;
  }
};

// Whether the device's (rows, cols) are element(i, j), rounded.
template <class S, class F>
void expect(const DeviceArray<S>& got, int64_t rows, int64_t cols, const F& element) {
  std::vector<double> wide, wanted;
  for (const S value : got.values()) wide.push_back(double(widen(value)));
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < cols; ++j) wanted.push_back(double(widen(narrow<S>(Compute<S>(element(i, j))))));
  cases::expect_equal(wide, wanted);
}

template <class F>
double sum(int64_t count, const F& term) {
  double result = 0;
  for (int64_t i = 0; i < count; ++i) result += term(i);
  return result;
}

template <Math kMath>
class Layer {
 public:
  using S = Stored<kMath>;

  // variant: identity, relu, dropout (of the input, before relu), or maxout with the number of its pieces (maxout5)
  Layer(int64_t m, int64_t n, int64_t k, const std::string& variant)
      : m(m),
        n(n),
        k(k),
        maxout(variant.rfind("maxout", 0) == 0),
        pieces(maxout ? std::stoi(variant.substr(6)) : 1),
        activation(maxout || variant == "identity" ? Activation::identity : Activation::relu),
        dropout{variant == "dropout" ? 0.5 : 0.0, 3, 4},
        run(resources(kMath == Math::tf32)),
        x(m, k, 1),
        weight(n, k, 2) {}

  void forward() {
    const Values<S> bias(1, n, 3);
    const DeviceArray<S> y(size_t(m * n / pieces));
    const DeviceArray<uint8_t> argmax(size_t(m * n / pieces));
    if (maxout)
      layer_forward<kMath>(MaxoutForward{kDType, x.view(), weight.view(), bias.device.data(), pieces, dropout, y.data(),
                                         argmax.data(), run});
    else
      layer_forward<kMath>(
          LinearActForward{kDType, x.view(), weight.view(), bias.device.data(), activation, 0, dropout, y.data(), run});

    std::vector<uint8_t> winners;
    expect(y, m, n / pieces, [&](int64_t i, int64_t unit) {
      std::vector<double> sums;
      for (int64_t j = unit * pieces; j < (unit + 1) * pieces; ++j)
        sums.push_back(bias(0, j) + sum(k, [&](int64_t l) { return factor(i, l) * x(i, l) * weight(j, l); }));
      const auto best = std::max_element(sums.begin(), sums.end());
      winners.push_back(uint8_t(best - sums.begin()));
      return activation == Activation::relu ? std::max(*best, 0.0) : *best;
    });
    if (maxout) cases::expect_equal(argmax.values(), winners);
  }

  // Of a product that a library computed.
  void finish() {
    const Values<S> product(m, n, 6);
    const DeviceArray<S> y(size_t(m * n / pieces));
    const DeviceArray<uint8_t> argmax(size_t(m * n / pieces));
    layer_forward<kMath>(MaxoutForward{kDType, x.view(), weight.view(), nullptr, pieces, dropout, y.data(),
                                       argmax.data(), run, product.device.data()});
    expect(y, m, n / pieces, [&](int64_t i, int64_t unit) {
      double best = product(i, unit * pieces);
      for (int64_t j = 1; j < pieces; ++j) best = std::max(best, product(i, unit * pieces + j));
      return best;
    });
  }

  void backward(bool of_input) {
    const Values<S> grad_y(m, n / pieces, 4), y(m, n / pieces, 5);
    std::vector<uint8_t> winners;
    for (const double value : y.host) winners.push_back(uint8_t(int64_t(8 * value + 8) % pieces));
    const DeviceArray<uint8_t> argmax(winners);
    const DeviceArray<S> grad_x(size_t(m * k)), grad_weight(size_t(n * k)), grad_bias(static_cast<size_t>(n));
    void* const to_x = of_input ? grad_x.data() : nullptr;
    void* const to_weight = of_input ? nullptr : grad_weight.data();
    void* const to_bias = of_input ? nullptr : grad_bias.data();
    if (maxout)
      layer_backward<kMath>(MaxoutBackward{kDType, grad_y.view(), x.view(), weight.view(), argmax.data(), pieces,
                                           dropout, to_x, to_weight, to_bias, run});
    else
      layer_backward<kMath>(LinearActBackward{kDType, grad_y.view(), x.view(), weight.view(), y.device.data(),
                                              activation, 0, dropout, to_x, to_weight, to_bias, run});

    const auto g = [&](int64_t i, int64_t j) {
      const int64_t unit = j / pieces;
      const bool passes = maxout ? winners[size_t(i * (n / pieces) + unit)] == j % pieces
                                 : activation == Activation::identity || y(i, unit) > 0;
      return passes ? grad_y(i, unit) : 0.0;
    };
    if (of_input) {
      expect(grad_x, m, k, [&](int64_t i, int64_t l) {
        return factor(i, l) * sum(n, [&](int64_t j) { return g(i, j) * weight(j, l); });
      });
    } else {
      expect(grad_weight, n, k,
             [&](int64_t j, int64_t l) { return sum(m, [&](int64_t i) { return g(i, j) * factor(i, l) * x(i, l); }); });
      expect(grad_bias, 1, n, [&](int64_t, int64_t j) { return sum(m, [&](int64_t i) { return g(i, j); }); });
    }
  }

 private:
  static constexpr DType kDType = kMath == Math::bf16 ? DType::bf16 : DType::f32;

  // Of dropout: 0 or 1 / (1 - p).
  double factor(int64_t i, int64_t l) const {
    if (dropout.p == 0) return 1;
    const uint64_t element = uint64_t(i * k + l);
    const bool kept = philox_block(dropout.seed, dropout.offset, element / 4).word[element % 4] >= 0x80000000u;
    return kept ? 2 : 0;
  }

  const int64_t m, n, k;
  const bool maxout;
  const int64_t pieces;
  const Activation activation;
  const Dropout dropout;
  const Resources run;
  const Values<S> x, weight;
};

template <Math kMath>
void run_layer(const std::string& pass, std::istream& rest) {
  int64_t m, n, k;
  std::string variant;
  rest >> m >> n >> k >> variant;
  Layer<kMath> layer(m, n, k, variant);
  if (pass == "forward") return layer.forward();
  if (pass == "finish") return layer.finish();
  layer.backward(pass == "grad_x");
}

// Two tensors of n elements for each op that takes several, or a loss of two terms.
template <class S>
void run_elementwise(const std::string& op, DType dtype, int64_t n) {
  const Values<S> a(1, n, 1), b(1, n, 2);
  const DeviceArray<S> out(static_cast<size_t>(n)), out2(static_cast<size_t>(n));
  const Values<float> state1(1, n, 3), state2(1, n, 4);
  const ParamSlice slices[] = {{a.device.data(), b.device.data(), state1.device.data(), state2.device.data(), n}};
  const GanLossTerm real{GanTerm::real, a.device.data(), n, 0.1, out.data()};
  const GanLossTerm fake{GanTerm::fake, b.device.data(), n, 0, out2.data()};
  if (op == "dropout")
    dropout_forward({dtype, a.device.data(), n, {0.5, 3, 4}, out.data(), resources()});
  else if (op == "noise")
    noise({dtype, NoiseKind::normal, 3, 4, out.data(), n, resources()});
  else if (op == "momentum")
    momentum_update({dtype, DType::f32, slices, 1, 0.1, 0.9, resources()});
  else if (op == "adam")
    adam_update({dtype, DType::f32, slices, 1, 1, 0.1, 0.9, 0.99, 1e-8, resources()});
  else if (op == "gan_loss_values")
    gan_loss_forward({dtype, {real, fake}, 2, Reduction::none, out.data(), resources()});
  else if (op == "gan_loss_mean")
    gan_loss_forward({dtype, {real, fake}, 2, Reduction::mean, out.data(), resources()});
  else if (op == "gan_loss_backward")
    gan_loss_backward({dtype, {real, fake}, 2, Reduction::mean, a.device.data(), resources()});
  else
    throw std::invalid_argument("no op " + op);
}

// Three layers.
template <class S>
void run_mlp(const std::string& op, DType dtype, int64_t rows, int width) {
  const Values<S> x(rows, width, 1), weight(width, width, 2), bias(1, width, 3), grad_y(rows, width, 4);
  const DeviceArray<S> grad_x(size_t(rows * width)), y(size_t(3 * rows * width)), grad(size_t(3 * rows * width));
  SmallMlpForward forward{dtype, x.device.data(), rows, {}, 3, 0, resources()};
  for (int l = 0; l < forward.count; ++l) {
    const int64_t first = l * rows * width;
    forward.layers[l] = {weight.device.data(), bias.device.data(), width, width, Activation::tanh,
                         y.data() + first,     grad.data() + first};
  }
  small_mlp_forward(forward);
  if (op == "mlp_forward") return;
  simt::reset_access_counters();
  SmallMlpBackward backward{dtype, grad_y.device.data(), rows, {}, 3, 0, grad_x.data(), resources()};
  std::copy(std::begin(forward.layers), std::end(forward.layers), backward.layers);
  small_mlp_backward(backward);
}

template <class S>
void run_head(DType dtype, int64_t rows, int64_t width) {
  using T = Compute<S>;
  const Values<S> hidden(rows, width, 1), weight(1, width, 2), bias(1, 1, 3), upstream(1, 1, 4),
      grad_logits(rows, 1, 5);
  const DeviceArray<S> loss(1), logits(static_cast<size_t>(rows));
  const DeviceArray<T> slopes(static_cast<size_t>(rows)), sums(static_cast<size_t>(width + 1));
  const DeviceArray<S> grad_hidden(size_t(rows * width)), grad_weight(static_cast<size_t>(width)), grad_bias(1);
  head_loss_forward({dtype, hidden.view(), weight.device.data(), bias.device.data(), rows / 2, GanTerm::fake, 0.1,
                     loss.data(), logits.data(), slopes.data(), sums.data(), resources()});
  for (const bool of_sums : {true, false})
    head_loss_backward({dtype, hidden.view(), weight.device.data(), upstream.device.data(),
                        of_sums ? nullptr : grad_logits.device.data(), slopes.data(), of_sums ? sums.data() : nullptr,
                        grad_hidden.data(), grad_weight.data(), grad_bias.data(), resources()});
}

template <class S>
void run_batch_norm(DType dtype, int64_t m, int64_t n, int64_t k) {
  using T = Compute<S>;
  const Values<S> x(m, k, 1), weight(n, k, 2), bias(n, 1, 3), grad_y(m, n, 4);
  const Values<T> gamma(n, 1, 5), beta(n, 1, 6);
  const DeviceArray<S> h(size_t(m * n)), y(size_t(m * n)), grad_h(size_t(m * n)), grad_x(size_t(m * k)),
      grad_weight(size_t(n * k)), grad_bias(static_cast<size_t>(n));
  const auto vector = [&] { return DeviceArray<T>(static_cast<size_t>(n)); };
  const DeviceArray<T> mean = vector(), inverse = vector(), variance = vector(), grad_gamma = vector(),
                       grad_beta = vector();
  linear_batch_norm_act_forward({dtype, x.view(), weight.view(), bias.device.data(), gamma.device.data(),
                                 beta.device.data(), nullptr, nullptr, 1e-5, Activation::tanh, 0, h.data(), y.data(),
                                 mean.data(), inverse.data(), variance.data(), resources()});
  linear_batch_norm_act_backward({dtype, x.view(), weight.view(), grad_y.device.data(), h.data(), y.data(),
                                  gamma.device.data(), mean.data(), inverse.data(), true, Activation::tanh, 0,
                                  grad_h.data(), grad_gamma.data(), grad_beta.data(), grad_x.data(), grad_weight.data(),
                                  grad_bias.data(), resources()});
}

template <class S>
void run_parzen(DType dtype, std::istream& rest) {
  int64_t n, count, dim;
  rest >> n >> count >> dim;
  const Values<S> x(n, dim, 1), samples(count, dim, 2);
  const DeviceArray<double> out(static_cast<size_t>(n));
  const double sigma = 0.5;
  parzen_log_likelihood({dtype, x.view(), samples.view(), sigma, out.data(), resources()});

  const std::vector<double> log_density = out.values();
  const double log_scale = parzen_log_scale(count, dim, sigma);
  for (int64_t i = 0; i < n; ++i) {
    ExponentialSum density;
    for (int64_t j = 0; j < count; ++j)
      density.add(-sum(dim, [&](int64_t l) { return std::pow(x(i, l) - samples(j, l), 2); }) / (2 * sigma * sigma), 1);
    const double got = log_density[size_t(i)], wanted = density.log() - log_scale;
    // rounded: the samples' mean and its differences, their products, the exponentials
    if (!(std::abs(got - wanted) <= 1e-6 * (double(dim) / (sigma * sigma) + 10)))
      throw std::runtime_error("row " + std::to_string(i) + ": " + std::to_string(got) + " and not " +
                               std::to_string(wanted));
  }
}

// A generator of a linear layer and one more, a discriminator of maxout, linear and head; all of one dropout.
template <class S>
void run_engine(DType dtype, bool allow_tf32, std::istream& rest) {
  std::string update;
  int64_t m, hidden;
  double p;
  rest >> update >> m >> p >> hidden;
  constexpr int64_t kDim = 516, kCount = 50;
  const auto network = [&](std::vector<MlpLayer> layers, bool adam) {
    Mlp mlp{};
    for (MlpLayer& layer : layers) {
      layer.dropout = p;
      layer.weight = mlp.size;
      layer.bias = mlp.size + layer.weights();
      mlp.size += layer.weights() + layer.rows();
    }
    mlp.layers = layers;
    mlp.adam = adam;
    mlp.adam_rule = {1e-3, 0.5, 0.9, 1e-8};
    mlp.momentum_rule = {0.01, 1.1, 1e-3, 0.5, 0.7, 1, 2, 0.5};
    for (void** flat : {&mlp.params, &mlp.state1, &mlp.state2}) {
      *flat = scratches.emplace_back(std::make_unique<DeviceArray<char>>(size_t(mlp.size) * sizeof(S)))->data();
      for (int64_t i = 0; i < mlp.size; ++i)
        static_cast<S*>(*flat)[i] = narrow<S>(Compute<S>(flat == &mlp.params ? double(i % 17) / 64 - 0.125 : 0.0));
    }
    return mlp;
  };
  const DeviceArray<uint8_t> data(std::vector<uint8_t>(size_t(kCount * kDim), 77));
  Training training{};
  training.dtype = dtype;
  training.generator =
      network({{20, 36, 1, Activation::relu, 0, 0, 0}, {36, kDim, 1, Activation::tanh, 0, 0, 0}}, true);
  training.discriminator = network({{kDim, 9, 3, Activation::identity, 0, 0, 0},
                                    {9, hidden, 1, Activation::leaky_relu, 0, 0, 0},
                                    {hidden, 1, 1, Activation::identity, 0, 0, 0}},
                                   false);
  training.data = {data.data(), true, kCount, kDim, -1, 2.0 / 255};
  training.batch = m;
  training.k = 1;
  training.simultaneous = update == "simultaneous";
  training.generator_term = GanTerm::non_saturating;
  training.memory = [](void*, size_t bytes) -> void* {
    return scratches.emplace_back(std::make_unique<DeviceArray<char>>(bytes))->data();
  };
  const std::unique_ptr<Engine> engine(make_engine(training));
  constexpr int64_t kIterations = 2;
  std::vector<double> statistics(kIterations * kStatistics);
  const int64_t done = engine->run(0, kIterations, 1e9, statistics.data(), resources(allow_tf32));
  if (done != kIterations) throw std::runtime_error("stopped after " + std::to_string(done) + " iterations");
}

void run_case(const std::string& line) {
  std::istringstream words(line);
  std::string what, arithmetic;
  words >> what >> arithmetic;
  if (what == "forward" || what == "finish" || what == "grad_x" || what == "grad_w") {
    if (arithmetic == "tf32") return run_layer<Math::tf32>(what, words);
    if (arithmetic == "bf16") return run_layer<Math::bf16>(what, words);
    return run_layer<Math::fp32>(what, words);
  }
  if (what == "engine") {
    if (arithmetic == "fp64") return run_engine<double>(DType::f64, false, words);
    if (arithmetic == "bf16") return run_engine<BFloat16>(DType::bf16, false, words);
    if (arithmetic == "f16") return run_engine<Float16>(DType::f16, false, words);
    return run_engine<float>(DType::f32, arithmetic == "tf32", words);
  }
  if (what == "parzen") {
    if (arithmetic == "f64") return run_parzen<double>(DType::f64, words);
    if (arithmetic == "bf16") return run_parzen<BFloat16>(DType::bf16, words);
    return run_parzen<float>(DType::f32, words);
  }
  int64_t n;
  words >> n;
  int width;
  if (int64_t k; what == "batch_norm" && words >> width >> k)
    return arithmetic == "bf16" ? run_batch_norm<BFloat16>(DType::bf16, n, width, k)
                                : run_batch_norm<float>(DType::f32, n, width, k);
  if (words >> width && what == "head")
    return arithmetic == "bf16" ? run_head<BFloat16>(DType::bf16, n, width) : run_head<float>(DType::f32, n, width);
  if (words)
    return arithmetic == "bf16" ? run_mlp<BFloat16>(what, DType::bf16, n, width)
                                : run_mlp<float>(what, DType::f32, n, width);
  if (arithmetic == "bf16") return run_elementwise<BFloat16>(what, DType::bf16, n);
  return run_elementwise<float>(what, DType::f32, n);
}

}  // namespace

int main(int count, char**) {
  for (std::string line; std::getline(std::cin, line);) {
    simt::reset_access_counters();
    std::string result = "ok";
    try {
      run_case(line);
    } catch (const std::exception& error) {
      result = error.what();
      std::replace(result.begin(), result.end(), '\n', ' ');
    }
    scratches.clear();
    std::printf("case %s: %s\n", line.c_str(), result.c_str());
    if (count < 2) continue;
    for (const simt::AccessCounters& c : simt::access_counters())
      std::printf("%s %s %llu %llu %s\n", c.shared ? "shared" : "global", c.write ? "write" : "read",
                  static_cast<unsigned long long>(c.actual), static_cast<unsigned long long>(c.ideal), c.where.c_str());
  }
}
