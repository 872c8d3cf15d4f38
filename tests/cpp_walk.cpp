// Walks floats by bit pattern and compares functions of the headers with libm in double, for tests/test_cpp_floats.py.
#include <cmath>

#include "vector_math.h"
using namespace rekern;

namespace {

double sigmoid(double x) { return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x)); }
double log_sigmoid(double x) { return (x < 0 ? x : -0.0) - std::log1p(std::exp(-std::fabs(x))); }
double softplus(double x) { return (x > 0 ? x : 0.0) + std::log1p(std::exp(-std::fabs(x))); }
double exp_of(double x) { return std::exp(x); }
double tanh_of(double x) { return std::tanh(x); }

// How far `got` is from `want`, in units of the last place of the float next to `want`.
double units(float got, double want) {
    const float nearest = float(want);
    if (std::isnan(want) || std::isinf(nearest) || want == 0) {
        const bool same = std::isnan(want) ? std::isnan(got) : got == nearest;
        return same && (std::isnan(want) || std::signbit(got) == std::signbit(nearest)) ? 0 : INFINITY;
    }
    if (got == 0 && std::signbit(got) != std::signbit(nearest)) return INFINITY;
    int exponent;
    std::frexp(want, &exponent);
    const double unit = std::ldexp(1.0, (exponent < -125 ? -125 : exponent) - 24);
    return std::isfinite(got) ? std::fabs(double(got) - want) / unit : INFINITY;
}

template <class F>
double worst_of(F function, double (*meaning)(double), uint64_t first, uint64_t end, uint64_t step, float* where) {
    double worst = 0;
    for (uint64_t at = first; at < end;) {
        float x[LANES], y[LANES];
        for (int lane = 0; lane < LANES; ++lane) {
            const uint32_t pattern = uint32_t(at < end ? at : first);
            __builtin_memcpy(x + lane, &pattern, sizeof pattern);
            at += step;
        }
        store(y, function(load(x)));
        for (int lane = 0; lane < LANES; ++lane) {
            const double distance = units(y[lane], meaning(x[lane]));
            if (distance > worst) worst = distance, *where = x[lane];
        }
    }
    return worst;
}

}  // namespace

#define ENTRY(name, meaning)                                                                           \
    extern "C" double walk_##name(uint64_t first, uint64_t end, uint64_t step, float* where) {         \
        return worst_of([](vec x) { return rk_##name(x); }, meaning, first, end, step, where);         \
    }
ENTRY(exp, exp_of)
ENTRY(tanh, tanh_of)
ENTRY(sigmoid, sigmoid)
ENTRY(log_sigmoid, log_sigmoid)
ENTRY(softplus, softplus)
