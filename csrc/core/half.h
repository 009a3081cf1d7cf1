// bfloat16 and IEEE half as storage types: arithmetic is always done in fp32.
#pragma once

#include <cstdint>

#include "host_device.h"
#include "math.h"

namespace pygan {

struct BFloat16 {
  uint16_t bits;
};

struct Float16 {
  uint16_t bits;
};

PYGAN_HD float to_float(BFloat16 value) { return bits_to_float(uint32_t(value.bits) << 16); }

PYGAN_HD BFloat16 to_bfloat16(float value) {
  const uint32_t bits = float_to_bits(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;  // to nearest, ties to even
  const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;                 // rounding would turn some NaN into inf
  return {static_cast<uint16_t>(is_nan ? 0x7fc0u : rounded)};
}

PYGAN_HD float to_float(Float16 value) {
  const uint32_t sign = uint32_t(value.bits & 0x8000u) << 16;
  const uint32_t magnitude = value.bits & 0x7fffu;
  // Rebias by multiplication, which also normalises subnormals; infinities and NaN get fp32's exponent.
  const float finite = bits_to_float(magnitude << 13) * 5.192296858534828e+33f;  // 2^112
  const uint32_t special = (magnitude << 13) | 0x7f800000u;
  return bits_to_float((magnitude >= 0x7c00u ? special : float_to_bits(finite)) | sign);
}

PYGAN_HD Float16 to_float16(float value) {
  const uint32_t bits = float_to_bits(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t result;
  if (magnitude > 0x7f800000u) {
    result = 0x7e00u;
  } else if (magnitude >= 0x477ff000u) {  // rounds to 65536 or more
    result = 0x7c00u;
  } else if (magnitude < 0x38800000u) {  // subnormal in half: let an fp32 addition round at the right place
    result = float_to_bits(bits_to_float(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    result = (magnitude - 0x38000000u + 0x0fffu + ((magnitude >> 13) & 1u)) >> 13;
  }
  return {static_cast<uint16_t>(result | sign)};
}

}  // namespace pygan
