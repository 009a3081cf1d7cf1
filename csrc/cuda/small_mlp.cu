// MLPs whose layers are at most 128 wide, in one launch each way: a block takes 16 rows through all layers, their
// activations in shared memory, one layer's weights beside them at a time. Any batch, any width up to 128, exact
// fp32 products for every type.
//
// A thread owns 8 rows and two columns, 64 apart: 64 independent sums, and for each 16 bytes of shared memory a warp
// reads as many products as the ordinary units can do meanwhile.
#include <cuda_runtime.h>

#include "../core/activation.h"
#include "backend.h"
#include "launch.h"
#include "ptx.h"
#include "types.h"

namespace pygan::cuda {
namespace {

constexpr int kWidth = kSmallMlpWidth;
constexpr int kRows = 16, kThreads = 128;
constexpr int kThreadRows = 8, kThreadCols = 2, kColStride = kWidth / kThreadCols;
constexpr int kStep = 4;             // of the inner dimension: a float4
constexpr int kLd = kWidth + kStep;  // rows 4 banks apart: eight lanes' float4 meet no bank twice

struct alignas(128) Memory {
  float weight[kWidth * kLd];
  float rows[2][kRows * kLd];
};

struct alignas(16) Four {
  float value[kStep];
};

__device__ Four four(const float* at) { return *reinterpret_cast<const Four*>(at); }

__device__ float activated(Activation activation, float x, float slope) {
  switch (activation) {
    case Activation::relu:
      return activate<Activation::relu>(x, slope);
    case Activation::leaky_relu:
      return activate<Activation::leaky_relu>(x, slope);
    case Activation::tanh:
      return activate<Activation::tanh>(x, slope);
    case Activation::sigmoid:
      return activate<Activation::sigmoid>(x, slope);
    case Activation::elu:
      return activate<Activation::elu>(x, slope);
    case Activation::softplus:
      return activate<Activation::softplus>(x, slope);
    default:
      return x;
  }
}

__device__ float derived(Activation activation, float g, float y, float slope) {
  switch (activation) {
    case Activation::relu:
      return times_derivative<Activation::relu>(g, y, slope);
    case Activation::leaky_relu:
      return times_derivative<Activation::leaky_relu>(g, y, slope);
    case Activation::tanh:
      return times_derivative<Activation::tanh>(g, y, slope);
    case Activation::sigmoid:
      return times_derivative<Activation::sigmoid>(g, y, slope);
    case Activation::elu:
      return times_derivative<Activation::elu>(g, y, slope);
    case Activation::softplus:
      return times_derivative<Activation::softplus>(g, y, slope);
    default:
      return g;
  }
}

__device__ int whole_steps(int n) { return (n + kStep - 1) / kStep * kStep; }

// A (rows, cols) matrix into shared memory; zeros up to whole steps of columns and of rows, and no further.
template <class S>
__device__ void stage(const S* from, int rows, int cols, int padded_rows, float* to) {
  const int padded_cols = whole_steps(cols);
  for (int e = int(threadIdx.x); e < padded_rows * padded_cols; e += kThreads) {
    const int r = e / padded_cols, c = e % padded_cols;
    to[r * kLd + c] = r < rows && c < cols ? widen(from[int64_t(r) * cols + c]) : 0.0f;
  }
}

// The thread's place in a block's 16 x 128 results.
__device__ int first_row() { return int(threadIdx.x) / kColStride * kThreadRows; }
__device__ int col(int j) { return int(threadIdx.x) % kColStride + j * kColStride; }

using Sums = float[kThreadRows][kThreadCols];

// sum[i][j] = in[row i] . weight[col j]
__device__ void times_transposed(const float* in, const float* weight, int outputs, int inputs, Sums& sum) {
  for (int k = 0; k < inputs; k += kStep) {
    Four w[kThreadCols];
#pragma unroll
    for (int j = 0; j < kThreadCols; ++j) w[j] = col(j) < outputs ? four(weight + col(j) * kLd + k) : Four{};
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i) {
      const Four x = four(in + (first_row() + i) * kLd + k);
#pragma unroll
      for (int j = 0; j < kThreadCols; ++j)
#pragma unroll
        for (int s = 0; s < kStep; ++s) sum[i][j] = fmaf(x.value[s], w[j].value[s], sum[i][j]);
    }
  }
}

// sum[i][j] = in[row i] . weight[:, col j]
__device__ void times(const float* in, const float* weight, int outputs, int inputs, Sums& sum) {
  for (int n = 0; n < outputs; n += kStep) {
    float w[kStep][kThreadCols];
#pragma unroll
    for (int s = 0; s < kStep; ++s)
#pragma unroll
      for (int j = 0; j < kThreadCols; ++j) w[s][j] = col(j) < inputs ? weight[(n + s) * kLd + col(j)] : 0.0f;
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i) {
      const Four g = four(in + (first_row() + i) * kLd + n);
#pragma unroll
      for (int j = 0; j < kThreadCols; ++j)
#pragma unroll
        for (int s = 0; s < kStep; ++s) sum[i][j] = fmaf(g.value[s], w[s][j], sum[i][j]);
    }
  }
}

