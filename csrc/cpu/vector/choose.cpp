// Picks the table of loops once, by vector_level().
#include <ATen/Version.h>

#include <string>

#include "primitives.h"
#include "taps.h"

namespace fastinterp::cpu {

#define FI_DECLARE(LEVEL)                       \
  namespace LEVEL {                             \
  extern const Primitives<float> table_float;   \
  extern const Primitives<double> table_double; \
  extern const TapLoops<float> taps_float;      \
  }
FI_DECLARE(baseline)
#if defined(__x86_64__)
FI_DECLARE(avx2)
FI_DECLARE(avx512)
#endif
#undef FI_DECLARE
#if defined(__x86_64__)
namespace avx512_bf16 {
extern const TapLoops<Bf16> taps_bf16;
}
#endif

VectorLevel vector_level() {
  static const VectorLevel level = [] {
#if defined(__x86_64__)
    const std::string capability = at::get_cpu_capability();
    __builtin_cpu_init();
    if (capability == "AVX512" && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl")) {
      return VectorLevel::kAvx512;
    }
    if (capability.rfind("AVX", 0) == 0 && __builtin_cpu_supports("avx2") &&
        __builtin_cpu_supports("fma")) {
      return VectorLevel::kAvx2;
    }
#endif
    return VectorLevel::kBaseline;
  }();
  return level;
}

const char* vector_level_name() {
  constexpr const char* kNames[] = {"baseline", "avx2", "avx512"};
  return kNames[static_cast<int>(vector_level())];
}

namespace {
template <typename Table>
const Table& choose(const Table& base, const Table& avx2, const Table& avx512) {
  switch (vector_level()) {
    case VectorLevel::kAvx512:
      return avx512;
    case VectorLevel::kAvx2:
      return avx2;
    default:
      return base;
  }
}
}  // namespace

#if defined(__x86_64__)
#define FI_CHOOSE(TABLE) choose(baseline::TABLE, avx2::TABLE, avx512::TABLE)
#else
#define FI_CHOOSE(TABLE) baseline::TABLE
#endif

template <>
const Primitives<float>& primitives<float>() {
  static const Primitives<float>& table = FI_CHOOSE(table_float);
  return table;
}

template <>
const Primitives<double>& primitives<double>() {
  static const Primitives<double>& table = FI_CHOOSE(table_double);
  return table;
}

template <>
const TapLoops<float>* tap_loops<float>() {
  static const TapLoops<float>& table = FI_CHOOSE(taps_float);
  return &table;
}

template <>
const TapLoops<Bf16>* tap_loops<Bf16>() {
#if defined(__x86_64__)
  static const bool units =
      vector_level() == VectorLevel::kAvx512 && __builtin_cpu_supports("avx512bf16");
  return units ? &avx512_bf16::taps_bf16 : nullptr;
#else
  return nullptr;
#endif
}

}  // namespace fastinterp::cpu
