// Barriers, warps, shared memory and its mistakes, memory accesses.
#include "cases.h"

using cases::DeviceArray;
using cases::expect_equal;
using cases::launch;
using cases::ramp;
using pygan::cuda::shared_storage;

namespace {

constexpr unsigned kFull = 0xffffffffu;
constexpr int kThreads = 256;

template <int N>
struct Floats {
  float value[N];
};

__device__ float warp_sum(float x) {
  for (int lanes = 16; lanes > 0; lanes /= 2) x += __shfl_xor_sync(kFull, x, lanes);
  return x;
}

__global__ void warp_sums(const float* x, float* sums) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  const float sum = warp_sum(x[i]);
  if (threadIdx.x % 32 == 0) sums[i / 32] = sum;
}

__global__ void block_sums(const float* x, float* sums) {
  float (&partial)[kThreads / 32] = shared_storage<Floats<kThreads / 32>>().value;
  const float sum = warp_sum(x[blockIdx.x * blockDim.x + threadIdx.x]);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
  __syncthreads();  // partial is whole
  if (threadIdx.x < 32) {
    const float total = warp_sum(threadIdx.x < blockDim.x / 32 ? partial[threadIdx.x] : 0.0f);
    if (threadIdx.x == 0) sums[blockIdx.x] = total;
  }
}

// Every block adds; the last one to finish publishes.
__global__ void count_blocks(unsigned* ticket, unsigned long long* sum, unsigned long long* published) {
  atomicAdd(sum, (unsigned long long)threadIdx.x);
  __threadfence();
  __syncthreads();  // all of the block have added
  if (threadIdx.x == 0 && atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1) *published = *sum;
}

__global__ void shuffles(double* out) {
  const int lane = int(threadIdx.x);
  const double x = lane;
  out[lane] = __shfl_sync(kFull, x, 3) + 100 * __shfl_up_sync(kFull, x, 1, 8) + 10000 * __shfl_down_sync(kFull, x, 2);
  const unsigned odd = __ballot_sync(kFull, lane & 1);
  if (odd != 0xaaaaaaaau || !__any_sync(kFull, lane == 7) || __all_sync(kFull, lane != 7)) out[lane] = -1;
}

// 32 x 32 tiles of an n x n matrix, rows of the tile `Stride` floats apart.
template <int Stride>
__global__ void transpose(const float* in, float* out, int n) {
  float (&tile)[32 * Stride] = shared_storage<Floats<32 * Stride>>().value;
  const int lane = int(threadIdx.x), column0 = 32 * int(blockIdx.x), row0 = 32 * int(blockIdx.y);
  for (int row = int(threadIdx.y); row < 32; row += int(blockDim.y))
    tile[row * Stride + lane] = in[(row0 + row) * n + column0 + lane];
  __syncthreads();  // the tile is whole
  for (int row = int(threadIdx.y); row < 32; row += int(blockDim.y))
    out[(column0 + row) * n + row0 + lane] = tile[lane * Stride + row];
}

// Rotates each block's values by one warp, in place in shared memory.
template <bool ReadBarrier, bool WriteBarrier>
__global__ void rotate(const float* in, float* out, int times) {
  float (&value)[kThreads] = shared_storage<Floats<kThreads>>().value;
  const unsigned t = threadIdx.x;
  value[t] = in[t];
  for (int i = 0; i < times; ++i) {
    if (ReadBarrier) __syncthreads();  // the values are there
    const float next = value[(t + 32) % kThreads];
    if (WriteBarrier) __syncthreads();  // everyone has read
    value[t] = next;
  }
  out[t] = value[t];
}

__global__ void warp_exchange(float* out, bool synchronize) {
  float (&value)[32] = shared_storage<Floats<32>>().value;
  value[threadIdx.x] = float(threadIdx.x);
  if (synchronize) __syncwarp();
  out[threadIdx.x] = value[31 - threadIdx.x];
}

