// MLPs whose layers are at most 128 wide, in one launch each way: a block takes 16 rows through all layers, their
// activations in shared memory, a layer's weights beside them, and the next layer's on their way where there is room.
// Any batch, any width up to 128, exact fp32 products for every type.
//
// A thread owns 8 rows and two columns, 64 apart: 64 independent sums, and for each 16 bytes of shared memory a warp
// reads as many products as the ordinary units can do meanwhile.
#include <cuda_runtime.h>

#include <algorithm>

#include "../core/activation.h"
#include "backend.h"
#include "launch.h"
#include "ptx.h"
#include "runs.h"

namespace pygan::cuda {
namespace {

constexpr int kWidth = kSmallMlpWidth;
constexpr int kRows = 16, kThreads = 128;
constexpr int kThreadRows = 8, kThreadCols = 2, kColStride = kWidth / kThreadCols;
constexpr int kStep = 4;  // of fp32 values: 16 bytes
constexpr int kLd = kWidth + kStep;

// Before the weights, one buffer of them or two.
struct alignas(128) Memory {
  float rows[2][kRows * kLd];
};

PYGAN_HD int whole(int n, int step) { return (n + step - 1) / step * step; }

// A layer's weights as they are stored, whole vectors a row and an odd number of them: eight neighbouring rows' vectors
// meet no bank twice.
template <class S>
PYGAN_HD int weight_ld(int inputs) {
  return (ceil_div(inputs, kVector<S>) | 1) * kVector<S>;
}

// Places of a matrix of up to 128 rows of `cols` by turns of the block's threads, without a division each.
struct Places {
  int row, col;

  __device__ explicit Places(int cols)
      : row(cols ? int(threadIdx.x) / cols : kWidth),
        col(cols ? int(threadIdx.x) % cols : 0),
        cols_(cols),
        row_step_(cols ? kThreads / cols : 0),
        col_step_(cols ? kThreads % cols : 0) {}

  __device__ void next() {
    row += row_step_;
    col += col_step_;
    if (col < cols_) return;
    col -= cols_;
    ++row;
  }

 private:
  int cols_, row_step_, col_step_;
};

// A block's rows of a contiguous matrix into shared memory; zeros up to kRows and to whole vectors of columns.
template <class S>
__device__ void load_rows(const S* from, int rows, int cols, float* to) {
  for (Places p(whole(cols, kVector<S>)); p.row < kRows; p.next())
    to[p.row * kLd + p.col] = p.row < rows && p.col < cols ? widen(from[p.row * cols + p.col]) : 0.0f;
}

template <class S>
__device__ void store_rows(const float* from, int rows, int cols, S* to) {
  for (Places p(cols); p.row < rows; p.next()) to[p.row * cols + p.col] = narrow<S>(from[p.row * kLd + p.col]);
}

// Starts a layer's weights on their way to shared memory; zeros up to whole vectors of columns and whole steps of rows.
template <class S>
__device__ void begin_weight(const SmallMlpLayer& layer, S* to) {
  const S* const from = static_cast<const S*>(layer.weight);
  const int rows = layer.outputs, cols = layer.inputs, ld = weight_ld<S>(cols);
  if (aligned(from) && cols % kVector<S> == 0) {
    for (Places p(cols / kVector<S>); p.row < whole(rows, kStep); p.next()) {
      const int col = p.col * kVector<S>;
      const bool inside = p.row < rows;
      cp_async_16(to + p.row * ld + col, inside ? from + p.row * cols + col : from, inside ? kVectorBytes : 0);
    }
  } else {
    for (Places p(whole(cols, kVector<S>)); p.row < whole(rows, kStep); p.next())
      to[p.row * ld + p.col] = p.row < rows && p.col < cols ? from[p.row * cols + p.col] : S{};
  }
  cp_async_commit();
}

// The thread's place in a block's 16 x 128 results.
__device__ int first_row() { return int(threadIdx.x) / kColStride * kThreadRows; }
__device__ int col(int j) { return int(threadIdx.x) % kColStride + j * kColStride; }

using Results = float[kThreadRows][kThreadCols];

// sum[i][j] = in[row i] . weight[col j]
template <class S>
__device__ void times_transposed(const float* in, const S* weight, int outputs, int inputs, Results& sum) {
  const int ld = weight_ld<S>(inputs);
  for (int k = 0; k < inputs; k += kVector<S>) {
    float w[kThreadCols][kVector<S>];
#pragma unroll
    for (int j = 0; j < kThreadCols; ++j) load_run(weight + col(j) * ld + k, col(j) < outputs ? kWidth : 0, true, w[j]);
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i)
#pragma unroll
      for (int part = 0; part < kVector<S>; part += kStep) {
        float x[kStep];
        load_run(in + (first_row() + i) * kLd + k + part, kStep, true, x);
#pragma unroll
        for (int j = 0; j < kThreadCols; ++j)
#pragma unroll
          for (int s = 0; s < kStep; ++s) sum[i][j] = fmaf(x[s], w[j][part + s], sum[i][j]);
      }
  }
}

// sum[i][j] = in[row i] . weight[:, col j]
template <class S>
__device__ void times(const float* in, const S* weight, int outputs, int inputs, Results& sum) {
  const int ld = weight_ld<S>(inputs);
  for (int n = 0; n < outputs; n += kStep) {
    float w[kStep][kThreadCols];
#pragma unroll
    for (int s = 0; s < kStep; ++s)
#pragma unroll
      for (int j = 0; j < kThreadCols; ++j) w[s][j] = col(j) < inputs ? widen(weight[(n + s) * ld + col(j)]) : 0.0f;
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i) {
      float g[kStep];
      load_run(in + (first_row() + i) * kLd + n, kStep, true, g);
#pragma unroll
      for (int j = 0; j < kThreadCols; ++j)
#pragma unroll
        for (int s = 0; s < kStep; ++s) sum[i][j] = fmaf(g[s], w[s][j], sum[i][j]);
    }
  }
}

