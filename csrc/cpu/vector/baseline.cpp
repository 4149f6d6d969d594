// Primitives for any processor: 16-byte vectors (SSE2, NEON).
#include <cstdint>

#define FI_LEVEL baseline
#define FI_VECTOR_BYTES 16
#define FI_REGISTERS 16
#define FI_MAX_ROWS 6
#define FI_MAX_ROWS_SHORT 4
#include "primitives.inc"
