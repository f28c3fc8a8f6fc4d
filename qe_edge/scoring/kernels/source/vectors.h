// Sixteen numbers at a time, in the vector extension of GCC and Clang.
#pragma once
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

constexpr size_t WIDTH = 16;
typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef int32_t LooseInts __attribute__((vector_size(64), aligned(4), may_alias));
typedef float LooseFloats __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint8_t Bytes __attribute__((vector_size(16)));
typedef uint8_t LooseBytes __attribute__((vector_size(16), aligned(1), may_alias));

#define INLINE static inline __attribute__((always_inline))

INLINE Floats load(const float* from) { return *reinterpret_cast<const LooseFloats*>(from); }
INLINE void store(float* to, Floats values) { *reinterpret_cast<LooseFloats*>(to) = values; }
INLINE Floats all(float value) { return Floats{} + value; }
INLINE Floats larger(Floats a, Floats b) { return a > b ? a : b; }
INLINE Floats smaller(Floats a, Floats b) { return a < b ? a : b; }
INLINE Floats magnitude(Floats a) { return (Floats)((Ints)a & 0x7fffffff); }

// The sum and the maximum of the numbers, always in the same order.
INLINE float sum(Floats a) {
    float halves[WIDTH];
    store(halves, a);
    for (size_t width = WIDTH / 2; width; width /= 2)
        for (size_t i = 0; i < width; ++i) halves[i] += halves[i + width];
    return halves[0];
}
INLINE float largest(Floats a) {
    float values[WIDTH];
    store(values, a);
    float found = values[0];
    for (size_t i = 1; i < WIDTH; ++i) found = values[i] > found ? values[i] : found;
    return found;
}

// The nearest whole number, the even one of two, for magnitudes below 2^22.
INLINE Floats rounded(Floats a) { return (a + 12582912.f) - 12582912.f; }

// e^a to a relative 2e-7, and 4e-8 more for each unit of |a|; 0 and infinity where float32 ends.
INLINE Floats exponential(Floats a) {
    const Floats scaled = a * 1.44269504f, power = (Floats)_mm512_roundscale_ps((__m512)scaled, 8);
    const Floats rest = scaled - power;  // 2^rest, between -1/2 and 1/2
    Floats value = 1.33336e-3f * rest + 9.61817e-3f;
    value = value * rest + 5.550411e-2f;
    value = value * rest + 2.4022651e-1f;
    value = value * rest + 6.9314718e-1f;
    value = value * rest + 1.f;
    return (Floats)_mm512_scalef_ps((__m512)value, (__m512)power);
}

// 1 / a to a relative 1e-7, for numbers whose inverse float32 holds; without the slow division.
INLINE Floats inverse(Floats a) {
    const Floats about = (Floats)_mm512_rcp14_ps((__m512)a);
    return about * (2.f - a * about);
}

// As ONNX's QuantizeLinear: the nearest step, moved by the zero point, held within a byte.
INLINE void store_quantised(uint8_t* to, Floats values, float steps_of_one, Floats zero) {
    const Floats steps = rounded(smaller(larger(values * steps_of_one, all(-512.f)), all(512.f))) + zero;
    const Ints held = __builtin_convertvector(smaller(larger(steps, all(0.f)), all(255.f)), Ints);
    *reinterpret_cast<LooseBytes*>(to) = __builtin_convertvector(held, Bytes);
}

// rows[i][j] becomes rows[j][i].
INLINE void transpose(Floats rows[WIDTH]) {
    const Ints low1 = {0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30};
    const Ints low2 = {0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29};
    const Ints low4 = {0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27};
    const Ints low8 = {0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23};
#define EXCHANGE(DISTANCE, LOW)                                                    \
    for (size_t i = 0; i < WIDTH; ++i)                                             \
        if (!(i & DISTANCE)) {                                                     \
            const Floats a = rows[i], b = rows[i + DISTANCE];                      \
            rows[i] = __builtin_shuffle(a, b, LOW);                                \
            rows[i + DISTANCE] = __builtin_shuffle(a, b, LOW + DISTANCE);          \
        }
    EXCHANGE(1, low1)
    EXCHANGE(2, low2)
    EXCHANGE(4, low4)
    EXCHANGE(8, low8)
#undef EXCHANGE
}
