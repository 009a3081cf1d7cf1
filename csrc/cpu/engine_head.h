// The discriminator's last layer in an iteration: logits, both players' losses, and the gradients they send down, in
// one pass over the rows.
#pragma once

#include "engine_epilogues.h"
#include "head_rows.h"

namespace pygan::cpu::PYGAN_ISA {

struct HeadStatistics {
  double d_loss = 0, g_loss = 0, d_real = 0, d_fake = 0;  // sums over rows until the end

  void operator+=(const HeadStatistics& other) {
    d_loss += other.d_loss, g_loss += other.g_loss, d_real += other.d_real, d_fake += other.d_fake;
  }
};

template <class T>
struct Head {
  const Operand<T>& x;  // (rows, k), by row
  int64_t rows, k;
  int64_t real_rows;  // the first ones; the others are generated
  const T* weight;    // (k)
  T bias;
  double smoothing;
  double d_scale;               // of the discriminator's loss; 0: it is not descended
  const GanTerm* generator;     // null: the generator's is not descended
  const InputGrad<T>* d_below;  // null where not wanted: the input's gradients of all rows
  const InputGrad<T>* g_below;  // of generated rows, which it counts from 0

  int64_t panel() const { return panel_rows(k); }
  // Elements of scratch for each thread.
  static size_t scratch(int64_t k) { return size_t(panel_rows(k) * k + k); }
  static int64_t blocks(int64_t rows, int64_t k) { return Blocks(rows, k).count; }

  // parts: Sums::size elements where the discriminator's loss is descended, which then leave e^T . [x, 1] in total;
  // statistics: one for each block.
  HeadStatistics run(const Workers& workers, T* scratch_of_threads, size_t thread_scratch, T* parts, T* total,
                     HeadStatistics* statistics) const {
    const Blocks blocks(rows, k);
    const Sums<T> sums(d_scale != 0 ? parts : nullptr, blocks.count, k);
    blocks.each(workers, double(rows * k), [&](int64_t b, int thread, int64_t begin, int64_t end) {
      statistics[b] = {};
      // a panel is of one kind
      const int64_t border = std::clamp(real_rows, begin, end);
      T* const own = scratch_of_threads + size_t(thread) * thread_scratch;
      some_rows(begin, border, own, sums.block(b), statistics[b]);
      some_rows(border, end, own, sums.block(b), statistics[b]);
    });
    return finish(sums, blocks.count, total, statistics);
  }

  // Rows [begin, end) of one kind; `sums` and `statistics` are added to.
  void some_rows(int64_t begin, int64_t end, T* scratch, T* sums, HeadStatistics& statistics) const {
    for (int64_t i = begin; i < end; i += panel())
      rows_of_one_kind(i, std::min(panel(), end - i), scratch, sums, statistics);
  }

  // What all blocks have together.
  HeadStatistics finish(const Sums<T>& sums, int64_t blocks, T* total, const HeadStatistics* statistics) const {
    if (d_scale != 0) sums.add_up(total);
    HeadStatistics all;
    for (int64_t b = 0; b < blocks; ++b) all += statistics[b];
    const double real = double(std::max<int64_t>(real_rows, 1)), generated = double(rows - real_rows);
    all.d_real /= real, all.d_fake /= generated, all.g_loss /= generated;
    return all;
  }

 private:
  void rows_of_one_kind(int64_t first, int64_t count, T* scratch, T* sums, HeadStatistics& statistics) const {
    int64_t ld = k;
    const T* data = x.in_place(first, int(count), 0, &ld);
    if (!data) {
      x.block(first, int(count), 0, int(k), scratch, k);
      data = scratch, ld = k;
    }
    const Panel<T> panel(Matrix{data, count, k, ld, 1}, 0, count);
    T logits[kPanelRows], slopes[kPanelRows];
    each_group(panel, count, [&](const auto& some, int64_t i) { multiply(some, weight, k, bias, logits + i); });
    const bool real = first < real_rows;
    double probability = 0;
#pragma omp simd reduction(+ : probability)
    for (int64_t i = 0; i < count; ++i) probability += double(logistic(logits[i]));
    (real ? statistics.d_real : statistics.d_fake) += probability;

    T* const row = scratch + panel_rows(k) * k;
    if (d_scale != 0) {
      if (real) {
        const T scale = T(d_scale / double(real_rows));
        statistics.d_loss +=
            term_of_rows<GanTerm::real>(logits, count, T(smoothing), scale, slopes) / double(real_rows);
      } else {
        const T scale = T(d_scale / double(rows - real_rows));
        statistics.d_loss += generated_rows(GanTerm::fake, logits, count, scale, slopes) / double(rows - real_rows);
      }
      add_panel(panel, count, slopes, k, sums);
      if (d_below) send_down(*d_below, first, count, slopes, row);
    }
    if (generator && !real) {
      statistics.g_loss += generated_rows(*generator, logits, count, T(1 / double(rows - real_rows)), slopes);
      if (g_below) send_down(*g_below, first - real_rows, count, slopes, row);
    }
  }

  void send_down(const InputGrad<T>& below, int64_t first, int64_t count, const T* slopes, T* row) const {
    for (int64_t i = 0; i < count; ++i) {
      const T slope = slopes[i];
#pragma omp simd
      for (int64_t j = 0; j < k; ++j) row[j] = slope * weight[j];
      below.row(row, first + i, k);
    }
  }
};

}  // namespace pygan::cpu::PYGAN_ISA
