// The terms of GANs' losses in their stable form, on a = logit of D, or D's plain output where D is no probability.
// No clamp, no epsilon: finite for every finite logit.
//
//   term             value                       d/da             d2/da2
//   real             softplus(-a) + e a          -s(-a) + e        s(a) s(-a)     -log D, target 1 - e
//   fake             softplus(a)                  s(a)             s(a) s(-a)     -log(1 - D)
//   minimax         -softplus(a)                 -s(a)            -s(a) s(-a)      log(1 - D), G's as printed
//   non_saturating   softplus(-a)                -s(-a)            s(a) s(-a)     -log D, G's in practice
//   hinge_real       max(1 - a, 0)               -[a < 1]          0
//   hinge_fake       max(1 + a, 0)                [a > -1]         0
//   square_real      (a - 1)^2 / 2                a - 1            1              G's too
//   square_fake      a^2 / 2                      a                1
//   critic_real     -a                           -1                0              G's too, and G's with the hinge
//   critic_fake      a                            1                0
//   cross_entropy    softplus(a) - t a            s(a) - t         s(a) s(-a)     of a target t for each logit
//   probability     -t log a - (1 - t) log(1 - a)                                 the same where a is a probability
//
// The first four are Goodfellow et al. 2014, section 3 and Algorithm 1; the hinge Lim & Ye 2017, squares Mao et al. 2017
// (a = 0, b = c = 1), the critic Arjovsky et al. 2017. `probability` has torch.nn.BCELoss's guards: logarithms are at
// least -100, and the derivative (a - t) / (a (1 - a)) is divided by at least 1e-12.
#pragma once

#include "host_device.h"
#include "math.h"

namespace pygan {

enum class GanTerm : int {
  real,
  fake,
  minimax,
  non_saturating,
  hinge_real,
  hinge_fake,
  square_real,
  square_fake,
  critic_real,
  critic_fake,
  cross_entropy,
  probability
};

// The discriminator's losses are two terms, the generator's one.
constexpr const char* kDiscriminatorKinds[] = {"logistic", "hinge", "least_squares", "wasserstein"};
constexpr GanTerm kDiscriminatorTerms[][2] = {{GanTerm::real, GanTerm::fake},
                                              {GanTerm::hinge_real, GanTerm::hinge_fake},
                                              {GanTerm::square_real, GanTerm::square_fake},
                                              {GanTerm::critic_real, GanTerm::critic_fake}};
constexpr const char* kGeneratorKinds[] = {"minimax", "non_saturating", "hinge", "least_squares", "wasserstein"};
constexpr GanTerm kGeneratorTerms[] = {GanTerm::minimax, GanTerm::non_saturating, GanTerm::critic_real,
                                       GanTerm::square_real, GanTerm::critic_real};

// max(x, 0) that lets NaN pass.
template <class T>
PYGAN_HD T positive_part(T x) {
  return x <= T(0) ? T(0) : x;
}

// The cross entropy of a logit: both tails keep their relative accuracy for targets of zero and one. Choices are made
// among what is there already, so that loops over them become SIMD code.
template <class T>
PYGAN_HD T cross_entropy_value(T a, T target) {
  const T share = a > T(0) ? T(1) - target : -target;
  const T paid = share != T(0) ? a : T(0);  // 0 * inf would be NaN
  return share * paid + log_one_plus(exponential(-absolute(a)));
}

template <class T>
PYGAN_HD T cross_entropy_derivative(T a, T target) {
  const T other = T(1) - target;
  const T share = a > T(0) ? other : -target, rest = a > T(0) ? -target : other;
  const T e = exponential(-absolute(a));
  return (share + rest * e) / (T(1) + e);  // s(|a|) = 1 / (1 + e), s(-|a|) = e / (1 + e)
}

// Of a probability; NaN outside [0, 1].
template <class T>
PYGAN_HD T probability_value(T p, T target) {
  const T low = log_of_probability(p), high = log_one_minus(p);
  const T bounded_low = low > T(-100) ? low : T(-100), bounded_high = high > T(-100) ? high : T(-100);
  const T above = p >= T(0) ? T(1) : T(0), inside = p <= T(1) ? above : T(0);
  return ((target - T(1)) * bounded_high - target * bounded_low) * (inside / inside);  // 0 / 0 outside
}

template <class T>
PYGAN_HD T probability_derivative(T p, T target) {
  const T variance = (T(1) - p) * p;
  return (p - target) / (variance < T(1e-12) ? T(1e-12) : variance);
}

// The game's own terms, the first four: for kernels that have no others, and no registers to spare for them.
template <class T>
PYGAN_HD T game_term_value(GanTerm term, T a, T smoothing) {
  const bool rising = term == GanTerm::fake || term == GanTerm::minimax;
  const T value = softplus(rising ? a : -a);
  if (term == GanTerm::minimax) return -value;
  // 0 * inf would be NaN for an infinite logit without smoothing
  return term == GanTerm::real && smoothing != T(0) ? value + smoothing * a : value;
}

template <class T>
PYGAN_HD T game_term_derivative(GanTerm term, T a, T smoothing) {
  const bool rising = term == GanTerm::fake || term == GanTerm::minimax;
  const T s = logistic(rising ? a : -a);
  if (term == GanTerm::fake) return s;
  return term == GanTerm::real ? smoothing - s : -s;
}

// `parameter` is e of the term `real`, the target of the last two.
template <class T>
PYGAN_HD T gan_term_value(GanTerm term, T a, T parameter) {
  if (term > GanTerm::non_saturating) {  // one question where the game's own terms are asked for
    switch (term) {
      case GanTerm::hinge_real:
        return positive_part(T(1) - a);
      case GanTerm::hinge_fake:
        return positive_part(T(1) + a);
      case GanTerm::square_real:
        return T(0.5) * (a - T(1)) * (a - T(1));
      case GanTerm::square_fake:
        return T(0.5) * a * a;
      case GanTerm::critic_real:
        return -a;
      case GanTerm::cross_entropy:
        return cross_entropy_value(a, parameter);
      case GanTerm::probability:
        return probability_value(a, parameter);
      default:
        return a;
    }
  }
  return game_term_value(term, a, parameter);
}

template <class T>
PYGAN_HD T gan_term_derivative(GanTerm term, T a, T parameter) {
  if (term > GanTerm::non_saturating) {
    switch (term) {  // at a kink, and at NaN, what torch's relu has
      case GanTerm::hinge_real:
        return a >= T(1) ? T(0) : T(-1);
      case GanTerm::hinge_fake:
        return a <= T(-1) ? T(0) : T(1);
      case GanTerm::square_real:
        return a - T(1);
      case GanTerm::square_fake:
        return a;
      case GanTerm::critic_real:
        return T(-1);
      case GanTerm::cross_entropy:
        return cross_entropy_derivative(a, parameter);
      case GanTerm::probability:
        return probability_derivative(a, parameter);
      default:
        return T(1);
    }
  }
  return game_term_derivative(term, a, parameter);
}

}  // namespace pygan
