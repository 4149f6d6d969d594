// Primitives for x86-64 with AVX-512 (the subset that servers have had since 2017).
#include <cstdint>

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")
#endif

#define FI_LEVEL avx512
#define FI_VECTOR_BYTES 64
#define FI_REGISTERS 32
#define FI_MAX_ROWS 8
#define FI_MAX_ROWS_SHORT 8
#include "primitives.inc"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
