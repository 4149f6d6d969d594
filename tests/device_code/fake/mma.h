// Tensor cores' 16 x 16 x 16 products: the warp's first thread does all, once all have come. As on
// a GPU, that orders no accesses to memory. What the documentation asks of pointers is checked.
#pragma once

#include "gpu.h"

namespace nvcuda::wmma {

struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
struct col_major;
enum layout_t { mem_row_major };

constexpr int kSide = 16;

template <typename Use, int M, int N, int K, typename T, typename Layout = void>
struct fragment {
  static_assert(M == kSide && N == kSide && K == kSide);
  float values[kSide][kSide];  // of the first thread alone
};

template <typename Work>
void by_warp(const Work& work) {
  gpu::Warp& warp = gpu::current->warp();
  gpu::meet(warp.barrier, "a tensor core's operation");
  if (gpu::current->lane() == 0) work();
  gpu::meet(warp.barrier, "a tensor core's operation");
}

template <typename T>
void check(const T* from, unsigned pitch) {
  if (reinterpret_cast<uintptr_t>(from) % 32 != 0) gpu::report("a tile is not on 32 bytes");
  if (pitch * sizeof(T) % 16 != 0) gpu::report("a tile's rows are not 16 bytes apart");
}

template <typename Fragment, typename T>
void load(Fragment& to, const T* from, unsigned pitch, bool by_rows) {
  check(from, pitch);
  by_warp([&] {
    for (unsigned i = 0; i < kSide; ++i) {
      for (unsigned j = 0; j < kSide; ++j) {
        to.values[i][j] = static_cast<float>(from[by_rows ? i * pitch + j : j * pitch + i]);
      }
    }
  });
}

template <typename Use, typename T, typename Layout>
void load_matrix_sync(fragment<Use, kSide, kSide, kSide, T, Layout>& to, const T* from,
                      unsigned pitch) {
  load(to, from, pitch, std::is_same_v<Layout, row_major>);
}

inline void load_matrix_sync(fragment<accumulator, kSide, kSide, kSide, float>& to,
                             const float* from, unsigned pitch, layout_t) {
  load(to, from, pitch, true);
}

inline void store_matrix_sync(float* to,
                              const fragment<accumulator, kSide, kSide, kSide, float>& from,
                              unsigned pitch, layout_t) {
  check(to, pitch);
  by_warp([&] {
    for (unsigned i = 0; i < kSide; ++i) {
      for (unsigned j = 0; j < kSide; ++j) to[i * pitch + j] = from.values[i][j];
    }
  });
}

template <typename Sum, typename Left, typename Right>
void mma_sync(Sum& out, const Left& a, const Right& b, const Sum& sum) {
  by_warp([&] {
    for (int i = 0; i < kSide; ++i) {
      for (int j = 0; j < kSide; ++j) {
        float value = sum.values[i][j];
        for (int k = 0; k < kSide; ++k) value += a.values[i][k] * b.values[k][j];
        out.values[i][j] = value;
      }
    }
  });
}

}  // namespace nvcuda::wmma
