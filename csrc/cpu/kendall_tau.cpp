// Kendall's tau-b on the CPU in O(M log M): sort by (a, b), then count the exchanges that a merge
// sort by b alone needs; those are the discordant pairs (Knight, 1966). Entries come in no order
// that a processor could foresee, so both sorts are written without branches on them.
#include "../kernels/kendall_tau.cuh"

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

void sort_pairs(std::vector<Pair64>& pairs, std::vector<Pair64>&) {
  std::sort(pairs.begin(), pairs.end());
}

// By digits of eleven bits, the lowest first. Digits that all entries share are passed over.
void sort_pairs(std::vector<uint64_t>& pairs, std::vector<uint64_t>& spare) {
  constexpr int kBits = 11, kDigits = 6, kValues = 1 << kBits;
  constexpr int64_t kShort = 400;  // below, clearing the counts would take longer than the sort
  const int64_t count = static_cast<int64_t>(pairs.size());
  if (count < kShort) {
    std::sort(pairs.begin(), pairs.end());
    return;
  }
  spare.resize(count);
  std::vector<uint32_t> counts(kDigits * kValues, 0);
  const auto digit = [](uint64_t pair, int d) { return pair >> (d * kBits) & (kValues - 1); };
  for (const uint64_t pair : pairs) {
    for (int d = 0; d < kDigits; ++d) ++counts[d * kValues + digit(pair, d)];
  }
  for (int d = 0; d < kDigits; ++d) {
    uint32_t* const at = counts.data() + d * kValues;
    if (at[digit(pairs[0], d)] == count) continue;
    uint32_t sum = 0;
    for (int value = 0; value < kValues; ++value) {
      const uint32_t here = at[value];
      at[value] = sum;
      sum += here;
    }
    for (const uint64_t pair : pairs) spare[at[digit(pair, d)]++] = pair;
    pairs.swap(spare);
  }
}

// Merges in[begin, middle) and in[middle, end), both sorted, into out; returns how many pairs
// stood in the wrong order.
template <typename Key>
int64_t merge_counting(const Key* in, int64_t begin, int64_t middle, int64_t end, Key* out) {
  int64_t left = begin, right = middle, to = begin, exchanges = 0;
  while (left < middle && right < end) {
    const Key a = in[left], b = in[right];
    const int64_t take_right = b < a;
    out[to++] = take_right ? b : a;
    exchanges += -take_right & (middle - left);
    right += take_right;
    left += 1 - take_right;
  }
  std::copy(in + left, in + middle, out + to);
  std::copy(in + right, in + end, out + to + (middle - left));
  return exchanges;
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
      exchanges += merge_counting(keys.data(), begin, middle, std::min(begin + 2 * width, count),
                                  spare.data());
    }
    keys.swap(spare);
  }
  return exchanges;
}

template <typename T>
struct Workspace {
  using Key = decltype(ordered(T{}));
  using Pair = decltype(pair_of(Key{}, Key{}));
  std::vector<Pair> pairs, spare_pairs;
  std::vector<Key> keys, spare;

  double tau(const T* a, const T* b, int64_t length) {
    pairs.resize(length);
    keys.resize(length);
    spare.resize(length);
    for (int64_t i = 0; i < length; ++i) {
      if (std::isnan(a[i]) || std::isnan(b[i])) return std::numeric_limits<double>::quiet_NaN();
      pairs[i] = pair_of(ordered(a[i]), ordered(b[i]));
    }
    sort_pairs(pairs, spare_pairs);
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
