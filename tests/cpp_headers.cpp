// Every function of the headers under a C name, for tests/cpp_headers.py.
#include "contract.h"
#include "fingerprint.h"
#include "vector_math.h"
using namespace rekern;

// A barrier in each loop of single reals keeps the compiler from making lanes of them.
#define ENTRY(name, lanes, single)                                                        \
    void name##_lanes(real* y, const real* a, const real* b, int64_t n) {                 \
        for (int64_t i = 0; i < n; i += LANES) store(y + i, lanes);                       \
        (void)b;                                                                          \
    }                                                                                     \
    void name##_single(real* y, const real* a, const real* b, int64_t n) {                \
        for (int64_t i = 0; i < n; ++i) { y[i] = single; asm volatile("" ::: "memory"); } \
        (void)b;                                                                          \
    }
#define UNARY(name) ENTRY(name, rk_##name(load(a + i)), rk_##name(a[i]))
#define BINARY(name) ENTRY(name, rk_##name(load(a + i), load(b + i)), rk_##name(a[i], b[i]))

extern "C" {
UNARY(exp) UNARY(log) UNARY(log1p) UNARY(expm1) UNARY(sqrt) UNARY(rsqrt) UNARY(abs) UNARY(sign)
UNARY(sin) UNARY(cos) UNARY(tanh) UNARY(sigmoid) UNARY(log_sigmoid) UNARY(softplus) UNARY(relu)
UNARY(gelu) UNARY(silu) UNARY(square) UNARY(erf)
BINARY(maximum) BINARY(minimum) BINARY(logaddexp)

int lanes() { return LANES; }
int panel() { return PANEL; }
void reductions(real* y, const real* x) {
    y[0] = sum_lanes(load(x)), y[1] = max_lanes(load(x)), y[2] = min_lanes(load(x));
}
void keep_first(real* y, const real* x, int64_t n) { store(y, select(first(n), load(x), real(-1))); }
void gathered(real* y, const real* x, int64_t stride) { stream(y, gather(x, stride)); stream_fence(); }
void copy_of(real* y, real x) { store(y, all(x)); }
void mixed(real* y, const real* x) { store(y, rk_maximum(rk_minimum(load(x), 2), -0.5)); }

void in(real* y, const void* x, int64_t n, int64_t stride, int dtype) {
    stride == 1 ? load_row(y, x, n, dtype) : load_strided(y, x, n, stride, dtype);
}
void out(void* y, const real* x, int64_t n, int64_t stride, int dtype) {
    stride == 1 ? store_row(y, x, n, dtype) : store_strided(y, x, n, stride, dtype);
}
void one(void* y, const void* x, int64_t i, int dtype) { store_one(y, i, load_one(x, i, dtype), dtype); }
int is_copied(real* scratch, const void* x, int64_t n, int dtype) {
    const real* row = view_row(scratch, x, n, dtype);
    return row == scratch ? 1 : row == x ? 0 : -1;
}
void add(real* y, const real* x, int64_t n) { accumulate(y, x, n); }
void turn(real* y, int64_t ld, const void* x, int64_t rows, int64_t cols, int64_t row_stride,
          int64_t col_stride, int dtype) {
    transpose_in(y, ld, x, rows, cols, row_stride, col_stride, dtype);
}

void join(real* y, const real* x, int64_t n) { sum_rows(y, x, n); }

void product(real* y, int64_t y_ld, const real* x, int64_t x_ld, const real* panels, int rows, int64_t depth,
             int64_t width, int onto) {
    onto ? contract<true>(y, y_ld, x, x_ld, panels, rows, depth, width)
         : contract<false>(y, y_ld, x, x_ld, panels, rows, depth, width);
}
int64_t pack(real* panels, int64_t first, const void* w, int64_t out, int64_t depth, int64_t stride_out,
             int64_t stride_depth, int dtype) {
    if (panels) pack_panels(panels, first, w, out, depth, stride_out, stride_depth, dtype);
    return packed_size(depth, first + out);
}
int64_t mark(const void* src, int64_t rows, int64_t columns, int64_t row_stride, int64_t stride, int dtype) {
    return int64_t(fingerprint(src, rows, columns, row_stride, stride, dtype));
}
}