// Writes the block's rows of shared memory to a (m, cols) matrix.
template <class S>
__device__ void store_rows(const float* from, int rows, int cols, S* to) {
  for (int e = int(threadIdx.x); e < rows * cols; e += kThreads) to[e] = narrow<S>(from[e / cols * kLd + e % cols]);
}

template <class S>
__global__ void __launch_bounds__(kThreads) forward_kernel(const SmallMlpForward op) {
  Memory& memory = shared_storage<Memory>();
  float *in = memory.rows[0], *out = memory.rows[1];
  const int64_t row = int64_t(blockIdx.x) * kRows;
  const int rows = int(op.m - row < kRows ? op.m - row : kRows);
  const float slope = float(op.slope);
  stage(static_cast<const S*>(op.x) + row * op.layers[0].inputs, rows, op.layers[0].inputs, kRows, in);
  for (int l = 0; l < op.count; ++l) {
    const SmallMlpLayer& layer = op.layers[l];
    const int outputs = layer.outputs, padded = whole_steps(outputs);
    const S* const bias = static_cast<const S*>(layer.bias);
    stage(static_cast<const S*>(layer.weight), outputs, layer.inputs, outputs, memory.weight);
    __syncthreads();  // the inputs and the weights are there
    Sums sum = {};
    times_transposed(in, memory.weight, outputs, layer.inputs, sum);
#pragma unroll
    for (int j = 0; j < kThreadCols; ++j) {
      const float b = bias && col(j) < outputs ? widen(bias[col(j)]) : 0.0f;
#pragma unroll
      for (int i = 0; i < kThreadRows; ++i) {
        if (col(j) >= padded) continue;
        // the next layer takes what a layer of its own would: y as it is stored
        const S y = narrow<S>(activated(layer.activation, sum[i][j] + b, slope));
        out[(first_row() + i) * kLd + col(j)] = col(j) < outputs ? widen(y) : 0.0f;
      }
    }
    __syncthreads();  // the outputs are there, and nobody reads the weights any more
    store_rows(out, rows, outputs, static_cast<S*>(layer.y) + row * outputs);
    float* const swapped = in;
    in = out;
    out = swapped;
  }
}

template <class S>
__global__ void __launch_bounds__(kThreads) backward_kernel(const SmallMlpBackward op) {
  Memory& memory = shared_storage<Memory>();
  float *const of_y = memory.rows[0], *const of_sums = memory.rows[1];  // gradients
  const int64_t row = int64_t(blockIdx.x) * kRows;
  const int rows = int(op.m - row < kRows ? op.m - row : kRows);
  const float slope = float(op.slope);
  const int last_outputs = op.layers[op.count - 1].outputs;
  stage(static_cast<const S*>(op.grad_y) + row * last_outputs, rows, last_outputs, kRows, of_y);
  for (int l = op.count - 1; l >= 0; --l) {
    const SmallMlpLayer& layer = op.layers[l];
    const int outputs = layer.outputs, inputs = layer.inputs, padded = whole_steps(outputs);
    const bool onwards = l > 0 || op.grad_x;
    // whole steps of rows: the product reads that many
    if (onwards) stage(static_cast<const S*>(layer.weight), outputs, inputs, padded, memory.weight);
    __syncthreads();  // the gradient of y is there
    const S* const y = static_cast<const S*>(layer.y) + row * outputs;
    S* const grad = static_cast<S*>(layer.grad) + row * outputs;
    for (int e = int(threadIdx.x); e < kRows * padded; e += kThreads) {
      const int r = e / padded, c = e % padded;
      const bool inside = r < rows && c < outputs;
      S g = narrow<S>(0.0f);
      if (inside) {
        g = narrow<S>(derived(layer.activation, of_y[r * kLd + c], widen(y[r * outputs + c]), slope));
        grad[r * outputs + c] = g;
      }
      of_sums[r * kLd + c] = widen(g);
    }
    __syncthreads();  // the gradient of the sums is there, and so are the weights
    if (!onwards) return;
    Sums sum = {};
    times(of_sums, memory.weight, outputs, inputs, sum);
#pragma unroll
    for (int j = 0; j < kThreadCols; ++j)
#pragma unroll
      for (int i = 0; i < kThreadRows; ++i)
        if (col(j) < inputs) of_y[(first_row() + i) * kLd + col(j)] = widen(narrow<S>(sum[i][j]));
    __syncthreads();  // nobody reads the weights any more
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

}  // namespace

void small_mlp_forward(const SmallMlpForward& op) {
  if (op.m == 0) return;
  for_narrow_dtype(op.dtype, [&](auto* tag) {
    launch(op.run, forward_kernel<std::remove_pointer_t<decltype(tag)>>, dim3(unsigned(ceil_div(op.m, kRows))),
           dim3(kThreads), sizeof(Memory), op);
  });
}

void small_mlp_backward(const SmallMlpBackward& op) {
  if (op.m == 0) return;
  for_narrow_dtype(op.dtype, [&](auto* tag) {
    launch(op.run, backward_kernel<std::remove_pointer_t<decltype(tag)>>, dim3(unsigned(ceil_div(op.m, kRows))),
           dim3(kThreads), sizeof(Memory), op);
  });
}

}  // namespace pygan::cuda
