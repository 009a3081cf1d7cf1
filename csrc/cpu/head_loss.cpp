// The discriminator's last layer with its loss: logits, loss, its derivative and the weight's gradient in one pass.
#include <vector>

#include "head_rows.h"
#include "kernels.h"

namespace pygan::cpu::PYGAN_ISA {
namespace {

struct Losses {
  double real = 0, generated = 0;
};

template <class S>
struct Forward {
  using T = Compute<S>;

  const HeadLossForward& op;
  const int64_t m = op.hidden.rows, k = op.hidden.cols, real_rows = op.real_rows;
  Wide<S> wide_weight{};
  const T* weight = wide_weight.row(static_cast<const S*>(op.weight), k);
  const T bias = op.bias ? T(widen(*static_cast<const S*>(op.bias))) : T(0);
  const T real_scale = T(1.0 / double(real_rows)), generated_scale = T(1.0 / double(m - real_rows));

  void panel(int64_t begin, int64_t count, T* sums, Losses& losses) const {
    const Panel<S> rows(op.hidden, begin, count);
    T logits[kPanelRows];
    T* const slopes = static_cast<T*>(op.slopes) + begin;
    each_group(rows, count, [&](const auto& some, int64_t i) { multiply(some, weight, k, bias, logits + i); });
    store_row(logits, count, static_cast<S*>(op.logits) + begin);
    const int64_t real = std::clamp<int64_t>(real_rows - begin, 0, count);
    losses.real += term_of_rows<GanTerm::real>(logits, real, T(op.smoothing), real_scale, slopes);
    losses.generated += generated_rows(op.generated, logits + real, count - real, generated_scale, slopes + real);
    if (sums) add_panel(rows, count, slopes, k, sums);
  }

  double mean(const std::vector<Losses>& parts) const {
    Losses total;
    for (const Losses& part : parts) total.real += part.real, total.generated += part.generated;
    const double generated = total.generated / double(m - real_rows);
    return op.generated == GanTerm::fake ? total.real / double(real_rows) + generated : generated;
  }

  void run() const {
    const Blocks blocks(m, k);
    std::vector<T> parts(op.sums ? Sums<T>::size(blocks.count, k) : 0);
    const Sums<T> sums(op.sums ? parts.data() : nullptr, blocks.count, k);
    std::vector<Losses> losses(size_t(blocks.count));
    const int64_t step = panel_rows(k);
    blocks.each(OpenMp(op.run.threads), double(m * k), [&](int64_t b, int, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i += step) panel(i, std::min(step, end - i), sums.block(b), losses[size_t(b)]);
    });
    if (op.sums) sums.add_up(static_cast<T*>(op.sums));
    const T value = T(mean(losses));
    store_row(&value, 1, static_cast<S*>(op.loss));
  }
};

template <class S>
struct Backward {
  using T = Compute<S>;

  const HeadLossBackward& op;
  const int64_t m = op.hidden.rows, k = op.hidden.cols;
  const T upstream = op.grad_loss ? T(widen(*static_cast<const S*>(op.grad_loss))) : T(0);
  std::vector<T> factors = std::vector<T>(size_t(m), T(0));

  void find_factors() {
    if (op.grad_logits) load_row(static_cast<const S*>(op.grad_logits), m, factors.data());
    const T* slopes = static_cast<const T*>(op.slopes);
    if (op.grad_loss)
      for (int64_t i = 0; i < m; ++i) factors[size_t(i)] += upstream * slopes[i];
  }

  void write_grad_hidden(const Blocks& blocks) const {
    Wide<S> wide;
    const T* weight = wide.row(static_cast<const S*>(op.weight), k);
    S* const out = static_cast<S*>(op.grad_hidden);
    blocks.each(OpenMp(op.run.threads), double(m * k), [&](int64_t, int, int64_t begin, int64_t end) {
      std::vector<T> row(std::is_same_v<S, T> ? 0 : size_t(k));
      for (int64_t i = begin; i < end; ++i) {
        const T factor = factors[size_t(i)];
        T* target;
        if constexpr (std::is_same_v<S, T>)
          target = out + i * k;
        else
          target = row.data();
#pragma omp simd
        for (int64_t j = 0; j < k; ++j) target[j] = factor * weight[j];
        if constexpr (!std::is_same_v<S, T>) store_row(target, k, out + i * k);
      }
    });
  }

  // e^T . [hidden, 1]: from the forward pass where that is all there is, else in a pass of its own.
  std::vector<T> weight_gradient(const Blocks& blocks) const {
    std::vector<T> total(size_t(k + 1));
    if (op.sums && !op.grad_logits) {
      for (int64_t j = 0; j <= k; ++j) total[size_t(j)] = upstream * static_cast<const T*>(op.sums)[j];
      return total;
    }
    std::vector<T> parts(Sums<T>::size(blocks.count, k));
    const Sums<T> sums(parts.data(), blocks.count, k);
    const int64_t step = panel_rows(k);
    blocks.each(OpenMp(op.run.threads), double(m * k), [&](int64_t b, int, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i += step) {
        const int64_t count = std::min(step, end - i);
        add_panel(Panel<S>(op.hidden, i, count), count, factors.data() + i, k, sums.block(b));
      }
    });
    sums.add_up(total.data());
    return total;
  }

  void run() {
    const Blocks blocks(m, k);
    find_factors();
    if (op.grad_hidden) write_grad_hidden(blocks);
    if (!op.grad_weight && !op.grad_bias) return;
    const std::vector<T> total = weight_gradient(blocks);
    if (op.grad_weight) store_row(total.data(), k, static_cast<S*>(op.grad_weight));
    if (op.grad_bias) store_row(total.data() + k, 1, static_cast<S*>(op.grad_bias));
  }
};

}  // namespace

void head_loss_forward(const HeadLossForward& op) {
  for_dtype(op.dtype, [&](auto* tag) { Forward<std::remove_pointer_t<decltype(tag)>>{op}.run(); });
}

void head_loss_backward(const HeadLossBackward& op) {
  for_dtype(op.dtype, [&](auto* tag) { Backward<std::remove_pointer_t<decltype(tag)>>{op}.run(); });
}

}  // namespace pygan::cpu::PYGAN_ISA
