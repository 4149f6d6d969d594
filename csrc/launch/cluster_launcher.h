// Launches kernels with thread block clusters: on a GPU, or phase after phase on a CPU, for tests.
#pragma once

#include "launcher.h"

#if defined(FI_GPU)
#include <cooperative_groups.h>
#endif

namespace fastinterp {

constexpr int64_t kMaxRanks = 8;  // the portable cluster size

struct ClusterLimits {
  int64_t ranks;            // blocks of a cluster
  int64_t bytes;            // shared memory of a block
  bool tensor_cores;        // for both half types
  int64_t multiprocessors;  // of the GPU
};

// On a CPU, with the limits of a GPU of compute capability 9.0.
struct HostClusterLauncher : HostLauncher {
  template <typename Program>
  static ClusterLimits limits() {
    return {kMaxRanks, 227 * 1024, true, 132};
  }

  template <typename Program>
  void cluster(int64_t clusters, int64_t ranks, int64_t bytes, const Program& program) const {
    std::vector<std::vector<double>> memory(ranks, std::vector<double>(bytes / sizeof(double) + 1));
    const auto peer = [&](int64_t rank) { return reinterpret_cast<char*>(memory[rank].data()); };
    const auto phase = [&](int64_t image, const auto& run) {
      for (int64_t rank = 0; rank < ranks; ++rank) {
        HostBlock block(kThreads, image, rank, 0);
        run(block, peer(rank));
      }
    };
    for (int64_t i = 0; i < clusters; ++i) {
      for (auto& of_rank : memory) {
        of_rank.assign(of_rank.size(), std::numeric_limits<double>::quiet_NaN());
      }
      phase(i, [&](HostBlock& block, char* own) { program.forward(block, own); });
      phase(i, [&](HostBlock& block, char* own) { program.softmax(block, own, peer); });
      phase(i, [&](HostBlock& block, char* own) { program.backward(block, own); });
    }
  }
};

// The limits of a GPU without clusters and with too little shared memory: the discrepancy then
// takes three launches.
struct HostStepsLauncher : HostClusterLauncher {
  template <typename Program>
  static ClusterLimits limits() {
    return {1, 0, false, 132};
  }
};

#if defined(FI_GPU)
template <typename Program>
__global__ void __launch_bounds__(kThreads) run_cluster(const Program program) {
  FI_SHARED_MEMORY(own);
  DeviceBlock block;
#if __CUDA_ARCH__ >= 900
  const auto cluster = cooperative_groups::this_cluster();
  block.x = blockIdx.x / cluster.num_blocks();
  block.y = cluster.block_rank();
  program.forward(block, own);
  cluster.sync();
  program.softmax(block, own, [&](int64_t rank) {
    return cluster.map_shared_rank(own, static_cast<int>(rank));
  });
  cluster.barrier_arrive();
  program.backward(block, own);
  cluster.barrier_wait();  // other blocks may still read this block's shared memory
#else
  block.y = 0;
  program.forward(block, own);
  program.softmax(block, own, [&](int64_t) { return own; });
  program.backward(block, own);
#endif
}

struct CudaClusterLauncher : CudaLauncher {
  // Asks the driver once per GPU and kernel, since asking takes as long as a launch.
  template <typename Program>
  static ClusterLimits limits() {
    // One word per GPU: multiprocessors, 32 bits of bytes, 4 bits of tensor_cores, 4 bits of ranks.
    static std::array<std::atomic<int64_t>, 64> known{};
    const auto device = static_cast<size_t>(c10::cuda::current_device());
    int64_t found = device < known.size() ? known[device].load() : 0;
    if (found == 0) {
      found = ask<Program>(static_cast<int>(device));
      if (device < known.size()) known[device].store(found);
    }
    return {found % 16, found >> 8 & 0xffffffff, found / 16 % 16 != 0, found >> 40};
  }

  template <typename Program>
  void cluster(int64_t clusters, int64_t ranks, int64_t bytes, const Program& program) const {
    if (clusters == 0) return;
    TORCH_CHECK(clusters <= 0x7fffffff / ranks,
                "fastinterp: the batch is too large for one launch; split it.");
    cudaLaunchAttribute size{};
    size.id = cudaLaunchAttributeClusterDimension;
    size.val.clusterDim = {static_cast<unsigned>(ranks), 1, 1};
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(clusters * ranks));
    config.blockDim = dim3(kThreads);
    config.dynamicSmemBytes = static_cast<size_t>(bytes);
    config.stream = c10::cuda::getCurrentCUDAStream();
    config.attrs = &size;
    config.numAttrs = ranks > 1 ? 1 : 0;  // no attribute for a GPU without clusters
    C10_CUDA_CHECK(cudaLaunchKernelEx(&config, run_cluster<Program>, program));
  }

 private:
  template <typename Program>
  static int64_t ask(int device) {
    int major = 0, multiprocessors = 0;
    cudaFuncAttributes built{};
    C10_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    C10_CUDA_CHECK(
        cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device));
    C10_CUDA_CHECK(cudaFuncGetAttributes(&built, run_cluster<Program>));
    const int64_t bytes = allow_all_shared_memory(run_cluster<Program>, device);
    // A newer GPU may run code that was compiled for an older one.
    const bool clusters = major >= 9 && built.ptxVersion >= 90;
    const bool tensor_cores = major >= 8 && built.ptxVersion >= 80;
    return (int64_t{multiprocessors} << 40) + (bytes << 8) + (tensor_cores ? 16 : 0) +
           (clusters ? kMaxRanks : 1);
  }
};
#endif

}  // namespace fastinterp
