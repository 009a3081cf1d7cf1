// The instructions of cuda/ptx.h against plain loops.
#include "../../../csrc/core/half.h"
#include "cases.h"

using cases::DeviceArray;
using cases::expect_equal;
using cases::launch;
using cases::ramp;
using namespace pygan::cuda;

namespace {

struct Halves {
  alignas(16) uint16_t value[32][8];
};

// Lane l names row l; its registers come out as eight elements.
template <bool Transposed>
__global__ void load_matrices(const uint16_t* in, uint16_t* out, int offset) {
  Halves& shared = shared_storage<Halves>();
  const unsigned lane = threadIdx.x;
  for (int i = 0; i < 8; ++i) shared.value[lane][i] = in[8 * lane + unsigned(i)];
  __syncthreads();  // all rows are there
  uint32_t r[4];
  if (Transposed) {
    ldmatrix_x4_trans(r, shared.value[lane] + offset);
  } else {
    ldmatrix_x4(r, shared.value[lane] + offset);
  }
  for (unsigned i = 0; i < 4; ++i) {
    out[8 * lane + 2 * i] = uint16_t(r[i]);
    out[8 * lane + 2 * i + 1] = uint16_t(r[i] >> 16);
  }
}

// a is (16, depth), b is (depth, 8), d is (16, 8), all row-major: c = a b + d with the fragments of PTX's figures.
__global__ void multiply_tf32(const float* a, const float* b, float* d) {
  const unsigned group = threadIdx.x / 4, in_group = threadIdx.x % 4;
  const uint32_t fragment_a[4] = {to_tf32(a[group * 8 + in_group]), to_tf32(a[(group + 8) * 8 + in_group]),
                                  to_tf32(a[group * 8 + in_group + 4]), to_tf32(a[(group + 8) * 8 + in_group + 4])};
  const uint32_t fragment_b[2] = {to_tf32(b[in_group * 8 + group]), to_tf32(b[(in_group + 4) * 8 + group])};
  float* corner = d + group * 8 + 2 * in_group;
  float sums[4] = {corner[0], corner[1], corner[64], corner[65]};
  mma_tf32(sums, fragment_a, fragment_b);
  corner[0] = sums[0], corner[1] = sums[1], corner[64] = sums[2], corner[65] = sums[3];
}

template <class T>
__device__ uint32_t pack(T low, T high) {
  return low.bits | uint32_t(high.bits) << 16;
}

template <class T>
__global__ void multiply_16(const T* a, const T* b, float* d) {
  const unsigned group = threadIdx.x / 4, in_group = threadIdx.x % 4;
  uint32_t fragment_a[4], fragment_b[2];
  for (unsigned i = 0; i < 4; ++i) {
    const T* pair = a + (group + 8 * (i % 2)) * 16 + 2 * in_group + 8 * (i / 2);
    fragment_a[i] = pack(pair[0], pair[1]);
  }
  for (unsigned i = 0; i < 2; ++i) {
    const T* pair = b + (2 * in_group + 8 * i) * 8 + group;
    fragment_b[i] = pack(pair[0], pair[8]);
  }
  float* corner = d + group * 8 + 2 * in_group;
  float sums[4] = {corner[0], corner[1], corner[64], corner[65]};
  if constexpr (sizeof(T) == sizeof(pygan::BFloat16) && std::is_same_v<T, pygan::BFloat16>) {
    mma_bf16(sums, fragment_a, fragment_b);
  } else {
    mma_f16(sums, fragment_a, fragment_b);
  }
  corner[0] = sums[0], corner[1] = sums[1], corner[64] = sums[2], corner[65] = sums[3];
}

constexpr int kStages = 2, kChunk = 4, kCopyThreads = 64;

struct Stages {
  alignas(16) float value[kStages][kCopyThreads * kChunk];
};

// Sums `chunks` rows of 256 floats that two buffers take in turn; the last columns are beyond `valid` and read 0.
template <int Pending, int Offset>
__global__ void sum_rows(const float* in, float* out, int chunks, int valid) {
  Stages& shared = shared_storage<Stages>();
  const int thread = int(threadIdx.x), column = kChunk * thread;
  const int bytes = column >= valid ? 0 : valid - column >= kChunk ? 16 : (valid - column) * 4;
  const auto fetch = [&](int row) {
    if (row < chunks)
      cp_async_16(&shared.value[row % kStages][column + Offset], in + row * kCopyThreads * kChunk + column, bytes);
    cp_async_commit();
  };
  float sum[kChunk] = {};
  fetch(0);
  for (int row = 0; row < chunks; ++row) {
    fetch(row + 1);
    cp_async_wait<Pending>();
    __syncthreads();  // the row is there
    // Another thread's columns, so that the barriers matter.
    for (int i = 0; i < kChunk; ++i)
      sum[i] += shared.value[row % kStages][(column + i + kChunk) % (kCopyThreads * kChunk)];
    __syncthreads();  // the row may be overwritten
  }
  for (int i = 0; i < kChunk; ++i) out[(column + i + kChunk) % (kCopyThreads * kChunk)] = sum[i];
}

__global__ void multiply_in_branch(float* out) {
  float d[4] = {};
  const uint32_t a[4] = {}, b[2] = {};
  if (threadIdx.x < 16) mma_tf32(d, a, b);
  out[threadIdx.x] = d[0];
}

template <bool Transposed>
void run_load_matrices(int offset) {
  std::vector<uint16_t> in(256), wanted(256);
  for (size_t i = 0; i < 256; ++i) in[i] = uint16_t(i);
  for (size_t lane = 0; lane < 32; ++lane)
    for (size_t matrix = 0; matrix < 4; ++matrix)
      for (size_t e = 0; e < 2; ++e) {
        const size_t row = lane / 4, column = 2 * (lane % 4) + e;
        wanted[8 * lane + 2 * matrix + e] = in[64 * matrix + (Transposed ? 8 * column + row : 8 * row + column)];
      }
  DeviceArray<uint16_t> device_in(in), out(256);
  launch(load_matrices<Transposed>, 1, 32, sizeof(Halves), device_in.data(), out.data(), offset);
  expect_equal(out.values(), wanted);
}

// Small integers: products and sums are exact in every format.
std::vector<float> small_integers(size_t n, unsigned step) {
  std::vector<float> values(n);
  for (size_t i = 0; i < n; ++i) values[i] = float((i * step + 3) % 17) - 8;
  return values;
}

std::vector<float> product(const std::vector<float>& a, const std::vector<float>& b, size_t depth) {
  std::vector<float> d(16 * 8);
  for (size_t i = 0; i < 16 * 8; ++i) {
    d[i] = float(i);
    for (size_t k = 0; k < depth; ++k) d[i] += a[i / 8 * depth + k] * b[k * 8 + i % 8];
  }
  return d;
}

template <class T>
void run_multiply_16(T (*convert)(float)) {
  const std::vector<float> a = small_integers(16 * 16, 5), b = small_integers(16 * 8, 7);
  std::vector<T> a16, b16;
  for (const float x : a) a16.push_back(convert(x));
  for (const float x : b) b16.push_back(convert(x));
  DeviceArray<T> device_a(a16), device_b(b16);
  DeviceArray<float> d(ramp(16 * 8));
  launch(multiply_16<T>, 1, 32, 0, device_a.data(), device_b.data(), d.data());
  expect_equal(d.values(), product(a, b, 16));
}

template <int Pending, int Offset>
void run_sum_rows() {
  constexpr size_t kColumns = kCopyThreads * kChunk, kRows = 7, kValid = 250;
  DeviceArray<float> in(ramp(kRows * kColumns)), out(kColumns);
  launch(sum_rows<Pending, Offset>, 1, kCopyThreads, sizeof(Stages), in.data(), out.data(), int(kRows), int(kValid));
  std::vector<float> wanted(kColumns);
  for (size_t i = 0; i < kRows * kColumns; ++i)
    if (i % kColumns < kValid) wanted[i % kColumns] += float(i);
  expect_equal(out.values(), wanted);
}

pygan::BFloat16 bfloat16(float x) { return pygan::to_bfloat16(x); }
pygan::Float16 float16(float x) { return pygan::to_float16(x); }

}  // namespace

