// The four terms of the minimax game in their stable form (Goodfellow et al. 2014, section 3 and Algorithm 1),
// on a = logit of D. No clamp, no epsilon: finite for every finite logit.
//
//   term             value                       d/da             d2/da2
//   real             softplus(-a) + e a          -s(-a) + e        s(a) s(-a)     -log D, target 1 - e
//   fake             softplus(a)                  s(a)             s(a) s(-a)     -log(1 - D)
//   minimax         -softplus(a)                 -s(a)            -s(a) s(-a)      log(1 - D), G's as printed
//   non_saturating   softplus(-a)                -s(-a)            s(a) s(-a)     -log D, G's in practice
#pragma once

#include "host_device.h"
#include "math.h"

namespace pygan {

enum class GanTerm : int { real, fake, minimax, non_saturating };

template <class T>
PYGAN_HD T gan_term_value(GanTerm term, T a, T smoothing) {
  const bool rising = term == GanTerm::fake || term == GanTerm::minimax;
  const T value = softplus(rising ? a : -a);
  if (term == GanTerm::minimax) return -value;
  // 0 * inf would be NaN for an infinite logit without smoothing
  return term == GanTerm::real && smoothing != T(0) ? value + smoothing * a : value;
}

template <class T>
PYGAN_HD T gan_term_derivative(GanTerm term, T a, T smoothing) {
  const bool rising = term == GanTerm::fake || term == GanTerm::minimax;
  const T s = logistic(rising ? a : -a);
  if (term == GanTerm::fake) return s;
  return term == GanTerm::real ? smoothing - s : -s;
}

}  // namespace pygan
