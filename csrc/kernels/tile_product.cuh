// A product of small tiles on tensor cores (WMMA), with a plain loop in its place on the host.
#pragma once

#include "maps.cuh"

#if defined(FI_GPU)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <mma.h>
#endif

namespace fastinterp {

constexpr int kMmaTile = 16;  // rows and columns of a tile

// One warp computes out [16, 16] += a [16, depth] b [depth, 16]: depth is a multiple of 16, a and b
// are of a half type, out is float32. a and b are row-major or column-major with leading dimension
// lda and ldb. All pointers are aligned to 32 bytes.
//
// float32 inputs never come here. TF32 would break the error rule, and the rounding of sums of TF32
// products is undocumented, so no test on a CPU could vouch for a split into three products.
template <typename Block>
struct TileProduct;

template <>
struct TileProduct<HostBlock> {
  template <bool RowsOfA, bool RowsOfB, typename T>
  FI_HD static void add(const T* a, int lda, const T* b, int ldb, int depth, float* out, int ldo) {
    for (int i = 0; i < kMmaTile; ++i) {
      for (int j = 0; j < kMmaTile; ++j) {
        float sum = out[i * ldo + j];
        for (int k = 0; k < depth; ++k) {
          sum += static_cast<float>(a[RowsOfA ? i * lda + k : k * lda + i]) *
                 static_cast<float>(b[RowsOfB ? k * ldb + j : j * ldb + k]);
        }
        out[i * ldo + j] = sum;
      }
    }
  }
};

#if defined(FI_GPU)
template <typename T>
struct TensorType {
  using Type = __half;
};
template <>
struct TensorType<c10::BFloat16> {
  using Type = __nv_bfloat16;
};

template <>
struct TileProduct<DeviceBlock> {
  template <bool RowsOfA, bool RowsOfB, typename T>
  __device__ __forceinline__ static void add(const T* a, int lda, const T* b, int ldb, int depth,
                                             float* out, int ldo) {
#if __CUDA_ARCH__ >= 800
    namespace wmma = nvcuda::wmma;
    using Half = typename TensorType<T>::Type;
    using OrderA = std::conditional_t<RowsOfA, wmma::row_major, wmma::col_major>;
    using OrderB = std::conditional_t<RowsOfB, wmma::row_major, wmma::col_major>;
    wmma::fragment<wmma::accumulator, kMmaTile, kMmaTile, kMmaTile, float> sum;
    wmma::load_matrix_sync(sum, out, ldo, wmma::mem_row_major);
    for (int k = 0; k < depth; k += kMmaTile) {
      wmma::fragment<wmma::matrix_a, kMmaTile, kMmaTile, kMmaTile, Half, OrderA> left;
      wmma::fragment<wmma::matrix_b, kMmaTile, kMmaTile, kMmaTile, Half, OrderB> right;
      const T* from_a = a + (RowsOfA ? k : k * lda);
      const T* from_b = b + (RowsOfB ? k * ldb : k);
      wmma::load_matrix_sync(left, reinterpret_cast<const Half*>(from_a), lda);
      wmma::load_matrix_sync(right, reinterpret_cast<const Half*>(from_b), ldb);
      wmma::mma_sync(sum, left, right, sum);
    }
    wmma::store_matrix_sync(out, sum, ldo, wmma::mem_row_major);
#else
    __trap();  // launchers use tensor cores only on GPUs that have them
#endif
  }
};
#endif

}  // namespace fastinterp