// Layer l's weights. `second` is where a second buffer begins, in elements; 0: there is one alone.
template <class S>
__device__ S* weight_buffer(Memory& memory, int l, int second) {
  return reinterpret_cast<S*>(&memory + 1) + l % 2 * second;
}

template <class S>
__global__ void __launch_bounds__(kThreads) mlp_forward_kernel(const SmallMlpForward op, int second) {
  Memory& memory = shared_storage<Memory>();
  float *in = memory.rows[0], *out = memory.rows[1];
  const int64_t row = int64_t(blockIdx.x) * kRows;
  const int rows = int(op.m - row < kRows ? op.m - row : kRows);
  const float slope = float(op.slope);
  begin_weight(op.layers[0], weight_buffer<S>(memory, 0, second));
  load_rows(static_cast<const S*>(op.x) + row * op.layers[0].inputs, rows, op.layers[0].inputs, in);
  for (int l = 0; l < op.count; ++l) {
    const SmallMlpLayer& layer = op.layers[l];
    const int outputs = layer.outputs, padded = whole(outputs, kVector<S>);
    const S* const bias = static_cast<const S*>(layer.bias);
    const bool onwards = l + 1 < op.count;
    cp_async_wait<0>();
    __syncthreads();  // the inputs and the weights are there
    if (onwards && second) begin_weight(op.layers[l + 1], weight_buffer<S>(memory, l + 1, second));
    Results sum = {};
    times_transposed(in, weight_buffer<S>(memory, l, second), outputs, layer.inputs, sum);
    for_activation(layer.activation, [&](auto tag) {
#pragma unroll
      for (int j = 0; j < kThreadCols; ++j) {
        const float b = bias && col(j) < outputs ? widen(bias[col(j)]) : 0.0f;
#pragma unroll
        for (int i = 0; i < kThreadRows; ++i) {
          if (col(j) >= padded) continue;
          // the next layer takes what a layer of its own would: y as it is stored
          const S y = narrow<S>(activate<decltype(tag)::kValue>(sum[i][j] + b, slope));
          out[(first_row() + i) * kLd + col(j)] = col(j) < outputs ? widen(y) : 0.0f;
        }
      }
    });
    __syncthreads();  // the outputs are there, and nobody reads the weights any more
    if (onwards && !second) begin_weight(op.layers[l + 1], weight_buffer<S>(memory, 0, 0));
    store_rows(out, rows, outputs, static_cast<S*>(layer.y) + row * outputs);
    float* const swapped = in;
    in = out;
    out = swapped;
  }
}