SIMT_CASE(ldmatrix) { run_load_matrices<false>(0); }
SIMT_CASE(ldmatrix_transposed) { run_load_matrices<true>(0); }
SIMT_CASE(misaligned_ldmatrix) { run_load_matrices<false>(4); }
SIMT_CASE(mma_16_bf16) { run_multiply_16(bfloat16); }
SIMT_CASE(mma_16_f16) { run_multiply_16(float16); }
SIMT_CASE(double_buffer) { run_sum_rows<1, 0>(); }
SIMT_CASE(missing_async_wait) { run_sum_rows<2, 0>(); }
SIMT_CASE(misaligned_async_copy) { run_sum_rows<1, 1>(); }

SIMT_CASE(mma_8_tf32) {
  std::vector<float> a = small_integers(16 * 8, 5), b = small_integers(8 * 8, 7);
  const std::vector<float> wanted = product(a, b, 8);
  for (float& x : a) x *= 1.0f + 1.0f / 8192;  // rounded away
  DeviceArray<float> device_a(a), device_b(b), d(ramp(16 * 8));
  launch(multiply_tf32, 1, 32, 0, device_a.data(), device_b.data(), d.data());
  expect_equal(d.values(), wanted);
}

SIMT_CASE(mma_of_nan) {
  std::vector<float> a(16 * 8, 1.0f);
  a[3 * 8 + 2] = pygan::bits_to_float(0xffffffffu);
  DeviceArray<float> device_a(a), b(std::vector<float>(64, 1.0f)), d(std::vector<float>(128, 0.0f));
  launch(multiply_tf32, 1, 32, 0, device_a.data(), b.data(), d.data());
  const std::vector<float> got = d.values();
  for (size_t i = 0; i < got.size(); ++i)
    if ((got[i] != got[i]) != (i / 8 == 3)) throw std::runtime_error("NaN is not in row 3 alone");
}

SIMT_CASE(divergent_mma) {
  DeviceArray<float> out(32);
  launch(multiply_in_branch, 1, 32, 0, out.data());
}
