// TapLoops for x86-64 whose AVX-512 multiplies pairs of bfloat16 (Zen 4, Cooper Lake and later).
#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>

#include <cstring>
#if defined(__clang__)
#pragma clang attribute push(                                                          \
    __attribute__((target("avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), \
    apply_to = function)
#else
#pragma GCC target("avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")
#endif

#define FI_VECTOR_BYTES 64
#define FI_MAX_ROWS 8
#include "taps.h"

namespace fastinterp::cpu::avx512_bf16 {
namespace {

#include "taps.inc"

struct PairTaps {
  using In = Bf16;
  using Vector = Wide<float>::Type;
  // What the numbers themselves lost to rounding is more than long sums of them lose.
  static constexpr int64_t together = 2, stretch = 1024;
  static FI_INLINE Vector add(Vector sums, const Bf16* in, const Bf16* packed) {
    int32_t pair;
    std::memcpy(&pair, in, sizeof(pair));
    return _mm512_dpbf16_ps(sums, (__m512bh)_mm512_set1_epi32(pair),
                            (__m512bh)_mm512_loadu_si512(packed));
  }
  static FI_INLINE Vector load(const Bf16* in) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  static FI_INLINE void store(Bf16* out, Vector v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), (__m256i)_mm512_cvtneps_pbh(v));
  }
  static FI_INLINE Bf16 one(float v) {
    const __m128bh rounded = _mm_cvtneps_pbh(_mm_set_ss(v));
    Bf16 out;
    std::memcpy(&out, &rounded, sizeof(out));
    return out;
  }
  static FI_INLINE Bf16 where(bool here, Bf16 v) {
    return {static_cast<uint16_t>(here ? v.bits : 0)};
  }
  static FI_INLINE bool is_closed(Bf16 seen) {
    return seen.bits == 0 || (seen.bits > 0x7fff && seen.bits <= 0xff80);
  }
};

}  // namespace

extern const TapLoops<Bf16> taps_bf16;
const TapLoops<Bf16> taps_bf16 = make_tap_loops<PairTaps>();

}  // namespace fastinterp::cpu::avx512_bf16

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
