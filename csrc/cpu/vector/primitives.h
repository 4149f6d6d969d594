// The vectorised loops, as a table of functions that is compiled once for each instruction set;
// `primitives<T>()` returns the table for this processor.
//
// A *panel* is a row-major [rows, ld] buffer with ld a multiple of `width`, padded with zeros.
// Feature maps in any memory layout are copied to panels.
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
  // the panel lie ld apart and may be read up to the next multiple of `width`. With `add` the
  // product is added to out.
  void (*product)(T* out, int64_t out_ld, const T* weights, Strides at, const T* panel, int64_t ld,
                  int64_t rows, int64_t inner, int64_t columns, bool add);

  // product with source - minus, [inner, columns], and row_sums[j] += sum_p source[j, p], as load
  // and product compute them. Returns false and does nothing if a panel is faster. weights are
  // [rows, inner]; work holds (width + 1) * inner elements.
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

  // saved[i, p] = sign(panel[i, p]), p < columns; rows of `saved` lie saved_ld apart.
  void (*store_signs)(int8_t* saved, int64_t saved_ld, const T* panel, int64_t ld, int64_t rows,
                      int64_t columns);

  // out[i, p] = q[i] * saved[i, p] + r[i], p < columns; r may be null.
  void (*saved_signs)(T* out, int64_t ld, const int8_t* saved, int64_t saved_ld, const T* q,
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

  // out = clamp(x + shrunk(scale * delta), lower, upper), where
  // shrunk(v) = sign(v) max(|v| - threshold, 0). delta may be out.
  void (*land)(T* out, const T* delta, const T* x, int64_t count, T scale, T threshold, T lower,
               T upper);
};

template <typename T>
const Primitives<T>& primitives();

enum class VectorLevel { kBaseline, kAvx2, kAvx512 };

// The widest vectors that both the processor and torch's ATEN_CPU_CAPABILITY allow: the table that
// `primitives` returns.
VectorLevel vector_level();

// "baseline", "avx2" or "avx512".
const char* vector_level_name();

}  // namespace fastinterp::cpu