__global__ void barrier_in_branch(int limit) {
  if (int(threadIdx.x) < limit) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

__global__ void exit_before_barrier(int limit) {
  if (int(threadIdx.x) >= limit) return;
  __syncthreads();
}

__global__ void shuffle_in_branch(float* out) {
  float x = 1;
  if (threadIdx.x % 32 < 20) x += __shfl_xor_sync(kFull, x, 1);
  out[threadIdx.x] = x;
}

__global__ void shared_beyond(float* out, int extra) {
  float (&value)[kThreads] = shared_storage<Floats<kThreads>>().value;
  float* last = &value[0] + extra;
  last[threadIdx.x] = 1;
  out[threadIdx.x] = last[threadIdx.x];
}

__global__ void copy_beyond(const float* in, float* out) { out[threadIdx.x] = in[threadIdx.x + 1]; }

__global__ void half_written(float* out) {
  float (&value)[64] = shared_storage<Floats<64>>().value;
  value[threadIdx.x] = 1;
  __syncthreads();  // only the first half was written
  out[threadIdx.x] = value[threadIdx.x + 16];
}

__global__ void load_vectors(const float* in, float4* out, int offset) {
  out[threadIdx.x] = reinterpret_cast<const float4*>(in + offset)[threadIdx.x];
}

__global__ void copy(const float* in, float* out, int stride) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  out[i] = in[i * unsigned(stride)];
}

__global__ void whole_shared(float* out) {
  float (&value)[20000] = shared_storage<Floats<20000>>().value;
  value[19999] = 7;
  out[threadIdx.x] = value[19999];
}

__global__ void spin(const float* flag) {
  while (*flag != 1.0f) __nanosleep(100);
}

void run_rotation(void (*kernel)(const float*, float*, int)) {
  DeviceArray<float> in(ramp(kThreads)), out(kThreads);
  launch(kernel, 1, kThreads, sizeof(Floats<kThreads>), in.data(), out.data(), 3);
  std::vector<float> wanted(kThreads);
  for (int i = 0; i < kThreads; ++i) wanted[size_t(i)] = float((i + 96) % kThreads);
  expect_equal(out.values(), wanted);
}

template <int Stride>
void run_transpose() {
  constexpr int kSize = 64;
  DeviceArray<float> in(ramp(kSize * kSize)), out(kSize * kSize);
  launch(transpose<Stride>, dim3(2, 2), dim3(32, 8), sizeof(Floats<32 * Stride>), in.data(), out.data(), kSize);
  std::vector<float> wanted(kSize * kSize);
  for (size_t i = 0; i < kSize * kSize; ++i) wanted[i] = float(i % kSize * kSize + i / kSize);
  expect_equal(out.values(), wanted);
}

void run_copy(int stride) {
  DeviceArray<float> in(ramp(size_t(1024 * stride))), out(1024);
  launch(copy, 4, 256, 0, in.data(), out.data(), stride);
}

void run_warp_exchange(bool synchronize) {
  DeviceArray<float> out(32);
  launch(warp_exchange, 1, 32, sizeof(Floats<32>), out.data(), synchronize);
  std::vector<float> wanted(32);
  for (size_t i = 0; i < 32; ++i) wanted[i] = float(31 - i);
  expect_equal(out.values(), wanted);
}

void run_shared_beyond(int extra) {
  DeviceArray<float> out(kThreads);
  launch(shared_beyond, 1, kThreads, sizeof(Floats<kThreads>), out.data(), extra);
}

void run_load_vectors(int offset) {
  DeviceArray<float> in(ramp(132)), out(128);
  launch(load_vectors, 1, 32, 0, in.data(), reinterpret_cast<float4*>(out.data()), offset);
  expect_equal(out.values(), ramp(128));
}

}  // namespace

SIMT_CASE(warp_reduction) {
  DeviceArray<float> in(ramp(256)), out(8);
  launch(warp_sums, 2, 128, 0, in.data(), out.data());
  std::vector<float> wanted(8);
  for (size_t i = 0; i < 256; ++i) wanted[i / 32] += float(i);
  expect_equal(out.values(), wanted);
}

SIMT_CASE(block_reduction) {
  DeviceArray<float> in(ramp(1024)), out(4);
  launch(block_sums, 4, kThreads, sizeof(Floats<8>), in.data(), out.data());
  std::vector<float> wanted(4);
  for (size_t i = 0; i < 1024; ++i) wanted[i / kThreads] += float(i);
  expect_equal(out.values(), wanted);
}