template <class S>
__global__ void __launch_bounds__(kThreads) mlp_backward_kernel(const SmallMlpBackward op, int second) {
  Memory& memory = shared_storage<Memory>();
  float *const of_y = memory.rows[0], *const of_sums = memory.rows[1];  // gradients
  const int64_t row = int64_t(blockIdx.x) * kRows;
  const int rows = int(op.m - row < kRows ? op.m - row : kRows);
  const float slope = float(op.slope);
  const int last = op.count - 1;
  const auto needed = [&](int l) { return l > 0 || (l == 0 && op.grad_x); };  // a layer's weights
  if (needed(last)) begin_weight(op.layers[last], weight_buffer<S>(memory, last, second));
  load_rows(static_cast<const S*>(op.grad_y) + row * op.layers[last].outputs, rows, op.layers[last].outputs, of_y);
  for (int l = last; l >= 0; --l) {
    const SmallMlpLayer& layer = op.layers[l];
    const int outputs = layer.outputs, inputs = layer.inputs;
    __syncthreads();  // the gradient of y is there
    const S* const y = static_cast<const S*>(layer.y) + row * outputs;
    S* const grad = static_cast<S*>(layer.grad) + row * outputs;
    for_activation(layer.activation, [&](auto tag) {
      for (Places p(whole(outputs, kStep)); p.row < kRows; p.next()) {
        S g = narrow<S>(0.0f);
        if (p.row < rows && p.col < outputs) {
          const int e = p.row * outputs + p.col;
          g = narrow<S>(times_derivative<decltype(tag)::kValue>(of_y[p.row * kLd + p.col], widen(y[e]), slope));
          grad[e] = g;
        }
        of_sums[p.row * kLd + p.col] = widen(g);
      }
    });
    if (!needed(l)) return;
    cp_async_wait<0>();
    __syncthreads();  // the gradient of the sums is there, and so are the weights
    if (needed(l - 1) && second) begin_weight(op.layers[l - 1], weight_buffer<S>(memory, l - 1, second));
    Results sum = {};
    times(of_sums, weight_buffer<S>(memory, l, second), outputs, inputs, sum);
#pragma unroll
    for (int j = 0; j < kThreadCols; ++j)
#pragma unroll
      for (int i = 0; i < kThreadRows; ++i)
        if (col(j) < inputs) of_y[(first_row() + i) * kLd + col(j)] = widen(narrow<S>(sum[i][j]));
    __syncthreads();  // nobody reads the weights any more
    if (needed(l - 1) && !second) begin_weight(op.layers[l - 1], weight_buffer<S>(memory, 0, 0));
  }
  store_rows(of_y, rows, op.layers[0].inputs, static_cast<S*>(op.grad_x) + row * op.layers[0].inputs);
}

// Calls f for the types that are computed in fp32.
template <class F>
void for_narrow_dtype(DType dtype, const F& f) {
  for_dtype(dtype, [&](auto* tag) {
    if constexpr (!std::is_same_v<std::remove_pointer_t<decltype(tag)>, double>) f(tag);
  });
}

// A second buffer of weights is taken where it costs no block its place on a multiprocessor.
template <class S, class Op>
void launch_mlp(const Op& op, void (*kernel)(Op, int)) {
  int buffer = 0;
  for (int l = 0; l < op.count; ++l)
    buffer = std::max(buffer, whole(op.layers[l].outputs, kStep) * weight_ld<S>(op.layers[l].inputs));
  const DeviceLimits& device = device_limits();
  const int64_t blocks = ceil_div(op.m, kRows);
  const size_t one = sizeof(Memory) + size_t(buffer) * sizeof(S), two = one + size_t(buffer) * sizeof(S);
  const size_t limit = size_t(device.shared_bytes);
  const bool second = two <= limit && (blocks <= device.multiprocessors || 2 * two <= limit);
  launch(op.run, kernel, dim3(unsigned(blocks)), dim3(kThreads), second ? two : one, op, second ? buffer : 0);
}

}  // namespace

void small_mlp_forward(const SmallMlpForward& op) {
  if (op.m == 0) return;
  for_narrow_dtype(op.dtype, [&](auto* tag) {
    using S = std::remove_pointer_t<decltype(tag)>;
    launch_mlp<S>(op, mlp_forward_kernel<S>);
  });
}

void small_mlp_backward(const SmallMlpBackward& op) {
  if (op.m == 0) return;
  for_narrow_dtype(op.dtype, [&](auto* tag) {
    using S = std::remove_pointer_t<decltype(tag)>;
    launch_mlp<S>(op, mlp_backward_kernel<S>);
  });
}

}  // namespace pygan::cuda
