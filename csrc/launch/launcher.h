// Launches kernels: CudaLauncher on a GPU, HostLauncher block after block on a CPU, for tests.
#pragma once

#include <ATen/Dispatch.h>
#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <limits>
#include <vector>

#include "../kernels/products.cuh"

#if defined(FI_GPU)
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <array>
#include <atomic>
#endif

namespace fastinterp {

// Runs a lambda with scalar_t as the C++ type of TYPE.
#define FI_DISPATCH(TYPE, ...) \
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, TYPE, "fastinterp", __VA_ARGS__)

struct HostLauncher {
  // As on a GPU of compute capability 9.0.
  template <typename Program>
  static int64_t most_shared_bytes() {
    return 227 * 1024;
  }

  template <typename Program>
  void operator()(int64_t x, int64_t y, int64_t z, int64_t shared_bytes,
                  const Program& program) const {
    std::vector<double> memory(shared_bytes / sizeof(double) + 1);
    for (int64_t k = 0; k < z; ++k) {
      for (int64_t j = 0; j < y; ++j) {
        for (int64_t i = 0; i < x; ++i) {
          // A block must not rely on what another one left in shared memory.
          memory.assign(memory.size(), std::numeric_limits<double>::quiet_NaN());
          HostBlock block(kThreads, i, j, k);
          program(block, memory.data());
        }
      }
    }
  }
};

#if defined(FI_GPU)
template <typename Program>
__global__ void __launch_bounds__(kThreads) run_program(const Program program) {
  FI_SHARED_MEMORY(memory);
  DeviceBlock block;
  program(block, memory);
}

// Lets a kernel use all the shared memory that a block of the GPU can have; returns how much that
// is.
template <typename Kernel>
int64_t allow_all_shared_memory(Kernel kernel, int device) {
  int bytes = 0;
  cudaFuncAttributes built{};
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  C10_CUDA_CHECK(cudaFuncGetAttributes(&built, kernel));
  bytes -= static_cast<int>(built.sharedSizeBytes);
  C10_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  return bytes;
}

struct CudaLauncher {
  // Of a block on the current GPU. Asks the driver once per GPU and kernel, since asking takes as
  // long as a launch.
  template <typename Program>
  static int64_t most_shared_bytes() {
    static std::array<std::atomic<int64_t>, 64> known{};
    const auto device = static_cast<size_t>(c10::cuda::current_device());
    int64_t found = device < known.size() ? known[device].load() : 0;
    if (found == 0) {
      found = allow_all_shared_memory(run_program<Program>, static_cast<int>(device));
      if (device < known.size()) known[device].store(found);
    }
    return found;
  }

  template <typename Program>
  void operator()(int64_t x, int64_t y, int64_t z, int64_t shared_bytes,
                  const Program& program) const {
    if (x == 0 || y == 0 || z == 0) return;
    TORCH_CHECK(x <= 0x7fffffff && y <= 65535 && z <= 65535,
                "fastinterp: the batch is too large for one launch; split it.");
    cudaLaunchConfig_t config{};
    config.gridDim =
        dim3(static_cast<unsigned>(x), static_cast<unsigned>(y), static_cast<unsigned>(z));
    config.blockDim = dim3(kThreads);
    config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
    config.stream = c10::cuda::getCurrentCUDAStream();
    C10_CUDA_CHECK(cudaLaunchKernelEx(&config, run_program<Program>, program));
  }
};

// Makes the GPU of an op's first tensor the current one while the op runs.
template <auto Op>
struct OnDevice;
template <typename Result, typename First, typename... Rest, Result (*Op)(First, Rest...)>
struct OnDevice<Op> {
  static Result call(First first, Rest... rest) {
    const c10::cuda::CUDAGuard guard(first.device());
    return Op(first, rest...);
  }
};
#endif

template <typename T>
constexpr int64_t shared_bytes() {
  return kSharedAccumulators * static_cast<int64_t>(sizeof(AccType<T>));
}

template <typename T>
at::ScalarType accumulate_type() {
  return sizeof(AccType<T>) == sizeof(double) ? at::kDouble : at::kFloat;
}

// The number of partial sums of a weight gradient; it depends on the sizes alone.
inline int64_t weight_parts(const Sizes& sizes) {
  constexpr int64_t kMaxParts = 8;
  return sizes.images < kMaxParts ? (sizes.images > 0 ? sizes.images : 1) : kMaxParts;
}

}  // namespace fastinterp
