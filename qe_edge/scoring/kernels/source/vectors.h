// As many numbers at a time as a register holds: 16 with AVX-512, 8 with AVX2. In the vector extension of GCC and Clang.
#pragma once
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __AVX512F__
constexpr size_t WIDTH = 16;
#else
constexpr size_t WIDTH = 8;
#endif
constexpr size_t REGISTER = 4 * WIDTH;  // bytes
typedef float Floats __attribute__((vector_size(REGISTER)));
typedef int32_t Ints __attribute__((vector_size(REGISTER)));
typedef int32_t LooseInts __attribute__((vector_size(REGISTER), aligned(4), may_alias));
typedef float LooseFloats __attribute__((vector_size(REGISTER), aligned(4), may_alias));
typedef uint8_t Bytes __attribute__((vector_size(WIDTH)));
typedef uint8_t LooseBytes __attribute__((vector_size(WIDTH), aligned(1), may_alias));

#define INLINE static inline __attribute__((always_inline))

INLINE Floats load(const float* from) { return *reinterpret_cast<const LooseFloats*>(from); }
INLINE void store(float* to, Floats values) { *reinterpret_cast<LooseFloats*>(to) = values; }
INLINE Floats all(float value) { return Floats{} + value; }
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

#ifdef __AVX512F__

// a > b ? a : b, and a < b ? a : b.
INLINE Floats larger(Floats a, Floats b) { return (Floats)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE Floats smaller(Floats a, Floats b) { return (Floats)_mm512_min_ps((__m512)a, (__m512)b); }

INLINE Floats nearest(Floats a) { return (Floats)_mm512_roundscale_ps((__m512)a, 8); }
// An exponent, drawn in to where `scaled` is right and e^a has long been 0 or infinity.
INLINE Floats drawn_in(Floats a) { return a; }
// a * 2^power for whole numbers; 0 and infinity where float32 ends.
INLINE Floats scaled(Floats a, Floats power) { return (Floats)_mm512_scalef_ps((__m512)a, (__m512)power); }

// 1 / a to a relative 1e-7, for numbers whose inverse float32 holds; without the slow division.
INLINE Floats inverse(Floats a) {
    const Floats about = (Floats)_mm512_rcp14_ps((__m512)a);
    return about * (2.f - a * about);
}

// Whole numbers from 0 to 255.
INLINE void store_bytes(uint8_t* to, Floats values) {
    *reinterpret_cast<LooseBytes*>(to) = __builtin_convertvector(__builtin_convertvector(values, Ints), Bytes);
}

#else

INLINE Floats larger(Floats a, Floats b) { return (Floats)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE Floats smaller(Floats a, Floats b) { return (Floats)_mm256_min_ps((__m256)a, (__m256)b); }

INLINE Floats nearest(Floats a) { return (Floats)_mm256_round_ps((__m256)a, 8); }
INLINE Floats drawn_in(Floats a) { return smaller(all(175.f), larger(all(-175.f), a)); }  // what is no number stays
INLINE Floats scaled(Floats a, Floats power) {
    const Ints twos = __builtin_convertvector(power, Ints), half = twos >> 1;
    return a * (Floats)((half + 127) << 23) * (Floats)((twos - half + 127) << 23);
}

// Divided, since what these processors have instead differs from one maker to the other.
INLINE Floats inverse(Floats a) { return 1.f / a; }

INLINE void store_bytes(uint8_t* to, Floats values) {
    const __m256i whole = _mm256_cvtps_epi32((__m256)values);
    const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
    _mm_storeu_si64(to, _mm_packus_epi16(words, words));
}

#endif

// e^a to a relative 4e-6, and 4e-8 more for each unit of |a|; 0 and infinity where float32 ends.
INLINE Floats exponential(Floats a) {
    const Floats twos = drawn_in(a) * 1.44269504f, power = nearest(twos);
    const Floats rest = twos - power;  // 2^rest, between -1/2 and 1/2
    Floats value = 1.33336e-3f * rest + 9.61817e-3f;
    value = value * rest + 5.550411e-2f;
    value = value * rest + 2.4022651e-1f;
    value = value * rest + 6.9314718e-1f;
    value = value * rest + 1.f;
    return scaled(value, power);
}

// As ONNX's QuantizeLinear: the nearest step, moved by the zero point, held within a byte.
INLINE void store_quantised(uint8_t* to, Floats values, float steps_of_one, Floats zero) {
    const Floats steps = rounded(smaller(larger(values * steps_of_one, all(-512.f)), all(512.f))) + zero;
    store_bytes(to, smaller(larger(steps, all(0.f)), all(255.f)));
}

// rows[i][j] becomes rows[j][i].
INLINE void transpose(Floats rows[WIDTH]) {
#define EXCHANGE(DISTANCE, ...)                                                    \
    for (size_t i = 0; i < WIDTH; ++i)                                             \
        if (!(i & DISTANCE)) {                                                     \
            const Ints low = {__VA_ARGS__};                                        \
            const Floats a = rows[i], b = rows[i + DISTANCE];                      \
            rows[i] = __builtin_shuffle(a, b, low);                                \
            rows[i + DISTANCE] = __builtin_shuffle(a, b, low + DISTANCE);          \
        }
#ifdef __AVX512F__
    EXCHANGE(1, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30)
    EXCHANGE(2, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
    EXCHANGE(4, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27)
    EXCHANGE(8, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23)
#else
    EXCHANGE(1, 0, 8, 2, 10, 4, 12, 6, 14)
    EXCHANGE(2, 0, 1, 8, 9, 4, 5, 12, 13)
    EXCHANGE(4, 0, 1, 2, 3, 8, 9, 10, 11)
#endif
#undef EXCHANGE
}
