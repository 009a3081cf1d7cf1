// A Parzen window's log-likelihood: its rows in parts, and how the parts of its sums are put together.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "host_device.h"
#include "ops.h"

namespace pygan {

// A sum of exponentials with its largest term taken out.
struct alignas(16) ExponentialSum {
  double largest = -DBL_MAX, sum = 0;  // finite: from an infinite one, differences would be NaN

  PYGAN_HD void add(double top, double total) {
    const double closer = ::exp(-::fabs(top - largest));
    sum = top > largest ? sum * closer + total : sum + total * closer;
    largest = top > largest ? top : largest;
  }

  PYGAN_HD double log() const { return largest + ::log(sum); }
};

// Rows of a matrix whose elements take so many bytes.
inline Matrix rows_of(const Matrix& m, size_t element, int64_t first, int64_t count) {
  const char* data = static_cast<const char*>(m.data) + first * m.row_stride * int64_t(element);
  return {data, count, m.cols, m.row_stride, m.col_stride};
}

// What is taken off the log of the sum, so that it becomes that of the mean of the Gaussians' densities.
inline double parzen_log_scale(int64_t samples, int64_t dim, double sigma) {
  return std::log(double(samples)) + double(dim) * (std::log(sigma) + 0.5 * std::log(2 * 3.14159265358979323846));
}

}  // namespace pygan
