// Primitives for x86-64 with AVX2 and FMA.
#include <cstdint>

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#define FI_LEVEL avx2
#define FI_VECTOR_BYTES 32
#define FI_REGISTERS 16
#define FI_MAX_ROWS 6
#define FI_MAX_ROWS_SHORT 4
#include "primitives.inc"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