SIMT_CASE(last_block) {
  DeviceArray<unsigned> ticket(std::vector<unsigned>{0});
  DeviceArray<unsigned long long> sum(std::vector<unsigned long long>{0}), published(1);
  launch(count_blocks, 5, 64, 0, ticket.data(), sum.data(), published.data());
  expect_equal(published.values(), {5ull * 63 * 64 / 2});
  expect_equal(ticket.values(), {0u});
}

SIMT_CASE(shuffles_and_votes) {
  DeviceArray<double> out(32);
  launch(shuffles, 1, 32, 0, out.data());
  std::vector<double> wanted(32);
  for (int i = 0; i < 32; ++i) wanted[size_t(i)] = 3 + 100 * (i % 8 == 0 ? i : i - 1) + 10000 * (i < 30 ? i + 2 : i);
  expect_equal(out.values(), wanted);
}

SIMT_CASE(padded_transpose) { run_transpose<33>(); }
SIMT_CASE(unpadded_transpose) { run_transpose<32>(); }
SIMT_CASE(rotation) { run_rotation(rotate<true, true>); }
SIMT_CASE(missing_read_barrier) { run_rotation(rotate<false, true>); }
SIMT_CASE(missing_write_barrier) { run_rotation(rotate<true, false>); }
SIMT_CASE(warp_barrier) { run_warp_exchange(true); }
SIMT_CASE(missing_warp_barrier) { run_warp_exchange(false); }
SIMT_CASE(divergent_barrier) { launch(barrier_in_branch, 1, 64, 0, 48); }
SIMT_CASE(exited_before_barrier) { launch(exit_before_barrier, 1, 64, 0, 40); }
SIMT_CASE(shared_in_bounds) { run_shared_beyond(0); }
SIMT_CASE(shared_out_of_bounds) { run_shared_beyond(1); }
SIMT_CASE(aligned_vectors) { run_load_vectors(0); }
SIMT_CASE(misaligned_vectors) { run_load_vectors(1); }
SIMT_CASE(coalesced_copy) { run_copy(1); }
SIMT_CASE(strided_copy) { run_copy(8); }

SIMT_CASE(divergent_shuffle) {
  DeviceArray<float> out(64);
  launch(shuffle_in_branch, 1, 64, 0, out.data());
}

SIMT_CASE(global_out_of_bounds) {
  DeviceArray<float> in(64), out(64);
  launch(copy_beyond, 1, 64, 0, in.data(), out.data());
}

SIMT_CASE(uninitialised_shared) {
  DeviceArray<float> out(32);
  launch(half_written, 1, 32, sizeof(Floats<64>), out.data());
  expect_equal(out.values(), std::vector<float>(32, 1.0f));
}

SIMT_CASE(shared_beyond_request) {
  DeviceArray<float> out(1);
  launch(whole_shared, 1, 1, 4 * 10000, out.data());
}

SIMT_CASE(shared_without_opt_in) {
  DeviceArray<float> out(1);
  cudaLaunchConfig_t config{};
  config.gridDim = config.blockDim = 1;
  config.dynamicSmemBytes = sizeof(Floats<20000>);
  pygan::cuda::check(cudaLaunchKernelEx(&config, spin, static_cast<const float*>(out.data())), "kernel launch");
}

SIMT_CASE(shared_with_opt_in) {
  DeviceArray<float> out(1);
  launch(whole_shared, 1, 1, sizeof(Floats<20000>), out.data());
  expect_equal(out.values(), {7.0f});
}

SIMT_CASE(shared_above_limit) {
  DeviceArray<float> out(1);
  launch(whole_shared, 1, 1, 228 * 1024, out.data());
}

SIMT_CASE(block_too_large) { launch(exit_before_barrier, 1, dim3(64, 17), 0, 2000); }
SIMT_CASE(empty_grid) { launch(exit_before_barrier, 0, 32, 0, 32); }

SIMT_CASE(endless_spin) {
  DeviceArray<float> flag(ramp(1));
  launch(spin, 1, 32, 0, static_cast<const float*>(flag.data()));
}

__global__ static void barriers(int times) {
  for (int i = 0; i < times; ++i) __syncthreads();
}
SIMT_CASE(many_barriers) { launch(barriers, 1, kThreads, 0, 2000); }
