// The loops that want wide vectors, as a table of functions that exists once for each instruction
// set; `primitives<T>()` picks the table for the processor at hand.
//
// A *panel* is a row-major [rows, ld] buffer with ld a multiple of `width`; columns past the last
// one in use hold zeros. Feature maps are staged in panels whatever their memory layout was.
#pragma once

#include <cstdint>

namespace fastinterp::cpu {

// Where element (row, column) of a matrix lies: data[row * this->row + column * this->column].
struct Strides {
  int64_t row;
  int64_t column;
};

template <typename T>
struct Primitives {
  int64_t width;  // elements in a vector register

  // panel = source - minus (or source, where minus is null); adds each row of source to row_sums
  // (where that is not null).
  void (*load)(T* panel, int64_t ld, const T* source, Strides at, const T* minus, Strides minus_at,
               int64_t rows, int64_t columns, double* row_sums);

  // out[i, p] = sum_j weights(i, j) panel[j, p], p < columns. Rows of out lie out_ld apart; rows of
  // the panel lie ld apart and may be read up to the next multiple of `width`. With `add` it comes
  // on top of what out holds.
  void (*product)(T* out, int64_t out_ld, const T* weights, Strides at, const T* panel, int64_t ld,
                  int64_t rows, int64_t inner, int64_t columns, bool add);

  // product with source - minus, [inner, columns], and row_sums[j] += sum_p source[j, p], as load
  // and product make them; false, and nothing is done, where going through a panel is better.
  // weights are [rows, inner]; work has room for (width + 1) * inner.
  bool (*product_of_difference)(T* out, int64_t out_ld, const T* weights, const T* source,
                                Strides at, const T* minus, Strides minus_at, int64_t rows,
                                int64_t inner, int64_t columns, double* row_sums, T* work);

  // sums[i] += sum_p |panel[i, p]|
  void (*abs_sums)(double* sums, const T* panel, int64_t rows, int64_t ld);

  // out[i] = sum_k weights[i, k] values[k], in double.
  void (*row_products)(double* out, const T* weights, const double* values, int64_t rows,
                       int64_t inner);

  // out[i, :] = q[i] * sign(panel[i, :]) + r[i]; r may be null.
  void (*signs)(T* out, const T* panel, const T* q, const T* r, int64_t rows, int64_t ld);

  // kept[i, p] = sign(panel[i, p]), p < columns; rows of `kept` lie kept_ld apart.
  void (*keep_signs)(int8_t* kept, int64_t kept_ld, const T* panel, int64_t ld, int64_t rows,
                     int64_t columns);

  // out[i, p] = q[i] * kept[i, p] + r[i], p < columns; r may be null.
  void (*kept_signs)(T* out, int64_t ld, const int8_t* kept, int64_t kept_ld, const T* q,
                     const T* r, int64_t rows, int64_t columns);

  // out = clamp(project(x_adv + step sign(grad)), lower, upper)
  void (*linf_step)(T* out, const T* x_adv, const T* grad, const T* x, int64_t count, T step, T eps,
                    T lower, T upper);

  // The sum of |v| (order 1) or v * v (order 2).
  double (*power_sum)(const T* values, int64_t count, int order);

  // delta = x_adv + scale * grad - x
  void (*move)(T* delta, const T* x_adv, const T* grad, const T* x, int64_t count, T scale);

  // The sum and number of the |delta| above the threshold.
  void (*above)(const T* delta, int64_t count, T threshold, double* sum, int64_t* number);

  // out = clamp(x + shrunk(scale * delta), lower, upper), where shrinking takes `threshold` off
  // each size, but not below zero. delta may be out.
  void (*land)(T* out, const T* delta, const T* x, int64_t count, T scale, T threshold, T lower,
               T upper);
};

template <typename T>
const Primitives<T>& primitives();

// "avx512", "avx2" or "baseline": the table that `primitives` picked.
const char* vector_level();

}  // namespace fastinterp::cpu
