// Every GPU op a third time, under the name device_<op>: device code and launchers as a GPU gets
// them, on fibers. And kernels with planted faults, which the watching has to find.
#include <ATen/Dispatch.h>
#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include <unordered_map>

#include "gpu.h"

#define __CUDA_ARCH__ 900
#include "../../csrc/launch/cam.h"
#include "../../csrc/launch/climb.h"
#include "../../csrc/launch/discrepancy.h"
#include "../../csrc/launch/kendall_tau.h"
#include "../../csrc/launch/pgd_step.h"

namespace fastinterp {
namespace {

// As a GPU without clusters whose shared memory holds nothing of note.
struct CudaStepsLauncher : CudaClusterLauncher {
  template <typename Program>
  static ClusterLimits limits() {
    return {1, 0, false, 132};
  }
};

// What a block does wrong in the first phase, by name.
struct Faulty {
  int64_t kind;
  float* global;

  template <typename Block>
  void operator()(Block& block, void* memory) const {
    float* shared = static_cast<float*>(memory);
    const int t = static_cast<int>(threadIdx.x);
    switch (kind) {
      case 0:  // nothing
        block.each_thread([&](int) { shared[t] = 1; });
        block.each_thread(
            [&](int) { global[block.x * kThreads + t] = shared[(t + 1) % kThreads]; });
        return;
      case 1:  // read without a barrier
        shared[t] = 1;
        global[block.x * kThreads + t] = shared[(t + 1) % kThreads];
        return;
      case 2:  // overwritten without a barrier
        block.each_thread([&](int) { shared[t] = 1; });
        global[block.x * kThreads + t] = shared[(t + 1) % kThreads];
        shared[t] = 2;
        return;
      case 3:  // two blocks write the same place
        global[t] = static_cast<float>(block.x);
        return;
      case 4:  // a barrier for half of the threads
        if (t < kThreads / 2) block.each_thread([](int) {});
        return;
      case 5:  // misaligned
        block.each_thread([&](int) {
          if (t == 0) *reinterpret_cast<volatile double*>(shared + 1) = 1;
        });
        return;
      case 6:  // behind the end of shared memory
        shared[t + 1] = 1;
        return;
      default:  // behind the end of global memory
        global[block.x * kThreads + t + 1] = 1;
    }
  }
};

void faulty(int64_t kind, at::Tensor out) {
  const int64_t blocks = out.numel() / kThreads;
  CudaLauncher()(blocks, 1, 1, kThreads * sizeof(float), Faulty{kind, out.data_ptr<float>()});
}

// A cluster whose blocks read each other's memory: in order, too early, or when it may be gone.
struct FaultyCluster {
  int64_t kind;
  float* global;

  template <typename Block>
  void forward(Block& block, char* memory) const {
    block.each(1, [&](int64_t) { *reinterpret_cast<float*>(memory) = 1; });
    if (kind == 1) block.each(1, [&](int64_t) { sum(block, memory, neighbour(memory)); });
  }
  template <typename Block, typename Peer>
  void softmax(Block& block, char* memory, const Peer& peer) const {
    block.each(1, [&](int64_t) { sum(block, memory, peer(1 - block.y)); });
  }
  template <typename Block>
  void backward(Block& block, char* memory) const {
    if (kind == 2) block.each(1, [&](int64_t) { *reinterpret_cast<float*>(memory) = 2; });
  }

 private:
  template <typename Block>
  void sum(Block& block, const char* own, const char* other) const {
    global[2 * block.x + block.y] =
        *reinterpret_cast<const float*>(own) + *reinterpret_cast<const float*>(other);
  }
  static char* neighbour(char* own) {
    const auto cluster = cooperative_groups::this_cluster();
    return cluster.map_shared_rank(own, 1 - static_cast<int>(cluster.block_rank()));
  }
};

void faulty_cluster(int64_t kind, at::Tensor out) {
  CudaClusterLauncher().cluster(out.numel() / 2, 2, 64, FaultyCluster{kind, out.data_ptr<float>()});
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(fastinterp, m) {
  m.def("device_cam", &launch_cam<CudaLauncher>);
  m.def("device_cam_backward_features", &launch_cam_backward_features<CudaLauncher>);
  m.def("device_cam_backward_weight", &launch_cam_backward_weight<CudaLauncher>);
  m.def("device_climb", &launch_climb<CudaLauncher>);
  m.def("device_climb_fits", &launch_climb_fits<CudaLauncher>);
  m.def("device_discrepancy", &launch_discrepancy<CudaClusterLauncher>);
  m.def("device_discrepancy_in_steps", &launch_discrepancy<CudaStepsLauncher>);
  m.def("device_discrepancy_backward", &launch_discrepancy_backward<CudaClusterLauncher>);
  m.def("device_discrepancy_backward_in_steps", &launch_discrepancy_backward<CudaStepsLauncher>);
  m.def("device_pgd_step", &launch_pgd_step<CudaLauncher>);
  m.def("device_kendall_tau", &launch_kendall_tau<CudaLauncher>);
  m.def("device_faulty(int kind, Tensor(a!) out) -> ()", &faulty);
  m.def("device_faulty_cluster(int kind, Tensor(a!) out) -> ()", &faulty_cluster);
}

}  // namespace fastinterp
