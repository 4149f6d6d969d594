// The one instruction that the host cannot run: a product of small tiles on tensor cores.
#pragma once

#include "maps.cuh"

#if defined(FI_GPU)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <mma.h>
#endif

namespace fastinterp {

constexpr int kTile = 16;  // rows and columns of a tile

// A warp's work: out [16, 16] += a [16, depth] b [depth, 16], where depth is a multiple of 16, the
// factors are of a half type, and sums are float32. A factor lies in memory row after row or column
// after column, `ld` elements apart. All begin on 32 bytes.
//
// float32 keeps to FMAs: how sums of TF32 products round is undocumented, so no test here could
// show the error rule for a split into three of them.
template <typename Block>
struct TileProduct;

template <>
struct TileProduct<HostBlock> {
  template <bool RowsOfA, bool RowsOfB, typename T>
  FI_HD static void add(const T* a, int lda, const T* b, int ldb, int depth, float* out, int ldo) {
    for (int i = 0; i < kTile; ++i) {
      for (int j = 0; j < kTile; ++j) {
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
    wmma::fragment<wmma::accumulator, kTile, kTile, kTile, float> sum;
    wmma::load_matrix_sync(sum, out, ldo, wmma::mem_row_major);
    for (int k = 0; k < depth; k += kTile) {
      wmma::fragment<wmma::matrix_a, kTile, kTile, kTile, Half, OrderA> left;
      wmma::fragment<wmma::matrix_b, kTile, kTile, kTile, Half, OrderB> right;
      const T* from_a = a + (RowsOfA ? k : k * lda);
      const T* from_b = b + (RowsOfB ? k * ldb : k);
      wmma::load_matrix_sync(left, reinterpret_cast<const Half*>(from_a), lda);
      wmma::load_matrix_sync(right, reinterpret_cast<const Half*>(from_b), ldb);
      wmma::mma_sync(sum, left, right, sum);
    }
    wmma::store_matrix_sync(out, sum, ldo, wmma::mem_row_major);
#else
    __trap();  // the launcher chooses tensor cores only where the code has them
#endif
  }
};
#endif

}  // namespace fastinterp
