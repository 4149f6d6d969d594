// The thread block, as kernels see it. A kernel is a struct with the arguments as members and
//   template <typename Block> void operator()(Block& block, void* shared_memory) const
// which DeviceBlock runs on a GPU and HostBlock on a CPU, so that tests check the kernels of a GPU
// where there is none. In CUDA's words:
//
//   block.x, block.y, block.z   blockIdx.x, blockIdx.y, blockIdx.z
//   block.threads()             blockDim.x; all blocks are one-dimensional
//   block.each(count, f)        for (i = threadIdx.x; i < count; i += blockDim.x) f(i);
//                               __syncthreads();
//   block.each_thread(f)        f(threadIdx.x); __syncthreads();
//   block.each_warp(f)          f(threadIdx.x / 32), by all threads of the warp together;
//                               __syncthreads();
//   block.reduce, reduce        a block reduction: __shfl_down_sync in each warp, shared memory
//                               across warps; every thread gets the result
//   Local<Block, T, Count>      T values[Count] in the registers of each thread; at(t, i) is thread
//                               t's values[i]
//   memory, shared              dynamic shared memory (extern __shared__)
//   FI_HD                       __host__ __device__ __forceinline__
//   DeviceBlock                 the real block, on a GPU
//   HostBlock                   a CPU thread that runs every `each` as a plain loop
//
// Each call of each, each_thread, each_warp or reduce is one phase: its iterations must not depend
// on each other, and the barrier behind it lets the next phase read what this one wrote.
#pragma once

#include <cstdint>

// Tests define FI_GPU without nvcc, to run device code on a CPU.
#if defined(__CUDACC__)
#define FI_GPU
#endif

#if defined(FI_GPU)
#define FI_HD __host__ __device__ __forceinline__
#define FI_UNROLL _Pragma("unroll")
#else
// Always inlined on the host too: the CPU code is compiled once for each instruction set, and the
// linker must not merge out-of-line copies from different instruction sets.
#define FI_HD inline __attribute__((always_inline))
#define FI_UNROLL
#endif

namespace fastinterp {

constexpr int kWarp = 32;  // threads of a warp

// Registers of each thread that keep their values through several phases.
template <typename Block, typename T, int Count>
class Local;

class HostBlock {
 public:
  FI_HD HostBlock(int threads, int64_t x, int64_t y, int64_t z)
      : x(x), y(y), z(z), threads_(threads) {}

  // One phase: f(i) for every i in 0..count-1.
  template <typename F>
  FI_HD void each(int64_t count, const F& f) {
    for (int64_t i = 0; i < count; ++i) f(i);
  }

  // One phase: every thread t calls f(t) once.
  template <typename F>
  FI_HD void each_thread(const F& f) {
    for (int t = 0; t < threads_; ++t) f(t);
  }

  // One phase: every warp w calls f(w) once, with all of its threads.
  template <typename F>
  FI_HD void each_warp(const F& f) {
    for (int w = 0; w < threads_ / kWarp; ++w) f(w);
  }

  // Combines value(t) of all threads in the same order as DeviceBlock; every thread gets the
  // result. `shared` has space for one T per thread; combine(a, start) must equal a.
  template <typename T, typename Value, typename Combine>
  FI_HD T reduce(T* shared, T /*start*/, const Value& value, const Combine& combine) {
    for (int t = 0; t < threads_; ++t) shared[t] = value(t);
    const int warps = (threads_ + kWarp - 1) / kWarp;
    for (int warp = 0; warp < warps; ++warp) {
      const int left = threads_ - warp * kWarp;
      shared[warp] = reduce_warp(shared + warp * kWarp, left < kWarp ? left : kWarp, combine);
    }
    return reduce_warp(shared, warps, combine);
  }

  FI_HD int threads() const { return threads_; }

  int64_t x, y, z;  // blockIdx

