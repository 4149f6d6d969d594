// Kendall's tau-b on the CPU in O(M log M): sort by (a, b), then count the exchanges that a merge
// sort by b alone needs; those are the discordant pairs (Knight, 1966).
#include "../kernels/kendall.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "../rows.h"

namespace fastinterp::cpu {
namespace {

// Integers in the order of the floats, equal where they are (0 and -0 are).
uint32_t ordered(float value) {
  value += 0.0f;
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

uint64_t ordered(double value) {
  value += 0.0;
  uint64_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits >> 63 ? ~bits : bits | (uint64_t{1} << 63);
}

// An entry as one sortable value: two 32-bit keys in a word, or two words.
struct Pair64 {
  uint64_t a, b;
  friend bool operator<(const Pair64& x, const Pair64& y) {
    return x.a != y.a ? x.a < y.a : x.b < y.b;
  }
  friend bool operator==(const Pair64& x, const Pair64& y) { return x.a == y.a && x.b == y.b; }
};
uint64_t pair_of(uint32_t a, uint32_t b) { return uint64_t{a} << 32 | b; }
Pair64 pair_of(uint64_t a, uint64_t b) { return {a, b}; }
uint32_t first_of(uint64_t pair) { return static_cast<uint32_t>(pair >> 32); }
uint64_t first_of(const Pair64& pair) { return pair.a; }
uint32_t second_of(uint64_t pair) { return static_cast<uint32_t>(pair); }
uint64_t second_of(const Pair64& pair) { return pair.b; }

// Pairs of equal neighbours' runs: sum of n (n - 1) / 2.
template <typename Equal>
int64_t tied_pairs(int64_t count, const Equal& equal_to_previous) {
  int64_t pairs = 0, run = 0;
  for (int64_t i = 1; i < count; ++i) {
    run = equal_to_previous(i) ? run + 1 : 0;
    pairs += run;
  }
  return pairs;
}

// Sorts keys and returns how many pairs stood in the wrong order.
template <typename Key>
int64_t sort_counting(std::vector<Key>& keys, std::vector<Key>& spare) {
  const int64_t count = static_cast<int64_t>(keys.size());
  constexpr int64_t kRun = 8;
  int64_t exchanges = 0;
  for (int64_t begin = 0; begin < count; begin += kRun) {  // short runs by insertion
    const int64_t end = std::min(begin + kRun, count);
    for (int64_t i = begin + 1; i < end; ++i) {
      const Key key = keys[i];
      int64_t j = i;
      for (; j > begin && keys[j - 1] > key; --j) keys[j] = keys[j - 1];
      keys[j] = key;
      exchanges += i - j;
    }
  }
  for (int64_t width = kRun; width < count; width *= 2) {
    for (int64_t begin = 0; begin < count; begin += 2 * width) {
      const int64_t middle = std::min(begin + width, count);
      const int64_t end = std::min(begin + 2 * width, count);
      int64_t left = begin, right = middle;
      for (int64_t out = begin; out < end; ++out) {
        const bool take_right = left == middle || (right < end && keys[right] < keys[left]);
        if (take_right) exchanges += middle - left;
        spare[out] = keys[take_right ? right++ : left++];
      }
    }
    keys.swap(spare);
  }
  return exchanges;
}

template <typename T>
struct Workspace {
  using Key = decltype(ordered(T{}));
  using Pair = decltype(pair_of(Key{}, Key{}));
  std::vector<Pair> pairs;
  std::vector<Key> keys, spare;

  double tau(const T* a, const T* b, int64_t length) {
    pairs.resize(length);
    keys.resize(length);
    spare.resize(length);
    for (int64_t i = 0; i < length; ++i) {
      if (std::isnan(a[i]) || std::isnan(b[i])) return std::numeric_limits<double>::quiet_NaN();
      pairs[i] = pair_of(ordered(a[i]), ordered(b[i]));
    }
    std::sort(pairs.begin(), pairs.end());
    const int64_t tied_a =
        tied_pairs(length, [&](int64_t i) { return first_of(pairs[i]) == first_of(pairs[i - 1]); });
    const int64_t tied_both =
        tied_pairs(length, [&](int64_t i) { return pairs[i] == pairs[i - 1]; });
    for (int64_t i = 0; i < length; ++i) keys[i] = second_of(pairs[i]);
    const int64_t discordant = sort_counting(keys, spare);
    const int64_t tied_b = tied_pairs(length, [&](int64_t i) { return keys[i] == keys[i - 1]; });
    const int64_t all = length * (length - 1) / 2;
    return tau_b(length, all - tied_a - tied_b + tied_both - 2 * discordant, tied_a, tied_b);
  }
};

at::Tensor kendall_tau(const at::Tensor& a, const at::Tensor& b) {
  check_pair_of_rows(a, b);
  const auto type = a.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto x = a.to(type).contiguous(), y = b.to(type).contiguous();
  const int64_t rows = x.size(0), length = x.size(1);
  auto tau = at::empty({rows}, x.options().dtype(at::kDouble));
  double* out = tau.data_ptr<double>();
  const auto run = [&]<typename T>(T) {
    const T *first = x.data_ptr<T>(), *second = y.data_ptr<T>();
    const int64_t grain = std::max<int64_t>(1, 2048 / std::max<int64_t>(1, length));
    at::parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) {
      Workspace<T> workspace;
      for (int64_t n = begin; n < end; ++n) {
        out[n] = workspace.tau(first + n * length, second + n * length, length);
      }
    });
  };
  type == at::kDouble ? run(double{}) : run(float{});
  return tau;
}

}  // namespace

TORCH_LIBRARY_IMPL(fastinterp, CPU, m) { m.impl("kendall_tau", &kendall_tau); }

}  // namespace fastinterp::cpu