 private:
  template <typename T, typename Combine>
  FI_HD static T reduce_warp(T* values, int count, const Combine& combine) {
    for (int half = kWarp / 2; half > 0; half /= 2) {
      for (int lane = 0; lane < half && lane + half < count; ++lane) {
        values[lane] = combine(values[lane], values[lane + half]);
      }
    }
    return values[0];
  }

  int threads_;
};

template <typename T, int Count>
class Local<HostBlock, T, Count> {
 public:
  FI_HD explicit Local(HostBlock& block) : values_(new T[block.threads() * Count]()) {}
  FI_HD ~Local() { delete[] values_; }
  Local(const Local&) = delete;
  Local& operator=(const Local&) = delete;
  FI_HD T& at(int thread, int i) { return values_[thread * Count + i]; }

 private:
  T* values_;
};

#if defined(FI_GPU)
#if !defined(FI_SHARED_MEMORY)
#define FI_SHARED_MEMORY(name) extern __shared__ __align__(32) char name[]
#endif

class DeviceBlock {
 public:
  __device__ DeviceBlock() : x(blockIdx.x), y(blockIdx.y), z(blockIdx.z) {}

  template <typename F>
  __device__ __forceinline__ void each(int64_t count, const F& f) {
    for (int64_t i = threadIdx.x; i < count; i += blockDim.x) f(i);
    __syncthreads();
  }

  template <typename F>
  __device__ __forceinline__ void each_thread(const F& f) {
    f(static_cast<int>(threadIdx.x));
    __syncthreads();
  }

  template <typename F>
  __device__ __forceinline__ void each_warp(const F& f) {
    f(static_cast<int>(threadIdx.x) / kWarp);
    __syncthreads();
  }

  template <typename T, typename Value, typename Combine>
  __device__ __forceinline__ T reduce(T* shared, T start, const Value& value,
                                      const Combine& combine) {
    const int t = static_cast<int>(threadIdx.x), warps = (threads() + kWarp - 1) / kWarp;
    const T sum = reduce_warp(value(t), combine);
    if (t % kWarp == 0) shared[t / kWarp] = sum;
    __syncthreads();
    if (t < kWarp) {
      const T whole = reduce_warp(t < warps ? shared[t] : start, combine);
      __syncwarp();
      if (t == 0) shared[0] = whole;
    }
    __syncthreads();
    const T result = shared[0];
    __syncthreads();  // the caller may overwrite shared[0] from here on
    return result;
  }

  __device__ __forceinline__ int threads() const { return static_cast<int>(blockDim.x); }

  int64_t x, y, z;

 private:
  template <typename T, typename Combine>
  __device__ __forceinline__ static T reduce_warp(T value, const Combine& combine) {
    FI_UNROLL
    for (int half = kWarp / 2; half > 0; half /= 2) {
      value = combine(value, __shfl_down_sync(0xffffffffu, value, half));
    }
    return value;
  }
};

template <typename T, int Count>
class Local<DeviceBlock, T, Count> {
 public:
  __device__ __forceinline__ explicit Local(DeviceBlock&) {
    FI_UNROLL
    for (int i = 0; i < Count; ++i) values_[i] = T(0);
  }
  __device__ __forceinline__ T& at(int, int i) { return values_[i]; }

 private:
  T values_[Count];
};
#endif

// Combines value(0), ..., value(count - 1) in an order that depends only on count and the number of
// threads. `shared` has space for one T per thread. Every thread gets the result.
template <typename T, typename Block, typename Value, typename Combine>
FI_HD T reduce(Block& block, T* shared, int64_t count, T start, const Value& value,
               const Combine& combine) {
  const int threads = block.threads();
  const auto of_thread = [&](int t) {
    T sum = start;
    for (int64_t i = t; i < count; i += threads) sum = combine(sum, value(i));
    return sum;
  };
  return block.reduce(shared, start, of_thread, combine);
}

}  // namespace fastinterp
